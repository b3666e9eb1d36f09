"""The work directory of a run, in a folder or a bucket.

Files are replaced whole: a kill leaves the old one or the new.
"""

import contextlib
import json
import os
import re
import secrets
import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_resnet import storage
from keras_resnet.config import ConfigDict, from_json, records, to_json
from keras_resnet.config.key import NOTED
from keras_resnet.config.schema import KEYS
from keras_resnet.errors import UserError
from keras_resnet.storage import read_json, write_text
from keras_resnet.training.lock import locked
from keras_resnet.training.metrics import (
    DISTILLATION,
    FIGURES,
    LABEL_SET_FIGURES,
    figures_of,
    is_figure,
)
from keras_resnet.training.say import say


class WorkDir:
    """Paths and small files of one run. Reading needs no TensorFlow, except in a bucket.

    Args:
        path: a folder of this machine, or gs://BUCKET/FOLDER.

    Raises:
        UserError: the path is one of a bucket and cannot be used.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = storage.as_path(path).expanduser()
        self.config = self.path / "config.json"
        self.dataset = self.path / "dataset.json"
        self.splits = self.path / "splits.csv"
        self.teacher = self.path / "teacher.json"
        self.metrics = self.path / "metrics.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"
        self.model = self.path / "model.keras"
        self.curves = self.path / "curves.png"
        self.confusion = self.path / "confusion.png"
        self.classes = self.path / "classes.csv"
        self.calibration = self.path / "calibration.json"
        self.result = self.path / "result.json"
        self.report = self.path / "report.html"
        self.log = self.path / "train.log"
        self.decoded = self.path / "decoded"
        self.id = self.path / "run_id.txt"
        self.lock = self.path / ".lock"

    def check(self, config: ConfigDict) -> None:
        """Makes sure that a run with `config` can go on, or start, in this folder.

        Raises:
            UserError: it cannot be written, or belongs to a run with another config: one that
                differs in keys that may not change when a run resumes.
        """
        if storage.in_bucket(self.path):
            storage.check_bucket(self.path, "--workdir")
        else:
            self._check_folder()
        if self.is_begun():
            records.check_resumption(self.read_config(), config, f"--workdir={self.path}")

    def _check_folder(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path) as file:
                file.write(b"can be written")
            self._check_kinds()
        except OSError as error:
            raise UserError(
                f"--workdir={self.path}: cannot be written ({error.strerror})"
            ) from error

    def keep_older_defaults(self, config: ConfigDict) -> ConfigDict:
        """Returns `config` with the defaults of the version that began the run here, if any did."""
        if not self.is_begun():
            return config
        return records.keep_older_defaults(config, self._config_text(), where=str(self.config))

    def is_begun(self) -> bool:
        """Returns whether a run was started here; raises UserError if a bucket does not answer."""
        with storage.explain_bucket_errors(self.path):
            return self.config.exists()

    def _check_kinds(self) -> None:
        """Raises UserError where a folder stands in the place of a file, or the reverse."""
        folders = (self.checkpoints, self.tensorboard)
        for path in (*vars(self).values(), *self.checkpoints.glob("ckpt-*")):
            if path is self.path or not path.exists() or path.is_dir() == (path in folders):
                continue
            is_, belongs = ("file", "folder") if path in folders else ("folder", "file")
            raise UserError(
                f"{path} is a {is_}, and a {belongs} of that name belongs to a run; move it away"
            )

    def claim(self, config: ConfigDict) -> records.Changes:
        """Makes this the work directory of `config`; for who has it `locked`.

        What a resumed run changes is written into config.json, and what of it may change its
        numbers also into the history there.

        Returns:
            What the history notes: the old and the new value of each key.

        Raises:
            UserError: it belongs to a run with another config, as in `check`.
        """
        if not self.is_begun():
            write_text(self.config, to_json(config))
            return {}
        # Since `check` another process may have begun a run here.
        changes = records.check_resumption(self.read_config(), config, f"--workdir={self.path}")
        noted = records.select_changes(changes, NOTED)
        if changes:
            self._write_config(config, noted)
        return noted

    def note(self, changes: records.Changes) -> None:
        """Writes a change that is not one of the config, such as the data's, into the history."""
        self._write_config(self.read_config(), changes)

    def _write_config(self, config: ConfigDict, noted: records.Changes) -> None:
        history = self.read_history()
        history += [records.changed_entry(noted)] if noted else []
        write_text(self.config, to_json(config, history))

    def locked(
        self, warn: Callable[[str], None] = say
    ) -> contextlib.AbstractContextManager[Callable[[], None]]:
        """While entered, no other process can train here; `lock.locked` says how, and what fails.

        What it yields is to be called before something is replaced: it raises UserError if another
        process has taken over, which is possible where a lease stands in for a lock.
        """
        return locked(self.lock, self.path, warn)

    def remove_leftovers(self) -> None:
        """Removes the parts of files that killed processes have left; for who has it `locked`."""
        for path in (self.config, self.dataset, self.metrics, self.model, self.curves):
            storage.remove_leftovers(path)
        paths = (self.confusion, self.classes, self.calibration, self.result, self.report)
        for path in (*paths, self.splits, self.teacher, self.id):
            storage.remove_leftovers(path)

    def read_config(self) -> ConfigDict:
        """Returns the config of the run, with what was changed when it was resumed.

        Raises:
            UserError: there is no run in this folder, or its config cannot be read.
        """
        return from_json(self._config_text(), where=str(self.config))

    def read_config_for_one(self) -> ConfigDict:
        """Returns `read_config` for what one process does with a run that several trained.

        Evaluation would otherwise wait for the others; it can still be told of some.
        """
        config = self.read_config()
        for name in config.distributed:
            config.distributed[name] = KEYS[f"distributed.{name}"].default
        return config

    def read_history(self) -> list[dict]:
        """Returns what was changed when the run was resumed, the oldest first.

        Each entry is {"time": ISO 8601, "changed": {key: [old, new]}}.

        Raises:
            UserError: as `read_config`.
        """
        return records.history_of(self._config_text(), where=str(self.config))

    def _config_text(self) -> str:
        if not self.is_begun():
            what = (
                "has no config.json: no run was started here"
                if self.path.is_dir()
                else "no such folder"
            )
            raise UserError(f"--workdir={self.path}: {what}")
        with storage.explain_bucket_errors(self.path):
            if self.config.is_dir():
                raise UserError(f"{self.config} is a folder; put the run's config.json there")
            # What is no text is no JSON either, which is said with the file's name.
            return self.config.read_bytes().decode(errors="replace")

    def read_dataset(self) -> dict:
        """Returns {"classes": [...], "train_examples": n, "eval_examples": n}.

        Raises:
            UserError: training has not come far enough to write it, or it is damaged.
        """
        data = self.find_dataset()
        if data is None:
            state = "damaged" if self.dataset.exists() else "missing"
            raise UserError(
                f"{self.dataset}: {state}; run "
                f"{shlex.join(['keras-resnet', 'train', f'--workdir={self.path}'])}"
            )
        return data

    def find_dataset(self) -> dict | None:
        """Returns what `read_dataset` returns, None where there is nothing whole."""
        data = read_json(self.dataset)
        classes = None if data is None else data.get("classes")
        if data is None or not isinstance(classes, list) or not classes:
            return None
        sizes = [data.get(f"{split}_examples") for split in ("train", "eval")]
        texts = all(isinstance(name, str) for name in classes)
        return data if texts and all(type(size) is int and size > 0 for size in sizes) else None

    def read_teacher(self) -> dict[str, Any] | None:
        """Returns the content of teacher.json, None where there is nothing whole."""
        found = read_json(self.teacher)
        if found is None or not all(isinstance(found.get(k), str) for k in ("teacher", "sha256")):
            return None
        return found if found.get("precision") in ("float32", "bfloat16") else None

    def read_result(self) -> dict[str, Any] | None:
        """Returns the content of result.json, None where there is nothing whole."""
        result = read_json(self.result)
        if result is None or not _is_step(result.get("step")):
            return None
        figures = figures_of(result) or {"none": None}
        return result if all(map(is_figure, figures.values())) else None

    def read_calibration(self) -> dict[str, Any] | None:
        """Returns the content of calibration.json, None where there is nothing whole."""
        values = read_json(self.calibration)
        return values if values is not None and type(values.get("temperature")) is float else None

    def keep_id(self) -> str:
        """Returns 16 random hexadecimal digits, always the same; for who has it `locked`."""
        with storage.explain_bucket_errors(self.id):
            found = self.id.read_text(errors="replace").strip() if self.id.exists() else ""
        if not re.fullmatch("[0-9a-f]{16}", found):
            found = secrets.token_hex(8)
            write_text(self.id, found + "\n")
        return found

    def append_metrics(self, row: dict) -> None:
        """Adds one JSON object as a line to metrics.jsonl."""
        with storage.explain_bucket_errors(self.metrics), self.metrics.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def read_metrics(self) -> list[dict]:
        """Returns the rows of metrics.jsonl.

        Lines that are none are left out: the last one cut by a kill, or what a disk damaged.
        """
        if not self.metrics.exists():
            return []
        rows = []
        for line in self.metrics.read_bytes().decode(errors="replace").split("\n"):
            # ValueError: no JSON; RecursionError: JSON of a thousand levels.
            with contextlib.suppress(ValueError, RecursionError):
                rows.append(json.loads(line))
        return [row for row in rows if _is_row(row)]

    def rewind_metrics(self, step: int) -> list[dict]:
        """Drops the rows past `step`, which a resumed run writes again; returns the kept ones."""
        rows = [row for row in self.read_metrics() if row["step"] <= step]
        if self.metrics.exists():
            write_text(self.metrics, "".join(json.dumps(row) + "\n" for row in rows))
        return rows


def checkpoint_steps(folder: Path) -> list[int]:
    """Returns the steps of the checkpoints in `folder`, whole or not, rising.

    They are `ckpt-STEP.safetensors`, and of earlier versions `ckpt-STEP.index` beside its data.
    """
    found = (_CHECKPOINT.fullmatch(path.name) for path in folder.glob("ckpt-*"))
    return sorted({int(match[1]) for match in found if match})


_CHECKPOINT = re.compile(r"ckpt-(0|[1-9][0-9]*)\.(?:safetensors|index)")

# What a row of metrics.jsonl has, where it has it, is a number or null.
_OF_TRAINING = ("epoch", "learning_rate", "images_per_second", DISTILLATION)
_NUMBERS = (*_OF_TRAINING, *FIGURES, *LABEL_SET_FIGURES)


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, dict)
        and isinstance(row.get("kind"), str)
        and _is_step(row.get("step"))
        and all(row.get(key) is None or is_figure(row[key]) for key in _NUMBERS)
    )


def _is_step(value: Any) -> bool:
    return type(value) is int and is_figure(value)
