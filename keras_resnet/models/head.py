"""The end of a network: pooling, dropout and classifier."""

from collections.abc import Callable

import keras

from keras_resnet.architectures import Architecture
from keras_resnet.blocks.options import initializer

# How the classifier starts. A fixed deviation fits one number of features only: 0.01 is right for
# the 2,048 of ResNet-50, and a seventh of what 64 features want.
CLASSIFIER_INITIALIZERS: dict[str, Callable[[], keras.Initializer]] = {
    # PyTorch's torch.nn.Linear: uniform between ±1 / sqrt(features).
    "fan_in": lambda: keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform"),
    # Goyal et al. 2017, section 5.1: a zero-mean Gaussian of standard deviation 0.01.
    "normal": lambda: keras.initializers.RandomNormal(stddev=0.01),
}


def make_head(row: Architecture, x, options, *, include_top, pooling, activation):
    """Pooling, dropout and classifier, or the pooling asked for without them."""
    if include_top:
        pooling = "avg"
    if pooling is None:
        return x
    kind = "GlobalAveragePooling" if pooling == "avg" else "GlobalMaxPooling"
    layer = getattr(keras.layers, f"{kind}{len(x.shape) - 2}D")
    dtype = options["dtype"]
    x = layer(data_format=options["data_format"], dtype=dtype, name="pool")(x)
    if not include_top:
        return x
    if row.dropout_rate:
        x = keras.layers.Dropout(row.dropout_rate, dtype=dtype, name="dropout")(x)
    return keras.layers.Dense(
        row.classes,
        activation=activation,
        kernel_initializer=initializer(
            row.classifier_initializer, CLASSIFIER_INITIALIZERS, "classifier_initializer"
        ),
        dtype=_classifier_dtype(dtype),
        name="predictions",
    )(x)


def _classifier_dtype(dtype):
    """Softmax and loss lose too much in 16 bits: the variables' dtype under a mixed policy."""
    policy = dtype or keras.config.dtype_policy()
    if policy.compute_dtype != policy.variable_dtype:
        return policy.variable_dtype
    return dtype
