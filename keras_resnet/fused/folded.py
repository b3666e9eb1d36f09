"""`gram.py`'s operation for CPUs with oneDNN: the scale goes into the kernel.

There nothing but a convolution takes what follows into itself, and only a vector, a sum and ReLU,
in this order. So gamma r goes into the kernel, W' = W gamma r, and the shift into the vector:
convolution, normalization, sum and ReLU are then one call, which writes nothing but the output.
Its input is stored, less a vector near its mean: recomputing it would be a pass of its own, and so
near zero neither the Gram matrix nor the shift needs more digits than bfloat16 has.
"""

from typing import Any

from keras import ops

from keras_resnet.fused.gram import Operand, Run, side_of
from keras_resnet.layers.subsampling_conv import pick_pixels


class FoldedRun(Run):
    """One computation, forward and then backward; of `arithmetic` it needs `OneDnnArithmetic`'s."""

    def forward(self) -> Any:
        what, given, arithmetic = self.what, self.given, self.arithmetic
        self.operands = [self._near_zero(given["x"], 0)]
        shortcut = given.get("shortcut")
        z, shift = self._folded("", 0)
        if self.projected:
            picked = pick_pixels(shortcut, what.strides, "channels_last")
            self.operands.append(self._near_zero(picked, 1))
            shortcut, by_projection = self._folded("shortcut_", 1)
            if what.drops:
                shortcut = arithmetic.plus_vector(shortcut, by_projection)
            else:
                shift = shift + by_projection
        z = arithmetic.plus_vector(z, shift)
        if what.drops:
            z = z * self._factors(z.dtype)
        if what.adds:
            z = z + shortcut
        self.output = ops.relu(z) if what.activates else z
        return self.output

    def _folded(self, name: str, index: int) -> tuple[Any, Any]:
        """Product with the folded kernel, and what is missing to the normalized output."""
        kernel, gamma, beta = (self.given[name + part] for part in ("kernel", "gamma", "beta"))
        epsilon, replicas = self.what.epsilons[index], self.what.replicas[index]
        operand = self.operands[index]
        side = side_of(self.arithmetic, operand, kernel, gamma, beta, epsilon, replicas)
        self.sides.append(side)
        folded = ops.cast(side.weights * side.scale, operand.rows.dtype)
        # By the kernel as it was rounded, so that the mean of the output is beta all the same.
        mean = self.arithmetic.exact(side.operand_mean[None], ops.cast(folded, "float32"))[0]
        return self.arithmetic.product(operand.rows, folded), beta - mean

    def _operand(self) -> Operand:
        return self.operands[0]

    def _shortcut_operand(self) -> Operand:
        return self.operands[1]

    def _before_relu(self, upstream: Any) -> Any:
        return self.arithmetic.behind_relu(self.output, upstream)

    def _through(self, branch: Any, upstream: Any, main: Any, other: Any) -> tuple:
        # Two halves of one product would have to be copied apart.
        product = self.arithmetic.product
        return product(branch, main.factor), product(upstream, other.factor)

    def _by_operand(self, rows: Any, through: Any, gradients: Any) -> Any:
        own = self.arithmetic.product(rows, gradients.matrix)
        return self.arithmetic.plus_vector(own, gradients.vector) + through

    def _near_zero(self, x: Any, index: int) -> Operand:
        center = self.arithmetic.near_mean(x, self.what.replicas[index])
        return Operand(x - center, ops.cast(center, "float32"), again=None)
