"""Whether config, devices and data fit each other; the same on every engine."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from keras_resnet.errors import UsageError
from keras_resnet.input_pipeline.augment import check_augment, check_batch


def class_weights_of(config: ConfigDict, given: Sequence[float] | None) -> Sequence[float]:
    """Returns the weights of the loss: those given, else of the config, () for none."""
    if given is not None:
        return given
    balanced = config.loss.class_weights == "balanced"  # which only the images can tell
    return () if balanced else config.loss.class_weights


def check_fit(
    config: ConfigDict, replicas: int, classes: int, trains: bool, weights: Sequence[float]
) -> None:
    """Raises UsageError where config, replicas and data do not fit each other.

    Args:
        config: of the run.
        replicas: over all hosts.
        classes: of the data.
        trains: whether it will train, or evaluate only.
        weights: of the classes, () for none.
    """
    micro_batches = config.accumulate_steps if trains else 1
    if config.batch_size % (replicas * micro_batches):
        size = replicas * micro_batches
        times = f" times config.accumulate_steps={micro_batches}" if micro_batches > 1 else ""
        raise UsageError(
            f"config.batch_size={config.batch_size} does not divide by {replicas} replicas"
            f"{times}; take {max(config.batch_size // size, 1) * size}, or other devices "
            "(config.devices, config.strategy), which a run that was begun may change"
        )
    if trains:
        augment = check_augment(config.data.augment.to_dict())
        check_batch(augment, config.batch_size // replicas // micro_batches)
    if config.precision == "mixed_float16" and replicas > 1:
        raise UsageError(
            f"config.precision='mixed_float16' on {replicas} replicas: Keras' loss scaling "
            "looks at the gradients of the first replica only, an overflow on another one "
            "would reach the weights; take mixed_bfloat16, or one replica"
        )
    if weights and len(weights) != classes:
        raise UsageError(
            f"config.loss.class_weights has {len(weights)} numbers, but the data has {classes} "
            "classes; give one for each, in the order of the class names"
        )
