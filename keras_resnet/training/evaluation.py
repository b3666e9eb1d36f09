"""Evaluating, and the trained network of a work directory."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras
import numpy as np
from ml_collections import ConfigDict

from keras_resnet.errors import UserError
from keras_resnet.flips import in_words, tta_note
from keras_resnet.models.loading import load_model
from keras_resnet.storage import find_damage_of_keras_file, local_copy
from keras_resnet.training import metrics
from keras_resnet.training.data import check_classes, explain_moved, open_source
from keras_resnet.training.engine import Engine, Evaluated, engine_here
from keras_resnet.training.label_sets import LabelSetEvaluation, figures
from keras_resnet.training.network import build_model
from keras_resnet.training.say import Say, silence
from keras_resnet.training.steps_per_call import StepsPerCall
from keras_resnet.training.workdir import WorkDir, checkpoint_steps

Which = Literal["newest", "best"]
# Logits that are kept of an evaluation, in numbers: 64 MB. A temperature needs no more images than
# that is, of 1,000 classes 16,777.
MAX_LOGITS = 2**24


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a network makes of a split with one label an image, every example counted once.

    Attributes:
        means: top1, top5, loss and examples. The loss is without class weights.
        labels_and_predictions: int32[examples, 2].
        class_names: of the network.
        logits: float32[n, classes], of all examples, or evenly of as many as MAX_LOGITS are.
        logit_labels: int32[n], of those.
    """

    means: dict[str, float]
    labels_and_predictions: np.ndarray
    class_names: list[str]
    logits: np.ndarray
    logit_labels: np.ndarray

    def confusion_matrix(self) -> np.ndarray:
        """Returns int64[classes, classes]: row the label, column the prediction.

        Exact whatever the batch size and the number of replicas; 8 MB for 1,000 classes.
        """
        return metrics.confusion_matrix(self.labels_and_predictions, len(self.class_names))

    def per_class_accuracy(self) -> np.ndarray:
        """Returns the top-1 accuracy of each class, NaN where it has no examples."""
        return metrics.per_class_accuracy(self.labels_and_predictions, len(self.class_names))


AnyEvaluation = Evaluation | LabelSetEvaluation


def evaluate_source(
    engine: Engine,
    source: Any,
    steps_per_call: StepsPerCall | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> AnyEvaluation | None:
    """Evaluates every example of `source` once, with `ema.decay` with the averaged weights.

    Args:
        engine: built.
        source: an `input_pipeline.Source`.
        steps_per_call: of earlier evaluations, which then need not find it again.
        should_stop: asked every two seconds or so.

    Returns:
        The evaluation, or None if `should_stop` ended it before the last batch.

    Raises:
        input_pipeline.DataError: an example cannot be read; names it.
    """
    total, done = -(-source.num_examples // engine.config.batch_size), 0
    every = -(-source.num_examples * len(engine.model.class_names) // MAX_LOGITS)
    if engine.config.data.multi_label:  # whose rows hold all scores: one of each batch, unused
        every = engine.config.batch_size
    steps_per_call = steps_per_call or make_steps_per_call(engine)
    parts: list[Evaluated] = []
    with engine.averaged_weights():
        batches = engine.evaluation_batches(source)
        while done < total:
            if parts and should_stop():
                return None
            count, begin = steps_per_call.choose(total - done), time.perf_counter()
            parts.append(engine.evaluate(batches, count, every))
            steps_per_call.took(count, time.perf_counter() - begin)
            done += len(parts[-1].sums)
    return _evaluation_of(engine, Evaluated(*map(np.concatenate, zip(*parts, strict=True))))


def _evaluation_of(engine: Engine, found: Evaluated) -> AnyEvaluation:
    names = engine.model.class_names
    if not engine.config.data.multi_label:
        labels = found.logit_rows[:, 0]
        return Evaluation(
            metrics.averages(found.sums),
            found.rows[found.rows[:, 0] >= 0],
            names,
            found.logits[labels >= 0],
            labels[labels >= 0],
        )
    means = metrics.averages(found.sums, metrics.LABEL_SET_SUMS)
    labels, probabilities = np.moveaxis(found.rows[found.rows[:, 0, 0] >= 0], 1, 0)
    labels = labels > 0.5
    scores = {**figures(labels, probabilities), **means}
    return LabelSetEvaluation(
        {name: scores[name] for name in metrics.LABEL_SET_FIGURES}, labels, probabilities, names
    )


def make_steps_per_call(engine: Engine) -> StepsPerCall:
    """Returns what chooses the steps of each call, alike on all hosts of the engine."""
    return StepsPerCall(engine.mean if engine.several_hosts else None)


def evaluate(config: ConfigDict, workdir: WorkDir, checkpoint: Which | None = None) -> dict:
    """Evaluates a checkpoint (see `restore`); returns top1, top5, loss, examples and step.

    Of several labels an image it returns map, f1 and macro_f1 in place of top1 and top5, and where
    the run has fitted thresholds both F1 at those, too.

    Raises:
        UserError: there is no such checkpoint, it cannot be used, or the devices cannot.
        input_pipeline.DataError: the data set cannot be used, or is one of other classes.
    """
    engine_here().check(config, workdir.path)
    engine, step = restore(config, workdir, checkpoint)
    with engine.explain_lost_hosts():
        with explain_moved():
            source = open_source(config, config.data.eval_split)
        check_classes(source, engine.model.class_names)
        evaluation = evaluate_source(engine, source)
    assert evaluation is not None  # nothing asked it to stop
    result: dict[str, Any] = dict(evaluation.means)
    thresholds = fitted_thresholds(config, workdir)
    if isinstance(evaluation, LabelSetEvaluation) and thresholds is not None:
        result |= evaluation.at_thresholds(thresholds)
    return {**result, **tta_note(config.evaluation.tta), "step": step}


def describe_result(result: dict[str, Any], classes: int) -> str:
    """Returns the line of figures that ends evaluation."""
    flips = f", {in_words(result['tta'])}" if "tta" in result else ""
    fitted = ""
    if "f1_at_thresholds" in result:
        fitted = f" ({result['f1_at_thresholds']:.4f} at the thresholds of the run)"
    return (
        f"{metrics.describe_accuracy(result, classes)}{fitted}  loss {result['loss']:.4f}  "
        f"on {result['examples']:,} examples at step {result['step']:,}{flips}"
    )


def restore(
    config: ConfigDict, workdir: WorkDir, checkpoint: Which | None = None
) -> tuple[Engine, int]:
    """Returns an engine for inference with a checkpoint of `workdir`, and its step.

    Args:
        config: the run's, with what has moved since.
        workdir: of the run.
        checkpoint: "newest", or "best": the one with the highest top-1 or mAP in evaluation; None:
            what `checkpoint.model` says.

    Raises:
        UserError: there is none, or it cannot be used.
    """
    class_names = workdir.read_dataset()["classes"]
    engine = engine_here()(config)
    with engine.explain_lost_hosts():
        engine.build(class_names)
        checkpoints = engine.checkpoints(workdir.checkpoints, Say(engine.is_chief))
        best = (checkpoint or config.checkpoint.model) == "best"
        progress = checkpoints.restore_best() if best else checkpoints.restore_newest()
    if progress is None:
        raise UserError(f"{workdir.checkpoints}: no checkpoint yet; train first")
    return engine, progress.step


def inference_model(engine: Engine, thresholds: Sequence[float] | None = None) -> keras.Model:
    """Returns the network with the trained weights on plain variables, giving probabilities.

    In float32 and outside of the engine's devices, so that it saves and loads anywhere; with
    `ema.decay` the weights are the averaged ones. With several labels an image each class has a
    probability of its own, by sigmoid, and `thresholds` above which it is predicted.
    """
    several = engine.config.data.multi_label
    model = build_model(
        engine.config,
        engine.model.class_names,
        precision="float32",
        classifier_activation="sigmoid" if several else "softmax",
    )
    if several:
        model.thresholds = thresholds
    model.set_weights(engine.inference_weights())
    return model


def load_model_of_workdir(
    workdir: WorkDir, checkpoint: Which | None = None, say: Callable[[str], None] = silence
) -> keras.Model:
    """Returns the trained network of a run, which gives probabilities.

    That is model.keras where the run is finished, or has left no checkpoint to restore, or nothing
    but model.keras is there; else, and where model.keras is not the one asked for, the network of
    its newest checkpoint, or of the best, with the thresholds that the run has fitted.

    Args:
        workdir: of the run.
        checkpoint: "newest" or "best"; None: what `checkpoint.model` says.
        say: told that the run is not finished, and which checkpoint is taken.

    Raises:
        UserError: there is no run, or nothing trained in it that can be used.
    """
    steps = checkpoint_steps(workdir.checkpoints)
    damage = None
    if _is_in_model_file(workdir, checkpoint, steps):
        damage = find_damage_of_keras_file(workdir.model)
        if damage is None or not steps:
            with local_copy(workdir.model) as file:
                return load_model(file)
        say(f"warning: {workdir.model} is not whole ({damage}); taking a checkpoint")
    config = workdir.read_config_for_one()
    engine, step = restore(config, workdir, checkpoint)
    if step > (workdir.read_result() or {"step": -1})["step"]:
        say(f"{workdir.path} is not finished; taking the checkpoint of step {step:,}")
    return inference_model(engine, fitted_thresholds(config, workdir))


def fitted_thresholds(config: ConfigDict, workdir: WorkDir) -> list[float] | None:
    """Returns the thresholds that a finished run has fitted of several labels an image.

    They stand in model.keras; None where it is not there or not whole, or has none.
    """
    if not config.data.multi_label or find_damage_of_keras_file(workdir.model):
        return None
    with local_copy(workdir.model) as file:
        return load_model(file).thresholds


def _is_in_model_file(workdir: WorkDir, checkpoint: Which | None, steps: list[int]) -> bool:
    """Returns whether model.keras is what is asked for; `steps` are those of the checkpoints."""
    if not workdir.model.exists():
        return False
    result = workdir.read_result()
    # Otherwise it was copied, with or without the rest of its run.
    if steps and workdir.is_begun() and (result is None or result["step"] < steps[-1]):
        return False
    if checkpoint is None:
        return True
    if result is None:
        return checkpoint == "newest"
    step = result.get("model_step", result["step"])
    return step == (result["step"] if checkpoint == "newest" else result.get("best_step"))
