"""What a low-pass filter where a network strides costs on a CPU: `antialias` off, blur, average.

    TF_ENABLE_ONEDNN_OPTS=1 python benchmarks/antialias.py --dtype=mixed_bfloat16 --training

The networks take turns within each round. Printed are seconds of processor time of a batch, which
a busy machine does not change as much as those of the clock, and the ratio to the first network.
Inference is that of an export: normalizations folded, variables frozen to constants.
"""

import argparse
import statistics
import time

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

import keras_resnet
from keras_resnet.models.folding import inference_copy

ANTIALIASES = ("off", "blur", "average")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="ResNet50")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=224, help="pixels")
    parser.add_argument("--dtype", choices=["mixed_bfloat16", "float32"], default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--training", action="store_true", help="a plain training step")
    options = parser.parse_args()
    make = training_step if options.training else inference
    calls = {antialias: make(options, antialias) for antialias in ANTIALIASES}
    for call in calls.values():
        call()
        call()
    seconds: dict[str, list[float]] = {antialias: [] for antialias in ANTIALIASES}
    for _ in range(options.rounds):
        for antialias, call in calls.items():
            begin = time.process_time()
            call()
            seconds[antialias].append(time.process_time() - begin)
    for antialias, times in seconds.items():
        ratios = [a / b for a, b in zip(times, seconds["off"], strict=True)]
        print(
            f"antialias={antialias}: {statistics.median(times):.3f} s "
            f"[{min(times):.3f}, {max(times):.3f}], ratio {statistics.median(ratios):.3f}"
        )


def network(options: argparse.Namespace, antialias: str):
    """A network with statistics, scales and shifts that nothing simplifies away, and its images."""
    size = options.image_size
    model = keras_resnet.create_model(
        options.model, input_shape=(size, size, 3), antialias=antialias, dtype=options.dtype
    )
    for variable in model.weights:
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(tf.random.uniform(variable.shape, 0.5, 1.5))
        elif variable.name in ("beta", "moving_mean"):
            variable.assign(0.2 * tf.random.normal(variable.shape))
    return model, tf.random.normal((options.batch_size, size, size, 3))


def inference(options: argparse.Namespace, antialias: str):
    model, images = network(options, antialias)
    model = inference_copy(model, precision=options.dtype.removeprefix("mixed_"))
    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(images)
    frozen = convert_variables_to_constants_v2(function)
    return lambda: frozen(images)[0].numpy()


def training_step(options: argparse.Namespace, antialias: str):
    model, images = network(options, antialias)
    labels = tf.random.uniform([options.batch_size], 0, 1000, "int32")
    optimizer = keras.optimizers.SGD(1e-4, momentum=0.9)
    optimizer.build(model.trainable_variables)
    loss_of = keras.losses.SparseCategoricalCrossentropy()

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(images, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    return lambda: step().numpy()


if __name__ == "__main__":
    main()
