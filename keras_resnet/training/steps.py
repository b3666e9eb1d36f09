"""What one replica computes in a step, and the compiled loops that call it many times.

The loop is our own because Keras' `fit` does not survive tf.distribute (docs/training.md says
where).
"""

import keras
import tensorflow as tf
from ml_collections import ConfigDict

import input_pipeline
from input_pipeline import augment
from keras_resnet.layers import average_moving_statistics, defer_moving_statistics
from keras_resnet.training.metrics import SUMS, labels_and_predictions, sums_of_batch
from keras_resnet.training.optimizers import decayed_variables
from keras_resnet.training.strategy import device_kind


def use_xla(choice: str, strategy: tf.distribute.Strategy) -> bool:
    """Says whether our own functions are compiled with XLA.

    TPUStrategy compiles `strategy.run` by itself. On CPU oneDNN's graph is about twice as fast as
    XLA (measured, ResNet-50), so "auto" leaves it off there.
    """
    kind = device_kind(strategy)
    if kind == "TPU":
        return False
    return kind == "GPU" if choice == "auto" else choice == "on"


class Steps:
    """The compiled training and evaluation loops of one model.

    Args:
      model: maps normalised float images [b, h, w, 3] to logits [b, classes].
      optimizer: a Keras optimiser, built for the model's trainable variables.
      strategy: where it runs; model and optimiser were created in its scope.
      config: reads `batch_size`, `xla`, `loss`, `optimizer.weight_decay`.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        strategy: tf.distribute.Strategy,
        config: ConfigDict,
    ):
        self.model, self.optimizer, self.strategy, self.config = model, optimizer, strategy, config
        self._decayed = {id(variable) for variable in decayed_variables(model)}
        self._forward_backward = self.forward_backward
        self._train_step = self.train_step
        self._averages_late = False
        if use_xla(config.xla, strategy):
            # With several replicas the update must stay outside: a collective cannot run inside a
            # function compiled per replica. With one, the whole step is one program.
            if strategy.num_replicas_in_sync > 1:
                self._averages_late = True
                defer_moving_statistics(model)
                self._forward_backward = tf.function(self.forward_backward, jit_compile=True)
            else:
                self._train_step = tf.function(self.train_step, jit_compile=True)

    def losses(self, labels: tf.Tensor, logits: tf.Tensor, mix: tf.Tensor | None = None):
        """Returns the softmax cross-entropy of each example, float32 [b], with label smoothing.

        With `mix` (`input_pipeline.augment.mix_images`) the smoothed targets are mixed.
        """
        logits = tf.cast(logits, tf.float32)
        targets = tf.one_hot(labels, logits.shape[-1])
        smoothing = self.config.loss.label_smoothing
        targets = targets * (1.0 - smoothing) + smoothing / logits.shape[-1]
        if mix is not None:
            targets = augment.mix_targets(targets, mix)
        return tf.nn.softmax_cross_entropy_with_logits(targets, logits)

    def forward_backward(self, images: tf.Tensor, labels: tf.Tensor, mix: tf.Tensor | None = None):
        """Returns (gradients of the loss over the global batch, SUMS over our own examples).

        With `mix` images and targets are mixed, and top1 and top5 ask for the label with the
        larger share.
        """
        if mix is not None:
            images = augment.mix_images(images, mix)
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            logits = self.model(self._normalize(images), training=True)
            losses = self.losses(labels, logits, mix)
            loss = tf.reduce_sum(losses) / self.config.batch_size
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        if mix is not None:
            labels = augment.major_labels(labels, mix)
        return self._add_weight_decay(variables, gradients), sums_of_batch(losses, labels, logits)

    def train_step(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """One replica's part of a training step; returns SUMS over its examples."""
        gradients, sums = self._forward_backward(batch["image"], batch["label"], batch.get("mix"))
        # Keras' apply sums the gradients over the replicas.
        self.optimizer.apply(gradients, self.model.trainable_variables)
        return sums

    def evaluate_step(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """One replica's part of an evaluation step.

        Returns:
          SUMS over its unpadded examples, and int32[b, 2] with the label and the prediction of each
          example, -1 for padding.
        """
        logits = self.model(self._normalize(batch["image"]), training=False)
        losses = self.losses(batch["label"], logits)
        return (
            sums_of_batch(losses, batch["label"], logits, batch["mask"]),
            labels_and_predictions(batch["label"], logits, batch["mask"]),
        )

    @tf.function
    def train(self, iterator, steps: tf.Tensor) -> tf.Tensor:
        """Runs `steps` training steps on the next batches; returns SUMS of each, [steps, 4]."""
        rows = tf.TensorArray(tf.float32, size=steps, element_shape=[len(SUMS)])
        for index in tf.range(steps):
            sums = self.strategy.run(self._train_step, args=(next(iterator),))
            rows = rows.write(index, self.strategy.reduce("SUM", sums, axis=None))
        if self._averages_late:  # before anybody reads them
            average_moving_statistics(self.model)
        return rows.stack()

    @tf.function
    def evaluate(self, iterator, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Evaluates the next `steps` batches.

        Returns:
          SUMS of each batch, float32[steps, 4], and labels and predictions in the order of the
          batches, int32[steps * batch, 2], -1 for padding.
        """
        rows = tf.TensorArray(tf.float32, size=steps, element_shape=[len(SUMS)])
        pairs = tf.TensorArray(tf.int32, size=steps, element_shape=[None, 2])
        for index in tf.range(steps):
            sums, batch_pairs = self.strategy.run(self.evaluate_step, args=(next(iterator),))
            rows = rows.write(index, self.strategy.reduce("SUM", sums, axis=None))
            pairs = pairs.write(index, self.strategy.gather(batch_pairs, axis=0))
        return rows.stack(), pairs.concat()

    def _normalize(self, images: tf.Tensor) -> tf.Tensor:
        dtype = self.model.compute_dtype
        return input_pipeline.normalize(images, self.model.preprocessing, dtype=dtype)

    def _add_weight_decay(self, variables: list, gradients: list) -> list:
        # L2 coupled into the gradient, d/dw (decay / 2 * w²), is what the papers trained with. Each
        # replica adds its share, because the gradients of the replicas are summed.
        rate = self.config.optimizer.weight_decay / self.strategy.num_replicas_in_sync
        if not rate:
            return gradients
        return [
            gradient + rate * tf.cast(variable.value, gradient.dtype)
            if id(variable) in self._decayed
            else gradient
            for variable, gradient in zip(variables, gradients, strict=True)
        ]
