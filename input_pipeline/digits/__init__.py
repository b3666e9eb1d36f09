"""The embedded real data: scikit-learn's handwritten digits as a TFDS data set, `digits`."""

from keras_resnet.input_pipeline.digits.builder import Digits, is_prepared, load, prepare

__all__ = ["Digits", "is_prepared", "load", "prepare"]
