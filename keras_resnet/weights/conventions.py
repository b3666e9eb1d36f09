"""What names and shapes of weights do not tell: a library's own way, or a line that says so."""

from collections.abc import Collection
from typing import Any

from keras_resnet.architectures import ARCHITECTURES, Architecture
from keras_resnet.weights import schemes
from keras_resnet.weights.checkpoint import Checkpoint, note
from keras_resnet.weights.naming import naming_of
from keras_resnet.weights.written_layers import layers_of_file

# The rows whose library has one way for all networks that its names are of.
_KERAS_V1, _KERAS_V2, _TIMM_V2 = "ResNet50V1", "ResNet50V2", "ResNet18V2"
_BY_LIBRARY = (
    *("stride_in_1x1", "stride_in_last_block", "preact_first_shortcut"),
    *("use_bias", "zero_pad_pool", "epsilon"),
)
_KERAS_EPSILON = 0.001
# Files of weights alone under these names come from any network.
_OF_ANYBODY = (schemes.OURS, schemes.KERAS_HUB)


def told_by_library(row: Architecture, checkpoint: Checkpoint) -> dict[str, Any]:
    """Fields of `Architecture` that the names in a file imply, whatever row was asked for.

    Strides, the pool's padding and epsilon are the same in all of keras.applications' networks of
    a generation, and in all of timm's ResNetV2 but Big Transfer.
    """
    naming = naming_of(checkpoint) if checkpoint.match == "names" else None
    if naming is None:
        return {}
    if naming.scheme is schemes.KERAS_APPLICATIONS:
        # Networks of others under these names do without its biases, or say their settings.
        if "conv1_conv/bias" not in naming.arrays or checkpoint.graph or row.block != "bottleneck":
            return {}
        preactivation = any(name.startswith("post_bn/") for name in naming.arrays)
        theirs = ARCHITECTURES[_KERAS_V2 if preactivation else _KERAS_V1]
    elif naming.scheme is schemes.TIMM_V2 and not row.weight_standardization:
        theirs = ARCHITECTURES[_TIMM_V2]
    else:
        return {}
    if row.preactivation != theirs.preactivation:
        return {}  # the names will not fit
    return {key: getattr(theirs, key) for key in _BY_LIBRARY}


def note_untold(row: Architecture, checkpoint: Checkpoint, given: Collection[str]) -> None:
    """Says what a file leaves open that has a network's weights alone, and what was taken.

    Args:
        row: the network as it is built.
        checkpoint: the file.
        given: fields of the row that the caller chose himself.
    """
    if "name" in checkpoint.network or not _has_weights_alone(checkpoint):
        return
    matters = {
        "stride_in_1x1": row.block == "bottleneck",
        "stride_in_last_block": row.preactivation,
        "padding": True,
        "epsilon": True,
    }
    untold = [key for key, does in matters.items() if does and key not in given]
    if not untold:
        return
    taken = ", ".join(f"{key}={getattr(row, key)!r}" for key in untold)
    others = {
        **{key: str(not getattr(row, key)).lower() for key in untold},
        "padding": "symmetric" if row.padding == "same" else "same",
        "epsilon": "1e-5" if row.epsilon == _KERAS_EPSILON else str(_KERAS_EPSILON),
    }
    flags = ", ".join(f"--{key}={others[key]}" for key in untold)
    note(
        f"{checkpoint.origin} does not say all of its network: taken are {taken}, as in "
        f"{row.name}. If it was trained otherwise, say so: {flags}, or in Python the arguments of "
        "these names (padding='same' and epsilon=0.001 are Keras' own). The .keras file of a model "
        "without layers of one's own says all of it."
    )


def _has_weights_alone(checkpoint: Checkpoint) -> bool:
    """Whether it is one of Keras' files that has no layers' settings, or not all of them."""
    if schemes.by_order(checkpoint.arrays).torch_layout:
        return False
    if checkpoint.match == "order":
        return not layers_of_file(checkpoint).keys() <= checkpoint.graph.keys()
    naming = naming_of(checkpoint)
    return naming is not None and naming.scheme in _OF_ANYBODY and not checkpoint.graph
