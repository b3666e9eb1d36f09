"""TensorBoard's event files, written by the package `tensorboard` itself: any engine can use it."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.summary.writer.record_writer import RecordWriter

from keras_resnet import storage
from keras_resnet.training.callbacks import Callback, RunInfo, scalars


class TensorBoard(Callback):
    """Writes the rows of a run to event files, each point once whatever was killed or rolled back.

    Args:
        folder: for the files.
        model: whose weights become histograms at every evaluation; None: none do.
    """

    def __init__(self, folder: Path, model: keras.Model | None = None):
        self._events, self._model = EventWriter(folder), model

    def started(self, run: RunInfo) -> None:
        """Drops what earlier processes wrote of steps that come again."""
        self._events.drop_after(run.step)

    def trained(self, row: dict[str, Any]) -> None:
        """Writes a row."""
        self._events.scalars(row["step"], scalars(row))
        self._events.flush()

    def evaluated(self, row: dict[str, Any]) -> None:
        """Writes a row, and the histograms."""
        self.trained(row)
        for weight in self._model.weights if self._model is not None else ():
            self._events.histogram(row["step"], weight.path, keras.ops.convert_to_numpy(weight))

    def rolled_back(self, row: dict[str, Any]) -> None:
        """Drops what comes again, and writes the row."""
        self._events.drop_after(row["step"])
        self.trained(row)

    def finished(self, result: dict[str, Any]) -> None:
        """Ends the file."""
        self._events.close()

    def stopped(self, reason: str, signal: int | None) -> None:
        """Ends the file."""
        self._events.close()


class EventWriter:
    """Writes an event file in a folder, of this machine or in a bucket.

    The file is made with the first event: a finished run that is started again leaves none.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._writer: EventFileWriter | None = None

    def drop_after(self, step: int) -> None:
        """Removes what earlier files, and this one, have past `step`, which comes again.

        TensorBoard has a mark for that, but not all that read event files heed it.
        """
        self.close()
        self._writer = None
        if not self._folder.is_dir():
            return
        for path in self._folder.iterdir():
            if path.name.startswith(".events."):  # of a process that was killed right here
                path.unlink()
            elif path.name.startswith("events."):
                _drop_after(path, step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes a number for each tag."""
        for tag, value in values.items():
            self._add(step, scalar_pb(tag, value))

    def histogram(self, step: int, tag: str, values: Any) -> None:
        """Writes the histogram of an array."""
        self._add(step, histogram_pb(tag, values))

    def flush(self) -> None:
        """Returns once everything is in the file."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        if self._writer is not None:
            self._writer.close()

    def _add(self, step: int, summary: Any) -> None:
        if self._writer is None:
            with storage.plainly_named(self._folder.parent) as parent:
                self._writer = EventFileWriter(str(parent / self._folder.name))
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))


def _drop_after(path: Path, step: int) -> None:
    """Writes an event file again without the events past `step`, if it has any."""
    with storage.plainly_named(path.parent) as folder:
        # Up to where a kill has cut the file.
        records = list(RawEventFileLoader(str(folder / path.name)).Load())
    kept = [record for record in records if Event.FromString(record).step <= step]
    if len(kept) == len(records):
        return
    with storage.replacing(path) as temporary, temporary.open("wb") as file:
        writer = RecordWriter(file)
        for record in kept:
            writer.write(record)
