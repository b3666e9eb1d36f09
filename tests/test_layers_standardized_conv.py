"""Weight standardization: the formula in NumPy, in any rank and precision, and in exports."""

import keras
import numpy as np
import pytest
from keras import ops
from model_helpers import images, randomize, run, small

from keras_resnet import layers
from keras_resnet.layers.standardized_conv import PLAIN_CONVOLUTIONS, STANDARDIZED_CONVOLUTIONS

SPACE = {1: (11,), 2: (9, 8), 3: (6, 7, 5)}
tensorflow_only = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="exports are TensorFlow's"
)


def standardized(kernel, epsilon=1e-8):
    """Qiao et al. 2019, equation 6, each filter (the last axis) by itself, in float64."""
    kernel = np.asarray(kernel, "float64")
    axes = tuple(range(kernel.ndim - 1))
    centered = kernel - kernel.mean(axes)
    return centered / np.sqrt((centered**2).mean(axes) + epsilon)


def layer_and_twin(rank, **arguments):
    """A standardized convolution, and Keras' with the kernel of the formula."""
    x = np.random.default_rng(0).normal(size=(2, *SPACE[rank], 4)).astype("float32")
    layer = STANDARDIZED_CONVOLUTIONS[rank](6, 3, **arguments)
    layer.build(x.shape)
    rng = np.random.default_rng(1)
    weights = [rng.normal(0.3, 0.2, w.shape).astype("float32") for w in layer.get_weights()]
    layer.set_weights(weights)
    arguments.pop("epsilon", None)
    twin = PLAIN_CONVOLUTIONS[type(layer)](6, 3, **arguments)
    twin.build(x.shape)
    twin.set_weights([standardized(weights[0], layer.epsilon), *weights[1:]])
    return layer, twin, x


@pytest.mark.parametrize("rank", SPACE)
@pytest.mark.parametrize(
    "arguments",
    [
        {"use_bias": False},
        {"padding": "same", "strides": 2, "activation": "relu"},
        {"groups": 2, "dilation_rate": 2, "padding": "same", "epsilon": 0.5},
    ],
    ids=["plain", "strided", "grouped"],
)
def test_it_is_the_convolution_with_the_standardized_kernel(rank, arguments):
    layer, twin, x = layer_and_twin(rank, **arguments)
    expected = ops.convert_to_numpy(twin(x))
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x)), expected, atol=2e-5)
    again = type(layer).from_config(layer.get_config())
    again.build(x.shape)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(ops.convert_to_numpy(again(x)), ops.convert_to_numpy(layer(x)))


def test_statistics_are_computed_in_float32_under_a_mixed_policy():
    layer = layers.StandardizedConv2D(8, 3, use_bias=False, dtype="mixed_bfloat16")
    layer.build((None, 8, 8, 4))
    # A large mean: in 16 bits the kernel's own differences would be gone.
    kernel = 100 + np.random.default_rng(0).normal(0, 0.01, (3, 3, 4, 8)).astype("float32")
    layer.set_weights([kernel])
    x = np.random.default_rng(1).normal(size=(2, 8, 8, 4)).astype("float32")
    outputs = layer(x)
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    twin = keras.layers.Conv2D(8, 3, use_bias=False)
    twin.build(x.shape)
    twin.set_weights([standardized(kernel)])
    expected = ops.convert_to_numpy(twin(x))
    found = ops.convert_to_numpy(ops.cast(outputs, "float32"))
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())


def test_causal_padding_is_refused():
    with pytest.raises(ValueError, match="'valid' and 'same', received 'causal'"):
        layers.StandardizedConv1D(4, 3, padding="causal")


def test_a_network_standardizes_all_but_its_gates():
    model = small("ResNet50x1_BiT", se_ratio=0.25)
    kinds = {
        layer.name: type(layer) for layer in model.layers if isinstance(layer, keras.layers.Conv2D)
    }
    plain = {name for name, kind in kinds.items() if kind is keras.layers.Conv2D}
    assert plain == {name for name in kinds if "_se_" in name} != set()
    assert set(kinds.values()) == {keras.layers.Conv2D, layers.StandardizedConv2D}
    # Its outputs do not change with the scale and the mean of its kernels.
    model = randomize(small("ResNet50x1_BiT"))
    x = images(model)
    expected = run(model, x)
    for layer in model.layers:
        if isinstance(layer, layers.StandardizedConv2D):
            layer.kernel.assign(3 * layer.kernel + 0.1)
    np.testing.assert_allclose(run(model, x), expected, atol=1e-5)


@pytest.mark.ci
def test_training_moves_the_kernels_and_learns():
    keras.utils.set_random_seed(0)
    shape = {"depths": (1,), "widths": (16,), "stem": "cifar", "input_shape": (8, 8, 3)}
    model = small("ResNet50x1_BiT", **shape)
    x = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")
    before = ops.convert_to_numpy(model.get_layer("stage1_block1_conv2").kernel)
    adam, loss = keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy"
    model.compile(adam, loss, jit_compile=False)
    losses = model.fit(x, np.arange(16) % 5, batch_size=8, epochs=20, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]
    after = ops.convert_to_numpy(model.get_layer("stage1_block1_conv2").kernel)
    assert np.abs(after - before).max() > 1e-3


@tensorflow_only
@pytest.mark.parametrize("norm_layer", ["group", "batch"])
def test_exports_have_plain_convolutions(norm_layer):
    from keras_resnet.models.folding import inference_copy

    model = small("ResNet50x1_BiT", norm_layer=norm_layer, classifier_activation=None)
    model = randomize(model)
    x = images(model)
    expected = run(model, x, training=False)
    copy = inference_copy(model)
    assert not any(type(layer) in PLAIN_CONVOLUTIONS for layer in copy.layers)
    found = run(copy, x, training=False)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    kernel = copy.get_layer("stage1_block1_conv3").kernel  # no normalization follows
    source = model.get_layer("stage1_block1_conv3").kernel
    np.testing.assert_allclose(kernel, standardized(source), atol=1e-5)
    same = inference_copy(model, fold=False)  # what an export is compared with
    assert any(type(layer) in PLAIN_CONVOLUTIONS for layer in same.layers)
    found = run(same, x, training=False)
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())
