"""The norm of the gradient of each block: which variable is of which, and the sums.

On any backend of Keras.
"""

import re
from collections.abc import Sequence
from typing import Any

from keras import ops

STEM, HEAD = "stem", "head"
_BLOCK = re.compile(r"(?:^|/)(stage\d+_block\d+)_")  # layer names are API
_STEM = re.compile(r"(?:^|/)stem_")


def block_of(path: str) -> str:
    """Returns the block that a variable belongs to, by its path: stem, stage1_block1, …, head."""
    if found := _BLOCK.search(path):
        return found[1]
    return STEM if _STEM.search(path) else HEAD


def block_names(blocks: Sequence[str]) -> list[str]:
    """Returns each of `blocks` once, in their order: from the image to the classifier."""
    return list(dict.fromkeys(blocks))


def norms_of_blocks(blocks: Sequence[str], gradients: Sequence[Any]) -> Any:
    """Returns the norm of the gradient of each of `block_names(blocks)`, float32.

    Args:
        blocks: that each gradient is of.
        gradients: of the variables.
    """
    squares: dict[str, list] = {name: [] for name in block_names(blocks)}
    for name, gradient in zip(blocks, gradients, strict=True):
        squares[name].append(ops.sum(ops.square(ops.cast(gradient, "float32"))))
    return ops.sqrt(ops.stack([ops.sum(ops.stack(parts)) for parts in squares.values()]))
