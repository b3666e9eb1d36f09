"""Runs in groups: those that differ in the seed alone are one, with a mean and a deviation."""

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.printing import printable
from keras_resnet.training.comparison import finding, picture, tables
from keras_resnet.training.comparison.records import RunRecord, read_run

# What ends the names of runs of several seeds: resnet20-0, resnet20_seed1, resnet20/2.
_SEED_OF_NAME = re.compile(r"[-_./ ]*(seed|s)?[-_.= ]*\d+$")


@dataclasses.dataclass(frozen=True)
class Spread:
    """A figure over the runs that have it: mean and standard deviation (n - 1), 0 of one run."""

    mean: float
    deviation: float
    n: int


@dataclasses.dataclass
class Group:
    """Runs of one config, apart from the seed, on the same data; all finished, or none.

    Attributes:
        name: for the table and the picture.
        runs: of one seed each.
    """

    name: str
    runs: tuple[RunRecord, ...]

    @property
    def metric(self) -> str:
        """What its runs are compared by."""
        return self.runs[0].metric

    @property
    def finished(self) -> bool:
        """Whether its runs are."""
        return self.runs[0].finished

    def spread(self, figure: Callable[[RunRecord], float | None]) -> Spread | None:
        """Returns mean and deviation of a figure over the runs, None if none of them has it."""
        values = [value for value in map(figure, self.runs) if value is not None]
        if not values:
            return None
        return Spread(float(np.mean(values)), _deviation(values), len(values))

    def curve(self, kind: str, key: str) -> np.ndarray:
        """Returns one curve over the runs.

        Args:
            kind: "train" or "eval".
            key: `metric` or "loss".

        Returns:
            float64[m, 4]: epoch, mean, standard deviation and number of runs at every epoch at
            which one was evaluated and the figure is known.
        """
        at: dict[float, list[float]] = {}
        for run in self.runs:
            values = run.curves.get((kind, key), ())
            for epoch, value in zip(run.epochs, values, strict=False):  # () of what is not known
                if np.isfinite(value):
                    at.setdefault(float(epoch), []).append(float(value))
        points = [
            (epoch, np.mean(values), _deviation(values), len(values))
            for epoch, values in sorted(at.items())
        ]
        return np.asarray(points).reshape(-1, 4)


def _deviation(values: Sequence[float]) -> float:
    with np.errstate(over="ignore"):  # of damaged figures
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


@dataclasses.dataclass
class Comparison:
    """Runs side by side; of `compare`.

    Attributes:
        groups: the runs, in groups of those that differ in the seed alone.
        differences: every key but the seed that is not the same in all groups -> its values, one
            for each group.
        notes: lines on what does not compare: runs that are not finished, other data, what is no
            run.
    """

    groups: tuple[Group, ...]
    differences: dict[str, list[Any]]
    notes: tuple[str, ...] = ()

    @property
    def runs(self) -> tuple[RunRecord, ...]:
        """All of them."""
        return tuple(run for group in self.groups for run in group.runs)

    def table(self) -> str:
        """Returns the results, what differs in the configs, and the notes as text."""
        return tables.text(self)

    def to_csv(self) -> str:
        """Returns a line for each run: its group, state, results and the keys that differ."""
        return tables.csv_lines(self)

    def to_dict(self) -> dict[str, Any]:
        """Returns all figures as JSON has them, the curves too."""
        return tables.to_dict(self)

    def draw(
        self,
        path: str | os.PathLike,
        measure: Literal["metric", "error"] = "metric",
        panels: str | Callable[[Group], str] | None = None,
    ) -> None:
        """Draws the curves to a picture, each the mean over its runs with bars of one deviation.

        Args:
            path: the file to write: .png, .pdf or .svg.
            measure: "metric" as it is, or the "error", 100 % less that.
            panels: a key of the config, or what gives a group's title: a panel for each value
                instead of one for the metric and one for the loss.

        Raises:
            ImportError: matplotlib, of the extra `plot`, is not installed.
            UserError: the file cannot be written.
        """
        picture.draw(self, Path(path), measure, panels)


def compare(paths: Iterable[str | os.PathLike]) -> Comparison:
    """Reads runs; `keras_resnet.training.compare` says the rest."""
    found, notes = finding.find_runs(paths)
    runs = []
    for workdir, name in zip(found, finding.names_of(found), strict=True):
        try:
            runs.append(read_run(workdir, name))
        except UserError as error:
            notes.append(f"{workdir.path}: is left out; {error}")
    if not runs:
        raise UserError("\n".join(["there is no run to compare", *notes]))
    return compare_records(runs, notes)


def compare_records(runs: Iterable[RunRecord], notes: Iterable[str] = ()) -> Comparison:
    """Puts runs side by side, wherever their records are from."""
    together: dict[Any, list[RunRecord]] = {}
    for run in runs:
        config = tuple(item for item in run.config.items() if item[0] != "seed")
        together.setdefault(
            (config, run.classes, run.examples, run.metric, run.finished), []
        ).append(run)
    members = list(together.values())
    names = _names(members)
    groups = tuple(Group(name, tuple(runs)) for name, runs in zip(names, members, strict=True))
    configs = [group.runs[0].config for group in groups]
    keys = dict.fromkeys(key for config in configs for key in config if key != "seed")
    values = {key: [config.get(key) for config in configs] for key in keys}
    differences = {key: row for key, row in values.items() if any(v != row[0] for v in row)}
    return Comparison(groups, differences, (*notes, *_notes(groups)))


def _names(members: Sequence[Sequence[RunRecord]]) -> list[str]:
    """A name for each group: that of its run, or what those of its runs have in common."""
    names = []
    for runs in members:
        own = [run.name for run in runs]
        stems = {_SEED_OF_NAME.sub("", name) for name in own}
        name = own[0] if len(own) == 1 else "".join(stems) if len(stems) == 1 else f"{own[0]} …"
        name = name or f"{own[0]} …"  # of runs that are called 0, 1, 2
        names.append(name if runs[0].finished else f"{name} (unfinished)")
    return [
        f"{name} ({names[:place].count(name) + 1})" if names.count(name) > 1 else name
        for place, name in enumerate(names)
    ]


def _notes(groups: Sequence[Group]) -> list[str]:
    """What has to be known to read the figures."""
    runs = [run for group in groups for run in group.runs]
    notes = [f"{run.name}: {run.state}" for run in runs if run.state != "finished"]
    notes += [f"{run.name}: was not evaluated yet" for run in runs if run.best is None]
    data: dict[Any, list[str]] = {}
    for group in groups:
        first = group.runs[0]
        if first.classes is not None:
            data.setdefault((first.classes, first.examples), []).append(group.name)
    if len(data) > 1:
        notes.append("these are runs of other data, so their figures do not compare:")
        for (classes, (train, held_out)), names in data.items():
            shown = ", ".join(classes[:3]) + (", …" if len(classes) > 3 else "")
            notes.append(
                f"  {', '.join(names)}: {len(classes):,} classes ({shown}), {train:,} images to "
                f"train on, {held_out:,} held out"
            )
    metrics = {group.metric for group in groups}
    if len(metrics) > 1:
        notes.append(f"the runs are evaluated by different figures: {', '.join(sorted(metrics))}")
    for group in groups:
        seeds = [run.seed for run in group.runs]
        for seed in sorted({seed for seed in seeds if seeds.count(seed) > 1}):
            same = [run.name for run in group.runs if run.seed == seed]
            notes.append(f"{', '.join(same)}: have the same seed, {seed}, and count as several")
    if len(runs) == 1:
        notes.append("this is one run; give more to compare it with")
    return [printable(note) for note in notes]
