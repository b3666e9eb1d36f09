"""Metadata of `.tflite` files, as Android's and MediaPipe's image classifiers read them.

A flatbuffer in the model says which tensor is an image, how its pixels are normalized, and which
file behind the model has the labels of which output. The packages that write it are MediaPipe, with
OpenCV and 200 MB, and tflite-support, whose last release is of 2023; it is a few tables, so they
are written here. Field numbers are those of metadata_schema.fbs
(https://www.tensorflow.org/lite/models/convert/metadata).
"""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from keras_resnet.export.description import MEMBER, Description
from keras_resnet.export.labels import LABELS, label_lines
from keras_resnet.installation import VERSION

_IDENTIFIER = b"M001"
_BUFFER = b"TFLITE_METADATA"
_OLDEST_PARSER = "1.0.0"
_RGB, _AXIS_LABELS = 1, 2
# Members of the unions ContentProperties and ProcessUnitOptions.
_FEATURE, _IMAGE, _NORMALIZATION = 1, 2, 1
_OUTPUTS = {
    "probabilities": "Probability of each class.",
    "logits": "What the probabilities are made of.",
    "unknown": "Whether no class is probable enough to be the answer.",
}
Fields = dict[int, Callable[[], None]]


def describe(content: bytes, description: Description, name: str) -> bytes:
    """A model with metadata in it, and with the probabilities as its first output.

    What reads only the first output, as many applications do, gets probabilities. The input is not
    to be normalized, as the graph does that: mean 0, deviation 1.

    Args:
        content: a `.tflite` file with a signature.
        description: of the network.
        name: of the network.
    """
    model = flatbuffer_utils.convert_bytearray_to_object(content)
    graph = model.subgraphs[0]
    (signature,) = model.signatureDefs
    names = {entry.tensorIndex: entry.name.decode() for entry in signature.outputs}
    graph.outputs = sorted(graph.outputs, key=lambda index: list(_OUTPUTS).index(names[index]))
    outputs = [names[index] for index in graph.outputs]
    entry, buffer = schema.MetadataT(), schema.BufferT()
    entry.name, entry.buffer = _BUFFER, len(model.buffers)
    buffer.data = list(_metadata(description, name, outputs))
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def add_files(path: Path, description: Description) -> None:
    """Puts the labels and a description behind the model in a `.tflite` file, as a zip archive."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(LABELS, label_lines(description.class_names))
        archive.writestr(MEMBER, description.to_json())


def _metadata(description: Description, name: str, outputs: list[str]) -> bytes:
    writer = _Writer()
    size = description.preprocessing.image_size
    pixels = writer.table({0: writer.byte(_RGB), 1: writer.place(writer.sizes(size, size))})
    options = writer.table(
        {0: writer.place(writer.floats(0.0)), 1: writer.place(writer.floats(1.0))}
    )
    unit = writer.table({0: writer.byte(_NORMALIZATION), 1: writer.place(options)})
    values = {0: writer.place(writer.floats(255.0)), 1: writer.place(writer.floats(0.0))}
    image = writer.tensor(
        "images",
        "RGB image, pixels 0 to 255.",
        {
            3: writer.place(writer.table({0: writer.byte(_IMAGE), 1: writer.place(pixels)})),
            4: writer.place(writer.vector([unit])),
            5: writer.place(writer.table(values)),
        },
    )
    described = [_output(writer, output) for output in outputs]
    graph = writer.table(
        {2: writer.place(writer.vector([image])), 3: writer.place(writer.vector(described))}
    )
    model = {
        0: writer.place(writer.text(name)),
        1: writer.place(writer.text(f"Classifier of {len(description.class_names)} classes.")),
        2: writer.place(writer.text(f"keras-resnet {VERSION}")),
        3: writer.place(writer.vector([graph])),
        7: writer.place(writer.text(_OLDEST_PARSER)),
    }
    return writer.finished(writer.table(model))


def _output(writer: "_Writer", name: str) -> int:
    feature = writer.table({})
    fields = {3: writer.place(writer.table({0: writer.byte(_FEATURE), 1: writer.place(feature)}))}
    if name != "unknown":
        labels = {
            0: writer.place(writer.text(LABELS)),
            1: writer.place(writer.text("Name of each class, one a line.")),
            2: writer.byte(_AXIS_LABELS),
        }
        fields[6] = writer.place(writer.vector([writer.table(labels)]))
    return writer.tensor(name, _OUTPUTS[name], fields)


class _Writer:
    """Tables of a flatbuffer: what they hold is written first, its places go into their fields."""

    def __init__(self) -> None:
        self._builder: Any = flatbuffers.Builder(1024)
        self._slot = 0

    def byte(self, value: int) -> Callable[[], None]:
        return lambda: self._builder.PrependInt8Slot(self._slot, value, 0)

    def number(self, value: int) -> Callable[[], None]:
        return lambda: self._builder.PrependUint32Slot(self._slot, value, 0)

    def place(self, offset: int) -> Callable[[], None]:
        return lambda: self._builder.PrependUOffsetTRelativeSlot(self._slot, offset, 0)

    def text(self, value: str) -> int:
        return self._builder.CreateString(value)

    def sizes(self, width: int, height: int) -> int:
        return self.table({0: self.number(width), 1: self.number(height)})

    def floats(self, *values: float) -> int:
        self._builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self._builder.PrependFloat32(value)
        return self._builder.EndVector()

    def vector(self, offsets: list[int]) -> int:
        self._builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self._builder.PrependUOffsetTRelative(offset)
        return self._builder.EndVector()

    def table(self, fields: Fields) -> int:
        """A table; number of a field -> what puts it there."""
        self._builder.StartObject(max(fields, default=-1) + 1)
        for self._slot, put in fields.items():
            put()
        return self._builder.EndObject()

    def tensor(self, name: str, description: str, fields: Fields) -> int:
        said = {0: self.place(self.text(name)), 1: self.place(self.text(description))}
        return self.table({**said, **fields})

    def finished(self, root: int) -> bytes:
        self._builder.Finish(root, file_identifier=_IDENTIFIER)
        return bytes(self._builder.Output())
