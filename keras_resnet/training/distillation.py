"""Distillation: a trained teacher looks at the same images, and its answers are targets as well.

Hinton et al. 2015 ("Distilling the Knowledge in a Neural Network"), section 2, for the loss; Beyer
et al. 2022 ("Knowledge distillation: A good teacher is patient and consistent"), section 3, for
that the teacher sees the very crop and mix that the student sees. What is computed in a step stands
here, on any backend of Keras; which teacher a run has says `teachers.py`.
"""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops
from ml_collections import ConfigDict

from keras_resnet.layers import NormalizeImages
from keras_resnet.models.costs import profile
from keras_resnet.models.folding import inference_copy
from keras_resnet.preprocessing import Preprocessing


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained classifier, as it was read.

    Attributes:
        origin: file or address it came from.
        model: gives probabilities or logits.
        preprocessing: of its images.
        places: of each class of the data among the teacher's; None: they are the same, in the same
            order.
        digest: of its weights and all else that its answers depend on, hexadecimal.
        precision: that it computes in, "bfloat16" or "float32".
    """

    origin: str
    model: keras.Model
    preprocessing: Preprocessing
    places: tuple[int, ...] | None
    digest: str
    precision: str


class TeacherNetwork:
    """What a training step calls: a copy of a teacher for inference alone.

    Its normalizations are folded into its convolutions, and its variables, which do not train, are
    made where it is constructed: in the scope of a strategy, if there is one.

    Attributes:
        variables: of the copy.
        multiply_adds: for one image, as `models.costs.profile` counts them.
    """

    def __init__(self, teacher: Teacher):
        # TensorFlow convolves "channels_first" on no CPU.
        copy = inference_copy(teacher.model, precision=teacher.precision, channels_last=True)
        copy.layers[-1].activation = keras.activations.linear
        copy.trainable = False
        told = teacher.preprocessing
        self._model, self._places, self._size = copy, teacher.places, told.image_size
        self._normalize = NormalizeImages(told.mean, told.std, told.channel_order, "channels_last")
        self.variables: list[Any] = copy.variables
        self.multiply_adds = profile(copy, (self._size, self._size, 3)).multiply_adds

    def __call__(self, images: Any) -> Any:
        """Returns the teacher's logits of the classes of the data, float32[b, classes].

        Args:
            images: uint8 or float[b, h, w, 3], RGB values 0..255, mixed or not. Of another size
                than the teacher's they are resized to that.
        """
        images = resize(ops.cast(images, "float32"), self._size)
        logits = ops.cast(self._model(self._normalize(images), training=False), "float32")
        if self._places is not None:
            logits = ops.take(logits, ops.convert_to_tensor(self._places, "int32"), axis=-1)
        return ops.stop_gradient(logits)


def distill(config: ConfigDict, losses: Any, logits: Any, teacher_logits: Any) -> tuple[Any, Any]:
    """Returns what is trained on, and the teacher's part of it: both float32[b].

    (1 - weight) · the loss of the labels + weight · `distillation_losses`, by `distill.weight`.

    Args:
        config: reads `distill`, `data.multi_label` and `loss.sum_classes`.
        losses: of the labels, float32[b], with the weights of classes.
        logits: of the student, float[b, classes].
        teacher_logits: float[b, classes].
    """
    parts = distillation_losses(
        logits,
        teacher_logits,
        config.distill.temperature,
        independent=config.data.multi_label,
        sum_classes=config.loss.sum_classes,
    )
    weight = config.distill.weight
    return (1.0 - weight) * losses + weight * parts, parts


def distillation_losses(
    logits: Any,
    teacher_logits: Any,
    temperature: float,
    *,
    independent: bool = False,
    sum_classes: bool = False,
) -> Any:
    """Returns T² · KL(teacher ‖ student) of each example at the temperature T, float32[b].

    The probabilities of both are those of their logits divided by T. The factor T² keeps the size
    of the gradients when T changes, which 1 / T² would shrink (Hinton et al. 2015, section 2).

    Args:
        logits: of the student, float[b, classes].
        teacher_logits: float[b, classes].
        temperature: above 0.
        independent: each class is a yes or no of its own; the mean over the classes counts.
        sum_classes: of those the sum.
    """
    student = ops.cast(logits, "float32") / temperature
    teacher = ops.cast(teacher_logits, "float32") / temperature
    if not independent:
        wanted, given = ops.log_softmax(teacher, axis=-1), ops.log_softmax(student, axis=-1)
        losses = ops.sum(ops.exp(wanted) * (wanted - given), axis=-1)
    else:
        yes = ops.log_sigmoid(teacher) - ops.log_sigmoid(student)
        no = ops.log_sigmoid(-teacher) - ops.log_sigmoid(-student)
        divergences = ops.sigmoid(teacher) * yes + ops.sigmoid(-teacher) * no
        losses = (ops.sum if sum_classes else ops.mean)(divergences, axis=-1)
    return temperature**2 * losses


def resize(images: Any, size: int) -> Any:
    """Returns images with other sides, float32[b, size, size, 3]; of the same size as they are.

    Bilinear with antialiasing, as the pipeline resizes, but without rounding to 8 bits: one product
    of matrices for each side, which every device has, where TensorFlow's own antialiased resizing
    has no kernel for GPUs and none in XLA.

    Args:
        images: float32[b, h, w, 3], h and w static.
        size: pixels of both sides.
    """
    height, width = images.shape[1:3]
    if height != size:
        images = ops.einsum("oh,bhwc->bowc", _weights(height, size), images)
    if width != size:
        images = ops.einsum("ow,bhwc->bhoc", _weights(width, size), images)
    return images


def _weights(pixels: int, size: int) -> Any:
    """float32[size, pixels]: how much of each pixel is in each of the resized line, as PIL has it.

    A triangle as wide as two pixels of the coarser of both lines.
    """
    scale = pixels / size
    centers = (np.arange(size)[:, None] + 0.5) * scale
    distances = np.abs(np.arange(pixels)[None] + 0.5 - centers) / max(scale, 1.0)
    weights = np.maximum(1.0 - distances, 0.0)
    return ops.convert_to_tensor((weights / weights.sum(1, keepdims=True)).astype("float32"))
