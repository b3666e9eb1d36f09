"""The TensorFlow engine: what knows `tf.distribute`."""

from keras_resnet.training.tensorflow.engine import TensorFlowEngine
from keras_resnet.training.tensorflow.strategy import make_strategy

__all__ = ["TensorFlowEngine", "make_strategy"]
