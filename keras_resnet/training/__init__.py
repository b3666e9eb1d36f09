"""Training, evaluation and prediction on TensorFlow, under any `tf.distribute` strategy.

    from keras_resnet import training

    config = training.load_config("digits", {"epochs": 5})
    result = training.train(config, "runs/digits")

Names are imported on first use: TensorFlow is loaded then.
"""

from typing import TYPE_CHECKING

from keras_resnet.lazy import lazy_names

if TYPE_CHECKING:
    from keras_resnet.training.api import evaluate as evaluate
    from keras_resnet.training.api import load_config as load_config
    from keras_resnet.training.api import predict as predict
    from keras_resnet.training.api import train as train
    from keras_resnet.training.run import open_sources as open_sources
    from keras_resnet.training.tensorflow.strategy import make_strategy as make_strategy
    from keras_resnet.training.tensorflow.trainer import Trainer as Trainer
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "api": ["evaluate", "load_config", "predict", "train"],
            "run": ["open_sources"],
            "tensorflow.strategy": ["make_strategy"],
            "tensorflow.trainer": ["Trainer"],
        },
    )
