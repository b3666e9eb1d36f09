"""TensorFlow's C++ loader, the one inside TF Serving, through its C API and ctypes.

Runs without importing TensorFlow: Python's own loader rebuilds a SavedModel from its object graph
and accepts exports that a server cannot run. The shared library is the one in TensorFlow's wheel;
declarations follow tensorflow/c/{c_api,tf_tensor,tf_tstring,tf_status,tf_buffer}.h.
"""

import ctypes
import importlib.util
import mmap
from pathlib import Path

import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.export import wire

INVALID_ARGUMENT = 3
_STRING = wire.NUMBERS["string"]
_STRING_BYTES = 24  # sizeof(TF_TString)
_TAG = "serve"


class LoaderError(UserError):
    """TensorFlow refused; `code` is its status code, such as INVALID_ARGUMENT."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


class _Output(ctypes.Structure):
    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


_POINTER, _INT, _SIZE, _TEXT = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_char_p
_FUNCTIONS = {
    "TF_Version": (_TEXT, []),
    "TF_NewStatus": (_POINTER, []),
    "TF_DeleteStatus": (None, [_POINTER]),
    "TF_GetCode": (_INT, [_POINTER]),
    "TF_Message": (_TEXT, [_POINTER]),
    "TF_NewGraph": (_POINTER, []),
    "TF_DeleteGraph": (None, [_POINTER]),
    "TF_NewSessionOptions": (_POINTER, []),
    "TF_LoadSessionFromSavedModel": (
        _POINTER,
        [
            _POINTER,
            _POINTER,
            _TEXT,
            ctypes.POINTER(_TEXT),
            _INT,
            _POINTER,
            _POINTER,
            _POINTER,
        ],
    ),
    "TF_CloseSession": (None, [_POINTER, _POINTER]),
    "TF_DeleteSession": (None, [_POINTER, _POINTER]),
    "TF_GraphOperationByName": (_POINTER, [_POINTER, _TEXT]),
    "TF_SessionRun": (
        None,
        [
            _POINTER,
            _POINTER,
            ctypes.POINTER(_Output),
            ctypes.POINTER(_POINTER),
            _INT,
            ctypes.POINTER(_Output),
            ctypes.POINTER(_POINTER),
            _INT,
            _POINTER,
            _INT,
            _POINTER,
            _POINTER,
        ],
    ),
    "TF_AllocateTensor": (_POINTER, [_INT, ctypes.POINTER(ctypes.c_int64), _INT, _SIZE]),
    "TF_DeleteTensor": (None, [_POINTER]),
    "TF_TensorType": (_INT, [_POINTER]),
    "TF_NumDims": (_INT, [_POINTER]),
    "TF_Dim": (ctypes.c_int64, [_POINTER, _INT]),
    "TF_TensorData": (_POINTER, [_POINTER]),
    "TF_TensorByteSize": (_SIZE, [_POINTER]),
    "TF_StringInit": (None, [_POINTER]),
    "TF_StringCopy": (None, [_POINTER, _TEXT, _SIZE]),
    "TF_StringGetDataPointer": (_POINTER, [_POINTER]),
    "TF_StringGetSize": (_SIZE, [_POINTER]),
}


def load_library(site_packages: str | Path | None = None) -> ctypes.CDLL:
    """TensorFlow's C API, found without importing TensorFlow.

    Args:
        site_packages: the folder that holds the folder `tensorflow` of a wheel; None takes the one
            that is installed.

    Raises:
        UserError: no TensorFlow is there, or its wheel does not ship the library.
    """
    if site_packages is not None:
        folders = [str(Path(site_packages, "tensorflow"))]
    else:
        spec = importlib.util.find_spec("tensorflow")
        folders = list(spec.submodule_search_locations or []) if spec else []
    paths = [
        path for folder in folders for path in sorted(Path(folder).glob("libtensorflow_cc.so*"))
    ]
    if not paths and site_packages is not None:
        raise UserError(
            f"{site_packages}: holds no tensorflow/libtensorflow_cc.so*, as it does after pip "
            f"install --no-deps --target={site_packages} tensorflow-cpu==2.15.1 on Linux"
        )
    if not paths:
        raise UserError(
            "TensorFlow's C++ library (libtensorflow_cc.so) is not installed; it comes with "
            "pip install 'keras-resnet-tpu[cpu]' on Linux"
        )
    library = ctypes.CDLL(str(paths[0]))
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Session:
    """A SavedModel in a session of the C++ runtime.

    Args:
        folder: holds saved_model.pb.
        site_packages: see `load_library`.

    Attributes:
        version: of the TensorFlow that runs it.

    Raises:
        LoaderError: it cannot be loaded.
        UserError: there is no library, or no SavedModel.
    """

    def __init__(self, folder: str | Path, site_packages: str | Path | None = None):
        if not (Path(folder) / "saved_model.pb").is_file():
            raise UserError(f"{folder}: no saved_model.pb, so no SavedModel")
        self._lib = load_library(site_packages)
        self.version = self._lib.TF_Version().decode()
        self._folder = folder
        self._load()
        self.signatures = _signatures(Path(folder))

    def _load(self) -> None:
        lib = self._lib
        self._graph, status = lib.TF_NewGraph(), lib.TF_NewStatus()
        self._session = lib.TF_LoadSessionFromSavedModel(
            lib.TF_NewSessionOptions(),
            None,
            str(self._folder).encode(),
            (_TEXT * 1)(_TAG.encode()),
            1,
            self._graph,
            None,
            status,
        )
        self._check(status, "saved_model.pb cannot be loaded: ")

    def renew(self) -> None:
        """Loads the SavedModel again: what the runtime prepared for the signatures so far goes.

        For each of them it keeps some copies of the weights.
        """
        lib = self._lib
        for function in (lib.TF_CloseSession, lib.TF_DeleteSession):
            status = lib.TF_NewStatus()
            function(self._session, status)
            self._check(status)
        lib.TF_DeleteGraph(self._graph)
        _give_back_memory()
        self._load()
        _give_back_memory()

    def run(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs a signature. Strings go in and come out as object arrays of bytes.

        Raises:
            LoaderError: the runtime refused the request.
            UserError: there is no such signature or input.
        """
        if signature not in self.signatures:
            known = ", ".join(self.signatures)
            raise UserError(f"there is no signature {signature!r}; there are {known}")
        infos = self.signatures[signature]
        if inputs.keys() != infos["inputs"].keys():
            raise UserError(f"{signature} takes {sorted(infos['inputs'])}, got {sorted(inputs)}")
        lib = self._lib
        feeds = [self._tensor(array) for array in inputs.values()]
        places = [self._place(infos["inputs"][name]["name"]) for name in inputs]
        fetches = [self._place(info["name"]) for info in infos["outputs"].values()]
        results = (_POINTER * len(fetches))()
        status = lib.TF_NewStatus()
        lib.TF_SessionRun(
            self._session,
            None,
            (_Output * len(places))(*places),
            (_POINTER * len(feeds))(*feeds),
            len(feeds),
            (_Output * len(fetches))(*fetches),
            results,
            len(fetches),
            None,
            0,
            None,
            status,
        )
        for tensor in feeds:
            lib.TF_DeleteTensor(tensor)
        self._check(status)
        arrays = [self._array(tensor) for tensor in results]
        for tensor in results:
            lib.TF_DeleteTensor(tensor)
        return dict(zip(infos["outputs"], arrays, strict=True))

    def _check(self, status, context: str = "") -> None:
        code = self._lib.TF_GetCode(status)
        message = self._lib.TF_Message(status).decode(errors="replace")
        self._lib.TF_DeleteStatus(status)
        if code:
            raise LoaderError(code, context + message)

    def _place(self, name: str) -> _Output:
        operation, _, index = name.partition(":")
        found = self._lib.TF_GraphOperationByName(self._graph, operation.encode())
        if not found:
            raise UserError(f"the graph has no tensor {name!r}, which a signature names")
        return _Output(found, int(index or 0))

    def _tensor(self, array: np.ndarray):
        lib = self._lib
        is_string = array.dtype == object
        number = _STRING if is_string else wire.NUMBERS[array.dtype.name]
        size = array.size * _STRING_BYTES if is_string else array.nbytes
        shape = (ctypes.c_int64 * array.ndim)(*array.shape)
        tensor = lib.TF_AllocateTensor(number, shape, array.ndim, size)
        data = lib.TF_TensorData(tensor)
        if not is_string:
            ctypes.memmove(data, np.ascontiguousarray(array).ctypes.data, size)
            return tensor
        for index, value in enumerate(array.ravel()):
            place = data + index * _STRING_BYTES
            lib.TF_StringInit(place)
            lib.TF_StringCopy(place, value, len(value))
        return tensor

    def _array(self, tensor) -> np.ndarray:
        lib = self._lib
        shape = [lib.TF_Dim(tensor, axis) for axis in range(lib.TF_NumDims(tensor))]
        number, data = lib.TF_TensorType(tensor), lib.TF_TensorData(tensor)
        if number != _STRING:
            content = ctypes.string_at(data, lib.TF_TensorByteSize(tensor))
            return np.frombuffer(content, wire.DTYPES[number]).reshape(shape)
        array = np.empty(int(np.prod(shape)), object)
        for index in range(array.size):
            place = data + index * _STRING_BYTES
            size = lib.TF_StringGetSize(place)
            array[index] = ctypes.string_at(lib.TF_StringGetDataPointer(place), size)
        return array.reshape(shape)


def _give_back_memory() -> None:
    """Lets the C library return what it keeps of freed memory: a gigabyte, after a ResNet-50."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


def _signatures(folder: Path) -> dict[str, wire.Signature]:
    """The signatures by name; those of the graph for serving."""
    with open(folder / "saved_model.pb", "rb") as file:
        # Closed with the last view of it, as a map cannot be while there is one.
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    for number, value in wire.fields(data):
        meta_graph = wire.as_bytes(value) if number == 2 else wire.EMPTY
        info = wire.as_bytes(dict(wire.fields(meta_graph)).get(1, wire.EMPTY))
        tags = [wire.as_text(tag) for field, tag in wire.fields(info) if field == 4]
        if _TAG in tags:
            return wire.signatures(meta_graph)
    raise UserError(f"{folder}: saved_model.pb cannot be loaded: nothing in it is for serving")
