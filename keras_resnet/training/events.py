"""TensorBoard's event files, written by the package `tensorboard` itself: any engine can use it."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from keras_resnet import storage


class EventWriter:
    """Writes an event file in a folder, of this machine or in a bucket.

    The file is made with the first event: a finished run that is started again leaves none.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._writer: EventFileWriter | None = None
        self._restart_after: int | None = None

    def restart_after(self, step: int) -> None:
        """Lets what follows replace all that earlier files, or this one, have past `step`."""
        self._restart_after = step

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
        if self._restart_after is not None:
            # TensorBoard drops the points from this step on that it has read so far.
            restart = SessionLog(status=SessionLog.START)
            first, self._restart_after = self._restart_after + 1, None
            self._writer.add_event(Event(wall_time=time.time(), step=first, session_log=restart))
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
