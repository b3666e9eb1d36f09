"""Whether a Keras model is a classifier of images, and how it makes probabilities."""

import keras

from keras_resnet.errors import UserError
from keras_resnet.preprocessing import Preprocessing, PreprocessingError

_CHANNELS = 3


def check_classifier(model: keras.Model, what: str) -> Preprocessing:
    """Returns the preprocessing of a classifier of 2-D RGB images.

    Args:
        model: any Keras model.
        what: whom messages speak of, such as "what is exported".

    Raises:
        UserError: `model` is no such classifier, or does not say how its images are prepared.
    """
    head = model.layers[-1] if model.layers else None
    if len(model.outputs) != 1 or not isinstance(head, keras.layers.Dense):
        raise UserError(
            f"{model.name} does not end in a classifier (a Dense layer), as {what} does; make it "
            "with include_top=True"
        )
    shape = tuple(model.inputs[0].shape)
    if len(model.inputs) != 1 or len(shape) != 4 or _CHANNELS not in (shape[1], shape[3]):
        raise UserError(f"{model.name} takes {shape}; {what} takes 2-D RGB images")
    given = getattr(model, "preprocessing", None)
    if given is None:
        raise UserError(
            f"{model.name} does not say how its images are prepared; set model.preprocessing (see "
            "keras_resnet.preprocessing.Preprocessing) before saving it, or export it with "
            "--preprocessing=imagenet, or =FILE of those fields (in Python preprocessing=...)"
        )
    try:
        preprocessing = Preprocessing.from_dict(given)
    except PreprocessingError as error:
        raise UserError(f"the preprocessing of {model.name}: {error}") from error
    if len(preprocessing.mean) != _CHANNELS:
        raise UserError(
            f"the preprocessing of {model.name}: mean is {preprocessing['mean']!r}; it must hold "
            f"one number per channel ({_CHANNELS})."
        )
    size = preprocessing.image_size
    if any(side not in (None, _CHANNELS, size) for side in shape[1:]):
        raise UserError(
            f"{model.name} takes images of {shape[1:]}, but its preprocessing makes {size} pixels"
        )
    return preprocessing


def is_multilabel(head: keras.layers.Dense, name: str) -> bool:
    """The one rule of how probabilities are made: the classifier's activation says it."""
    if head.activation in (keras.activations.softmax, keras.activations.linear):
        return False
    if head.activation is keras.activations.sigmoid:
        return True
    raise UserError(
        f"{name} ends in the activation {keras.activations.serialize(head.activation)!r}; "
        "probabilities are made by softmax (also where the classifier gives logits) or sigmoid"
    )


def gives_label_sets(model: keras.Model) -> bool:
    """Whether a model ends in a classifier that gives each class a probability of its own."""
    head = model.layers[-1] if model.layers else None
    return isinstance(head, keras.layers.Dense) and is_multilabel(head, model.name)
