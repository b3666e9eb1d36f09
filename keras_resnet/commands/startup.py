"""How a command starts TensorFlow, JAX or Keras."""

import contextlib
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator

from keras_resnet import backend
from keras_resnet.commands.standard_streams import print_error
from keras_resnet.errors import UserError
from keras_resnet.tpu_chips import chips_here


def start_tensorflow() -> None:
    """Imports TensorFlow, without what its libraries write to stderr unless that fails.

    They announce themselves there at import, which no log level turns off. Keras will run on it,
    whatever KERAS_BACKEND is for trainings of this shell.

    What runs on TensorFlow alone computes on the processor. On a machine with a TPU, which costs
    money meanwhile, a line on stderr says so.

    Raises:
        UserError: TensorFlow is not installed, or Keras runs on another backend already.
    """
    _choose_backend("tensorflow")
    backend.require_tensorflow()
    if chips := chips_here():
        print_error(
            f"keras-resnet: this machine has a TPU ({chips}), which costs money; this command does "
            "not use it and computes on the processor"
        )
    backend.prefer_onednn()
    with _silent():
        importlib.import_module("tensorflow")


def start_engine(choice: str) -> None:
    """Imports what the engine of a training needs, likewise: Keras will run on it.

    Args:
        choice: of the config key `engine`.

    Raises:
        UserError: it is not installed.
    """
    backend.require_engine(choice)
    _choose_backend(backend.engine_name(choice))
    backend.prefer_onednn()
    with _silent():
        importlib.import_module("tensorflow")
        if backend.backend_name() == "jax":
            importlib.import_module("jax")


def start_keras() -> None:
    """Imports Keras on whatever backend it runs on, likewise.

    Raises:
        UserError: Keras would run on TensorFlow, which is not installed.
    """
    try:
        backend.require_backend()
    except ImportError as error:
        raise UserError(str(error)) from error
    backend.prefer_onednn()
    with _silent():
        importlib.import_module("keras")


def _choose_backend(name: str) -> None:
    if "keras" not in sys.modules:  # else it has chosen
        os.environ["KERAS_BACKEND"] = name


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """While entered, what is written to stderr is kept, and written there if this fails."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            said.seek(0)
            os.write(stderr, said.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
