"""Heat maps: what they sum to, that they equal gradients, and that they show what decides."""

import keras
import numpy as np
import pytest
from model_helpers import images, randomize, small

from keras_resnet import explain
from keras_resnet.errors import UserError
from keras_resnet.explain.anatomy import dissect
from keras_resnet.explain.running import Runner
from keras_resnet.layers import keras_internals

FAMILIES = [
    "ResNet18",
    "ResNet50",
    "ResNet50V2",
    "ResNet50D",
    "SEResNet50",
    "ResNeXt50_32x4d",
    "ResNetRS50",
    "WideResNet28_10",
    "CifarResNet20",
    "ResNet50x1_BiT",
]


def network(name, **kwargs):
    """A small twin whose scores are of the size of real ones, with a last map of several cells."""
    size = 16 if name.startswith(("Cifar", "Wide")) else 64
    model = randomize(small(name, **{"input_shape": (size, size, 3), **kwargs}))
    head = model.get_layer("predictions")
    scores = explain.heatmaps(model, images(model), "all", prepared=True).scores
    head.kernel.assign(head.kernel * (3 / np.abs(scores).max()))
    return model


def gradient_maps(model, inputs, layer, classes):
    """Grad-CAM without its relu and its division by the number of cells, by plain Keras models."""
    inner = model.get_layer(layer).output
    head = model.get_layer("predictions")
    cut = keras.Model(model.input, [inner, head.input])

    def scores(x, shift):
        # The rest of the network as a function of the map: by finite calls of its own layers.
        rest = keras.Model(inner, head.input)
        pooled = rest(x + shift, training=False)
        return keras.ops.matmul(pooled, head.kernel) + head.bias

    features = keras.ops.convert_to_tensor(to_numpy(cut(inputs, training=False)[0]))
    maps = []
    for column in classes.T:
        picks = keras.ops.convert_to_tensor(np.eye(head.units, dtype="float32")[column])
        gradient = gradient_of(lambda shift, p=picks: scores(features, shift) * p, features)
        weights = gradient.sum(axis=tuple(range(1, gradient.ndim - 1)))
        maps.append(np.einsum("n...c,nc->n...", to_numpy(features), weights))
    return np.stack(maps, axis=1)


def gradient_of(function, like):
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        shift = tf.zeros_like(like)
        with tf.GradientTape() as tape:
            tape.watch(shift)
            total = tf.reduce_sum(function(shift))
        return tape.gradient(total, shift).numpy()
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(lambda shift: function(shift).sum())(0 * like))
    import torch

    shift = torch.zeros_like(like).detach().requires_grad_()
    function(shift).sum().backward()
    return shift.grad.numpy()


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


@pytest.mark.ci
@pytest.mark.parametrize("name", FAMILIES)
def test_the_map_is_the_gradient_and_its_mean_plus_the_bias_the_score(name):
    model = network(name, dropout_rate=0.3, classifier_activation="softmax")
    x = images(model, 3)
    maps = explain.heatmaps(model, x, "all", prepared=True)
    assert maps.signed.shape[:2] == (3, 5)
    assert min(maps.signed.shape[2:]) > 1
    bias = to_numpy(model.get_layer("predictions").bias)
    np.testing.assert_allclose(maps.signed.mean(axis=(2, 3)) + bias, maps.scores, atol=1e-5)
    probabilities = to_numpy(model(x, training=False))
    e = np.exp(maps.scores - maps.scores.max(axis=1, keepdims=True))
    np.testing.assert_allclose(e / e.sum(axis=1, keepdims=True), probabilities, atol=1e-5)
    expected = gradient_maps(model, x, maps.layer, maps.classes)
    assert np.abs(maps.signed - expected).max() <= 1e-5 * np.abs(expected).max()
    assert np.array_equal(maps.values, np.maximum(maps.signed, 0))


@pytest.mark.ci
@pytest.mark.parametrize("name", ["ResNet18", "ResNet50V2", "SEResNet50"])
def test_maps_of_other_layers_are_those_of_gradients(name):
    model = network(name)
    x = images(model, 2)
    layer = keras_layer(model, "stage2")
    maps = explain.heatmaps(model, x, [0, 3], layer=layer, prepared=True)
    expected = gradient_maps(model, x, layer, maps.classes)
    assert maps.layer == layer
    assert np.abs(expected).max() > 1e-3
    assert np.abs(maps.signed - expected).max() <= 1e-5 * np.abs(expected).max()


def keras_layer(model, stage):
    """The last layer of a stage through which everything passes."""
    names = [layer.name for layer in model.layers if layer.name.startswith(stage)]
    return names[-1]


@pytest.mark.parametrize(
    ("shape", "cells"), [((256, 2), 1), ((6, 32, 32, 3), 3)], ids=["1-D", "3-D"]
)
def test_signals_and_videos(shape, cells):
    model = randomize(small("ResNet18", input_shape=shape, widths=(8, 8, 8, 8), depths=(1,) * 4))
    x = images(model, 2)
    maps = explain.heatmaps(model, x, "all")  # it has no preprocessing
    assert maps.signed.ndim == 2 + cells
    assert maps.photos is None
    bias = to_numpy(model.get_layer("predictions").bias)
    mean = maps.signed.reshape(2, 5, -1).mean(axis=2)
    np.testing.assert_allclose(mean + bias, maps.scores, rtol=1e-5, atol=1e-4)
    picture = explain.overlay(x[0], maps.values[0, 0])
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    occluded = explain.heatmaps(model, x, method="occlusion", cells=3)
    assert occluded.signed.ndim == 2 + cells


def heads():
    layers = keras.layers
    pool = layers.GlobalAveragePooling2D
    return {
        "maximum": [layers.GlobalMaxPooling2D(), layers.Dense(4)],
        "two layers": [pool(), layers.Dense(8, activation="tanh"), layers.Dense(4)],
        "flat": [layers.Flatten(), layers.Dense(4, activation="softmax")],
        "softmax apart": [pool(), layers.Dropout(0.5), layers.Dense(4), layers.Softmax()],
        "kept axes": [pool(keepdims=True), layers.Conv2D(4, 1), layers.Flatten()],
        "no bias": [pool(), layers.Dense(4, use_bias=False, activation="sigmoid")],
    }


@pytest.mark.parametrize("head", list(heads()))
def test_heads_of_ones_own(head):
    body = small("ResNet18", include_top=False, input_shape=(64, 64, 3))
    x = body.output
    for layer in heads()[head]:
        x = layer(x)
    model = randomize(keras.Model(body.input, x))
    inputs = images(model, 2)
    maps = explain.heatmaps(model, inputs, "all", prepared=True)
    assert maps.layer == "stage4_block1_out"
    # A step along the gradient changes the scores as it says.
    anatomy = dissect(model)
    runner = Runner(model, anatomy, anatomy.features)
    features = runner(inputs).features
    gradient = runner.gradient(inputs, features, np.array([1, 2]))
    weights = gradient.sum(axis=(1, 2))
    expected = np.einsum("nhwc,nc->nhw", features, weights)
    for row, number in enumerate((1, 2)):
        np.testing.assert_allclose(
            maps.signed[row, number], expected[row], rtol=1e-4, atol=1e-5 * np.abs(expected).max()
        )


def test_a_gradient_is_the_slope_of_the_score():
    body = small("ResNet18", include_top=False, input_shape=(64, 64, 3), activation="silu")
    x = keras.layers.GlobalAveragePooling2D()(body.output)
    x = keras.layers.Dense(4)(keras.layers.Dense(8, activation="tanh")(x))
    model = randomize(keras.Model(body.input, x))
    inputs = images(model, 1)
    anatomy = dissect(model)
    runner = Runner(model, anatomy, anatomy.features)
    features = runner(inputs).features
    gradient = runner.gradient(inputs, features, np.array([2]))
    step = np.random.default_rng(1).normal(size=features.shape).astype("float32") * 1e-2

    def score(sign):
        shift = keras.ops.convert_to_tensor(sign * step)
        return to_numpy(runner.run(keras.ops.convert_to_tensor(inputs), shift).scores)[0, 2]

    np.testing.assert_allclose(score(1) - score(-1), 2 * (gradient * step).sum(), rtol=2e-2)


@pytest.mark.ci
def test_a_network_within_a_model_and_a_sequential_one():
    inner = randomize(small("ResNet18", input_shape=(64, 64, 3)))
    inputs = keras.Input((64, 64, 3))
    outer = keras.Model(inputs, inner(keras.layers.Rescaling(1.0)(inputs)))
    chain = keras.Sequential([keras.Input((64, 64, 3)), inner])
    calls = [keras_internals.number_of_calls(layer) for layer in inner.layers]
    x = images(inner, 2)
    expected = explain.heatmaps(inner, x, [0, 1], prepared=True)
    for model in (outer, chain):
        maps = explain.heatmaps(model, x, [0, 1])
        np.testing.assert_allclose(maps.signed, expected.signed, rtol=1e-5, atol=1e-5)
        assert maps.layer == expected.layer
        deeper = explain.heatmaps(model, x, layer="stage2_block2_out")
        assert deeper.signed.shape == (2, 1, 8, 8)
    # Exports fold the normalizations of networks whose layers are called once.
    assert [keras_internals.number_of_calls(layer) for layer in inner.layers] == calls


def test_mixed_precision():
    keras.utils.set_random_seed(0)
    model = network("ResNet18", dtype="mixed_bfloat16")
    maps = explain.heatmaps(model, images(model), "all", prepared=True)
    bias = to_numpy(model.get_layer("predictions").bias)
    assert maps.signed.dtype == np.float32
    np.testing.assert_allclose(maps.signed.mean(axis=(2, 3)) + bias, maps.scores, atol=0.05)


def test_random_weights_change_the_map():
    """Adebayo et al. 2018, section 4: a map that stays says nothing of what was learned."""
    model = network("ResNet18", input_shape=(128, 128, 3))
    x = images(model, 4)
    before = explain.heatmaps(model, x, [1], prepared=True).signed
    again = explain.heatmaps(model, x, [1], prepared=True).signed
    np.testing.assert_array_equal(before, again)

    def likeness():
        after = explain.heatmaps(model, x, [1], prepared=True).signed
        pairs = zip(before.reshape(4, -1), after.reshape(4, -1), strict=True)
        return np.mean([np.corrcoef(one, other)[0, 1] for one, other in pairs])

    head = model.get_layer("predictions").kernel
    head.assign(np.random.default_rng(9).normal(size=head.shape) * to_numpy(head).std())
    of_head = likeness()
    randomize(model, seed=5)
    assert of_head < 0.9
    assert abs(likeness()) < 0.5


def planted(patch_of, count, size=64, patch=16, seed=0):
    """Noise, in which a bright patch at a random place says the class: its color."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 0.3, (count, size, size, 3)).astype("float32")
    places = rng.integers(0, size - patch + 1, (count, 2))
    for row, (top, left) in enumerate(places):
        x[row, top : top + patch, left : left + patch, patch_of[row]] += 3
    return x, places


def test_the_patch_that_decides_has_the_heat():
    """Weights by hand: the network's only channels are the colors, averaged over its windows."""
    inputs = keras.Input((64, 64, 3))
    blur = keras.layers.DepthwiseConv2D(4, strides=4, use_bias=False, name="means")(inputs)
    lit = keras.layers.ReLU(negative_slope=0, threshold=0.5, name="lit")(blur)
    pooled = keras.layers.GlobalAveragePooling2D()(lit)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(pooled))
    model.get_layer("means").set_weights([np.full((4, 4, 3, 1), 1 / 16, "float32")])
    model.layers[-1].set_weights([10 * np.eye(3, dtype="float32"), np.zeros(3, "float32")])
    labels = np.arange(24) % 3
    x, places = planted(labels, 24)
    assert (to_numpy(model(x)).argmax(axis=1) == labels).all()
    for maps in (
        explain.heatmaps(model, x),
        explain.heatmaps(model, x, method="occlusion", cells=16),
    ):
        assert min(share_on_patch(maps.values[:, 0], places, 64, 16)) >= 0.9


def share_on_patch(maps, places, size, patch):
    """Of each map the share of the heat on the planted patch and one cell around it."""
    shares = []
    for heat, corner in zip(maps, places, strict=True):
        cell = size / len(heat)
        first = np.maximum(np.floor(corner / cell).astype(int) - 1, 0)
        last = np.ceil((corner + patch) / cell).astype(int) + 1
        shares.append(heat[first[0] : last[0], first[1] : last[1]].sum() / heat.sum())
    return shares


def test_occlusion_of_a_linear_model_is_the_weights_under_the_window():
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Flatten(name="flat")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(64, 2)).astype("float32")
    model.layers[-1].set_weights([kernel, np.zeros(2, "float32")])
    x = rng.normal(size=(1, 8, 8, 1)).astype("float32")
    maps = explain.heatmaps(model, x, 1, method="occlusion", cells=8)
    # What falls in a window of two by two cells is the sum of w (x - mean) in it.
    falls = ((x - x.mean()) * kernel[:, 1].reshape(1, 8, 8, 1))[0, ..., 0]
    padded = np.pad(falls, 1)
    windows = padded[:-1, :-1] + padded[1:, :-1] + padded[:-1, 1:] + padded[1:, 1:]
    expected = (windows[:-1, :-1] + windows[1:, :-1] + windows[:-1, 1:] + windows[1:, 1:]) / 4
    np.testing.assert_allclose(maps.signed[0, 0], expected, atol=1e-5)


def test_classes_by_name_number_and_image():
    model = network("CifarResNet20")
    model.class_names = ["ant", "bee", "cat", "dog", "eel"]
    x = images(model, 3)
    everything = explain.heatmaps(model, x, "all", prepared=True)
    likely = explain.heatmaps(model, x, prepared=True)
    assert (likely.classes[:, 0] == everything.scores.argmax(axis=1)).all()
    named = explain.heatmaps(model, x, ["dog", 1], prepared=True)
    np.testing.assert_allclose(named.signed, everything.signed[:, [3, 1]], atol=1e-6)
    each = explain.heatmaps(model, x, np.array([[0], [4], [2]]), prepared=True, batch_size=2)
    np.testing.assert_allclose(
        each.signed[:, 0], everything.signed[np.arange(3), [0, 4, 2]], atol=1e-5
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": "bear"}, "no class 'bear' .* names no classes: take numbers, 0 to 4"),
        ({"classes": 7}, "no class 7; the model has 0 to 4"),
        ({"classes": []}, "classes is empty"),
        ({"classes": [1.5]}, "received 1.5"),
        ({"classes": np.zeros((1, 1), int)}, "1 rows; it needs one for each"),
        ({"layer": "stage1_block1_outt"}, "did you mean 'stage1_block1_out"),
        ({"layer": "pool"}, "without places for a heat map; the last feature map is that of"),
        ({"method": "gradcamm"}, "did you mean 'gradcam'"),
        ({"method": "occlusion", "layer": "stage1_block1_out"}, "leave it out"),
        ({"method": "occlusion", "cells": 0}, "cells is 0"),
        ({"images_or_paths": np.zeros((2, 8, 8), "float32")}, "takes .None, 16, 16, 3"),
        ({"images_or_paths": np.zeros((0, 16, 16, 3), "float32")}, "no images to explain"),
        ({"images_or_paths": ["cat.jpg"]}, "takes arrays and no paths"),
    ],
)
def test_slips_are_named(options, message):
    model = network("CifarResNet20")
    arguments = {"images_or_paths": images(model, 2), **options}
    with pytest.raises(UserError, match=message):
        explain.heatmaps(model, prepared=True, **arguments)


@pytest.mark.parametrize(
    ("name", "said"),
    [("bea", "Did you mean 'bear'"), ("xyz", "Its classes are 'ant', 'bear', 'cat'")],
)
def test_an_unknown_class_meets_those_that_are_known(name, said):
    model = network("CifarResNet20")
    model.class_names = ["ant", "bear", "cat", "dog", "eel"]
    with pytest.raises(UserError, match=f"no class '{name}' in the model. {said}"):
        explain.heatmaps(model, images(model, 1), name, prepared=True)


def test_models_that_cannot_be_explained_say_why():
    body = small("ResNet18", include_top=False)
    with pytest.raises(UserError, match="include_top=True"):
        explain.heatmaps(body, images(body), prepared=True)
    two = keras.Model(body.input, [body.output, body.layers[-2].output])
    with pytest.raises(UserError, match="1 inputs and 2 outputs"):
        explain.heatmaps(two, images(body), prepared=True)

    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(UserError, match="Own whose layers cannot be followed"):
        explain.heatmaps(Own(), images(body))
    inputs = keras.Input((4,))
    flat = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    with pytest.raises(UserError, match="occlusion"):
        explain.heatmaps(flat, np.zeros((1, 4), "float32"))


def test_overlays():
    photo = np.full((32, 48, 3), 100, np.uint8)
    heat = np.zeros((4, 6), "float32")
    assert (explain.overlay(photo, heat) == 100).all()
    assert (explain.overlay(photo, heat - 1) == 100).all()
    heat[1, 2] = 2.0
    picture = explain.overlay(photo, heat, opacity=1.0)
    assert (picture[:2] == 100).all()  # no heat there
    hot = picture[8:16, 16:24].reshape(-1, 3).astype(int)
    assert hot.sum(axis=1).max() > 450  # yellow
    halved = explain.overlay(photo, heat, opacity=1.0, scale=4.0)
    assert halved.astype(int).sum() < picture.astype(int).sum()
    gray = explain.overlay(photo[..., 0], heat)
    assert gray.shape == (32, 48, 3)
    for slip, message in (
        ({"opacity": 1.5}, "opacity"),
        ({"scale": 0.0}, "scale"),
        ({"heatmap": np.zeros((1, 2, 3, 4))}, "such as maps.values"),
        ({"heatmap": np.zeros(5)}, "received `photo` of the shape"),
    ):
        with pytest.raises(ValueError, match=message):
            explain.overlay(**{"photo": photo, "heatmap": heat, **slip})


def test_maps_are_spread_between_the_centers_of_cells():
    from keras_resnet.explain.overlays import resize

    np.testing.assert_allclose(resize(np.array([0.0, 4.0]), (8,)), [0, 0, 0.5, 1.5, 2.5, 3.5, 4, 4])
    torch_like = resize(np.arange(9.0).reshape(3, 3), (6, 6))
    assert torch_like.mean() == pytest.approx(4.0)
    assert torch_like[0, 0] == 0
    assert torch_like[1, 1] == pytest.approx(1.0)  # a quarter cell inside, along both axes
