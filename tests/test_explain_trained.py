"""Heat maps of networks trained in the test: they show what the network goes by."""

import keras
import numpy as np
import pytest

from keras_resnet import create_model, explain
from keras_resnet.explain.overlays import resize

pytestmark = pytest.mark.ci


def train(model, x, y, epochs, rate=0.01):
    # The moving statistics have to follow in a few dozen steps.
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=0)
    return model


def test_a_learned_patch_has_the_heat():
    """What decides is a small colored patch in noise; a third of the images were never seen."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(0, 0.5, (768, 32, 32, 3)).astype("float32")
    y = rng.integers(0, 3, 768)
    corners = rng.integers(0, 25, (768, 2))
    for image, label, (top, left) in zip(x, y, corners, strict=True):
        image[top : top + 8, left : left + 8, label] += 2
    # Blocks of one convolution see far less than the whole image.
    model = create_model(
        "CifarResNet20", classes=3, depths=(1, 1, 1), widths=(16, 16, 32), input_shape=(32, 32, 3)
    )
    train(model, x[:512], y[:512], epochs=6)
    held_out, labels = x[512:], y[512:]
    right = model.predict(held_out, verbose=0).argmax(axis=1) == labels
    assert right.mean() > 0.98
    maps = explain.heatmaps(model, held_out, labels[:, None], prepared=True)
    shares = []
    for heat, (top, left) in zip(maps.values[right, 0], corners[512:][right], strict=True):
        cell = 32 / len(heat)
        first = np.maximum([int(top // cell) - 1, int(left // cell) - 1], 0)
        last = [int(np.ceil((edge + 8) / cell)) + 1 for edge in (top, left)]
        shares.append(heat[first[0] : last[0], first[1] : last[1]].sum() / heat.sum())
    assert np.mean(shares) >= 0.9
    assert np.quantile(shares, 0.05) >= 0.8


def test_graying_the_hottest_quarter_costs_more_than_the_coldest():
    """Over the held-out digits, with a 99 % interval of the mean by the bootstrap."""
    from sklearn.datasets import load_digits

    keras.utils.set_random_seed(1)
    digits = load_digits()
    pixels = digits.images.repeat(2, axis=1).repeat(2, axis=2)[..., None].repeat(3, axis=-1)
    x = (pixels / 8 - 1).astype("float32")
    model = create_model(
        "CifarResNet20", classes=10, depths=(1, 1, 1), widths=(16, 24, 32), input_shape=(16, 16, 3)
    )
    train(model, x[:1400], digits.target[:1400], epochs=6)
    x, labels = x[1400:], digits.target[1400:]
    before = model.predict(x, verbose=0)
    right = before.argmax(axis=1) == labels
    assert right.sum() >= 300
    x, labels, before = x[right], labels[right], before[right].max(axis=1)
    for options in ({}, {"method": "occlusion", "cells": 4}):
        maps = explain.heatmaps(model, x, labels[:, None], prepared=True, **options)
        order = np.stack([resize(heat[0], (16, 16)).ravel().argsort() for heat in maps.signed])

        def fall(places):
            hidden = x.copy().reshape(len(x), 256, 3)
            np.put_along_axis(hidden, places[..., None], 0.0, axis=1)  # gray
            after = model.predict(hidden.reshape(x.shape), verbose=0)
            return before - after[np.arange(len(x)), labels]

        ahead = fall(order[:, -64:]) - fall(order[:, :64])
        rng = np.random.default_rng(2)
        means = [rng.choice(ahead, len(ahead)).mean() for _ in range(2000)]
        print(options, ahead.mean(), np.quantile(means, [0.005, 0.995]))
        assert np.quantile(means, 0.005) > 0.05
