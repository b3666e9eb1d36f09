"""The evaluation step of one model, over all replicas."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import keras
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from keras_resnet.flips import answer_with_flips
from keras_resnet.training.counting import counting_of
from keras_resnet.training.engine import Evaluated
from keras_resnet.training.jax.mesh import AXIS, EVERYWHERE, on_all, over_examples
from keras_resnet.training.jax.normalization import normalization_of
from keras_resnet.training.losses import example_losses

# Steps that are handed to the devices before the host waits for the one so many before.
IN_FLIGHT = 2


class EvaluationSteps:
    """Evaluates batches with whatever weights it is given.

    Args:
        model: maps normalized float images [b, h, w, 3] to logits [b, classes].
        mesh: of all devices.
        config: reads `loss`, `data.multi_label` and `evaluation.tta`.
    """

    def __init__(self, model: keras.Model, mesh: Mesh, config: ConfigDict):
        self.model, self.mesh, self.config = model, mesh, config
        self.counting = counting_of(config.data.multi_label, model.outputs[0].shape[-1])
        self._normalize = normalization_of(model)
        self._compiled: dict[int, Callable] = {}

    def run(self, weights: list, batches: Iterator[Any], steps: int, every: int) -> Evaluated:
        """Evaluates `steps` batches with the values of `model.variables`; as `Engine.evaluate`."""
        if every not in self._compiled:
            step, specs = partial(self.step, every=every), (EVERYWHERE, over_examples(1))
            self._compiled[every] = on_all(self.mesh, step, specs)
        found: list[Evaluated] = []
        for index in range(steps):
            found.append(self._compiled[every](weights, next(batches)))
            if index >= IN_FLIGHT:
                found[index - IN_FLIGHT].sums.block_until_ready()
        arrays = [Evaluated(*map(np.asarray, one)) for one in found]
        sums = np.stack([one.sums for one in arrays])
        rest = (np.concatenate(values) for values in zip(*(one[1:] for one in arrays), strict=True))
        return Evaluated(sums, *rest)

    def step(self, weights: list, batch: dict[str, Any], every: int = 1) -> Evaluated:
        """One replica's part; what it returns is of all, as every process wants all rows."""
        mapping = list(zip(self.model.variables, weights, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            logits = answer_with_flips(
                partial(self.model, training=False),
                self._normalize(batch["image"]),
                self.config.evaluation.tta,
                self.config.data.multi_label,
            )
        losses = example_losses(self.config.loss, batch["label"], logits)
        rows = self.counting.rows(batch["label"], logits, batch["mask"])
        sums = self.counting.sums(losses, batch["label"], logits, batch["mask"])
        of_examples = (rows, logits.astype("float32")[::every], rows[::every])
        return Evaluated(
            jax.lax.psum(sums, AXIS),
            *(jax.lax.all_gather(values, AXIS, tiled=True) for values in of_examples),
        )
