"""Whether a file's network is connected as the model is."""

from collections.abc import Iterable, Mapping

import keras

from keras_resnet.weights.checkpoint import Checkpoint
from keras_resnet.weights.keras_graph import graph_of, sources
from keras_resnet.weights.written_layers import Layers


class Wiring:
    """A file's network beside the model, as far as the file says how it is connected."""

    def __init__(self, model: keras.Model, checkpoint: Checkpoint, theirs: Layers):
        self._theirs = checkpoint.graph
        self._sources = sources(self._theirs, theirs) if self._theirs else {}
        self._ours = graph_of(model.get_config()) if self._sources else {}

    def difference(self, places: Mapping[str, str]) -> str | None:
        """The first layer that is connected otherwise or has another stride; None if all agree.

        Args:
            places: the file's layer for each of ours.
        """
        own = sources(self._ours, places) if self._sources else {}
        for layer, taken in own.items():
            there = places[layer]
            expected = {places[source] for source in taken}
            if expected != self._sources[there]:
                return (
                    f"as {layer!r}, {there!r} would take what {_names(expected)} give, and there "
                    f"it takes what {_names(self._sources[there])} give"
                )
            here, strides = self._ours[layer].strides, self._theirs[there].strides
            if here != strides:
                return (
                    f"{layer!r} has {_strides(here)}, {there!r} there has {_strides(strides)} "
                    "(stride_in_1x1, stage_stride and stem_stride change that)"
                )
        return None


def _names(layers: Iterable[str]) -> str:
    return " and ".join(map(repr, sorted(layers))) or "the input"


def _strides(strides: tuple[int, ...]) -> str:
    return f"the strides {strides}" if strides else "no stride"
