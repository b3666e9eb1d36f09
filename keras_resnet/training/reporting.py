"""What a run tells: terminal, metrics.jsonl, callbacks, pictures."""

import contextlib
import json
import math
import shlex
from typing import Any

import keras
import numpy as np
import tqdm
from ml_collections import ConfigDict

from keras_resnet.flips import in_words
from keras_resnet.training import confusion, curves, label_sets, reliability
from keras_resnet.training.callbacks import Callbacks
from keras_resnet.training.metrics import (
    DISTILLATION,
    describe_accuracy,
    figures_of,
    images_per_second,
    score_of,
)
from keras_resnet.training.progress import Timeline
from keras_resnet.training.say import Say
from keras_resnet.training.workdir import WorkDir

# When a loss is judged: an epoch after the warm-up, and no earlier than this step. It has not left
# the loss of guessing, ln(classes), unless it is below that by this part.
JUDGED_STEP, LEFT_GUESSING = 100, 0.02


class Reporter:
    """Follows one run; as a context manager it opens and closes the progress bar.

    Args:
        workdir: where it writes.
        config: of the run.
        model: the network of the run.
        timeline: of the run.
        start: the step the run starts or resumes at. Rows of later steps are dropped, they come
            again.
        say: how it speaks.
        is_over: whether nothing is left to train.
        callbacks: that are told of every row.
    """

    def __init__(
        self,
        workdir: WorkDir,
        config: ConfigDict,
        model: keras.Model,
        timeline: Timeline,
        start: int,
        say: Say,
        is_over: bool = False,
        callbacks: Callbacks | None = None,
    ):
        self.workdir, self.start, self._is_over = workdir, start, is_over
        self._config, self._model, self._timeline, self._say = config, model, timeline, say
        self.rows = workdir.rewind_metrics(start)
        self._bar: tqdm.tqdm | None = None
        self._callbacks = callbacks or Callbacks(say)
        self._first_call = True
        self._judged = False

    def introduce(
        self, devices: str, train_source: Any, eval_source: Any, test_source: Any = None
    ) -> None:
        """Says what is about to run."""
        config, total = self._config, self._timeline.total_steps
        trainable = sum(math.prod(variable.shape) for variable in self._model.trainable_variables)
        self._say(f"model      {config.model.name}, {trainable:,} trainable parameters")
        self._say(f"device     {devices}, {config.precision}, xla {config.xla}")
        if train_source.layout:
            self._say(f"data       {train_source.layout}")
        self._say(f"training   {train_source.description}")
        self._say(f"evaluation {eval_source.description}")
        if test_source is not None:
            self._say(f"test       {test_source.description}, at the end only")
        self._say(
            f"schedule   {config.epochs} epochs, {total:,} steps of {config.batch_size} images, "
            f"{config.schedule.name}, peak rate {config.optimizer.learning_rate:g}"
        )
        if unfreeze_at := self._timeline.unfreeze_at:
            self._say(
                f"stages     model.freeze={config.model.freeze} until step {unfreeze_at:,} (epoch "
                f"{config.model.unfreeze_epoch}), then all layers train"
            )
        self._say(f"work dir   {self.workdir.path}")
        if self.start and not self._is_over:
            self._say(f"resuming   at step {self.start:,} of {total:,}")

    def __enter__(self) -> "Reporter":
        if not self._is_over:
            self._bar = self._say.progress_bar(self._timeline.total_steps, self.start)
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.close()

    def trained(
        self,
        step: int,
        means: dict[str, float],
        learning_rate: float,
        gradient_norms: dict[str, float] | None = None,
    ) -> None:
        """Records the steps up to `step`.

        Args:
            step: steps that are done.
            means: as `Window.means` gives them.
            learning_rate: of the last step.
            gradient_norms: of the last step, as `Engine.gradient_norms` gives them.
        """
        row: dict[str, Any] = {
            "kind": "train",
            "step": step,
            "epoch": round(self._timeline.epoch_at_step(step), 4),
            "loss": means["loss"],
            **{name: means[name] for name in (DISTILLATION, "top1", "f1") if name in means},
            "learning_rate": learning_rate,
            "image_size": self._timeline.segment_at(step - 1).image_size,
            "images_per_second": means["examples"] / means["seconds"],
            "examples": means["examples"],
        }
        if gradient_norms:
            row["gradient_norms"] = gradient_norms
        if self._first_call:  # tracing and compiling would spoil the figure
            row["compiles"], self._first_call = True, False
        self._record(row)
        self._warn_if_it_only_guesses(row)
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
            epoch = f"epoch {row['epoch']:.1f}/{self._config.epochs}"
            self._bar.set_description(epoch, refresh=False)
            speed = f"{row['images_per_second']:,.0f} images/s"
            self._bar.set_postfix_str(f"loss {row['loss']:.3f}, {speed}")

    def _warn_if_it_only_guesses(self, row: dict[str, Any]) -> None:
        """Says once what to try if the loss is still that of a network that guesses."""
        config, classes = self._config, len(self._model.class_names)
        early = row["epoch"] < config.schedule.warmup_epochs + 1 or row["step"] < JUDGED_STEP
        # Other losses, and weighted ones, begin elsewhere.
        is_plain = config.loss.name == "softmax" and not config.loss.class_weights
        if self._judged or early or not is_plain or config.distill.teacher:
            return
        self._judged = True
        if row["loss"] > (1 - LEFT_GUESSING) * math.log(classes):
            self._say(
                f"warning: after {row['step']:,} steps the loss is {row['loss']:.3f}, that of "
                f"guessing one of {classes} classes ({math.log(classes):.3f}). Try a smaller or "
                "larger config.optimizer.learning_rate, config.model.zero_init_last_gamma=False or "
                "fewer layers in another --workdir, and look at what the network sees: "
                "keras-resnet show"
            )

    def evaluated(self, step: int, means: dict[str, float]) -> None:
        """Records an evaluation; `means` are of `Evaluation`."""
        row: dict[str, Any] = {
            "kind": "eval",
            "step": step,
            "epoch": round(self._timeline.epoch_at_step(step), 4),
            **means,
        }
        self._record(row)
        trained = next((entry for entry in reversed(self.rows) if entry["kind"] == "train"), None)
        loss, speed = "", ""
        if trained and trained.get("loss") is not None and trained.get("images_per_second"):
            loss = f"train loss {trained['loss']:.4f}, "
            speed = f", {trained['images_per_second']:,.0f} images/s"
        self._say(
            f"epoch {row['epoch']:.1f}/{self._config.epochs}: {loss}"
            f"eval loss {means['loss']:.4f}, "
            f"{_score_in_words(means)}{speed}"
        )

    def has_evaluation(self, step: int) -> bool:
        """Returns whether the evaluation at `step` is on record."""
        return any(row["kind"] == "eval" and row["step"] == step for row in self.rows)

    def rolled_back(self, step: int, failed_step: int, learning_rate: float) -> None:
        """Records a roll-back to `step`; rows past it are dropped, they come again."""
        self.rows = self.workdir.rewind_metrics(step)
        row: dict[str, Any] = {
            "kind": "rollback",
            "step": step,
            "failed_step": failed_step,
            "learning_rate": learning_rate,
        }
        self._record(row)
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def draw_confusion(self, matrix: np.ndarray) -> None:
        """Writes classes.csv and confusion.png of the last evaluation; says the worst classes."""
        names = self._model.class_names
        confusion.write_table(matrix, names, self.workdir.classes)
        worst = confusion.worst_classes(matrix, names)
        if worst:
            self._say("worst classes, of all in classes.csv:")
            for line in worst:
                self._say(line)
        title = f"{self._config.model.name}, {matrix.sum():,} held-out examples"
        # Without matplotlib `draw_curves` has said so.
        with contextlib.suppress(ImportError):
            confusion.draw(matrix, names, self.workdir.confusion, title)

    def draw_classes(self, rows: list[dict[str, Any]]) -> None:
        """Writes classes.csv of several labels an image; says the worst classes."""
        label_sets.write_table(rows, self.workdir.classes)
        worst = label_sets.worst_classes(rows)
        for line in ["worst classes, of all in classes.csv:", *worst] if worst else []:
            self._say(line)

    def evaluation_at(self, step: int) -> dict | None:
        """Returns the figures of the evaluation at `step` (`metrics.figures_of`), if there was."""
        for row in reversed(self.rows):
            if row["kind"] == "eval" and row["step"] == step and (found := figures_of(row)):
                return found
        return None

    def images_per_second(self) -> float | None:
        """Returns training images/s over the run; None if metrics.jsonl, damaged, cannot tell."""
        return images_per_second(self.rows)

    def draw_curves(self) -> None:
        """Writes curves.png, or says what is missing for it."""
        message = curves.draw(self.rows, self.workdir.curves, title=self._config.model.name)
        if message:
            self._say(message)

    def conclude(
        self, result: dict, calibration: dict | None = None, wrote_report: bool = False
    ) -> None:
        """Says how the run ended, and what can be done next.

        Args:
            result: the content of result.json.
            calibration: that of calibration.json, if there is one.
            wrote_report: whether there is a report.html.
        """
        where = shlex.quote(f"--workdir={self.workdir.path}")
        self._say("")
        rate = result.get("train_images_per_second")
        speed = f"; trained at {rate:,.0f} images/s" if isinstance(rate, int | float) else ""
        self._say(
            f"Done: {describe_accuracy(result, len(self._model.class_names))}  "
            f"loss {result['loss']:.4f}  on {result['examples']:,} held-out examples{speed}"
        )
        if "tta" in result:
            self._say(f"Evaluated {in_words(result['tta'])}.")
        if (model_step := result.get("model_step")) not in (None, result.get("step")):
            self._say(f"model.keras has the weights of step {model_step:,}, the best evaluated.")
        prefix = "test_"
        of_test = {k.removeprefix(prefix): v for k, v in result.items() if k.startswith(prefix)}
        if test := figures_of(of_test):
            self._say(
                f"Test: {describe_accuracy(test, len(self._model.class_names))}  "
                f"loss {test['loss']:.4f}  on the {test['examples']:,} images of "
                f"{result['test_split']}, by which nothing was chosen (by those of "
                f"{result['eval_split']} was)"
            )
        if calibration is not None:
            self._say(reliability.summarize(calibration))
        if "f1_at_thresholds" in result:
            line = f"F1 {result['f1_at_thresholds']:.4f} on {result['eval_split']}"
            self._say(
                f"With the threshold of each class that is best on {result['eval_split']}: {line}, "
                f"{result['test_f1_at_thresholds']:.4f} on {result['test_split']}"
            )
        splits = ("train", "eval", "test")
        if skipped := sum(result.get(f"skipped_{split}_images", 0) for split in splits):
            self._say(f"{skipped:,} broken images were skipped; the first ten were named.")
        if wrote_report:
            self._say(f"Report: {self.workdir.report}")
        self._say("Next:")
        self._say(f"  keras-resnet evaluate {where}")
        self._say(f"  keras-resnet predict {where} IMAGE...")
        self._say(f"  tensorboard {shlex.quote(f'--logdir={self.workdir.tensorboard}')}")
        model = json.dumps(str(self.workdir.model))
        self._say(f"  keras.saving.load_model({model})   after import keras_resnet")

    def _record(self, row: dict) -> None:
        row = {key: without_nan(value) for key, value in row.items()}
        self.rows.append(row)
        self.workdir.append_metrics(row)
        self._callbacks.record(row)


def _score_in_words(means: dict[str, float]) -> str:
    name, score = score_of(means)
    f1 = f", F1 {means['f1']:.4f}" if "f1" in means else ""
    return f"{name} {score:.4f}{f1}"


def without_nan(value: Any) -> Any:
    """Returns None in place of a NaN or an infinity, which JSON has not, in dicts as well."""
    if isinstance(value, dict):
        return {key: without_nan(one) for key, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_json(values: dict[str, Any]) -> str:
    """Returns `values` as readable JSON with a line end."""
    return json.dumps(values, indent=2) + "\n"
