"""From the config group `model` to the network that a run trains."""

from collections.abc import Iterable

import keras
from ml_collections import ConfigDict

from keras_resnet.architectures import get_architecture
from keras_resnet.architectures.description import fields_of
from keras_resnet.config import evaluation_image_size, preprocessing, training_image_sizes
from keras_resnet.errors import UsageError

# Keys of the group that say what happens to a network, not what it is.
_NOT_ITS_OWN = ("weights", "weights_match", "weights_rename", "freeze", "unfreeze_epoch")


def build_model(
    config: ConfigDict,
    class_names: list[str],
    precision: str | None = None,
    classifier_activation: str | None = None,
) -> keras.Model:
    """Returns the network of `model.*` with random weights; by default it gives logits.

    Its `preprocessing` (from `data.*`), `class_names` and `tta` are what evaluation, prediction and
    saved models use.
    """
    from keras_resnet.models import create_model

    # The trained model that is saved takes the size it is evaluated at.
    evaluated = evaluation_image_size(config)
    sizes = {*training_image_sizes(config).sizes, evaluated}
    size = None if len(sizes) > 1 and classifier_activation is None else evaluated
    # None and () mean: as the variant has it.
    options = {
        key: value
        for key, value in config.model.items()
        if value not in (None, ()) and key not in _NOT_ITS_OWN
    }
    options["norm"] = {"synchronized": options.pop("synchronized_norm")}
    try:
        model = create_model(
            options.pop("name"),
            input_shape=(size, size, 3),
            classes=len(class_names),
            classifier_activation=classifier_activation,
            dtype=precision or config.precision,
            **options,
        )
    except (TypeError, ValueError) as error:
        raise UsageError(f"config.model: {error}") from error
    _check_sizes(model, sizes, config)
    model.class_names = list(class_names)
    model.preprocessing = preprocessing(config)
    model.tta = config.evaluation.tta
    return model


def _check_sizes(model: keras.Model, sizes: Iterable[int], config: ConfigDict) -> None:
    """Raises UsageError where an image has fewer pixels than one of the last feature map has."""
    from keras_resnet.models.plans import total_strides

    fields = fields_of(model.architecture)
    row = get_architecture(fields.pop("name")).changed(**fields)
    least, smallest = max(total_strides(row, 2)), min(sizes)
    if smallest < least:
        keys = ("data.image_size", "data.train_image_size", "evaluation.image_size")
        given = {key: config[key.split(".")[0]][key.split(".")[1]] for key in keys}
        said = ", ".join(f"config.{key}={value!r}" for key, value in given.items() if value)
        raise UsageError(
            f"{said}: images of {smallest} px are too small for {row.name}, whose strides make one "
            f"of {least} px; take {least} px or more"
        )
