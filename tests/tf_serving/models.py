"""Models and their versions, as TensorFlow Serving loads and runs them.

Errors are those of tensorflow_serving/{core/basic_manager,servables/tensorflow/predict_util,
model_servers/get_model_status_impl}.cc and of tensorflow/core/kernels/batching_util.
"""

import contextlib
import os
import threading
import time
from pathlib import Path

import numpy as np
from google.protobuf import text_format

from keras_resnet.errors import UserError
from keras_resnet.export import warmup, wire
from keras_resnet.export.c_api import LoaderError, Session
from tf_serving import stubs

NAMES = {number: name for name, number in stubs.CODES.items()}


class Failure(Exception):
    """A status of TensorFlow: its code's name, and words."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


class Batching:
    """What --batching_parameters_file says; without it there are no limits."""

    def __init__(self, parameters=None):
        self.largest = self.sizes = None
        self._threads = self._queue = None
        if parameters is not None:
            self.largest = parameters.max_batch_size.value or 1000
            self.sizes = list(parameters.allowed_batch_sizes)
            if self.sizes and (self.sizes != sorted(self.sizes) or self.sizes[-1] != self.largest):
                raise SystemExit("allowed_batch_sizes: the last is not max_batch_size")
            threads = parameters.num_batch_threads.value or os.cpu_count()
            self._threads = threading.Semaphore(threads)
            self._queue = threading.Semaphore(
                threads + (parameters.max_enqueued_batches.value or 10)
            )

    @contextlib.contextmanager
    def place(self, size: int):
        """Holds a thread of the batcher, once one is free."""
        if self.largest is None:
            yield
            return
        if size > self.largest:
            raise Failure(
                "INVALID_ARGUMENT",
                f"Task size {size} is larger than maximum input batch size {self.largest}",
            )
        if not self._queue.acquire(blocking=False):
            raise Failure(
                "UNAVAILABLE",
                "The batch scheduling queue to which this task was submitted is full",
            )
        try:
            with self._threads:
                yield
        finally:
            self._queue.release()

    def padded(self, array: np.ndarray) -> np.ndarray:
        """Rounded up to an allowed size with copies of the first example."""
        size = next((size for size in self.sizes or () if size >= len(array)), len(array))
        return np.concatenate([array, *[array[:1]] * (size - len(array))])


class Model:
    """The versions below a folder, of which the newest is served."""

    def __init__(self, name: str, folder: Path, batching: Batching, load_after: str, warm_up: bool):
        self.name, self.folder, self.batching = name, folder, batching
        self.load_after, self.warm_up = load_after, warm_up
        self.states: dict[int, tuple[str, str]] = {}  # version -> state, error
        self.sessions: dict[int, Session] = {}
        self.definitions: dict[int, object] = {}
        self.requests = {"OK": 0}

    def look(self) -> None:
        """Loads a version that is newer than what is served, and lets go of the older ones."""
        found = [int(item.name) for item in self.folder.iterdir() if item.name.isdecimal()]
        newest = max(found, default=None)
        if newest is None or newest in self.states:
            return
        self.states[newest] = ("LOADING", "")
        try:
            while self.load_after and not Path(self.load_after).exists():
                time.sleep(0.05)
            session = Session(self.folder / str(newest))
            records = self.folder / str(newest) / warmup.FILE
            warm_up = self.warm_up and records.exists()
            for record in warmup.read_records(records) if warm_up else []:
                session.run(*warmup.decode_request(record))
            saved = stubs.message_class("tensorflow.SavedModel")()
            saved.ParseFromString((self.folder / str(newest) / "saved_model.pb").read_bytes())
            definition = saved.meta_graphs[0].signature_def
        except (UserError, OSError) as error:
            self.states[newest] = ("END", str(error))
            return
        earlier = list(self.sessions)
        self.definitions[newest], self.sessions[newest] = definition, session
        self.states[newest] = ("AVAILABLE", "")
        for version in earlier:
            self.states[version] = ("END", "")
            del self.sessions[version]

    def choose(self, version: int | None) -> int:
        """The version that answers."""
        if self.sessions and version is None:
            return max(self.sessions)
        if version in self.sessions:
            return version
        asked = f"Latest({self.name})" if version is None else f"Specific({self.name}, {version})"
        raise Failure("NOT_FOUND", f"Servable not found for request: {asked}")

    def signature(self, version: int, name: str, code: str, words: str) -> wire.Signature:
        signatures = self.sessions[version].signatures
        if name not in signatures:
            raise Failure(code, words.format(name))
        return signatures[name]

    def predict(self, version: int, name: str, inputs: dict[str, np.ndarray]) -> dict:
        """Runs a signature as TF Serving does."""
        words = 'Serving signature key "{}" not found.'
        signature = self.signature(version, name, "FAILED_PRECONDITION", words)
        sent, needed = set(inputs), set(signature["inputs"])
        if sent != needed:
            raise Failure(
                "INVALID_ARGUMENT",
                f"input size does not match signature: {len(sent)}!={len(needed)} "
                f"len({{{','.join(sorted(sent))}}}) != len({{{','.join(sorted(needed))}}}). Sent "
                f"extra: {{{','.join(sorted(sent - needed))}}}. Missing but required: "
                f"{{{','.join(sorted(needed - sent))}}}.",
            )
        sizes = {array.shape[:1] for array in inputs.values()}
        if self.batching.largest is not None and (len(sizes) != 1 or sizes == {()}):
            raise Failure(
                "INVALID_ARGUMENT",
                "Batching session Run() input tensors must have at "
                "least one dimension and equal 0th-dimension size",
            )
        size = next(iter(inputs.values())).shape[0] if () not in sizes else 0
        with self.batching.place(size):
            padded = {key: self.batching.padded(array) for key, array in inputs.items()}
            try:
                outputs = self.sessions[version].run(name, padded)
            except LoaderError as error:
                raise Failure(NAMES.get(error.code, "UNKNOWN"), str(error)) from error
        return {key: array[:size] for key, array in outputs.items()}

    def status(self, version: int | None):
        """A GetModelStatusResponse."""
        response = stubs.message_class("GetModelStatusResponse")()
        if version is not None and version not in self.states:
            words = f"Could not find version {version} of model {self.name}"
            raise Failure("NOT_FOUND", words)
        if not self.states:
            raise Failure("NOT_FOUND", f"Could not find any versions of model {self.name}")
        for number in [version] if version is not None else sorted(self.states, reverse=True):
            state, error = self.states[number]
            added = response.model_version_status.add(
                version=number, state=stubs.ENUMS["ModelVersionStatus"][state]
            )
            added.status.error_code = stubs.CODES["UNKNOWN" if error else "OK"]
            added.status.error_message = error
        return response

    def metadata(self, version: int | None):
        """A GetModelMetadataResponse."""
        version = self.choose(version)
        signatures = stubs.message_class("SignatureDefMap")()
        for name, definition in self.definitions[version].items():
            signatures.signature_def[name].CopyFrom(definition)
        response = stubs.message_class("GetModelMetadataResponse")()
        response.model_spec.name = self.name
        response.model_spec.version.value = version
        response.metadata["signature_def"].Pack(signatures)
        return response, signatures


class Models:
    """The models, and what both protocols ask of them."""

    def __init__(self, flags: dict[str, str]):
        batching = None
        if flags.get("enable_batching") == "true":
            batching = read_config(flags["batching_parameters_file"], "BatchingParameters")
        after = flags.get("test_load_after", "")
        warm_up = flags.get("enable_model_warmup") != "false"
        named = {flags.get("model_name", "default"): flags.get("model_base_path")}
        if "model_config_file" in flags:
            config = read_config(flags["model_config_file"], "ModelServerConfig")
            named = {one.name: one.base_path for one in config.model_config_list.config}
        self.models = {}
        for name, folder in named.items():
            if not folder or not Path(folder).is_dir():
                raise SystemExit(f"FAILED_PRECONDITION: no base path {folder} for {name}")
            self.models[name] = Model(name, Path(folder), Batching(batching), after, warm_up)
        self.metrics = None
        if "monitoring_config_file" in flags:
            found = read_config(
                flags["monitoring_config_file"], "MonitoringConfig"
            ).prometheus_config
            self.metrics = (found.path or "/monitoring/prometheus/metrics") * found.enable

    def watch(self, seconds: float) -> None:
        while True:
            for model in self.models.values():
                model.look()
            time.sleep(seconds)

    def model(self, name: str, words: str = "Servable not found for request: Latest({})") -> Model:
        if name not in self.models:
            raise Failure("NOT_FOUND", words.format(name))
        return self.models[name]

    def count(self, name: str, code: str) -> None:
        if name in self.models:
            requests = self.models[name].requests
            requests[code] = requests.get(code, 0) + 1

    def metrics_page(self) -> str:
        """What Prometheus reads, of one counter."""
        lines = ["# TYPE :tensorflow:serving:request_count counter"]
        for name, model in self.models.items():
            for code, number in model.requests.items():
                labels = f'{{model_name="{name}",status="{code}"}}'
                lines.append(f":tensorflow:serving:request_count{labels} {number}")
        return "\n".join(lines) + "\n"


def read_config(path: str, message: str):
    """The message of a configuration file."""
    return text_format.Parse(Path(path).read_text(), stubs.message_class(message)())
