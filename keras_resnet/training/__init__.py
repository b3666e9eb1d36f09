"""Training, evaluation and prediction on TensorFlow, under any `tf.distribute` strategy.

    from keras_resnet import training

    config = training.load_config("digits", {"epochs": 5})
    result = training.train(config, "runs/digits")

Names are imported on first use: TensorFlow is loaded then.
"""

import importlib

_EXPORTS = {
    "Trainer": "keras_resnet.training.tensorflow.trainer",
    "evaluate": "keras_resnet.training.api",
    "load_config": "keras_resnet.training.api",
    "make_strategy": "keras_resnet.training.tensorflow.strategy",
    "open_sources": "keras_resnet.training.run",
    "predict": "keras_resnet.training.api",
    "train": "keras_resnet.training.api",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
