"""The oldest TensorFlow that can run a SavedModel, told by the operations in its graph.

A server refuses a graph with an operation, or an attribute of one, that its TensorFlow does not
know. What each version brought is read from the C API of the wheels tensorflow-cpu 2.15.1, 2.16.2,
2.17.1, 2.18.1, 2.19.1, 2.20.0 and 2.21.0 (`TF_GetAllOpList`); operations of TPUs and those that
TensorFlow alone puts into graphs are left out.
"""

import dataclasses
import mmap
import re
from collections.abc import Iterator
from pathlib import Path

from keras_resnet.errors import UsageError, UserError
from keras_resnet.export.wire import Message, as_bytes, as_text, fields, map_entry

Version = tuple[int, int]

# The oldest version whose operations were looked at.
OLDEST: Version = (2, 15)
_SCATTER = [
    *(f"ResourceScatterNd{kind}" for kind in ("Add", "Max", "Min", "Sub", "Update")),
    *(f"ScatterNd{kind}" for kind in ("", "Add", "Max", "Min", "NonAliasingAdd", "Sub", "Update")),
    *(f"TensorScatter{kind}" for kind in ("Add", "Max", "Min", "Sub", "Update")),
]
# Operation or operation.attribute -> the version that brought it.
SINCE: dict[str, Version] = {
    "ConvertToCooTensor": (2, 16),
    "DatasetFingerprint": (2, 16),
    "ListSnapshotChunksDataset": (2, 16),
    **{
        f"{name}.grad_{side}": (2, 16)
        for name, sides in (
            ("MatMul", "ab"),
            ("BatchMatMul", "xy"),
            ("BatchMatMulV2", "xy"),
            ("BatchMatMulV3", "xy"),
        )
        for side in sides
    },
    "CalibrationStatisticsSaver": (2, 17),
    "GlobalShuffleDataset": (2, 17),
    "IndexFlatMapDataset": (2, 17),
    "IteratorGetModelProto": (2, 17),
    "WeightedFlatMapDataset": (2, 17),
    "BatchFunction.mixed_priority_policy": (2, 17),
    "CustomAggregator.num_bins": (2, 17),
    "GatherNd.bad_indices_policy": (2, 17),
    "CheckPinned": (2, 18),
    "BatchFunction.batch_padding_policy": (2, 18),
    "ExperimentalMapDataset.force_synchronous": (2, 18),
    "MapDataset.force_synchronous": (2, 18),
    "ParallelMapDatasetV2.use_unbounded_threadpool": (2, 18),
    **dict.fromkeys((f"{name}.bad_indices_policy" for name in _SCATTER), (2, 18)),
    "DecodeWebP": (2, 20),
    "XlaCallModule.use_shardy_partitioner": (2, 20),
    "DecodeJxl": (2, 21),
    "TensorListGetItem.Tshape": (2, 21),
}


@dataclasses.dataclass(frozen=True)
class Runtime:
    """What a graph needs.

    Attributes:
        version: the oldest TensorFlow that knows all of it; not older than `OLDEST`.
        because: the operations, or operation.attribute, that ask for that version.
    """

    version: Version
    because: tuple[str, ...]

    def __str__(self) -> str:
        """As "TensorFlow 2.20 or newer (DecodeWebP)"."""
        reason = f" ({', '.join(self.because)})" if self.because else ""
        return f"TensorFlow {to_text(self.version)} or newer{reason}"

    def check(self, version: Version) -> None:
        """Raises UserError if a server of `version` refuses the graph."""
        if version < OLDEST:
            raise UserError(
                f"what TensorFlow {to_text(version)} knows is not listed here (from "
                f"{to_text(OLDEST)} on it is): run the check in it, verify-export --tensorflow=DIR"
            )
        if version < self.version:
            webp = "DecodeWebP" in self.because
            without = "export it again without --webp, or " if webp else ""
            raise UserError(
                f"it needs {self}, and one of {to_text(version)} refuses it: {without}serve it "
                "with a newer one"
            )


def to_text(version: Version) -> str:
    """As "2.15"."""
    return ".".join(map(str, version))


def parse_version(text: str) -> Version:
    """(2, 15) of "2.15", "2.15.1" or "2.15.0-rc1"; raises UsageError for anything else."""
    found = re.fullmatch(r"([0-9]{1,3})\.([0-9]{1,3})(\.[0-9]\S*)?", text)
    if found is None:
        raise UsageError(f"--runtime={text!r} is no version of TensorFlow such as 2.15 or 2.19.1")
    return int(found[1]), int(found[2])


def runtime_of(folder: Path) -> Runtime:
    """What the graph of a SavedModel needs.

    Args:
        folder: holds saved_model.pb.

    Raises:
        UserError: the file cannot be read, or is no SavedModel.
    """
    path = folder / "saved_model.pb"
    try:
        with open(path, "rb") as file:
            # Closed with the last view of it, as a map cannot be while there is one.
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        found = frozenset(_named(data))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    newer = {name: SINCE[name] for name in found & SINCE.keys()}
    version = max(newer.values(), default=OLDEST)
    return Runtime(version, tuple(sorted(name for name in newer if newer[name] == version)))


def _named(saved_model: Message) -> Iterator[str]:
    """Each operation, and operation.attribute, in the graph and its functions."""
    for meta_graph in _parts(saved_model, 2):
        for graph in _parts(meta_graph, 2):
            yield from _of_nodes(_parts(graph, 1))
            for library in _parts(graph, 2):
                for function in _parts(library, 1):
                    yield from _of_nodes(_parts(function, 3))


def _of_nodes(nodes: Iterator[Message]) -> Iterator[str]:
    for node in nodes:
        operation = next(as_text(value) for number, value in fields(node) if number == 2)
        yield operation
        for attribute in _parts(node, 5):
            yield f"{operation}.{map_entry(attribute)[0]}"


def _parts(message: Message, number: int) -> Iterator[Message]:
    return (as_bytes(value) for found, value in fields(message) if found == number)
