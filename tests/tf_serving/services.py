"""The gRPC services of tensorflow_serving/apis/{prediction,model}_service.proto."""

import traceback

import grpc
import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.export import wire
from tf_serving import stubs
from tf_serving.models import Failure, Model, Models


def handlers(core: Models) -> list[grpc.GenericRpcHandler]:
    """Handlers of the services in `stubs`."""
    answers = {
        "Predict": _grpc_predict,
        "GetModelStatus": _grpc_status,
        "GetModelMetadata": _grpc_metadata,
    }

    def handler(method: str, asked: str, answered: str):
        def answer(request, context):
            try:
                return answers[method](core, request)
            except Failure as error:
                number = stubs.CODES[error.code]
                code = next(one for one in grpc.StatusCode if one.value[0] == number)
                context.abort(code, str(error))
            except Exception:
                traceback.print_exc()
                raise

        return grpc.unary_unary_rpc_method_handler(
            answer,
            stubs.message_class(asked).FromString,
            stubs.message_class(answered).SerializeToString,
        )

    return [
        grpc.method_handlers_generic_handler(
            f"{stubs.PACKAGE}.{service}",
            {method: handler(method, *kinds) for method, kinds in methods.items()},
        )
        for service, methods in stubs.SERVICES.items()
    ]


def _version_of(spec) -> int | None:
    return spec.version.value if spec.HasField("version") else None


def _grpc_predict(core: Models, request):
    code = "OK"
    try:
        return _predict_proto(core.model(request.model_spec.name), request)
    except Failure as error:
        code = error.code
        raise
    finally:
        core.count(request.model_spec.name, code)


def _predict_proto(model: Model, request):
    version = model.choose(_version_of(request.model_spec))
    name = request.model_spec.signature_name or "serving_default"
    inputs = {}
    for key, tensor in request.inputs.items():
        try:
            inputs[key] = wire.decode_tensor(tensor.SerializeToString())
        except UserError as error:
            raise Failure("INVALID_ARGUMENT", f"tensor parsing error: {key}") from error
    response = stubs.message_class("PredictResponse")()
    response.model_spec.name, response.model_spec.signature_name = model.name, name
    response.model_spec.version.value = version
    for key, array in model.predict(version, name, inputs).items():
        if request.output_filter and key not in request.output_filter:
            continue
        tensor = response.outputs[key]
        tensor.dtype = wire.NUMBERS["string" if array.dtype == object else array.dtype.name]
        for size in array.shape:
            tensor.tensor_shape.dim.add(size=size)
        # Fields of their own, not tensor_content: as Tensor::AsProtoField has them.
        kinds = {
            "f": "float_val",
            "O": "string_val",
            "b": "bool_val",
            "i": "int_val",
            "u": "int_val",
        }
        field = "int64_val" if array.dtype == np.int64 else kinds[array.dtype.kind]
        getattr(tensor, field).extend(array.ravel().tolist())
    return response


def _grpc_status(core: Models, request):
    words = "Could not find any versions of model {}"
    spec = request.model_spec
    return core.model(spec.name, words).status(_version_of(spec))


def _grpc_metadata(core: Models, request):
    if list(request.metadata_field) != ["signature_def"]:
        raise Failure("INVALID_ARGUMENT", "Metadata field signature_def is the one that is known")
    spec = request.model_spec
    return core.model(spec.name).metadata(_version_of(spec))[0]
