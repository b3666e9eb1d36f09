"""Runs side by side: what differs in their configs and results, and their curves.

`keras_resnet.training.compare(...)` is the function. It reads work directories and needs neither
TensorFlow nor Keras.
"""

from keras_resnet.training.comparison.groups import (
    Comparison,
    Group,
    Spread,
    compare,
    compare_records,
)
from keras_resnet.training.comparison.records import RunRecord

__all__ = ["Comparison", "Group", "RunRecord", "Spread", "compare", "compare_records"]
