"""Which layers' activations an export in 8 bits changes most."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import input_pipeline
from keras_resnet.export.formats import Format, Job
from keras_resnet.export.signatures import Network, make_network
from keras_resnet.models.folding import readers_of

WORST = 5
IMAGES = 32
_ACTIVATIONS = (keras.layers.Activation, keras.layers.ReLU)
_OF_NO_OWN = (keras.layers.InputLayer, keras.layers.Identity, keras.layers.ZeroPadding2D)


def worst_layers(row: Format, job: Job, images: np.ndarray) -> tuple[tuple[str, float], ...]:
    """The layers whose activations differ most from those of the model.

    The network is exported once more, with the activations of all layers among its outputs. Where
    images are answered together with their mirror images it is the image itself that is looked at.

    Args:
        row: the format.
        job: what it was asked for.
        images: uint8 [n, size, size, 3].

    Returns:
        Name of a layer and its difference: the root mean square over images and channels, as a
        share of that of the model's activations. The largest first, at most five.
    """
    network = make_network(job.model, **{**job.options, "tta": "none", "unknown": None})
    function = _all_activations(network)
    expected = function(tf.constant(images, tf.float32))
    found = row.probe(network, function, job)(images)
    shares = {name: _share(found[name], value.numpy()) for name, value in expected.items()}
    return tuple(sorted(shares.items(), key=lambda item: -item[1])[:WORST])


def _all_activations(network: Network) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """float32 pixels -> the activations by name of layer."""
    layers = _layers_with_activations(network.model)
    model = keras.Model(network.model.inputs, [layer.output for layer in layers])

    names = [layer.name for layer in layers]

    def activations(images: tf.Tensor) -> dict[str, tf.Tensor]:
        values = model(input_pipeline.normalize(images, network.preprocessing), training=False)
        return dict(zip(names, keras.tree.flatten(values), strict=True))

    return activations


def _layers_with_activations(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers whose output an export holds: those that no activation follows at once."""
    readers = readers_of(model)

    def is_held(layer: keras.layers.Layer) -> bool:
        following = readers.get(id(layer.output), [])
        fused = len(following) == 1 and isinstance(following[0], _ACTIVATIONS)
        return not fused and not isinstance(layer, _OF_NO_OWN)

    return [layer for layer in model.layers if is_held(layer)]


def _share(found: np.ndarray, expected: np.ndarray) -> float:
    """The root mean square of the difference over that of `expected`."""
    size = np.linalg.norm(expected)
    return float(np.linalg.norm(found - expected) / max(size, np.finfo(np.float32).tiny))
