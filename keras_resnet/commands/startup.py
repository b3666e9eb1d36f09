"""How a command starts TensorFlow."""

import importlib
import os
import sys
import tempfile

from keras_resnet import backend


def start_tensorflow() -> None:
    """Imports TensorFlow, without what its libraries write to stderr unless that fails.

    They announce themselves there at import, which no log level turns off.

    Raises:
        UserError: TensorFlow is not installed, or Keras would run on another backend.
    """
    backend.require_tensorflow()
    backend.prefer_onednn()
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            importlib.import_module("tensorflow")
        except BaseException:
            said.seek(0)
            os.write(stderr, said.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
