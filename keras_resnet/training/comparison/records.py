"""What one work directory tells of its run, finished or not."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_resnet.config.schema import flatten
from keras_resnet.training.metrics import images_per_second, is_figure
from keras_resnet.training.workdir import WorkDir

# What evaluations are compared by where they have it; else the first figure beside these.
_TOP1 = "top1"
_NO_METRICS = ("step", "epoch", "loss", "examples", "top5", "learning_rate", "images_per_second")
# What the run says at its start, in train.log.
_PARAMETERS = re.compile(r"^.{19} model +\S+, ([\d,]+) trainable parameters$", re.MULTILINE)


@dataclasses.dataclass
class RunRecord:
    """One run, as far as it is.

    Attributes:
        name: how it is called beside the others.
        path: its work directory.
        config: every key of its config, dotted, with its value.
        metric: what its evaluations are compared by, such as "top1"; the higher, the better.
        epochs: float64[n], where it was evaluated, and where it stands if it has trained since.
        curves: ("train" or "eval", `metric` or "loss") -> float64[n], NaN where it is not known.
            Those of training are means over the examples since the evaluation before.
        epoch: where it stands.
        finished: whether it is through, by its last step or by early stopping.
        stopped_early: whether by early stopping.
        value: `metric` of model.keras, or of the last evaluation of a run that is not finished.
        loss: its loss.
        test: `metric` on data.test_split.
        images_per_second: in training.
        parameters: that are trained.
        classes: names of the classes.
        examples: images in training and evaluation.
    """

    name: str
    path: str
    config: Mapping[str, Any]
    metric: str
    epochs: np.ndarray
    curves: Mapping[tuple[str, str], np.ndarray]
    epoch: float
    finished: bool = True
    stopped_early: bool = False
    value: float | None = None
    loss: float | None = None
    test: float | None = None
    images_per_second: float | None = None
    parameters: int | None = None
    classes: tuple[str, ...] | None = None
    examples: tuple[int, int] | None = None

    @property
    def seed(self) -> int:
        """Of its config."""
        return self.config["seed"]

    @property
    def best(self) -> tuple[float, float] | None:
        """The highest `metric` of an evaluation and the first epoch that had it."""
        values = self.curves["eval", self.metric]
        if not np.isfinite(values).any():
            return None
        place = int(np.nanargmax(values))
        return float(values[place]), float(self.epochs[place])

    @property
    def state(self) -> str:
        """In words."""
        if self.finished and not self.stopped_early:
            return "finished"
        how = "stopped early," if self.stopped_early else "unfinished,"
        return f"{how} at epoch {self.epoch:.4g} of {self.config['epochs']}"


def read_run(workdir: WorkDir, name: str) -> RunRecord:
    """Returns what a work directory holds; what is missing or damaged there is None.

    Raises:
        UserError: there is no run, or its config.json cannot be read.
    """
    config = dict(flatten(workdir.read_config()))
    rows, result, dataset = workdir.read_metrics(), workdir.read_result(), workdir.find_dataset()
    evaluations = [row for row in rows if row["kind"] == "eval" and row.get("epoch") is not None]
    metric = _metric_of(evaluations, result)
    epochs, curves = _curves(rows, metric)
    examples, total = None, None
    if dataset is not None:
        examples = dataset["train_examples"], dataset["eval_examples"]
        if config["batch_size"] > 0:
            total = examples[0] * config["epochs"] // config["batch_size"]
    finished, early = _ending(rows, result, total, config["early_stopping.patience"])
    figures = (result if finished else evaluations[-1] if evaluations else None) or {}
    return RunRecord(
        name=name,
        path=str(workdir.path),
        config=config,
        metric=metric,
        epochs=epochs,
        curves=curves,
        epoch=max((row["epoch"] for row in rows if row.get("epoch") is not None), default=0.0),
        finished=finished,
        stopped_early=early,
        value=_number(figures.get(metric)),
        loss=_number(figures.get("loss")),
        test=_number(figures.get(f"test_{metric}")),
        images_per_second=images_per_second(rows),
        parameters=_read_parameters(workdir),
        classes=tuple(dataset["classes"]) if dataset else None,
        examples=examples,
    )


def _ending(
    rows: Sequence[dict], result: dict | None, total_steps: int | None, patience: int
) -> tuple[bool, bool]:
    """Returns whether a run is finished, and whether it was stopped early.

    A result may be older than the config that the run was resumed with.
    """
    if result is None or any(row["step"] > result["step"] for row in rows):
        return False, False
    before_its_end = total_steps is not None and result["step"] < total_steps
    return not before_its_end or patience > 0, before_its_end and patience > 0


def _metric_of(evaluations: Sequence[dict], result: dict | None) -> str:
    """What the evaluations hold: top1, or of several labels an image what they have instead."""
    for row in (*evaluations, result or {}):
        names = [key for key, value in row.items() if _number(value) is not None]
        if _TOP1 in names:
            return _TOP1
        if others := [name for name in names if name not in _NO_METRICS]:
            return others[0]
    return _TOP1


def _curves(
    rows: Sequence[dict], metric: str
) -> tuple[np.ndarray, dict[tuple[str, str], np.ndarray]]:
    """Returns the epochs of the evaluations, and the curves at these."""
    epochs: list[float] = []
    points: dict[tuple[str, str], list[float]] = {
        (kind, key): [] for kind in ("train", "eval") for key in (metric, "loss")
    }
    since: list[dict] = []

    def add_point(epoch: float, evaluation: dict) -> None:
        epochs.append(epoch)
        for kind, key in points:
            value = _number(evaluation.get(key)) if kind == "eval" else _mean(since, key)
            points[kind, key].append(np.nan if value is None else value)
        since.clear()

    for row in rows:
        if row["kind"] == "train":
            since.append(row)
        elif row["kind"] == "eval" and row.get("epoch") is not None:
            add_point(row["epoch"], row)
    if since and since[-1].get("epoch") is not None:
        add_point(since[-1]["epoch"], {})
    return np.asarray(epochs), {key: np.asarray(values) for key, values in points.items()}


def _mean(rows: Sequence[dict], key: str) -> float | None:
    """The mean of a figure of rows over their examples, None if none has it."""
    known = [
        (row[key], row["examples"])
        for row in rows
        if _number(row.get(key)) is not None and row.get("examples")
    ]
    if not known:
        return None
    values, examples = np.asarray(known, "float64").T
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # of damaged figures
        return float(values @ examples / examples.sum())


def _number(value: Any) -> float | None:
    return value if is_figure(value) and np.isfinite(value) else None


def _read_parameters(workdir: WorkDir) -> int | None:
    """The trainable parameters, as the run said last."""
    if not workdir.log.exists():
        return None
    said = _PARAMETERS.findall(workdir.log.read_bytes().decode(errors="replace"))
    return int(said[-1].replace(",", "")) if said else None
