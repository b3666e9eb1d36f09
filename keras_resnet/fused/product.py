"""Layers of a matched pattern as one operation: their variables in, their statistics out."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_resnet.fused import folded, gram
from keras_resnet.layers import BatchNormalization, StochasticDepth


@dataclasses.dataclass(frozen=True)
class Product:
    """A 1×1 convolution and the normalization of its output."""

    conv: keras.layers.Layer
    norm: BatchNormalization

    def arguments(self, prefix: str) -> dict[str, Any]:
        kernel = ops.convert_to_tensor(self.conv.kernel)
        gamma, beta = self.norm.scale_and_offset()
        return {
            f"{prefix}kernel": ops.reshape(kernel, kernel.shape[-2:]),
            f"{prefix}gamma": gamma,
            f"{prefix}beta": beta,
        }


@dataclasses.dataclass(frozen=True)
class Prologue:
    """Normalization and ReLU, which are computed again where their output is needed."""

    norm: BatchNormalization

    def arguments(self, x: Any) -> dict[str, Any]:
        gamma, beta = self.norm.scale_and_offset()
        mean, variance, count = self.norm.batch_moments(x)
        self.norm.take_batch_statistics(mean, variance, count)
        scale = gamma * ops.rsqrt(variance + self.norm.epsilon)
        return {
            "scale": scale,
            "shift": beta - mean * scale,
            "center": _rounded(_rectified_mean(gamma, beta), x.dtype),
        }


@dataclasses.dataclass(frozen=True)
class WideningProduct:
    """`gram.joined` of layers; callable with the values of its inputs.

    Attributes:
        product: what widens.
        prologue: what comes before it; None takes its input as it is.
        drop: stochastic depth of the branch, if any.
        adds: whether there is a second input, the shortcut.
        projection: of the shortcut, if any.
        activates: whether ReLU follows.
        sums_by_products, folds_scale: see `Form`.
    """

    product: Product
    prologue: Prologue | None
    drop: StochasticDepth | None
    adds: bool
    projection: Product | None
    activates: bool
    sums_by_products: bool = False
    folds_scale: bool = False

    def __call__(self, values: Sequence[Any]) -> Any:
        sides = [self.product] + ([self.projection] if self.projection else [])
        what = gram.Junction(
            recomputes=self.prologue is not None,
            activates=self.activates,
            adds=self.adds,
            drops=self.drop is not None and self.drop.rate > 0,
            epsilons=tuple(side.norm.epsilon for side in sides),
            replicas=tuple(side.norm.replicas_to_sum_over() for side in sides),
            strides=tuple(self.projection.conv.strides) if self.projection else (),
        )
        run = folded.FoldedRun if self.folds_scale else gram.Run
        arguments = self._arguments(values, what)
        output, statistics = gram.joined(self._arithmetic(), what, arguments, run)
        for side, (mean, variance) in zip(sides, statistics, strict=True):
            side.norm.take_batch_statistics(mean, variance, side.norm.values_per_channel(output))
        return output

    def _arguments(self, values: Sequence[Any], what: gram.Junction) -> dict[str, Any]:
        dtype = self.product.conv.compute_dtype
        x = ops.cast(values[0], dtype)
        before = self.prologue.arguments(x) if self.prologue else {}
        arguments = {"x": x, **before, **self.product.arguments("")}
        if what.drops:
            assert self.drop is not None
            arguments["factors"] = self.drop.factors(ops.shape(x)[0], len(x.shape))
        if self.adds:
            shortcut = ops.cast(values[1], dtype)
            if self.projection:
                arguments |= self.projection.arguments("shortcut_")
            arguments["shortcut"] = shortcut
        return arguments

    def _arithmetic(self) -> Any:
        if keras.backend.backend() == "jax":
            from keras_resnet.fused.jax_arithmetic import JaxArithmetic

            return JaxArithmetic(self.sums_by_products)
        if self.folds_scale:
            from keras_resnet.fused.onednn_arithmetic import OneDnnArithmetic

            return OneDnnArithmetic()
        from keras_resnet.fused.tensorflow_arithmetic import TensorFlowArithmetic

        return TensorFlowArithmetic(self.sums_by_products)


def _rectified_mean(gamma: Any, beta: Any) -> Any:
    """Mean of relu(z) for a normal z with the mean beta and the deviation |gamma|.

    beta Phi(beta / |gamma|) + |gamma| phi(beta / |gamma|). Where the mean is large against the
    deviation this is beta, and exact whatever the distribution.
    """
    deviation = ops.abs(gamma) + 1e-12
    t = beta / deviation
    density = ops.exp(-0.5 * t * t) / math.sqrt(2 * math.pi)
    share = 0.5 * (1 + ops.erf(t / math.sqrt(2)))
    return ops.stop_gradient(beta * share + deviation * density)


def _rounded(vector: Any, dtype: Any) -> Any:
    """To a type in which a difference from near values is exact."""
    return ops.cast(ops.cast(vector, dtype), "float32")
