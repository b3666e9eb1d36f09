"""From the engine's own training step to the input of the TPU compiler.

TensorFlow is imported by the function that needs it: the report and what builds on it do without.
"""

import dataclasses
import math

from ml_collections import ConfigDict

from keras_resnet.config import training_image_size
from keras_resnet.training.progress import Timeline

# Only the schedule depends on the number of examples, not what the step costs.
IMAGENET_TRAIN = 1_281_167


@dataclasses.dataclass(frozen=True)
class Lowered:
    """A training step of one replica, lowered.

    Attributes:
        hlo: serialized HloModuleProto.
        batch: images of the replica.
        model_flops: operations that the step needs by the formula of papers: multiply-adds of
            convolutions and dense layers, times 2, and times 3 for forward and backward pass; of a
            teacher times 2 alone.
        gradient_bytes: what the replicas have to sum.
        variable_bytes: all variables: weights, moving statistics, optimizer, averages, a teacher.
            TensorFlow updates them in place.
        parameters: trainable numbers.
        layers: names of the layers of the model.
        optimizer_bytes: the optimizer's part of the variables.
    """

    hlo: bytes
    batch: int
    model_flops: float
    gradient_bytes: int
    variable_bytes: int
    parameters: int
    layers: tuple[str, ...]
    optimizer_bytes: int = 0


def lower_train_step(config: ConfigDict, *, batch: int, classes: int) -> Lowered:
    """Builds the engine of `config` and lowers one replica's step through TensorFlow's bridge.

    What is lowered is the function that `train` runs on each replica, with `batch` images of
    uint8 as input. With `accumulate_steps` it is one part and the update.

    Args:
        config: a checked config; `batch_size` and `strategy` are replaced.
        batch: images per replica (and part).
        classes: outputs of the network.

    Raises:
        UserError: the engine refuses the config.
    """
    import numpy as np
    import tensorflow as tf

    from keras_resnet.layers import compiled_for_tpu
    from keras_resnet.models.costs import profile
    from keras_resnet.training.schedules import make_schedule
    from keras_resnet.training.teachers import read_teacher
    from keras_resnet.training.tensorflow import TensorFlowEngine

    config = config.copy_and_resolve_references()
    config.batch_size = batch * config.accumulate_steps
    if config.precision == "auto":
        config.precision = "mixed_bfloat16"  # what it is on every TPU
    config.xla = "off"  # the whole step is compiled here
    timeline = Timeline(config, max(IMAGENET_TRAIN, config.batch_size))
    engine = TensorFlowEngine(config, tf.distribute.OneDeviceStrategy("/cpu:0"))
    with compiled_for_tpu():
        engine.build([str(index) for index in range(classes)], make_schedule(config, timeline))
        if config.distill.teacher:
            engine.teach(read_teacher(config, classes, bfloat16=True))
    steps = engine.steps
    taught = 2 * steps.teacher.multiply_adds if steps.teacher else 0

    @tf.function(jit_compile=True, autograph=False)
    def step(batch):
        if config.accumulate_steps == 1:
            return steps.train_step(batch)
        sums = steps.accumulate_step(batch)
        steps.update_step()
        return sums

    example = _example(config, batch, classes)
    with compiled_for_tpu():
        hlo = step.experimental_get_compiler_ir(example)(stage="hlo_serialized")
    model, optimizer = engine.model, engine.optimizer
    assert optimizer is not None  # there is a schedule
    costs = profile(model, (training_image_size(config),) * 2 + (3,))
    # Those that the step captured are those that it reads or writes.
    captured = step.get_concrete_function(example).variables
    return Lowered(
        hlo=hlo,
        batch=batch,
        model_flops=(3 * 2 * costs.multiply_adds + taught) * batch,
        gradient_bytes=4 * costs.parameters,
        variable_bytes=sum(
            math.prod(variable.shape) * variable.dtype.size for variable in captured
        ),
        parameters=costs.parameters,
        layers=tuple(layer.name for layer in model.layers),
        optimizer_bytes=sum(
            math.prod(variable.shape) * np.dtype(variable.dtype).itemsize
            for variable in optimizer.variables
        ),
    )


def _example(config: ConfigDict, batch: int, classes: int) -> dict:
    """A batch of zeros as the input pipeline delivers it."""
    import tensorflow as tf

    size = training_image_size(config)
    example = {
        "image": tf.zeros([batch, size, size, 3], tf.uint8),
        "label": tf.zeros([batch], tf.int32),
    }
    if config.data.multi_label:
        example["label"] = tf.zeros([batch, classes])
    if config.data.augment.mixup or config.data.augment.cutmix:
        example["mix"] = tf.zeros([batch, 6])
    return example
