"""The work directory of a run, in a folder or a bucket.

Files are replaced whole: a kill leaves the old one or the new.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from typing import Any

from keras_resnet import storage
from keras_resnet.config import ConfigDict, from_json, records, to_json
from keras_resnet.config.key import NOTED
from keras_resnet.errors import UserError
from keras_resnet.storage import read_json, write_text


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
        self.metrics = self.path / "metrics.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"
        self.model = self.path / "model.keras"
        self.curves = self.path / "curves.png"
        self.confusion = self.path / "confusion.png"
        self.classes = self.path / "classes.csv"
        self.result = self.path / "result.json"

    def check(self, config: ConfigDict) -> None:
        """Makes sure that a run with `config` can go on, or start, in this folder.

        Raises:
            UserError: it cannot be written, or belongs to a run with another config: one that
                differs in keys that may not change when a run resumes.
        """
        try:
            with storage.explain_bucket_errors(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                probe = self.path / f".{os.getpid()}"
                probe.write_text("can be written")
                probe.unlink()
        except OSError as error:
            raise UserError(
                f"--workdir={self.path}: cannot be written ({error.strerror})"
            ) from error
        if self.is_begun():
            records.check_resumption(self.read_config(), config, f"--workdir={self.path}")

    def keep_older_defaults(self, config: ConfigDict) -> ConfigDict:
        """Returns `config` with the defaults of the version that began the run here, if any did."""
        if not self.is_begun():
            return config
        return records.keep_older_defaults(config, self._config_text(), where=str(self.config))

    def is_begun(self) -> bool:
        """Returns whether a run was started here; raises UserError if a bucket does not answer."""
        with storage.explain_bucket_errors(self.path):
            return self.config.exists()

    def claim(self, config: ConfigDict) -> records.Changes:
        """Makes this the work directory of `config`, once `check` has passed.

        What a resumed run changes is written into config.json, and what of it may change its
        numbers also into the history there.

        Returns:
            What the history notes: the old and the new value of each key.

        Raises:
            UserError: it is to change while another process is training here.
        """
        if not self.is_begun():
            write_text(self.config, to_json(config))
            return {}
        changes = records.changes(self.read_config(), config)
        noted = records.select_changes(changes, NOTED)
        if changes:
            with self.locked():
                history = self.read_history()
                history += [records.changed_entry(noted)] if noted else []
                write_text(self.config, to_json(config, history))
        return noted

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """While entered, no other process can train here; the system frees it after a kill.

        A bucket has no locks: there nobody keeps two processes apart.

        Raises:
            UserError: another process is training here.
        """
        if storage.in_bucket(self.path):
            yield
            return
        with self.config.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Else `claim` of another process has replaced the file since it was opened.
                if not os.path.samestat(os.fstat(file.fileno()), os.stat(self.config)):
                    raise BlockingIOError
            except BlockingIOError as error:
                raise UserError(
                    f"--workdir={self.path}: another process is training here; wait for it, or "
                    "take another folder"
                ) from error
            except OSError:
                pass  # a file system without locks, as some network ones
            yield

    def read_config(self) -> ConfigDict:
        """Returns the config of the run, with what was changed when it was resumed.

        Raises:
            UserError: there is no run in this folder, or its config cannot be read.
        """
        return from_json(self._config_text(), where=str(self.config))

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
            # What is no text is no JSON either, which is said with the file's name.
            return self.config.read_bytes().decode(errors="replace")

    def read_dataset(self) -> dict:
        """Returns {"classes": [...], "train_examples": n, "eval_examples": n}.

        Raises:
            UserError: training has not come far enough to write it, or it is damaged.
        """
        data = read_json(self.dataset)
        classes = None if data is None else data.get("classes")
        if data is None or not isinstance(classes, list) or not classes:
            state = "damaged" if self.dataset.exists() else "missing"
            raise UserError(
                f"{self.dataset}: {state}; run keras-resnet train --workdir={self.path}"
            )
        return data

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
        for line in self.metrics.read_bytes().decode(errors="replace").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
        return [row for row in rows if _is_row(row)]

    def rewind_metrics(self, step: int) -> list[dict]:
        """Drops the rows past `step`, which a resumed run writes again; returns the kept ones."""
        rows = [row for row in self.read_metrics() if row["step"] <= step]
        if self.metrics.exists():
            write_text(self.metrics, "".join(json.dumps(row) + "\n" for row in rows))
        return rows


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and "kind" in row and type(row.get("step")) is int
