"""From the config group `model` to the network that a run trains."""

import keras
from ml_collections import ConfigDict

from keras_resnet.config import preprocessing
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

    data = config.data
    # The trained model that is saved takes the size it is evaluated at.
    two_sizes = data.train_image_size not in (0, data.image_size)
    size = None if two_sizes and classifier_activation is None else data.image_size
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
    model.class_names = list(class_names)
    model.preprocessing = preprocessing(config)
    model.tta = config.evaluation.tta
    return model
