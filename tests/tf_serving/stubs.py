"""The public messages and services of TensorFlow Serving, as far as the tests need them.

Written down from tensorflow_serving/apis/{model,predict,get_model_status,get_model_metadata,
prediction_service,model_service}.proto and tensorflow_serving/{util/status,servables/tensorflow/
session_bundle_config,config/model_server_config,config/monitoring_config}.proto: the package
`tensorflow-serving-api` pulls in `tensorflow` and so cannot be installed beside every TensorFlow.
A test compares them with it. TensorFlow's own messages are those of its wheel, whose package is not
executed.
"""

import importlib.util
import sys

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

if "tensorflow" not in sys.modules:
    _found = importlib.util.find_spec("tensorflow")
    sys.modules["tensorflow"] = importlib.util.module_from_spec(_found)  # its messages alone
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

PACKAGE = "tensorflow.serving"
# Message -> field -> (number, type); [type] is a repeated one, {type} a map from strings.
MESSAGES = {
    "ModelSpec": {
        "name": (1, "string"),
        "version": (2, "google.protobuf.Int64Value"),
        "signature_name": (3, "string"),
        "version_label": (4, "string"),
    },
    "PredictRequest": {
        "model_spec": (1, "tensorflow.serving.ModelSpec"),
        "inputs": (2, "{tensorflow.TensorProto}"),
        "output_filter": (3, "[string]"),
    },
    "PredictResponse": {
        "outputs": (1, "{tensorflow.TensorProto}"),
        "model_spec": (2, "tensorflow.serving.ModelSpec"),
    },
    "StatusProto": {"error_code": (1, "enum"), "error_message": (2, "string")},
    "GetModelStatusRequest": {"model_spec": (1, "tensorflow.serving.ModelSpec")},
    "ModelVersionStatus": {
        "version": (1, "int64"),
        "state": (2, "enum"),
        "status": (3, "tensorflow.serving.StatusProto"),
    },
    "GetModelStatusResponse": {
        "model_version_status": (1, "[tensorflow.serving.ModelVersionStatus]")
    },
    "GetModelMetadataRequest": {
        "model_spec": (1, "tensorflow.serving.ModelSpec"),
        "metadata_field": (2, "[string]"),
    },
    "SignatureDefMap": {"signature_def": (1, "{tensorflow.SignatureDef}")},
    "GetModelMetadataResponse": {
        "model_spec": (1, "tensorflow.serving.ModelSpec"),
        "metadata": (2, "{google.protobuf.Any}"),
    },
    # What the files of serving_config hold.
    "BatchingParameters": {
        "max_batch_size": (1, "google.protobuf.Int64Value"),
        "batch_timeout_micros": (2, "google.protobuf.Int64Value"),
        "max_enqueued_batches": (3, "google.protobuf.Int64Value"),
        "num_batch_threads": (4, "google.protobuf.Int64Value"),
        "thread_pool_name": (5, "google.protobuf.StringValue"),
        "allowed_batch_sizes": (6, "[int64]"),
        "pad_variable_length_inputs": (7, "bool"),
    },
    "PrometheusConfig": {"enable": (1, "bool"), "path": (2, "string")},
    "MonitoringConfig": {"prometheus_config": (1, "tensorflow.serving.PrometheusConfig")},
    "ModelConfig": {
        "name": (1, "string"),
        "base_path": (2, "string"),
        "model_platform": (4, "string"),
    },
    "ModelConfigList": {"config": (1, "[tensorflow.serving.ModelConfig]")},
    "ModelServerConfig": {"model_config_list": (1, "tensorflow.serving.ModelConfigList")},
}
# By the message that has a field of the type.
ENUMS = {
    "ModelVersionStatus": {
        **{"UNKNOWN": 0, "START": 10, "LOADING": 20},
        **{"AVAILABLE": 30, "UNLOADING": 40, "END": 50},
    },
    # tensorflow.error.Code, whose numbers are gRPC's.
    "StatusProto": {
        **{"OK": 0, "CANCELLED": 1, "UNKNOWN": 2, "INVALID_ARGUMENT": 3, "DEADLINE_EXCEEDED": 4},
        **{"NOT_FOUND": 5, "RESOURCE_EXHAUSTED": 8, "FAILED_PRECONDITION": 9},
        **{"UNIMPLEMENTED": 12, "INTERNAL": 13, "UNAVAILABLE": 14},
    },
}
CODES = ENUMS["StatusProto"]
# Service -> method -> message asked, message answered.
SERVICES = {
    "PredictionService": {
        "Predict": ("PredictRequest", "PredictResponse"),
        "GetModelMetadata": ("GetModelMetadataRequest", "GetModelMetadataResponse"),
    },
    "ModelService": {"GetModelStatus": ("GetModelStatusRequest", "GetModelStatusResponse")},
}


def _definition() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="tests/tf_serving/stubs.proto", package=PACKAGE, syntax="proto3"
    )
    known = (tensor_pb2, meta_graph_pb2, any_pb2, wrappers_pb2)
    file.dependency.extend(module.DESCRIPTOR.name for module in known)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        if name in ENUMS:
            enum = message.enum_type.add(name="Enum")
            for key, number in ENUMS[name].items():
                enum.value.add(name=key, number=number)
        for field, (number, kind) in fields.items():
            _add_field(message, field, number, kind)
    return file


def _add_field(message, field: str, number: int, kind: str) -> None:
    added = message.field.add(name=field, number=number)
    added.label = added.LABEL_REPEATED if kind[0] in "[{" else added.LABEL_OPTIONAL
    if kind[0] == "{":
        entry = message.nested_type.add(name=f"{field.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        _add_field(entry, "key", 1, "string")
        _add_field(entry, "value", 2, kind[1:-1])
        added.type, added.type_name = added.TYPE_MESSAGE, f".{PACKAGE}.{message.name}.{entry.name}"
        return
    kind = kind.strip("[]")
    if kind == "enum":
        added.type, added.type_name = added.TYPE_ENUM, f".{PACKAGE}.{message.name}.Enum"
    elif "." in kind:
        added.type, added.type_name = added.TYPE_MESSAGE, f".{kind}"
    else:
        added.type = getattr(added, f"TYPE_{kind.upper()}")


# TensorFlow's messages are in the default pool, and `tensorflow_serving` may put its own there.
_POOL = descriptor_pool.DescriptorPool()


def _add_with_dependencies(descriptor) -> None:
    for dependency in descriptor.dependencies:
        _add_with_dependencies(dependency)
    _POOL.AddSerializedFile(descriptor.serialized_pb)


for _module in (tensor_pb2, meta_graph_pb2, saved_model_pb2, any_pb2, wrappers_pb2):
    _add_with_dependencies(_module.DESCRIPTOR)
_POOL.Add(_definition())


def message_class(name: str) -> type:
    """The class of a message, by its name in the table above or its full name."""
    full = name if "." in name else f"{PACKAGE}.{name}"
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(full))
