"""What a run tells: terminal, metrics.jsonl, TensorBoard, pictures."""

import contextlib
import json
import math
import sys

import keras
import tensorflow as tf
import tqdm

from keras_resnet.training import confusion, curves
from keras_resnet.training.workdir import WorkDir


class Reporter:
    """Follows one run; as a context manager it opens and closes progress bar and event file.

    Args:
        workdir: where it writes.
        trainer: whose run it is.
        start: the step the run starts or resumes at. Rows of later steps are dropped, they come
        again.
        speaks: False prints nothing, for all hosts but the first.
    """

    def __init__(self, workdir: WorkDir, trainer, start: int, speaks: bool = True):
        self.workdir, self.trainer, self.start = workdir, trainer, start
        self._speaks = speaks
        self.rows = workdir.rewind_metrics(start)
        self._bar = self._event_writer = None
        self._first_call = True

    def introduce(self, strategy: str, train_source, eval_source) -> None:
        """Prints what is about to run."""
        config, model = self.trainer.config, self.trainer.model
        trainable = sum(math.prod(variable.shape) for variable in model.trainable_variables)
        self.say(f"model      {config.model.name}, {trainable:,} trainable parameters")
        self.say(f"device     {strategy}, {config.precision}, xla {config.xla}")
        self.say(f"training   {train_source.description}")
        self.say(f"evaluation {eval_source.description}")
        self.say(
            f"schedule   {config.epochs} epochs, {self.trainer.total_steps:,} steps of "
            f"{config.batch_size} images, {config.schedule.name}, peak rate "
            f"{config.optimizer.learning_rate:g}"
        )
        self.say(f"work dir   {self.workdir.path}")
        if 0 < self.start < self.trainer.total_steps:
            self.say(f"resuming   at step {self.start:,} of {self.trainer.total_steps:,}")

    def __enter__(self):
        total = self.trainer.total_steps
        if self.start < total:
            # disable=None: no bar where the output is no terminal, one line an epoch instead.
            self._bar = tqdm.tqdm(
                total=total,
                initial=self.start,
                unit="step",
                disable=None if self._speaks else True,
                dynamic_ncols=True,
                desc="compiling",
            )
        return self

    def __exit__(self, *_):
        if self._bar is not None:
            self._bar.close()
        if self._event_writer is not None:
            self._event_writer.close()

    @property
    def _events(self) -> tf.summary.SummaryWriter:
        """Opened with the first row: a finished run that is started again leaves no empty file."""
        if self._event_writer is None:
            self._event_writer = tf.summary.create_file_writer(str(self.workdir.tensorboard))
        return self._event_writer

    def trained(self, step: int, means: dict, learning_rate: float) -> None:
        """Records the steps up to `step`; `means` as yielded by `Trainer.train`."""
        row = {
            "kind": "train",
            "step": step,
            "epoch": round(self.trainer.epoch_at_step(step), 4),
            "loss": means["loss"],
            "top1": means["top1"],
            "learning_rate": learning_rate,
            "images_per_second": means["examples"] / means["seconds"],
            "examples": means["examples"],
        }
        if self._first_call:  # tracing and compiling would spoil the figure
            row["compiles"], self._first_call = True, False
        self._record(row)
        self._bar.update(step - self._bar.n)
        self._bar.set_description(
            f"epoch {row['epoch']:.1f}/{self.trainer.config.epochs}", refresh=False
        )
        self._bar.set_postfix_str(
            f"loss {row['loss']:.3f}, {row['images_per_second']:,.0f} images/s"
        )

    def evaluated(self, step: int, means: dict) -> None:
        """Records an evaluation; `means` as returned by `Trainer.evaluate`."""
        row = {
            "kind": "eval",
            "step": step,
            "epoch": round(self.trainer.epoch_at_step(step), 4),
            **means,
        }
        self._record(row)
        if self.trainer.config.tensorboard.histograms:
            self._write_histograms(step)
        trained = next((entry for entry in reversed(self.rows) if entry["kind"] == "train"), None)
        loss = f"train loss {trained['loss']:.4f}, " if trained else ""
        speed = f", {trained['images_per_second']:,.0f} images/s" if trained else ""
        self.say(
            f"epoch {row['epoch']:.1f}/{self.trainer.config.epochs}: {loss}"
            f"eval loss {means['loss']:.4f}, "
            f"top1 {means['top1']:.4f}{speed}"
        )

    def has_evaluation(self, step: int) -> bool:
        """Returns whether the evaluation at `step` is on record."""
        return any(row["kind"] == "eval" and row["step"] == step for row in self.rows)

    def rolled_back(self, step: int, failed_step: int, learning_rate: float) -> None:
        """Records a roll-back to `step`; rows past it are dropped, they come again."""
        self.rows = self.workdir.rewind_metrics(step)
        row = {
            "kind": "rollback",
            "step": step,
            "failed_step": failed_step,
            "learning_rate": learning_rate,
        }
        self._record(row)
        self._bar.update(step - self._bar.n)

    def draw_confusion(self) -> None:
        """Writes classes.csv and confusion.png of the last evaluation; prints the worst classes."""
        matrix, names = self.trainer.confusion_matrix(), self.trainer.model.class_names
        confusion.write_table(matrix, names, self.workdir.classes)
        worst = confusion.worst_classes(matrix, names)
        if worst:
            self.say("worst classes, of all in classes.csv:")
            for line in worst:
                self.say(line)
        title = f"{self.trainer.config.model.name}, {matrix.sum():,} held-out examples"
        # Without matplotlib `draw_curves` has said so.
        with contextlib.suppress(ImportError):
            confusion.draw(matrix, names, self.workdir.confusion, title)

    def last_evaluation(self) -> dict | None:
        """Returns top1, top5, loss, examples of the last step's evaluation, if there was one."""
        for row in reversed(self.rows):
            if row["kind"] == "eval" and row["step"] == self.trainer.total_steps:
                return {key: row[key] for key in ("top1", "top5", "loss", "examples")}
        return None

    def images_per_second(self) -> float:
        """Returns training images/s over the run, without evaluation and compilation."""
        rows = [row for row in self.rows if row["kind"] == "train"]
        rows = [row for row in rows if not row.get("compiles")] or rows
        seconds = sum(row["examples"] / row["images_per_second"] for row in rows)
        return sum(row["examples"] for row in rows) / seconds

    def draw_curves(self) -> None:
        """Writes curves.png, or says what is missing for it."""
        message = curves.draw(self.rows, self.workdir.curves, title=self.trainer.config.model.name)
        if message:
            self.say(message)

    def conclude(self, result: dict) -> None:
        """Prints the closing summary."""
        where = self.workdir.path
        self.say("")
        self.say(
            f"Done: top1 {result['top1']:.4f}  top5 {result['top5']:.4f}  "
            f"loss {result['loss']:.4f}  on "
            f"{result['examples']:,} held-out examples; trained at "
            f"{result['train_images_per_second']:,.0f} images/s"
        )
        if skipped := sum(result.get(f"skipped_{split}_images", 0) for split in ("train", "eval")):
            self.say(f"{skipped:,} broken images were skipped; the first ten were named.")
        self.say("Next:")
        self.say(f"  keras-resnet evaluate --workdir={where}")
        self.say(f"  keras-resnet predict --workdir={where} IMAGE...")
        self.say(f"  tensorboard --logdir={self.workdir.tensorboard}")
        self.say(f'  keras.saving.load_model("{self.workdir.model}")   after import keras_resnet')

    def say(self, line: str) -> None:
        """Prints a line without tearing the progress bar."""
        if not self._speaks:
            return
        tqdm.tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()

    def _write_histograms(self, step: int) -> None:
        with self._events.as_default(step=step):
            for weight in self.trainer.model.weights:
                tf.summary.histogram(weight.path, keras.ops.convert_to_numpy(weight))

    def _record(self, row: dict) -> None:
        # JSON has no NaN; a loss that is not finite reads null.
        row = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in row.items()
        }
        self.rows.append(row)
        self.workdir.append_metrics(row)
        with self._events.as_default(step=row["step"]):
            for name, value in row.items():
                if name not in ("kind", "step", "examples", "compiles") and value is not None:
                    tf.summary.scalar(f"{row['kind']}/{name}", value)
        self._events.flush()

    @staticmethod
    def to_json(values: dict) -> str:
        """Returns `values` as readable JSON with a line end."""
        return json.dumps(values, indent=2) + "\n"
