"""Which network weights are for, as far as their file says it."""

import contextlib
import re
from collections.abc import Collection, Iterator
from typing import Any

import keras

from keras_resnet.architectures import ARCHITECTURES, Architecture
from keras_resnet.architectures.description import fields_of
from keras_resnet.architectures.row import CHANGEABLE
from keras_resnet.blocks.shortcuts import ZERO_SHORTCUTS
from keras_resnet.blocks.stems import POOLED_STEMS
from keras_resnet.layers import PadChannels
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.weights import schemes
from keras_resnet.weights.checkpoint import Checkpoint, WeightsError, note
from keras_resnet.weights.conventions import note_untold, told_by_library
from keras_resnet.weights.naming import Naming, naming_of
from keras_resnet.weights.row_shapes import advice, told_by_shapes
from keras_resnet.weights.timm_networks import TIMM_NETWORKS

FIELDS = CHANGEABLE - {"bottleneck"}  # which is another way to say `block`
# Fields without effect on trained weights: a network keeps its own.
OF_TRAINING = {
    *("dropout_rate", "block_dropout_rate", "drop_path_rate"),
    *("kernel_initializer", "classifier_initializer", "zero_init_last_gamma"),
}
# Fields that say what trained weights mean.
_MEANING = FIELDS - {"classes", *OF_TRAINING, *Preprocessing.names()}
_OTHERWISE_NAMED = (
    "If it is one of them under a name of your own, load the file from a folder without that "
    "config.json and name it, such as --model=ResNet50."
)
_SMALL = 2048  # a number up to this needs no array of such a size: the side of an image


def row_of(checkpoint: Checkpoint) -> Architecture:
    """The network that a file names itself.

    Raises:
        WeightsError: if it names none.
    """
    name = checkpoint.network.get("name") or _by_shapes(checkpoint)
    if name is None:
        reference = checkpoint.architecture
        theirs = (row.name for row in ARCHITECTURES.values() if reference == row.reference != "")
        name = next(theirs, None)
    if name not in ARCHITECTURES and checkpoint.architecture is not None:
        raise WeightsError(
            f"{checkpoint.origin} is of {checkpoint.architecture!r}, as the config.json beside it "
            f"says, and no network here is that. {_OTHERWISE_NAMED}"
        )
    if name not in ARCHITECTURES:
        raise WeightsError(
            f"{checkpoint.origin} does not say which network its weights are for: "
            + advice(checkpoint)
        )
    fields = {key: value for key, value in checkpoint.network.items() if key != "name"}
    return _changed(ARCHITECTURES[name], fields, checkpoint)


def _changed(row: Architecture, told: dict[str, Any], checkpoint: Checkpoint) -> Architecture:
    """A row with what a file says of its network, which then is one that its arrays can fill.

    Raises:
        WeightsError: there is no such network, or it is much larger than what the file holds.
    """
    try:
        changed = row.changed(**told)
        arrays = checkpoint.arrays.values()
        elements = sum(array.size for array in arrays)
        longest = max((size for array in arrays for size in array.shape), default=0)
        groups = changed.groups if changed.block == "basic" else 1
        # Of two convolutions in each block, without their kernels' sizes.
        inside = sum(
            depth * 2 * width * _middle(changed, width) // groups
            for depth, width in zip(changed.depths, changed.widths, strict=True)
        )
        stem = int(checkpoint.channels or 1) * changed.stem_width
        too_large = inside > elements or max(_numbers(told)) > max(longest, _SMALL)
    except (TypeError, ValueError) as error:
        raise WeightsError(
            f"{checkpoint.origin} tells of a network that there cannot be: {error}"
        ) from error
    if (told and too_large) or (checkpoint.channels and stem > elements):
        raise WeightsError(
            f"{checkpoint.origin} tells of a network that is larger than its {elements:,} weights."
        )
    return changed


def _middle(row: Architecture, width: int) -> int:
    """Channels inside of a block."""
    return width if row.block == "basic" else max(width, width * row.base_width // 64 * row.groups)


def _numbers(value: Any) -> Iterator[float]:
    """The numbers in what a file says, and a zero."""
    yield 0
    if isinstance(value, (int, float)):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _numbers(item)


def _by_shapes(checkpoint: Checkpoint) -> str | None:
    """The row of Google's Big Transfer, whose files name no network but have names of their own."""
    naming = naming_of(checkpoint) if checkpoint.match == "names" else None
    if naming is None or naming.scheme is not schemes.GOOGLE_BIT:
        return None
    blocks = {re.match(r"resnet/block(\d)/unit(\d+)/", name) for name in naming.arrays} - {None}
    places = {(int(match[1]), int(match[2])) for match in blocks if match}
    stem = naming.arrays.get("resnet/root_block/standardized_conv2d/kernel")
    stem_width = None if stem is None else stem.shape[-1]
    for row in ARCHITECTURES.values():
        depths = enumerate(row.depths, start=1)
        theirs = {(stage, block) for stage, n in depths for block in range(1, n + 1)}
        if row.weight_standardization and (theirs, row.stem_width) == (places, stem_width):
            return row.name
    return None


def network_for(row: Architecture, checkpoint: Checkpoint, given: Collection[str]) -> Architecture:
    """A row, changed to what a file says of its network; what is changed is said.

    Args:
        row: the network that was asked for.
        checkpoint: the weights for it.
        given: fields of the row that the caller chose himself; they stay.

    Raises:
        WeightsError: if the file is of another network, or cannot tell what it has to.
    """
    check_architecture(checkpoint, row.name)
    named = checkpoint.network.get("name", row.name)
    if named != row.name and row.name in ARCHITECTURES and not _same(row, row_of(checkpoint)):
        raise WeightsError(
            f"The weights in {checkpoint.origin} are of {named}, not of {row.name}: "
            f"create_model({named!r}, weights=...) or create_model(weights=...) takes them, on "
            f"the command line --model={named} or none."
        )
    left_out = {"name", "classes", *OF_TRAINING, *given}
    if row.stem not in POOLED_STEMS:  # a pool of the file's is none of the stem's
        left_out.add("stem_pool_padding")
    told = {
        key: value
        for key, value in checkpoint.network.items()
        if key not in left_out and named == row.name and getattr(row, key) != value
    }
    implied = told_by_library(row, checkpoint)
    told |= {
        key: value
        for key, value in implied.items()
        if key not in {*left_out, *checkpoint.network} and getattr(row, key) != value
    }
    row = _changed(row, told, checkpoint)
    if checkpoint.match == "order" or naming_of(checkpoint) is None:
        by_shapes = told_by_shapes(row, checkpoint, given)
        told, row = by_shapes | told, row.changed(**by_shapes)
    if row.residual and row.shortcut in ZERO_SHORTCUTS and not {"shortcut", "residual"} & {*given}:
        shortcut = _shortcut_of(checkpoint, row.shortcut)
        if shortcut != row.shortcut:
            told["shortcut"] = shortcut
            row = row.changed(shortcut=shortcut)
    if told:
        changes = ", ".join(f"{key}={value!r}" for key, value in told.items())
        note(f"{checkpoint.origin} is of {row.name} with {changes}: so is the model.")
    _note_overruled(row, checkpoint, given)
    note_untold(row, checkpoint, given)
    return row


def _note_overruled(row: Architecture, checkpoint: Checkpoint, given: Collection[str]) -> None:
    """Says where the caller wants another network than the file is known to be of."""
    if checkpoint.network.get("name", row.name) != row.name:
        return
    told = {key: checkpoint.network[key] for key in _MEANING & {*given} & checkpoint.network.keys()}
    if row.residual and row.shortcut in ZERO_SHORTCUTS and "shortcut" in given:
        with contextlib.suppress(WeightsError):  # it cannot tell
            told["shortcut"] = _shortcut_of(checkpoint, row.shortcut)
    for key, value in told.items():
        if (own := getattr(row, key)) != value:
            note(
                f"{checkpoint.origin} seems to be of a network with {key}={value!r}; the model has "
                f"{key}={own!r}, as you say. If the accuracy is far off, leave that out."
            )


def _same(row: Architecture, other: Architecture) -> bool:
    """Whether trained weights of one row mean the same in the other."""
    return all(getattr(row, key) == getattr(other, key) for key in _MEANING)


def check_zero_channels(
    model: keras.Model, checkpoint: Checkpoint, given: Collection[str], label: str
) -> None:
    """Refuses weights that a model's option-A shortcuts would silently spoil.

    Raises:
        WeightsError: if the file was trained with another placement of the zeros, or cannot tell.
    """
    places = {layer.placement for layer in model.layers if isinstance(layer, PadChannels)}
    if not places or "shortcut" in given:
        return
    kind = next(kind for kind, place in ZERO_SHORTCUTS.items() if place in places)
    shortcut = checkpoint.network.get("shortcut") or _shortcut_of(checkpoint, kind)
    if shortcut in ZERO_SHORTCUTS and shortcut != kind:
        raise WeightsError(
            f"{label} has shortcut={kind!r}, the weights in {checkpoint.origin} were trained with "
            f"{shortcut!r}: build the model with shortcut={shortcut!r} "
            f"(--config.model.shortcut={shortcut} for a run). The model is unchanged."
        )


def check_antialias(
    model: keras.Model, checkpoint: Checkpoint, given: Collection[str], label: str
) -> None:
    """Refuses weights that were trained with another `antialias`, which has no variables.

    Raises:
        WeightsError: if the file says so.
    """
    described = fields_of(getattr(model, "architecture", None))
    told, name = checkpoint.network, checkpoint.network.get("name")
    if not described or "antialias" in given or name not in ARCHITECTURES:
        return
    own = described.get("antialias", ARCHITECTURES[described["name"]].antialias)
    theirs = told.get("antialias", ARCHITECTURES[name].antialias)
    if own != theirs:
        raise WeightsError(
            f"{label} has antialias={own!r}, the weights in {checkpoint.origin} were trained with "
            f"{theirs!r}: build the model with antialias={theirs!r} "
            f"(--config.model.antialias={theirs} for a run). The model is unchanged."
        )


def check_architecture(checkpoint: Checkpoint, variant: str) -> None:
    """Networks that differ in what has no parameters (a blur pool, say) have the same names.

    Raises:
        WeightsError: if the file names another network of timm's or torchvision's.
    """
    if checkpoint.architecture is None or checkpoint.architecture in TIMM_NETWORKS:
        return  # or `checkpoint.network` says which
    known = {
        row.reference: name
        for name, row in ARCHITECTURES.items()
        if row.library in ("timm", "torchvision")
    }
    expected = next((theirs for theirs, ours in known.items() if ours == variant), None)
    if expected is None or checkpoint.architecture == expected:
        return
    theirs = known.get(checkpoint.architecture)
    advice = f"create_model({theirs!r}) takes them" if theirs else "no variant here is that"
    raise WeightsError(
        f"The weights in {checkpoint.origin} are of {checkpoint.architecture!r}, {variant} is "
        f"{expected!r}: {advice}.{'' if theirs else f' {_OTHERWISE_NAMED}'}"
    )


def _shortcut_of(checkpoint: Checkpoint, own: str) -> str:
    """The kind of shortcut that weights for an option-A network were trained with."""
    naming = naming_of(checkpoint)
    if naming is not None:
        kinds = [name for name in naming.arrays if re.search(naming.scheme.shortcut, name)]
        if kinds:
            return "D" if _pools_first(naming) else "B"
        if naming.scheme is schemes.OURS:
            return checkpoint.network.get("shortcut", "A")  # stored with the weights
        if naming.scheme in (schemes.KERAS_APPLICATIONS, schemes.KERAS_HUB):
            return own  # the names will not fit
        if naming.head == "linear":
            return "A-centered"
    elif checkpoint.match == "names":
        return own  # the names will not fit
    raise WeightsError(
        f"{checkpoint.origin} has no parameters of shortcuts and cannot tell where its network put "
        "the zero channels of option A: say so with shortcut= or --shortcut=, 'A' (all behind: the "
        "paper's authors), 'A-centered' (half in front: most PyTorch code, x[:, :, ::2, ::2] and "
        "F.pad) or 'A-pooled' (the same after an average pool). If the accuracy is far off, it was "
        "another one."
    )


def _pools_first(naming: Naming) -> bool:
    # An average pool without parameters is counted: the convolution is the second.
    return any(
        array.ndim > 2 and re.search(r"\.downsample\.1\.weight$", name)
        for name, array in naming.arrays.items()
    )
