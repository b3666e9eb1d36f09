"""What the model tests share: small twins of the variants, weights that exercise everything."""

import re

import keras
import numpy as np
import pytest

from keras_resnet.architectures import ARCHITECTURES
from keras_resnet.models import create_model


def one_of_each_family(names, *, slow=()):
    """Parameters of a test: the first of each family of names as it is, the others under `ci`.

    A family is a kind of block and what is left of a name without its numbers, such as SEResNet;
    `slow` are names under that marker instead.
    """
    parameters, families = [], set()
    for name in names:
        family = re.sub(r"\d+", "", name), ARCHITECTURES[name].block
        later = [pytest.mark.ci] if family in families else []
        parameters.append(pytest.param(name, marks=[pytest.mark.slow] if name in slow else later))
        families.add(family)
    return parameters


def small(name, **kwargs):
    """The variant with few and narrow blocks, five classes and 32-pixel (CIFAR: 8) inputs."""
    stages = len(ARCHITECTURES[name].depths)
    defaults = {
        "depths": (1, 2, 2, 1)[:stages],
        "widths": (16, 32, 48, 64)[:stages],
        "classes": 5,
        "input_shape": (8, 8, 3) if stages == 3 else (32, 32, 3),
    }
    return create_model(name, **{**defaults, **kwargs})


def randomize(model, seed=0):
    """Draw every weight: kernels of unit gain, gammas around 1, statistics as of real data."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        shape = tuple(variable.shape)
        last = variable.path.rsplit("/", 1)[-1]
        if last == "kernel":
            value = rng.normal(0, np.sqrt(2 / max(np.prod(shape[:-1]), 1)), shape)
        elif last in ("gamma", "moving_variance"):
            value = rng.uniform(0.5, 1.5, shape)
        elif last in ("beta", "bias", "moving_mean"):
            value = rng.normal(0, 0.2, shape)
        else:
            continue
        variable.assign(value.astype("float32"))
    return model


def images(model, batch=2, seed=0):
    shape = [24 if size is None else size for size in model.inputs[0].shape[1:]]
    return np.random.default_rng(seed).normal(size=(batch, *shape)).astype("float32")


def run(model, inputs, **kwargs):
    """The outputs as numpy, same structure."""
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(inputs, **kwargs))


def subsample(x, stride):
    """Every `stride`-th pixel of a numpy array with the channels last."""
    return x[(slice(None), *[slice(None, None, stride)] * (x.ndim - 2))]


def max_pool(x, border):
    """3 wide, stride 2, one pixel of `border` around; numpy, channels last."""
    rank = x.ndim - 2
    axes = tuple(range(1, rank + 1))
    x = np.pad(x, [(0, 0), *[(1, 1)] * rank, (0, 0)], constant_values=border)
    windows = np.lib.stride_tricks.sliding_window_view(x, [3] * rank, axis=axes)
    return subsample(windows.max(axis=tuple(range(-rank, 0))), 2)
