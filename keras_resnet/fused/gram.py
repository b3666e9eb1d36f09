"""A widening 1×1 convolution, its batch normalization, a residual sum and ReLU as one operation.

A 1×1 convolution is linear, so the statistics of its output follow from those of its input a, n
rows of C channels: with mu = sum(a) / n and S = a'a / n - mu mu' (the Gram matrix), the output
a W has the mean W'mu and the variances diag(W'SW). So the convolution's raw output need not be
looked at before it is normalized: it is neither written nor read again, forward or backward.

With r = 1 / sqrt(variance + epsilon), G the gradient behind the normalization, b = sum(G) and
P = a'G - mu b' (everything about the mean), the backward pass (Ioffe and Szegedy 2015, section 3,
put into a = input) is

    dgamma = r sum(W * P),   dbeta = b,   c0 = gamma r,   c1 = -c0 r dgamma / n,
    dW = c0 P + c1 n S W,    da = G (W c0)' + (a - mu) (W c1 W') - W c0 b / n.

S is a difference of squares. So that it stays one of small numbers where a mean is large against
its deviation, a is taken from a vector near its mean, `center`, where one is known; elsewhere the
Gram matrix is made once more, about the mean, when digits were lost.

Arrays have their channels last; vectors and matrices are float32.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from keras_resnet.layers.subsampling_conv import pick_pixels


@dataclasses.dataclass
class Side:
    """Statistics of a product's output, from its input; see the module.

    Attributes:
        weights: W as it is multiplied, rounded to the type of the input.
        mean, variance: of the output, of all replicas that are normalized together.
        reciprocal, scale, shift: r, and the map from what the operand gives.
        operand_mean: mu, of the operand.
        local: n S W of the replica's own part, about the mean of all.
        count: n, of all.
    """

    weights: Any
    mean: Any
    variance: Any
    reciprocal: Any
    scale: Any
    shift: Any
    operand_mean: Any
    local: Any
    count: Any


# A variance that is this part of the second moments it is a difference of has lost three digits.
_CANCELS = 1e-2


@dataclasses.dataclass
class Operand:
    """An input as it is multiplied.

    Attributes:
        rows: the input, less `offset`.
        offset: vector.
        again: makes the rows once more where there is no `offset` near their mean; None if it is.
    """

    rows: Any
    offset: Any
    again: Callable[[], Any] | None


def side_of(arithmetic: Any, operand: Operand, kernel: Any, gamma: Any, beta: Any, epsilon: float,
            replicas: Any) -> Side:  # fmt: skip
    """Returns the statistics of an operand's product with a kernel."""
    rows = operand.rows
    weights = ops.cast(ops.cast(kernel, rows.dtype), "float32")
    found = _covariance(arithmetic, rows, weights, replicas)
    if operand.again is not None:
        found = _about_their_mean(arithmetic, operand.again, weights, replicas, found)
    # A sum of squares, but in rounding.
    variance = ops.maximum(ops.sum(weights * found.product, 0), 0.0)
    raw_mean = arithmetic.exact(found.mean[None], weights)[0]
    reciprocal = ops.rsqrt(variance + epsilon)
    scale = gamma * reciprocal
    return Side(
        weights=weights,
        mean=raw_mean + arithmetic.exact(operand.offset[None], weights)[0],
        variance=variance,
        reciprocal=reciprocal,
        scale=scale,
        shift=beta - raw_mean * scale,
        operand_mean=found.mean,
        local=found.local,
        count=found.count,
    )


@dataclasses.dataclass
class _Covariance:
    """mu, S W and n of all replicas, n S W of the own part, and the second moments."""

    mean: Any
    product: Any
    count: Any
    local: Any
    squares: Any


def _covariance(arithmetic, rows, weights, replicas) -> _Covariance:
    own, count = (arithmetic.gram(rows, rows), arithmetic.column_sums(rows)), arithmetic.count(rows)
    return _covariance_from(arithmetic, own, count, weights, replicas, 0.0)


def _covariance_from(arithmetic, own, count, weights, replicas, center) -> _Covariance:
    """Of the Gram matrix and the sums of rows less `center`."""
    gram, sums, total = arithmetic.over_replicas((*own, count), replicas)
    mean = sums / total
    product = arithmetic.exact(gram / total - _outer(mean, mean), weights)
    local = product * total
    if replicas is not None:
        about = own[0] - _outer(own[1], mean) - _outer(mean, own[1]) + count * _outer(mean, mean)
        local = arithmetic.exact(about, weights)
    squares = ops.diagonal(gram) / total
    return _Covariance(mean + center, product, total, local, squares)


def _about_their_mean(arithmetic, rows_again, weights, replicas, found: _Covariance) -> _Covariance:
    """The same from a second pass, over rows less their mean, where the first one lost digits."""
    variance = ops.sum(weights * found.product, 0)
    squares = ops.sum(weights**2 * found.squares[:, None], 0)
    lost = ops.any(variance < _CANCELS * squares)

    def again() -> tuple[Any, ...]:
        rows = rows_again()  # here, or they would be written for the sake of this branch
        center = ops.cast(found.mean, rows.dtype)
        near = rows - center
        own = arithmetic.gram(near, near), arithmetic.column_sums(near)
        count, center = arithmetic.count(rows), ops.cast(center, "float32")
        second = _covariance_from(arithmetic, own, count, weights, replicas, center)
        return second.mean, second.product, second.local

    def as_it_is() -> tuple[Any, ...]:
        return found.mean, found.product, found.local

    # What all replicas know decides, so that they come to the same sums.
    mean, product, local = ops.cond(lost, again, as_it_is)
    return dataclasses.replace(found, mean=mean, product=product, local=local)


@dataclasses.dataclass
class _Gradients:
    """Of gamma and the kernel; and of the input, as G `factor` + rows `matrix` + `vector`."""

    gamma: Any
    kernel: Any
    factor: Any
    matrix: Any
    vector: Any


def _gradients_of(arithmetic, side: Side, rows, upstream, by_beta, gamma, replicas) -> _Gradients:
    product = arithmetic.gram(rows, upstream) - _outer(side.operand_mean, by_beta)
    by_gamma = side.reciprocal * ops.sum(side.weights * product, 0)
    all_by_gamma, all_by_beta = arithmetic.over_replicas((by_gamma, by_beta), replicas)
    c0 = gamma * side.reciprocal
    c1 = -c0 * side.reciprocal * all_by_gamma / side.count
    matrix = arithmetic.exact(side.weights * c1, ops.transpose(side.weights))
    constant = arithmetic.exact((c0 * all_by_beta / side.count)[None], ops.transpose(side.weights))
    return _Gradients(
        gamma=by_gamma,
        kernel=c0 * product + c1 * side.local,
        factor=ops.transpose(side.weights * c0),
        matrix=matrix,
        vector=-arithmetic.exact(side.operand_mean[None], matrix)[0] - constant[0],
    )


@dataclasses.dataclass(frozen=True)
class Junction:
    """What is one operation: which of the parts there are, and their constants.

    Attributes:
        recomputes: the input is `relu(x * scale + shift)` of what is passed.
        activates: ReLU at the end.
        epsilons, replicas: of the normalization, and of the projection's where there is one.
        strides: of the projection, along each axis between the first and the last.
        adds: a shortcut is added: the second input, projected where there are two epsilons.
        drops: a factor for each example multiplies the branch.
    """

    recomputes: bool
    activates: bool
    adds: bool
    drops: bool
    epsilons: tuple[float, ...]
    replicas: tuple[Any, ...]
    strides: tuple[int, ...] = ()


def joined(
    arithmetic: Any, what: Junction, arguments: dict[str, Any], run: type["Run"]
) -> tuple[Any, list[tuple]]:
    """Computes the operation.

    Args:
        arithmetic: `jax_arithmetic` or `tensorflow_arithmetic`.
        what: see `Junction`.
        arguments: `x`, [..., C]; `scale`, `shift` and `center` where it is recomputed; `kernel`,
            [C, D], `gamma`, `beta`; `factors`; `shortcut`, [..., D] or [..., E] with
            `shortcut_kernel`, [E, D], `shortcut_gamma`, `shortcut_beta`.
        run: what computes: `Run` or a class derived from it.

    Returns:
        The output, [..., D], and mean and variance of what was normalized, the projection's second;
        no gradient flows through these.
    """
    names = list(arguments)

    def computed(*values: Any) -> tuple[Any, Any]:
        given = dict(zip(names, values, strict=True))
        computation = run(arithmetic, what, given)
        output = computation.forward()

        def gradient(*upstream: Any) -> tuple[Any, ...]:
            by = computation.backward(_first(upstream))
            return tuple(by.get(name, _nothing(given[name])) for name in names)

        statistics = [(side.mean, side.variance) for side in computation.sides]
        return (output, *(vector for pair in statistics for vector in pair)), gradient

    output, *statistics = arithmetic.custom_gradient(computed)(*arguments.values())
    statistics = [ops.stop_gradient(vector) for vector in statistics]
    return output, list(zip(statistics[::2], statistics[1::2], strict=True))


class Run:
    """One computation, forward and then backward."""

    def __init__(self, arithmetic: Any, what: Junction, given: dict[str, Any]):
        self.arithmetic, self.what, self.given = arithmetic, what, given
        self.sides: list[Side] = []

    def forward(self) -> Any:
        what, given = self.what, self.given
        dtype = given["x"].dtype
        z = self._normalized(self._operand(), "", 0)
        if what.drops:
            z = z * self._factors("float32")
        if self.projected:
            z = z + self._normalized(self._shortcut_operand(), "shortcut_", 1)
        elif what.adds:
            z = z + ops.cast(given["shortcut"], "float32")
        self.output = ops.cast(ops.maximum(z, 0.0) if what.activates else z, dtype)
        return self.output

    def backward(self, upstream: Any) -> dict[str, Any]:
        what, arithmetic = self.what, self.arithmetic
        dtype = self.given["x"].dtype
        if what.activates:
            upstream = self._before_relu(upstream)
        branch = upstream * self._factors(dtype) if what.drops else upstream
        by_beta = arithmetic.plain_sums(branch)
        rows = self._operand().rows
        main = self._gradients(rows, branch, by_beta, "", 0)
        by = {"gamma": main.gamma, "beta": by_beta, "kernel": main.kernel}
        if self.projected:
            by_shortcut_beta = arithmetic.plain_sums(upstream) if what.drops else by_beta
            source = self._shortcut_operand().rows
            other = self._gradients(source, upstream, by_shortcut_beta, "shortcut_", 1)
            by["shortcut_gamma"], by["shortcut_beta"] = other.gamma, by_shortcut_beta
            by["shortcut_kernel"] = other.kernel
            through, through_shortcut = self._through(branch, upstream, main, other)
            by_source = self._by_operand(source, through_shortcut, other)
            by["shortcut"] = arithmetic.spread(by_source, what.strides, self.given["shortcut"])
        else:
            through = arithmetic.product(branch, main.factor)
            if what.adds:
                by["shortcut"] = upstream
        return by | self._by_x(self._by_operand(rows, through, main))

    @property
    def projected(self) -> bool:
        return len(self.what.epsilons) > 1

    def _operand(self) -> Operand:
        given = self.given
        if not self.what.recomputes:
            return _as_it_is(lambda: given["x"])
        x, center = ops.cast(given["x"], "float32"), given["center"]
        # relu(x * scale + shift) - center, in as many operations as without the center.
        wide = ops.maximum(x * given["scale"] + (given["shift"] - center), -center)
        return Operand(ops.cast(wide, given["x"].dtype), center, again=None)

    def _shortcut_operand(self) -> Operand:
        shortcut, strides = self.given["shortcut"], self.what.strides
        return _as_it_is(lambda: pick_pixels(shortcut, strides, "channels_last"))

    def _normalized(self, operand: Operand, name: str, index: int) -> Any:
        kernel, gamma, beta = (self.given[name + part] for part in ("kernel", "gamma", "beta"))
        epsilon, replicas = self.what.epsilons[index], self.what.replicas[index]
        side = side_of(self.arithmetic, operand, kernel, gamma, beta, epsilon, replicas)
        self.sides.append(side)
        raw = self.arithmetic.product(operand.rows, side.weights)
        return ops.cast(raw, "float32") * side.scale + side.shift

    def _before_relu(self, upstream: Any) -> Any:
        return ops.where(self.output > 0, upstream, ops.zeros((), upstream.dtype))

    def _gradients(self, rows: Any, upstream: Any, by_beta: Any, name: str, index: int):
        gamma, replicas = self.given[name + "gamma"], self.what.replicas[index]
        side = self.sides[index]
        return _gradients_of(self.arithmetic, side, rows, upstream, by_beta, gamma, replicas)

    def _through(self, branch: Any, upstream: Any, main: _Gradients, other: _Gradients) -> tuple:
        """What comes through both kernels, as one convolution where it is of one gradient."""
        product = self.arithmetic.product
        if self.what.drops:
            return product(branch, main.factor), product(upstream, other.factor)
        both = product(upstream, ops.concatenate([main.factor, other.factor], 1))
        channels = main.factor.shape[1]
        return both[..., :channels], both[..., channels:]

    def _factors(self, dtype: Any) -> Any:
        return ops.cast(self.given["factors"], dtype)

    def _by_operand(self, rows: Any, through: Any, gradients: _Gradients) -> Any:
        own = self.arithmetic.product(rows, gradients.matrix)
        wide = ops.cast(through, "float32") + ops.cast(own, "float32") + gradients.vector
        return ops.cast(wide, rows.dtype)

    def _by_x(self, by_rows: Any) -> dict[str, Any]:
        if not self.what.recomputes:
            return {"x": by_rows}
        x, scale, shift = (self.given[name] for name in ("x", "scale", "shift"))
        wide = ops.cast(x, "float32")
        zero = ops.zeros((), by_rows.dtype)
        masked = ops.cast(ops.where(wide * scale + shift > 0, by_rows, zero), "float32")
        return {
            "x": ops.cast(masked * scale, x.dtype),
            "scale": self.arithmetic.plain_sums(masked * wide),
            "shift": self.arithmetic.plain_sums(masked),
        }


def _as_it_is(make_rows: Callable[[], Any]) -> Operand:
    rows = make_rows()
    return Operand(rows, ops.zeros((rows.shape[-1],), "float32"), again=make_rows)


def _outer(a: Any, b: Any) -> Any:
    return a[:, None] * b[None, :]


def _nothing(value: Any) -> Any:
    return ops.zeros_like(value)


def _first(upstream: Sequence[Any]) -> Any:
    """The gradient of the output: JAX gives a tuple of all, TensorFlow one argument for each."""
    return upstream[0][0] if isinstance(upstream[0], (tuple, list)) else upstream[0]
