"""Protocol buffers and TFRecord written by hand, against the libraries that define them."""

import numpy as np
import pytest
import tensorflow as tf
from export_helpers import strings
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tensorflow.core.framework import tensor_pb2

from keras_resnet.errors import UserError
from keras_resnet.export import warmup, wire

ARRAYS = {
    "float": np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32),
    "one float": np.full((2, 4, 4, 3), 128, np.float32),
    "uint8": np.arange(12, dtype=np.uint8).reshape(3, 4),
    "one uint8": np.full((16, 8, 8, 3), 200, np.uint8),
    "int64": np.array([-1, 2**40]),
    "strings": strings([b"", b"\x00\xff" * 200]),
    "empty": np.zeros((0, 3), np.float32),
}


@pytest.mark.parametrize("key", ARRAYS)
def test_tensors_are_what_tensorflow_reads_and_writes(key):
    array = ARRAYS[key]
    message = tensor_pb2.TensorProto.FromString(wire.encode_tensor(array))
    np.testing.assert_array_equal(tf.make_ndarray(message), array)
    again = wire.decode_tensor(tf.make_tensor_proto(array).SerializeToString())
    np.testing.assert_array_equal(again, array)
    np.testing.assert_array_equal(wire.decode_tensor(wire.encode_tensor(array)), array)


def test_one_number_throughout_takes_few_bytes():
    assert len(wire.encode_tensor(ARRAYS["one float"])) < 50
    assert len(wire.encode_tensor(ARRAYS["one uint8"])) < 50


def _prediction_log():
    """PredictionLog, from the field numbers of tensorflow_serving/apis, as a message class."""
    proto = descriptor_pb2.FileDescriptorProto(
        name="prediction_log_for_tests.proto",
        package="test",
        syntax="proto3",
        dependency=["tensorflow/core/framework/tensor.proto"],
    )
    field = descriptor_pb2.FieldDescriptorProto
    string, message = field.TYPE_STRING, field.TYPE_MESSAGE
    tensor = ".tensorflow.TensorProto"

    def define(name, *fields, parent=proto.message_type):
        made = parent.add(name=name)
        for key, number, kind, type_name in fields:
            made.field.add(
                name=key, number=number, type=kind, type_name=type_name, label=field.LABEL_OPTIONAL
            )
        return made

    define("ModelSpec", ("name", 1, string, None), ("signature_name", 3, string, None))
    request = define("PredictRequest", ("model_spec", 1, message, ".test.ModelSpec"))
    entry = define(
        "InputsEntry",
        ("key", 1, string, None),
        ("value", 2, message, tensor),
        parent=request.nested_type,
    )
    entry.options.map_entry = True
    request.field.add(
        name="inputs",
        number=2,
        type=message,
        type_name=".test.PredictRequest.InputsEntry",
        label=field.LABEL_REPEATED,
    )
    define("PredictLog", ("request", 1, message, ".test.PredictRequest"))
    define("PredictionLog", ("predict_log", 6, message, ".test.PredictLog"))
    pool = descriptor_pool.Default()
    pool.Add(proto)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("test.PredictionLog"))


def test_requests_are_prediction_logs():
    record = warmup.encode_request(
        "flowers", "predict_images", {"images": ARRAYS["uint8"], "more": ARRAYS["strings"]}
    )
    request = _prediction_log().FromString(record).predict_log.request
    assert request.model_spec.name == "flowers"
    assert request.model_spec.signature_name == "predict_images"
    assert sorted(request.inputs) == ["images", "more"]
    np.testing.assert_array_equal(tf.make_ndarray(request.inputs["images"]), ARRAYS["uint8"])
    name, inputs = warmup.decode_request(request_log(request))
    assert name == "predict_images"
    np.testing.assert_array_equal(inputs["more"], ARRAYS["strings"])


def request_log(request) -> bytes:
    log = type(request).DESCRIPTOR.file.message_types_by_name["PredictionLog"]
    message = message_factory.GetMessageClass(log)()
    message.predict_log.request.CopyFrom(request)
    return message.SerializeToString()


def test_requests_are_those_of_tensorflow_serving():
    apis = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    record = warmup.encode_request("flowers", "features", {"image_bytes": ARRAYS["strings"]})
    request = apis.PredictionLog.FromString(record).predict_log.request
    assert (request.model_spec.name, request.model_spec.signature_name) == ("flowers", "features")
    np.testing.assert_array_equal(tf.make_ndarray(request.inputs["image_bytes"]), ARRAYS["strings"])


def test_record_files_are_tfrecords(tmp_path):
    records = [b"", b"a", bytes(range(256)) * 40]
    path = tmp_path / "extra" / "requests"
    warmup.write_records(path, records)
    assert list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()) == records
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for record in records:
            writer.write(record)
    assert (tmp_path / "theirs").read_bytes() == path.read_bytes()
    assert warmup.read_records(path) == records


@pytest.mark.parametrize("damage", ["cut", "flipped", "length"])
def test_damaged_record_files_are_refused(tmp_path, damage):
    path = tmp_path / "requests"
    warmup.write_records(path, [b"some bytes"])
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[:-6]
    else:
        data[14 if damage == "flipped" else 0] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="record 0 is damaged"):
        warmup.read_records(path)


@pytest.mark.parametrize("message", [b"\x0a\xff", b"\xff\xff", b"\x0b", b"\x32\x00"])
def test_damaged_requests_are_refused(message):
    with pytest.raises(UserError):
        warmup.decode_request(message)
