"""The norm of the gradient of each block, inside the compiled step: vanishing gradients, seen."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_resnet.training.decay import DecayMixin
from keras_resnet.training.gradient_blocks import block_names, block_of, norms_of_blocks


class GradientNorms:
    """Updates weights, and says the norm of the gradient of each block where it is asked for.

    It is the gradient of the mean loss over the global batch: summed over the replicas and
    micro-batches, without the scale of float16, before it is clipped, and without weight decay.

    Args:
        optimizer: built; of `training.optimizers`, in float16 inside of Keras' loss scaling.
        variables: that train.

    Attributes:
        names: of the blocks, from the image to the classifier.
        last: float32[blocks], of the last step that it was asked for; not distributed.
    """

    def __init__(self, optimizer: Any, variables: Sequence[Any]):
        self._optimizer, self._variables = optimizer, variables
        self._blocks = [block_of(variable.path) for variable in variables]
        self.names = block_names(self._blocks)
        self.last = tf.Variable(tf.zeros(len(self.names)), trainable=False)
        self._scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        if not self._scaled:
            optimizer.keeps_gradients = True

    def update(self, gradients: Sequence[tf.Tensor], wanted: tf.Tensor) -> tf.Tensor:
        """Applies one replica's gradients.

        Args:
            gradients: of the variables.
            wanted: bool, whether the norms are.

        Returns:
            float32[blocks], the same on all replicas; zeros where they are not wanted.
        """
        if self._scaled:  # on one replica only: see the engine's checks
            summed: Sequence = [gradient / self._optimizer.dynamic_scale for gradient in gradients]
            self._optimizer.apply(gradients, self._variables)
        else:
            self._optimizer.apply(gradients, self._variables)
            summed = DecayMixin.take_gradients()
        return tf.cond(
            wanted, lambda: norms_of_blocks(self._blocks, summed), lambda: tf.zeros(len(self.names))
        )
