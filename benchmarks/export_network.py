"""The networks that `export.py` measures, with statistics as trained ones have, in every format.

    python export_network.py FOLDER NAME...

An untrained network is no measure: its folded biases are exactly zero, TensorFlow takes additions
of zero out of the graph, and then cannot fuse convolution, bias, ReLU and sum into one call
(ONEDNN_VERBOSE=1 shows it). Here gammas and betas are drawn, and the moving statistics are those of
the activations that smooth random images cause.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import keras_resnet
from keras_resnet import input_pipeline
from keras_resnet.export import (
    export_file,
    export_saved_model,
    fold_batch_normalization,
    sample_images,
)

JPEG = "photo.jpg"
APPLICATIONS = "applications"
WEIGHTS = "weights.npz"
# File or folder -> the model in it, its format and its precision.
EXPORTS = {
    "v1-float32": ("ResNet50V1", "saved_model", "float32"),
    "float32": ("ResNet50", "saved_model", "float32"),
    "bfloat16": ("ResNet50", "saved_model", "bfloat16"),
    "float32.onnx": ("ResNet50", "onnx", "float32"),
    "int8.onnx": ("ResNet50", "onnx", "int8"),
    "float32.xml": ("ResNet50", "openvino", "float32"),
    "bfloat16.xml": ("ResNet50", "openvino", "bfloat16"),
    "int8.xml": ("ResNet50", "openvino", "int8"),
    "float32.tflite": ("ResNet50", "tflite", "float32"),
    "int8.tflite": ("ResNet50", "tflite", "int8"),
}
CALIBRATION = 16  # images; speed does not depend on what they say


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:]:
        write(folder, name)


def write(folder: Path, name: str) -> None:
    path = folder / name
    if name == JPEG:
        photo = sample_images.smooth_images(1, 500)[0][:375]
        path.write_bytes(tf.io.encode_jpeg(photo, quality=90).numpy())
    elif name == APPLICATIONS:
        # Ours has the very same layers, and so the same range of inputs will do for both.
        draw_statistics(keras.applications.ResNet50(weights=None)).export(str(path), verbose=False)
    elif name == WEIGHTS:
        write_folded(path, network("ResNet50"))
    else:
        variant, format, precision = EXPORTS[name]
        model = network(variant)
        images = sample_images.smooth_images(CALIBRATION, 224, seed=1)
        samples = sample_images.Samples(lambda: iter([(images, None)]), "smooth images")
        if format == "saved_model":
            export_saved_model(model, path, precision=precision, samples=samples)
        else:
            export_file(model, path, format=format, precision=precision, samples=samples)


def network(variant: str) -> keras.Model:
    """The same one in every process."""
    keras.utils.set_random_seed(0)
    return draw_statistics(keras_resnet.create_model(variant, zero_init_last_gamma=False))


def draw_statistics(model: keras.Model) -> keras.Model:
    """Draws gammas, betas and the classifier's bias, and takes moving statistics from images."""
    rng = np.random.default_rng(0)
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.gamma.assign(rng.uniform(0.5, 1.5, norm.gamma.shape))
        norm.beta.assign(rng.normal(0, 0.2, norm.beta.shape))
    model.layers[-1].bias.assign(rng.normal(0, 0.1, model.layers[-1].bias.shape))
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # takes the statistics of one batch as they are
    model(sample_images.smooth_images(8, 224).astype("float32") / 64 - 2, training=True)
    for norm, before in zip(norms, momentum, strict=True):
        norm.momentum = before
    return model


def write_folded(path: Path, model: keras.Model) -> None:
    """Kernels and biases by layer for `export_others.py`, and the logits of its pixels."""
    folded = fold_batch_normalization(model)
    arrays = {
        f"{layer.name}/{kind}": values
        for layer in folded.layers
        for kind, values in zip(("kernel", "bias"), layer.get_weights(), strict=False)
    }
    head = folded.layers[-1]
    head.activation = keras.activations.linear
    pixels = sample_images.smooth_images(2, 224, seed=2)
    images = input_pipeline.normalize(tf.constant(pixels), model.preprocessing)
    logits = keras.Model(folded.inputs, head(folded.layers[-2].output))(images)
    np.savez(path, images=images.numpy(), logits=logits.numpy(), **arrays)


if __name__ == "__main__":
    main()
