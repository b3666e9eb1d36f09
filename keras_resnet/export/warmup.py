"""Warm-up records: requests that TF Serving replays before a version takes traffic.

They are `tensorflow.serving.PredictionLog` messages in a TFRecord file at
`assets.extra/tf_serving_warmup_requests`
(https://www.tensorflow.org/tfx/serving/saved_model_warmup).
"""

import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.export import wire
from keras_resnet.input_pipeline.crc32c import masked_crc32c

FILE = Path("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000  # TF Serving reads no more


def encode_request(model: str, signature: str, inputs: dict[str, np.ndarray]) -> bytes:
    """A PredictionLog with one PredictRequest; arrays as in `wire.encode_tensor`."""
    spec = wire.field(1, model) + wire.field(3, signature)
    request = wire.field(1, spec)
    for name, array in inputs.items():
        entry = wire.field(1, name) + wire.field(2, wire.encode_tensor(array))
        request += wire.field(2, entry)
    return wire.field(6, wire.field(1, request))  # predict_log, request


def decode_request(record: bytes) -> tuple[str, dict[str, np.ndarray]]:
    """(signature name, inputs) of a record.

    Raises:
        UserError: it is no PredictionLog with a PredictRequest.
    """
    log = dict(wire.fields(record)).get(6)
    request = None if log is None else dict(wire.fields(wire.as_bytes(log))).get(1)
    if request is None:
        raise UserError("a warm-up record holds no PredictRequest")
    signature, inputs = "serving_default", {}
    for number, value in wire.fields(wire.as_bytes(request)):
        if number == 1:
            spec = dict(wire.fields(wire.as_bytes(value)))
            signature = wire.as_text(spec[3]) if 3 in spec else signature
        elif number == 2:
            name, tensor = wire.map_entry(wire.as_bytes(value))
            inputs[name] = wire.decode_tensor(tensor)
    return signature, inputs


def write_records(path: Path, records: Iterable[bytes]) -> None:
    """Writes a TFRecord file: length, its checksum, data, its checksum, for each record."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for record in records:
            length = struct.pack("<Q", len(record))
            file.write(length + masked_crc32c(length) + record + masked_crc32c(record))


def read_records(path: Path) -> list[bytes]:
    """The records of a TFRecord file.

    Raises:
        UserError: the file is damaged.
    """
    data, place = path.read_bytes(), 0
    records: list[bytes] = []
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data.ljust(place + 8, b"\0"), place)
        header, record = data[place : place + 8], data[place + 12 : place + 12 + length]
        ends = data[place + 8 : place + 12], data[place + 12 + length : place + 16 + length]
        if ends != (masked_crc32c(header), masked_crc32c(record)):
            raise UserError(f"{path}: record {len(records)} is damaged")
        records.append(record)
        place += 16 + length
    return records
