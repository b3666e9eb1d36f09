"""Protocol buffers on the wire, as far as serving needs them, without TensorFlow.

`verify-export` reads signatures and requests in a process that must not import TensorFlow, whose
Python package alone brings these messages; TF Serving's own are in a package that cannot be
installed beside every TensorFlow. The format: https://protobuf.dev/programming-guides/encoding.
Field numbers are those of tensorflow/core/framework/{tensor,tensor_shape}.proto,
tensorflow/core/protobuf/meta_graph.proto and tensorflow_serving/apis/{model,predict,
prediction_log}.proto.
"""

from collections.abc import Iterator
from typing import TypedDict

import numpy as np

from keras_resnet.errors import UserError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

# tensorflow/core/framework/types.proto
DTYPES = {1: "float32", 2: "float64", 3: "int32", 4: "uint8", 7: "string", 9: "int64", 10: "bool"}
NUMBERS = {name: number for number, name in DTYPES.items()}

Message = bytes | memoryview
EMPTY = memoryview(b"")
Value = int | memoryview


class TensorInfo(TypedDict):
    """An input or output of a signature; None in the shape is an open size."""

    name: str
    dtype: str
    shape: list[int | None]


class Signature(TypedDict):
    """The inputs and outputs of a signature by their names."""

    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]


def fields(message: Message) -> Iterator[tuple[int, Value]]:
    """Yields (field number, value) of every field; lengths and messages come as memoryviews.

    Raises:
        UserError: the message is cut off or no protocol buffer.
    """
    for number, value, _ in whole_fields(message):
        yield number, value


def whole_fields(message: Message) -> Iterator[tuple[int, Value, memoryview]]:
    """As `fields`, with all bytes of the field, its number and length among them."""
    view, place = memoryview(message), 0
    value: Value
    try:
        while place < len(view):
            start = place
            tag, place = _varint(view, place)
            number, kind = tag >> 3, tag & 7
            if kind == VARINT:
                value, place = _varint(view, place)
            elif kind == BYTES:
                size, place = _varint(view, place)
                value, place = view[place : place + size], place + size
            elif kind in (FIXED32, FIXED64):
                size = 4 if kind == FIXED32 else 8
                value, place = view[place : place + size], place + size
            else:
                raise IndexError
            if place > len(view):
                raise IndexError
            yield number, value, view[start:place]
    except IndexError as error:
        raise UserError(f"a protocol buffer of {len(view):,} bytes is damaged") from error


def _varint(view: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7


def _varints(packed: memoryview) -> list[int]:
    values, place = [], 0
    while place < len(packed):
        value, place = _varint(packed, place)
        values.append(value)
    return values


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def as_int(value: Value) -> int:
    """The value of a varint field.

    Raises:
        UserError: it is the value of another kind of field.
    """
    if not isinstance(value, int):
        raise UserError("a protocol buffer is damaged: a message stands where a number should be")
    return value


def as_bytes(value: Value) -> memoryview:
    """The value of a field of bytes, a string or a message.

    Raises:
        UserError: it is the value of another kind of field.
    """
    if isinstance(value, int):
        raise UserError("a protocol buffer is damaged: a number stands where a message should be")
    return value


def as_text(value: Value) -> str:
    """The value of a field that holds a string; errors as `as_bytes`."""
    return bytes(as_bytes(value)).decode()


def field(number: int, value: int | bytes | str) -> bytes:
    """One encoded field: a varint, or bytes (a string, a message)."""
    if isinstance(value, int):
        return _encode_varint(number << 3 | VARINT) + _encode_varint(value)
    value = value.encode() if isinstance(value, str) else value
    return head(number, len(value)) + value


def head(number: int, size: int) -> bytes:
    """What stands before the `size` bytes of a field of bytes, a string or a message."""
    return _encode_varint(number << 3 | BYTES) + _encode_varint(size)


def signed(value: int) -> int:
    """A varint as the int64 it stands for."""
    return value - 2**64 if value >= 2**63 else value


def encode_tensor(array: np.ndarray) -> bytes:
    """A TensorProto of an array of numbers, or of an object array of bytes.

    An array that holds one number throughout is written as that number alone.
    """
    is_string = array.dtype == object
    dims = b"".join(field(2, field(1, size)) for size in array.shape)
    head = field(1, NUMBERS["string" if is_string else array.dtype.name]) + field(2, dims)
    if is_string:
        return head + b"".join(field(8, value) for value in array.ravel())
    if array.size > 1 and (array == array.flat[0]).all():
        if array.dtype == np.float32:
            return head + field(5, array.flat[0].tobytes())  # float_val, packed
        if array.dtype == np.uint8:
            return head + field(7, _encode_varint(int(array.flat[0])))  # int_val, packed
    return head + field(4, array.tobytes())


def decode_tensor(message: Message) -> np.ndarray:
    """The array in a TensorProto; strings come as an object array of bytes.

    Raises:
        UserError: the message is damaged or of a type that no signature here takes.
    """
    dtype: str | None = None
    shape: list[int] = []
    strings: list[bytes] = []
    content = b""
    numbers: list[float] = []
    for number, value in fields(message):
        if number == 1:
            dtype = DTYPES.get(as_int(value))
        elif number == 2:
            shape = [size or 0 for size in _shape(as_bytes(value))]
        elif number == 4:
            content = bytes(as_bytes(value))
        elif number == 5:
            numbers.extend(np.frombuffer(as_bytes(value), np.float32))
        elif number == 7:
            numbers.extend(_varints(as_bytes(value)))
        elif number == 8:
            strings.append(bytes(as_bytes(value)))
    if dtype is None:
        raise UserError("a tensor has a type that no signature takes")
    if dtype == "string":
        return _object_array(strings, shape)
    values = np.frombuffer(content, dtype) if content else np.array(numbers, dtype)
    try:
        return np.broadcast_to(values, shape) if values.size == 1 else values.reshape(shape)
    except ValueError as error:
        raise UserError(f"a tensor of shape {shape} holds {values.size} values") from error


def _shape(message: Message) -> list[int | None]:
    """Sizes of a TensorShapeProto, None where one is open."""
    sizes: list[int | None] = []
    for number, dim in fields(message):
        if number == 2:
            size = signed(as_int(dict(fields(as_bytes(dim))).get(1, 0)))
            sizes.append(None if size < 0 else size)
    return sizes


def _object_array(strings: list[bytes], shape: list[int]) -> np.ndarray:
    array = np.empty(len(strings), object)
    array[:] = strings
    return array.reshape(shape)


def tensor_info(message: Message) -> TensorInfo:
    """What a TensorInfo message says."""
    found = dict(fields(message))
    dtype = as_int(found.get(2, 0))
    return {
        "name": as_text(found.get(1, EMPTY)),
        "dtype": DTYPES.get(dtype, f"type {dtype}"),
        "shape": _shape(as_bytes(found.get(3, EMPTY))),
    }


def signatures(meta_graph: Message) -> dict[str, Signature]:
    """The signatures of a MetaGraphDef by name."""
    found: dict[str, Signature] = {}
    for number, value in fields(meta_graph):
        if number != 5:
            continue
        name, definition = map_entry(as_bytes(value))
        signature: Signature = {"inputs": {}, "outputs": {}}
        for part, entry in fields(definition):
            if part in (1, 2):
                key, info = map_entry(as_bytes(entry))
                signature["inputs" if part == 1 else "outputs"][key] = tensor_info(info)
        found[name] = signature
    return dict(sorted(found.items()))


def map_entry(message: Message) -> tuple[str, memoryview]:
    """(key, value) of an entry of a map<string, message>."""
    found = dict(fields(message))
    return as_text(found.get(1, EMPTY)), as_bytes(found.get(2, EMPTY))
