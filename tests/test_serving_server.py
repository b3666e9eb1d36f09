"""The test server answers as TF Serving's documents and sources say."""

import base64
import json
import re
import time
import urllib.error
import urllib.request

import grpc
import pytest
from tf_serving import process, stubs


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Addresses for gRPC and REST."""
    folder = tmp_path_factory.mktemp("server")
    process.write_toy(folder / "toy" / "3")
    (folder / "batching.config").write_text(
        "max_batch_size { value: 4 } allowed_batch_sizes: 2 allowed_batch_sizes: 4"
    )
    (folder / "monitoring.config").write_text('prometheus_config { enable: true path: "/m" }')
    with process.running(
        "--model_name=toy",
        f"--model_base_path={folder / 'toy'}",
        "--enable_batching=true",
        f"--batching_parameters_file={folder / 'batching.config'}",
        f"--monitoring_config_file={folder / 'monitoring.config'}",
    ) as addresses:
        call(addresses[0], "PredictionService", "Predict", request(b"x"), wait=True)
        yield addresses


def rest(server, path, body=None):
    """(code, answer)"""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(f"http://{server[1]}{path}", data) as answer:
            code, content = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        code, content = error.code, error.read()
    text = content.decode("utf-8", "surrogateescape")
    try:
        return code, json.loads(text, strict=False)
    except ValueError:
        return code, text


def call(address, service, method, message, wait=False):
    kinds = stubs.SERVICES[service][method]
    with grpc.insecure_channel(address) as channel:
        ask = channel.unary_unary(
            f"/{stubs.PACKAGE}.{service}/{method}",
            type(message).SerializeToString,
            stubs.message_class(kinds[1]).FromString,
        )
        for _ in range(100):
            try:
                return ask(message, timeout=60, wait_for_ready=True)
            except grpc.RpcError as error:
                if not wait or error.code() is not grpc.StatusCode.NOT_FOUND:
                    return error.code().name, error.details()
            time.sleep(0.1)
    raise AssertionError("the model did not load")


def request(*files, name="toy", signature="", version=None):
    message = stubs.message_class("PredictRequest")()
    message.model_spec.name, message.model_spec.signature_name = name, signature
    if version is not None:
        message.model_spec.version.value = version
    tensor = message.inputs["image_bytes"]
    tensor.dtype = 7
    tensor.tensor_shape.dim.add(size=len(files))
    tensor.string_val.extend(files)
    return message


def b64(content):
    return {"b64": base64.b64encode(content).decode()}


LONG = "long \udcff\x1b"
SHORT = {"classes": ["short", LONG], "class_ids": [0, 1], "probabilities": [0.75, 0.25]}


@pytest.mark.parametrize("version", ["", "/versions/3"])
def test_predictions_in_rows_and_columns(server, version):
    path, rows = f"/v1/models/toy{version}:predict", [b64(b"x" * 25), "y" * 25]
    expected = (200, {"predictions": [SHORT, SHORT]})
    assert rest(server, path, {"instances": rows}) == expected
    named = [{"image_bytes": row} for row in rows]
    body = {"signature_name": "serving_default", "instances": named}
    assert rest(server, path, body) == expected
    columns = {key: [value] * 2 for key, value in SHORT.items()}
    for inputs in (rows, {"image_bytes": rows}):
        assert rest(server, path, {"inputs": inputs}) == (200, {"outputs": columns})


@pytest.mark.parametrize(
    ("path", "body", "code", "words"),
    [
        ("/v1/models/none", None, 404, "Could not find any versions of model none"),
        ("/v1/models/toy/versions/4", None, 404, "Could not find version 4 of model toy"),
        ("/v1/models/none:predict", {}, 404, "Servable not found for request: Latest(none)"),
        (
            "/v1/models/toy/versions/4:predict",
            {},
            404,
            "Servable not found for request: Specific(toy, 4)",
        ),
        ("/v1/models/toy:predict", None, 400, "Malformed request: GET /v1/models/toy:predict"),
        ("/v1/models/toy:ask", {}, 400, "Malformed request: POST /v1/models/toy:ask"),
        ("/v1/models", None, 400, "Missing model name in request."),
        ("/v1/models/toy:predict", b"", 400, "JSON Parse error: The document is empty"),
        ("/v1/models/toy:predict", {}, 400, "Missing 'inputs' or 'instances' key"),
        (
            "/v1/models/toy:predict",
            {"signature_name": "none", "instances": ["x"]},
            400,
            'Serving signature name: "none" not found in signature def',
        ),
        (
            "/v1/models/toy:predict",
            {"instances": ["x", 1]},
            400,
            "Failed to process element: 1 key: image_bytes of 'instances' list. Error: "
            "INVALID_ARGUMENT: JSON Value: 1 Type: Int is not of expected type: string",
        ),
        (
            "/v1/models/toy:predict",
            {"instances": ["x"] * 5},
            400,
            "Task size 5 is larger than maximum input batch size 4",
        ),
        (
            "/v1/models/toy:classify",
            {"examples": [{}]},
            400,
            "Expected classification signature method_name to be tensorflow/serving/classify. "
            "Was: tensorflow/serving/predict",
        ),
    ],
)
def test_what_is_refused(server, path, body, code, words):
    assert rest(server, path, body) == (code, {"error": words})


def test_refused_images_name_their_position(server):
    code, answer = rest(server, "/v1/models/toy:predict", {"instances": ["x", "bad", "y"]})
    assert code == 400
    assert answer["error"].startswith("assertion failed: [image_bytes cannot be decoded.")
    assert " [1]" in answer["error"]


def test_states_and_metadata(server):
    status = {"error_code": "OK", "error_message": ""}
    expected = {"version": "3", "state": "AVAILABLE", "status": status}
    assert rest(server, "/v1/models/toy") == (200, {"model_version_status": [expected]})
    code, found = rest(server, "/v1/models/toy/metadata")
    signatures = found["metadata"]["signature_def"]["signature_def"]
    assert (code, found["model_spec"]["version"]) == (200, "3")
    assert signatures["serving_default"]["inputs"]["image_bytes"]["dtype"] == "DT_STRING"
    assert signatures["serving_default"]["method_name"] == "tensorflow/serving/predict"
    message = stubs.message_class("GetModelMetadataRequest")(metadata_field=["signature_def"])
    message.model_spec.name = "toy"
    answer = call(server[0], "PredictionService", "GetModelMetadata", message)
    of_grpc = stubs.message_class("SignatureDefMap")()
    assert answer.metadata["signature_def"].Unpack(of_grpc)
    assert of_grpc.signature_def.keys() == signatures.keys()


def test_grpc(server):
    answer = call(server[0], "PredictionService", "Predict", request(b"x" * 25, b"y" * 80))
    assert list(answer.outputs["classes"].string_val)[:2] == [b"short", b"long \xff\x1b"]
    assert list(answer.outputs["class_ids"].int_val) == [0, 1, 1, 0]
    assert list(answer.outputs["probabilities"].float_val) == pytest.approx([0.75, 0.25, 0.8, 0.2])
    assert answer.model_spec.version.value == 3
    for message, expected in (
        (request(b"x", name="none"), ("NOT_FOUND", "Servable not found for request: Latest(none)")),
        (
            request(b"x", signature="none"),
            ("FAILED_PRECONDITION", 'Serving signature key "none" not found.'),
        ),
        (
            request(*[b"x"] * 5),
            ("INVALID_ARGUMENT", "Task size 5 is larger than maximum input batch size 4"),
        ),
    ):
        assert call(server[0], "PredictionService", "Predict", message) == expected


def test_metrics_are_counted(server):
    before = rest(server, "/m")[1]
    rest(server, "/v1/models/toy:predict", {"instances": ["x"]})
    rest(server, "/v1/models/toy:predict", {})
    after = rest(server, "/m")[1]
    pattern = ':tensorflow:serving:request_count{model_name="toy",status="%s"} (\\d+)'
    for code in ("OK", "INVALID_ARGUMENT"):
        first, second = (
            [int(found) for found in re.findall(pattern % code, page)] or [0]
            for page in (before, after)
        )
        assert second[0] == first[0] + 1
