"""The error of everything that can be wrong with weights."""

from keras_resnet.errors import UserError


class WeightsError(UserError, ValueError):
    """Weights that cannot be found, read, or put into this model. The model is left unchanged."""
