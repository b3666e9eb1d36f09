"""Residual networks for Keras 3 and TensorFlow: models, blocks, training, export."""

import sys
from pathlib import Path

__version__ = "0.1.0"


def _runs_as_command() -> bool:
    """True inside `keras-resnet` and `python -m keras_resnet`.

    There the package stays empty: `--help` and usage errors are answered without the seconds that
    importing TensorFlow takes, and a missing TensorFlow becomes one line instead of a stack trace.
    """
    if Path(sys.argv[0]).stem == "keras-resnet":
        return True
    arguments = sys.orig_argv
    if "-m" not in arguments[:-1]:
        return False
    # Its modules too, such as `python -m keras_resnet.libtpu_flags`, import what they need.
    return arguments[arguments.index("-m") + 1].split(".")[0] == __name__


if not _runs_as_command():
    from keras_resnet.backend import require_backend

    require_backend()

    # Importing the package registers its layers and models with Keras: load_model() finds them.
    from keras_resnet import blocks, layers, weights
    from keras_resnet.features import feature_extractor, feature_pyramid
    from keras_resnet.models import *  # noqa: F403
    from keras_resnet.models import __all__ as _models
    from keras_resnet.profiling import profile

    __all__ = [
        "__version__",
        "blocks",
        "feature_extractor",
        "feature_pyramid",
        "layers",
        "profile",
        "weights",
        *_models,
    ]
