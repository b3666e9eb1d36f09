"""Checkpoints that survive kills, full disks and damaged files: the last few, and the best.

They belong to no engine: a run that was begun on one goes on with another.
"""

import contextlib
import dataclasses
import errno
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from keras_resnet import storage
from keras_resnet.bounds import parse_json
from keras_resnet.errors import UserError
from keras_resnet.training import checkpoint_file, state
from keras_resnet.training.checkpoint_file import Damaged
from keras_resnet.training.progress import Progress
from keras_resnet.training.say import say
from keras_resnet.training.workdir import checkpoint_steps

_PARTIAL = ".partial"
_KIND, _VERSION = "keras_resnet checkpoint", 1


class NonFiniteWeights(UserError):
    """The state to be saved holds a NaN or an infinity; nothing was written."""


class OlderCheckpoints(Protocol):
    """Reads what earlier versions have written: `ckpt-STEP.index` and its data."""

    def restore(self, folder: Path, step: int) -> Progress:
        """Restores one; returns its progress. Raises Damaged, ValueError if it does not fit."""


class Checkpoints:
    """The checkpoints of a run, numbered by step: `ckpt-STEP.safetensors`.

    A checkpoint is written in a folder of its own, read back, and only then moved into place. So a
    kill at any moment, or a full disk, leaves all earlier ones as they were. The last `keep` are
    kept, and the best.

    Args:
        folder: where they are, of this machine or in a bucket; with several hosts a folder that all
            of them see.
        state: gives all that training changes, by the names of `training/state.py`.
        load_state: takes what `state` gave; raises ValueError, with the first difference, if it is
            the state of something else.
        engine: the name of who trains, which is written and said.
        trains: False where there is no optimizer: `load_state` is then given the rest.
        keep: how many of the newest to keep.
        writes: False on all hosts but the first: they take part in reading the variables, and write
            nothing.
        say: told of each damaged checkpoint that is passed over, and of another engine's.
        older: reads those of earlier versions, where the engine can.
    """

    def __init__(
        self,
        folder: Path,
        state: Callable[[], Mapping[str, np.ndarray]],
        load_state: Callable[[dict[str, np.ndarray]], None],
        *,
        engine: str,
        trains: bool = True,
        keep: int = 3,
        writes: bool = True,
        say: Callable[[str], None] = say,
        older: OlderCheckpoints | None = None,
    ):
        self.folder, self._keep = storage.as_path(folder), keep
        self._state, self._load_state = state, load_state
        self._engine, self._trains = engine, trains
        self._writes, self._say, self._older = writes, say, older

    def steps(self) -> list[int]:
        """Returns the steps of the checkpoints there are, rising."""
        return checkpoint_steps(self.folder)

    def restore_newest(self) -> Progress | None:
        """Restores the newest checkpoint that is whole; returns its progress, None without any.

        Raises:
            UserError: all are damaged, or the checkpoint is one of another network, or of an
                earlier version and not for this engine.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self._restore(step)
            except Damaged as damage:
                older = "taking the one before" if step > steps[0] else "there is none before it"
                self._say(f"warning: checkpoint {self._name(step)} is damaged ({damage}); {older}")
        if steps:
            raise UserError(
                f"every checkpoint in {self.folder} is damaged (steps "
                f"{', '.join(map(str, steps))}): bring one back, or start in another --workdir"
            )
        return None

    def restore_best(self) -> Progress | None:
        """Restores the checkpoint with the best evaluation; returns its progress, None without any.

        Raises:
            UserError: it is gone or damaged, or nothing was evaluated yet.
        """
        newest = self.restore_newest()
        if newest is None:
            return None
        step = newest.best_step
        if step is None:
            raise UserError(
                f"{self.folder}: no evaluation yet, so no best checkpoint; take the newest"
            )
        try:
            return newest if step == newest.step else self._restore(step)
        except Damaged as damage:
            raise UserError(
                f"the best checkpoint, {self._name(step)}, cannot be read ({damage}); "
                "take the newest"
            ) from damage

    def save(self, progress: Progress) -> None:
        """Writes the checkpoint of `progress.step`, then removes those no longer kept.

        Raises:
            NonFiniteWeights: a value is NaN or infinite; on every host, as all have the same.
            UserError: it could not be written, for example because the disk is full.
        """
        arrays = self._state()
        name = checkpoint_file.find_non_finite(arrays)
        if name is not None:
            raise NonFiniteWeights(f"{name} holds a NaN or an infinity")
        if not self._writes:
            return
        texts = {
            "kind": _KIND,
            "version": str(_VERSION),
            "engine": self._engine,
            "progress": json.dumps(dataclasses.asdict(progress)),
        }
        failures: tuple[type[Exception], ...] = (Damaged, *storage.errors_of(self.folder))
        try:
            with self._partial() as partial:
                self._write(partial, progress.step, arrays, texts)
        except failures as error:
            raise UserError(
                f"checkpoint of step {progress.step} could not be written to {self.folder}: "
                f"{storage.reason_of(error)}. The older checkpoints are whole: "
                f"{'make room' if _is_full(error) else 'put that right'} and run the same command "
                "again"
            ) from error
        with storage.explain_bucket_errors(self.folder):
            self._remove_old(progress)

    @contextlib.contextmanager
    def _partial(self) -> Iterator[Path]:
        """Yields a new folder for what is not complete; it is gone afterwards."""
        partial, in_bucket = self.folder / _PARTIAL, storage.in_bucket(self.folder)
        storage.remove_folder(partial)  # of a run that was killed
        if not in_bucket and partial.is_symlink():
            partial.unlink()  # which was not followed
        partial.mkdir(parents=True, exist_ok=in_bucket)
        try:
            yield partial
        finally:
            storage.remove_folder(partial)

    def _write(
        self, partial: Path, step: int, arrays: Mapping[str, np.ndarray], texts: Mapping[str, str]
    ) -> None:
        path = partial / self._path(step).name
        checkpoint_file.write(path, arrays, texts)
        checkpoint_file.verify(path)
        path.replace(self._path(step))  # and with it what was damaged there
        storage.flush_to_disk(self.folder)
        self._remove_older(step)  # of the same step: it was damaged, or this run would be past it

    def _restore(self, step: int) -> Progress:
        """Restores the checkpoint of `step`; raises Damaged, UserError."""
        path = self._path(step)
        try:
            if path.exists() or not self._older_path(step).exists():
                progress, engine = self._read(path)
            else:
                progress, engine = self._restore_older(step), self._engine
        except ValueError as error:
            raise UserError(
                f"checkpoint {self._name(step)} is of another network, optimizer or version than "
                f"the config asks for ({error}); go on with the config it was written with, or "
                "take another --workdir"
            ) from error
        if engine != self._engine and self._trains:
            self._say(f"engine     step {step:,} was trained by {engine}, {self._engine} goes on")
        return progress

    def _read(self, path: Path) -> tuple[Progress, str]:
        texts, arrays = checkpoint_file.read(path, self._is_wanted)
        if texts.get("kind") != _KIND:
            raise Damaged("it is no checkpoint of a run")
        if texts.get("version") != str(_VERSION):
            raise ValueError(
                f"it has version {texts.get('version')!r} of the format, this package reads "
                f"{_VERSION}"
            )
        progress = _parse_progress(texts.get("progress", ""))
        self._load_state(arrays)
        engine = texts.get("engine", "")
        return progress, engine if engine.isidentifier() else "another engine"

    def _is_wanted(self, name: str) -> bool:
        return self._trains or name.startswith(state.INFERENCE)

    def refuse_older(self) -> None:
        """Raises UserError where an earlier version wrote the newest one, not for this engine.

        Before the work directory is told who trains, as another engine may still go on with it.
        """
        for step in self.steps()[-1:]:
            if self._older is None and not self._path(step).exists():
                raise self._older_error(step)

    def _older_error(self, step: int) -> UserError:
        how = (
            "go on with --config.engine=tensorflow until the next checkpoint is saved, which "
            f"{self._engine} can take (a run that is over needs more epochs for that)"
            if self._trains
            else "take --config.engine=tensorflow"
        )
        return UserError(
            f"{self._older_path(step)}: an earlier version wrote this checkpoint, which only "
            f"engine=tensorflow reads; {how}"
        )

    def _restore_older(self, step: int) -> Progress:
        if self._older is None:
            raise self._older_error(step)
        return self._older.restore(self.folder, step)

    def _remove_old(self, progress: Progress) -> None:
        kept = {*self.steps()[-self._keep :], progress.best_step}
        for step in set(self.steps()) - kept:
            self.remove(step)

    def remove(self, step: int) -> None:
        """Removes the checkpoint of `step`."""
        self._path(step).unlink(missing_ok=True)
        self._remove_older(step)

    def _remove_older(self, step: int) -> None:
        """Removes the checkpoint of `step` that an earlier version wrote, its index first."""
        self._older_path(step).unlink(missing_ok=True)
        for data in self.folder.glob(f"ckpt-{step}.data-*"):
            data.unlink(missing_ok=True)

    def _path(self, step: int) -> Path:
        return self.folder / f"ckpt-{step}.safetensors"

    def _older_path(self, step: int) -> Path:
        return self.folder / f"ckpt-{step}.index"

    def _name(self, step: int) -> str:
        return str(self.folder / f"ckpt-{step}")


def _parse_progress(text: str) -> Progress:
    """Returns what a checkpoint says of its run; raises Damaged."""
    try:
        values: Any = parse_json(text)
        progress = Progress(**values)
    except (ValueError, TypeError) as error:
        raise Damaged("its progress makes no sense") from error
    for field in dataclasses.fields(Progress):
        kinds = (int, float) if field.name == "best_top1" else (int,)
        value = getattr(progress, field.name)
        if type(value) not in kinds and (value is not None or field.default is not None):
            raise Damaged(f"its progress makes no sense: {field.name} is {value!r:.40}")
    return progress


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return type(error).__name__ == "ResourceExhaustedError"  # TensorFlow's, of a bucket
