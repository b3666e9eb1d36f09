"""Which network a file may hold, by the shapes of its arrays."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

from keras_resnet.architectures import ARCHITECTURES, Architecture
from keras_resnet.blocks.shortcuts import ZERO_SHORTCUTS
from keras_resnet.weights import schemes
from keras_resnet.weights.checkpoint import Checkpoint
from keras_resnet.weights.written_layers import Shape, kind_of, layers_of_file

_NAMED = 3


@dataclasses.dataclass(frozen=True)
class _Shapes:
    """What tells networks apart.

    Attributes:
        stem: size and number of filters of the first kernel.
        spatial: input and output channels of all other kernels larger than one pixel; those of
            groups have the input channels of one.
        pointwise: the number of those of one pixel, as matrices or as convolutions.
        normalizations: their number.
        biases: whether convolutions have some.
    """

    stem: tuple[int, int]
    spatial: Counter[tuple[int, int]]
    pointwise: int
    normalizations: int
    biases: bool

    def likeness(self, other: "_Shapes") -> int:
        """The number of lesser figures that agree; -1 for another network altogether."""
        if (self.stem, self.spatial) != (other.stem, other.spatial):
            return -1
        return sum(
            getattr(self, name) == getattr(other, name)
            for name in ("pointwise", "normalizations", "biases")
        )


def likely_networks(checkpoint: Checkpoint) -> list[str]:
    """The networks whose shapes are most like those of a file, up to three; none if none fits."""
    there = _of_file(checkpoint)
    if there is None:
        return []
    likeness = {row.name: _of_row(row).likeness(there) for row in _rows()}
    most = max(likeness.values())
    return [name for name, value in likeness.items() if value == most >= 0][:_NAMED]


def told_by_shapes(
    row: Architecture, checkpoint: Checkpoint, given: Collection[str]
) -> dict[str, Any]:
    """How a row has to be changed to have the shapes of a file; empty if nothing makes it so.

    Args:
        row: a network.
        checkpoint: the file.
        given: fields of the row that stay.
    """
    there = _of_file(checkpoint)
    if there is None or row.block not in ("basic", "bottleneck"):
        return {}
    choices: dict[str, tuple[Any, ...]] = {
        "use_bias": (row.use_bias, not row.use_bias),
        "shortcut": (row.shortcut, "B") if row.shortcut in ZERO_SHORTCUTS else (row.shortcut,),
        "shortcut_norm": (row.shortcut_norm, not row.shortcut_norm),
        "projection": (row.projection, "first"),
    }
    choices = {name: values for name, values in choices.items() if name not in given}
    for values in itertools.product(*choices.values()):
        fields = dict(zip(choices, values, strict=True))
        if _of_row(dataclasses.replace(row, **fields)) == there:
            return {name: value for name, value in fields.items() if value != getattr(row, name)}
    return {}


def advice(checkpoint: Checkpoint) -> str:
    """How to name the network of a file that does not: an example, and why that one."""
    likely = likely_networks(checkpoint)
    name = likely[0] if likely else "ResNet50"
    why = f" The shapes are those of {' or '.join(likely)}." if likely else ""
    return f"name it, such as create_model({name!r}, weights=...) or --model={name}.{why}"


def _rows() -> Iterator[Architecture]:
    # First those that most people mean, for where several have the same shapes.
    return iter(sorted(ARCHITECTURES.values(), key=lambda row: not row.library))


def _of_file(checkpoint: Checkpoint) -> _Shapes | None:
    in_torch = schemes.by_order(checkpoint.arrays).torch_layout
    layers = list(layers_of_file(checkpoint).values())
    kernels = [max(layer.values(), key=len) for layer in layers if kind_of(layer) == "convolution"]

    def filters(shape: Shape) -> tuple[int, int]:  # in, out
        return (shape[1], shape[0]) if in_torch else (shape[-2], shape[-1])

    def size(shape: Shape) -> int:
        return max(shape[2:] if in_torch else shape[:-2])

    if not kernels:
        return None
    first = next((shape for shape in kernels if size(shape) > 1), kernels[0])
    spatial = [shape for shape in kernels if size(shape) > 1 and shape is not first]
    dense = sum(kind_of(layer) == "dense" for layer in layers)
    return _Shapes(
        (size(first), filters(first)[1]),
        Counter(map(filters, spatial)),
        len([shape for shape in kernels if size(shape) == 1]) + dense - dense % 2,
        sum(kind_of(layer) == "normalization" for layer in layers),
        any("bias" in layer for layer in layers if kind_of(layer) == "convolution"),
    )


def _of_row(row: Architecture) -> _Shapes:
    basic, width = row.block == "basic", row.stem_width
    half = width // 2
    extra = {"deep": [(half, half), (half, width)]}
    extra["deep_strided"] = [*extra["deep"], (width, width)]
    spatial = Counter(extra.get(row.stem, []))
    projections = 0
    for depth, filters in zip(row.depths, row.widths, strict=True):
        middle = filters if basic else int(filters * row.base_width / 64) * row.groups
        if basic:
            spatial.update([(width, middle), *[(middle, middle)] * (2 * depth - 1)])
        else:
            spatial.update([(middle // row.groups, middle)] * depth)
        outputs = filters if basic else 4 * filters
        projections += outputs != width or row.projection == "first"
        width = outputs
    if row.shortcut in ZERO_SHORTCUTS or not row.residual:
        projections = 0
    blocks = sum(row.depths)
    stem = {"deep": 3, "deep_strided": 4}.get(row.stem, 1)
    branch = blocks * (2 if basic else 3)
    shortcut_norms = projections if row.shortcut_norm and not row.preactivation else 0
    return _Shapes(
        (7 if row.stem == "imagenet" else 3, row.stem_width if stem == 1 else half),
        spatial,
        (0 if basic else 2 * blocks) + projections + (2 * blocks if row.se_ratio else 0),
        branch + stem + shortcut_norms,  # of v2 the last is at the end, not in the stem
        row.use_bias or bool(row.se_ratio),
    )
