"""Weights and inputs that depend on a name and a shape only.

The script that makes the references and the tests that compare with them call the same functions,
so that weight files need not be stored. Every number comes from the raw output of numpy's PCG64,
which numpy keeps stable across versions and platforms (its distributions are not), and from exact
float32 arithmetic.
"""

import hashlib
import math

import numpy as np


def uniform(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Float32 numbers of mean 0 and standard deviation 1, uniform, decided by `key` alone."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "little")
    raw = np.random.PCG64(seed).random_raw(math.prod(shape))
    # The upper 24 bits: all of them fit into a float32.
    unit = (raw >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
    return (unit * np.float32(math.sqrt(3))).reshape(shape)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A realistic value of a parameter or moving statistic, float32.

    Kernels have 0.65 of the standard deviation of He et al. (2015): a residual branch then has a
    tenth of its input's variance, and the output stays of order 1 to 100 through two hundred
    blocks, as in a trained network, although the moving variances do not know the activations.

    Args:
        name: in the library's own naming: "layer1.0.bn1.weight", "conv1_bn/gamma".
        shape: in the library's own layout: out × in × space (PyTorch), space × in × out (Keras).
    """
    kind = name.replace("/", ".").rsplit(".", 1)[-1]
    if kind in ("running_var", "moving_variance"):
        return np.float32(1) + np.float32(0.25) * uniform(name, shape)
    if kind in ("running_mean", "moving_mean", "bias", "beta"):
        return np.float32(0.1) * uniform(name, shape)
    if kind == "gamma" or (kind == "weight" and len(shape) == 1):
        return np.float32(1) + np.float32(0.1) * uniform(name, shape)
    if kind not in ("weight", "kernel"):
        raise ValueError(f"No rule for the parameter {name!r}.")
    fan_in = math.prod(shape[1:] if kind == "weight" else shape[:-1])
    return np.float32(0.65 * math.sqrt(2 / fan_in)) * uniform(name, shape)


def images(size: int) -> np.ndarray:
    """Two normalized images, float32 of shape (2, size, size, 3)."""
    return uniform(f"images of {size}", (2, size, size, 3))
