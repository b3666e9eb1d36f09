"""Training, evaluation and prediction.

    from keras_resnet import training

    config = training.load_config("digits", {"epochs": 5})
    result = training.train(config, "runs/digits")

TensorFlow is loaded by the functions that compute. The engine below them, for loops of
your own, is `keras_resnet.training.tensorflow.TensorFlowEngine`.
"""

from keras_resnet.training.api import (
    compare,
    evaluate,
    find_learning_rate,
    load_config,
    plan,
    predict,
    train,
)
from keras_resnet.training.callbacks import Callback, RunInfo, scalars

__all__ = [
    "Callback",
    "RunInfo",
    "compare",
    "evaluate",
    "find_learning_rate",
    "load_config",
    "plan",
    "predict",
    "scalars",
    "train",
]
