"""What is wrong with a set of labelled images: `keras_resnet.inspect_images(data)`.

    inspection   the answer, and how it is told: text, JSON, a list of files to leave out
    findings     the kinds of findings and their rules
    measuring, file_headers   what is measured of each file
    duplicates   the same image twice, exactly or nearly
    label_errors   labels that are probably wrong, from predictions

Loads TensorFlow when images are read.
"""

from keras_resnet.inspection.findings import KINDS, LEFT_OUT, Finding, Item
from keras_resnet.inspection.inspection import Inspection, inspect_images
from keras_resnet.inspection.label_errors import LabelErrors, find_label_errors

__all__ = [
    "KINDS",
    "LEFT_OUT",
    "Finding",
    "Inspection",
    "Item",
    "LabelErrors",
    "find_label_errors",
    "inspect_images",
]
