"""Residual networks for Keras 3 and TensorFlow: models, blocks, training, export."""

import sys

__version__ = "0.1.0"

_command_line = sys.modules.get("keras_resnet_cli")

if _command_line is None or not _command_line.defers_loading:
    # Importing the package registers its layers and models with Keras: load_model() finds them.
    from keras_resnet.api import *  # noqa: F403
    from keras_resnet.api import __all__ as _public

    __all__ = ["__version__", *_public]
else:

    def __getattr__(name: str):
        """The same names for what the command line runs, such as a config file of the user's."""
        if name.startswith("__"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from keras_resnet import api

        globals().update({key: getattr(api, key) for key in api.__all__})
        if name not in globals():
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals()[name]
