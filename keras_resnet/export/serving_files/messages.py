"""What client.py says to a server over gRPC, and what it is told, without TensorFlow.

The messages are written and read in the format in which they travel,
https://protobuf.dev/programming-guides/encoding. The numbers of fields are those in
tensorflow_serving/apis/{model,predict,get_model_status}.proto and
tensorflow/core/framework/tensor.proto.
"""

import struct

# Of tensorflow.serving.ModelVersionStatus.
STATES = {0: "UNKNOWN", 10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
# Of tensorflow.DataType.
FLOAT, STRING, BOOL = 1, 7, 10
FORMS = {3: "i", 9: "q", BOOL: "?"}


def status_request(model, version):
    """A GetModelStatusRequest."""
    return field(1, model_spec(model, version))


def versions_of(answer):
    """[(version, state, message)] of a GetModelStatusResponse."""
    versions = []
    for _, status in fields(answer):
        found = dict(fields(status))
        message = dict(fields(found.get(3, b""))).get(2, b"")
        versions.append((found.get(1), STATES.get(found.get(2, 0), "UNKNOWN"), as_str(message)))
    return versions


def predict_request(model, version, contents):
    """A PredictRequest with files of images."""
    shape = field(2, number(1, len(contents)))
    strings = b"".join(field(8, content) for content in contents)
    tensor = number(1, STRING) + field(2, shape) + strings
    spec = model_spec(model, version) + field(3, b"serving_default")
    return field(1, spec) + field(2, field(1, b"image_bytes") + field(2, tensor))


def outputs_of(answer, count):
    """Of a PredictResponse: name of the output -> a value or list for each of `count` images."""
    outputs = {}
    for place, value in fields(answer):
        if place == 1:
            entry = dict(fields(value))
            outputs[as_str(entry[1])] = rows_of(entry[2], count)
    return outputs


def model_spec(model, version):
    chosen = b"" if version is None else field(2, number(1, version))
    return field(1, model.encode()) + chosen


def number(place, value):
    return varint(place << 3) + varint(value)


def field(place, content):
    return varint(place << 3 | 2) + varint(len(content)) + content


def varint(value):
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def read_varint(message, place):
    value = shift = 0
    while True:
        value |= (message[place] & 127) << shift
        place, shift = place + 1, shift + 7
        if message[place - 1] < 128:
            return value, place


def fields(message):
    """Yields (number, value): an int, or bytes."""
    place = 0
    while place < len(message):
        tag, place = read_varint(message, place)
        if tag & 7 == 0:
            value, place = read_varint(message, place)
        else:
            size = {1: 8, 5: 4}.get(tag & 7)
            if size is None:
                size, place = read_varint(message, place)
            value, place = message[place : place + size], place + size
        yield tag >> 3, value


def rows_of(tensor, count):
    """A TensorProto of a type that exports answer with, as a list of `count` values or lists."""
    kind, values = 0, []
    for place, value in fields(tensor):
        if place == 1:
            kind = value
        elif place == 8:
            values.append(as_str(value))
        elif place == 5 or (place == 4 and kind == FLOAT):
            numbers = struct.unpack(f"<{len(value) // 4}f", value)
            values += [float(f"{one:.9g}") for one in numbers]  # as many digits as it has
        elif place == 4:
            size = struct.calcsize(FORMS[kind])
            values += struct.unpack(f"<{len(value) // size}{FORMS[kind]}", value)
        elif place in (7, 10, 11):
            at = 0
            while at < len(value):
                one, at = read_varint(value, at)
                one = one - 2**64 if one >= 2**63 else one
                values.append(bool(one) if kind == BOOL else one)
    sizes = [1 for place, value in fields(tensor) if place == 2 for _ in fields(value)]
    if len(sizes) == 1:
        return values
    width = len(values) // count
    return [values[start : start + width] for start in range(0, len(values), width)]


def as_str(content):
    return bytes(content).decode("utf-8", "surrogateescape")
