"""TensorFlow Serving's REST API: https://www.tensorflow.org/tfx/serving/api_rest.

Addresses, formats and errors are those of tensorflow_serving/model_servers/
{http_server,http_rest_api_util}.cc and tensorflow_serving/util/json_tensor.cc.
"""

import base64
import json
import re
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from google.protobuf import json_format

from tf_serving.models import Failure, Model, Models

HTTP = {
    **{"INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "NOT_FOUND": 404},
    **{"RESOURCE_EXHAUSTED": 429, "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504},
    **{"UNIMPLEMENTED": 501, "CANCELLED": 499},
}
PREDICT = re.compile(
    r"(?i)/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?:(classify|regress|predict)"
)
STATUS = re.compile(
    r"(?i)/v1/models(?:/([^/:]+))?(?:/versions/(\d+)|/labels/([^/:]+))?(?:/(metadata))?"
)


class Rest(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "RestServer"

    def do_GET(self):
        if self.path == self.server.core.metrics:
            self._send(200, self.server.core.metrics_page().encode(), "text/plain")
            return
        self._answer(self._get)

    def do_POST(self):
        self._body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(self._post)

    def _answer(self, make) -> None:
        if not re.match("(?i)/v1/", self.path):
            self._send(404, b"", "text/plain")
            return
        try:
            self._send(200, make())
        except Failure as error:
            content = json.dumps({"error": str(error)}, indent=4, ensure_ascii=False)
            content = content.encode(errors="surrogateescape")
            self._send(HTTP.get(error.code, 500), content)

    def _send(self, code: int, content: bytes, kind: str = "application/json") -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _malformed(self) -> Failure:
        return Failure("INVALID_ARGUMENT", f"Malformed request: {self.command} {self.path}")

    def _get(self) -> bytes:
        found = STATUS.fullmatch(self.path)
        if not found:
            raise self._malformed()
        name, version, _, metadata = found.groups()
        if not name:
            raise Failure("INVALID_ARGUMENT", "Missing model name in request.")
        name, version = urllib.parse.unquote(name), version and int(version)
        if metadata:
            response, signatures = self.server.core.model(name).metadata(version)
            spec, kept = _as_json(response.model_spec, True), _as_json(signatures, True)
            return (
                f'{{\n"model_spec":{spec},\n"metadata": {{"signature_def": {kept}}}\n}}\n'
            ).encode()
        words = "Could not find any versions of model {}"
        return _as_json(self.server.core.model(name, words).status(version), False).encode()

    def _post(self) -> bytes:
        found = PREDICT.fullmatch(self.path)
        if not found:
            raise self._malformed()
        name, version, _, method = found.groups()
        name = urllib.parse.unquote(name)
        code = "OK"
        try:
            model = self.server.core.model(name)
            return _predict_json(model, model.choose(version and int(version)), method, self._body)
        except Failure as error:
            code = error.code
            raise
        finally:
            self.server.core.count(name, code)

    def log_message(self, format, *arguments):
        pass


class RestServer(ThreadingHTTPServer):
    daemon_threads = True
    core: Models


def _as_json(message, keep_names: bool) -> str:
    options = {"preserving_proto_field_name": True, "ensure_ascii": False}
    if not keep_names:
        # The only name of two words in a status is printed as the JSON of protocol buffers has it
        # in version 3.6, which TF Serving fixed by an annotation: with its underscore.
        options["preserving_proto_field_name"] = True
    try:
        return json_format.MessageToJson(
            message, always_print_fields_with_no_presence=True, **options
        )
    except TypeError:  # protobuf 4
        return json_format.MessageToJson(message, including_default_value_fields=True, **options)


def _predict_json(model: Model, version: int, method: str, body: bytes) -> bytes:
    try:
        document = json.loads(body.decode("utf-8", "surrogateescape"))
    except ValueError as error:
        place = getattr(error, "pos", 0)
        words = "The document is empty" if not body else f"Invalid value. at offset: {place}"
        raise Failure("INVALID_ARGUMENT", f"JSON Parse error: {words}") from error
    if not isinstance(document, dict):
        raise Failure("INVALID_ARGUMENT", f"JSON Value: {document} Is not object")
    name = document.get("signature_name", "serving_default")
    if method != "predict":
        words = "No signature was found with the name: {}"
        model.signature(version, name, "INVALID_ARGUMENT", words)
        kind = {"classify": "classification", "regress": "regression"}[method]
        raise Failure(
            "INVALID_ARGUMENT",
            f"Expected {kind} signature method_name to be tensorflow/serving/{method}. "
            "Was: tensorflow/serving/predict",
        )
    words = 'Serving signature name: "{}" not found in signature def'
    infos = model.signature(version, name, "INVALID_ARGUMENT", words)["inputs"]
    inputs, is_row = _inputs_of(document, infos)
    return _outputs_json(model.predict(version, name, inputs), is_row)


def _inputs_of(document: dict, infos: dict) -> tuple[dict, bool]:
    """(arrays by name, whether the format is that of rows)."""
    both = "instances" in document and "inputs" in document
    if both or not {"instances", "inputs"} & document.keys():
        words = "Missing 'inputs' or 'instances' key"
        if both:
            words = "expecting only one of 'inputs' or 'instances' keys to exist"
        raise Failure("INVALID_ARGUMENT", words)
    only = next(iter(infos))
    if "inputs" in document:
        values = document["inputs"]
        if not isinstance(values, dict) or _is_base64(values):
            if len(infos) > 1:
                raise Failure("INVALID_ARGUMENT", "inputs is a plain value/list")
            values = {only: values}
        missing = [key for key in infos if key not in values]
        if missing:
            words = f"Missing named input: {missing[0]} in 'inputs' object."
            raise Failure("INVALID_ARGUMENT", words)
        return {key: _array(values[key], infos[key]["dtype"]) for key in infos}, False
    rows = document["instances"]
    if not isinstance(rows, list) or not rows:
        what = "No values in" if isinstance(rows, list) else "Excepting"
        raise Failure("INVALID_ARGUMENT", f"JSON Value: … {what} 'instances' array")
    columns: dict[str, list] = {key: [] for key in infos}
    for place, row in enumerate(rows):
        named = row if isinstance(row, dict) and not _is_base64(row) else {only: row}
        if named.keys() != infos.keys():
            raise Failure(
                "INVALID_ARGUMENT",
                f"Failed to process element: {place} of 'instances' list. JSON object: … keys must "
                f"be equal to: {','.join(sorted(infos))}",
            )
        for key, value in named.items():
            columns[key].append(_row(value, infos[key]["dtype"], columns[key], place, key))
    return {key: _joined(arrays) for key, arrays in columns.items()}, True


def _row(value, dtype: str, earlier: list[np.ndarray], place: int, key: str) -> np.ndarray:
    where = f"Failed to process element: {place} key: {key} of 'instances' list. Error: "
    try:
        array = _array(value, dtype)
    except Failure as error:
        raise Failure("INVALID_ARGUMENT", f"{where}INVALID_ARGUMENT: {error}") from error
    if earlier and earlier[0].shape != array.shape:
        words = f"Expecting tensor size: {earlier[0].size} but got: {array.size}"
        raise Failure("INVALID_ARGUMENT", f"{where}INVALID_ARGUMENT: {words}")
    return array


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    joined = np.empty([len(arrays), *arrays[0].shape], arrays[0].dtype)
    for place, array in enumerate(arrays):
        joined[place] = array if array.shape else array[()]
    return joined


def _is_base64(value) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _array(value, dtype: str) -> np.ndarray:
    """A tensor of nested lists."""
    shape, inner = [], value
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    leaves: list = []
    _collect(value, shape, dtype, leaves)
    array = np.empty(len(leaves), object if dtype == "string" else dtype)
    array[:] = leaves
    return array.reshape(shape)


def _collect(value, shape: list[int], dtype: str, leaves: list) -> None:
    if shape:
        if not isinstance(value, list) or len(value) != shape[0]:
            raise Failure("INVALID_ARGUMENT", "Encountered list at unexpected size")
        for one in value:
            _collect(one, shape[1:], dtype, leaves)
        return
    kind = "Object" if isinstance(value, dict) else type(value).__name__.title()
    wrong = Failure(
        "INVALID_ARGUMENT",
        f"JSON Value: {json.dumps(value)} Type: {kind} is not of expected type: {dtype}",
    )
    if dtype == "string":
        if isinstance(value, dict):
            if not _is_base64(value):
                words = f"JSON Value: {json.dumps(value)} not formatted correctly for base64 data"
                raise Failure("INVALID_ARGUMENT", words)
            try:
                leaves.append(base64.b64decode(value["b64"], validate=True))
            except ValueError as error:
                raise Failure("INVALID_ARGUMENT", "Unable to base64 decode") from error
            return
        if not isinstance(value, str):
            raise wrong
        leaves.append(value.encode("utf-8", "surrogateescape"))
        return
    number = int if dtype.startswith(("int", "uint")) else (int, float)
    if isinstance(value, bool) != (dtype == "bool") or not isinstance(value, (bool, number)):
        raise wrong
    leaves.append(value)


def _outputs_json(outputs: dict[str, np.ndarray], is_row: bool) -> bytes:
    """Rows or columns; an output that stands alone has no name."""
    single = next(iter(outputs)) if len(outputs) == 1 else None
    if not is_row:
        columns = {key: _values(key, array) for key, array in sorted(outputs.items())}
        content: dict = {"outputs": columns[single] if single else columns}
    else:
        count = len(next(iter(outputs.values())))
        rows = [
            {key: _values(key, array[place]) for key, array in sorted(outputs.items())}
            for place in range(count)
        ]
        content = {"predictions": [row[single] for row in rows] if single else rows}
    text = json.dumps(content, indent=4, ensure_ascii=False)
    text = re.sub(r'"\x00([^"]*)\x00"', r"\1", text.replace("\\u0000", "\x00"))
    return text.encode(errors="surrogateescape")


def _values(name: str, array: np.ndarray):
    if getattr(array, "ndim", 0):
        return [_values(name, one) for one in array]
    value = array[()] if isinstance(array, np.ndarray) else array
    if isinstance(value, bytes):
        if name.endswith("_bytes"):
            return {"b64": base64.b64encode(value).decode()}
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, np.floating):
        return f"\x00{_decimal(value)}\x00"
    return value.item()


def _decimal(value: np.floating) -> str:
    """Six digits where they give the number back, else as many as it has."""
    if not np.isfinite(value):
        return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    text = f"{value:.6g}"
    if type(value)(text) != value:
        text = f"{value:.{9 if value.dtype == np.float32 else 17}g}"
    return text if "." in text or "e" in text else f"{text}.0"
