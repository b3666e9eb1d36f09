"""What one launch has gone through, and what it can do next."""

from __future__ import annotations

from dataclasses import dataclass

from .observe import NONE, Seen, Worker


@dataclass
class Memory:
    """What this launch has gone through.

    Attributes:
        restarts: how often a TPU or its training was lost.
        was_ready: a TPU was there, whose loss would count.
        ran: training was seen running since its last start, whose loss would count.
        answered: the workers of this TPU have answered.
        deploys, starts, stops, deletes: attempts in a row that came to nothing so far.
        started: this launch has started training.
        silent, ragged: looks in a row at which workers did not answer; at which some trained and
            some did not.
        cannot_start: a stopped TPU could not be started.
        asked: this launch has made a queued request.
        waited: seconds since the last thing that went forward.
        replaced: --replace has ended an older training.
        finished: the log of worker 0 ended with an exit code of 0. Where the TPU is gone after
            that, another launcher has deleted it.
        ended: the exit code of training, or of a launch that gives up.
        drops: it gives up, and deletes the TPU that it created and that does not train.
    """

    restarts: int = 0
    was_ready: bool = False
    ran: bool = False
    answered: bool = False
    deploys: int = 0
    starts: int = 0
    stops: int = 0
    deletes: int = 0
    started: bool = False
    silent: int = 0
    ragged: int = 0
    cannot_start: bool = False
    asked: bool = False
    waited: float = 0.0
    replaced: bool = False
    finished: bool = False
    ended: int | None = None
    drops: bool = False

    def note(self, seen: Seen, trainers: tuple[Worker, ...]) -> None:
        """Keeps of a look what later ones need; trainers: the workers that train."""
        if (seen.tpu, seen.request) == (NONE, NONE):
            self.deletes = 0
        if seen.tpu == "READY":
            self.was_ready = True
            self.silent = 0 if seen.workers else self.silent + 1
            self.answered = self.answered or bool(seen.workers)
        elif seen.tpu == NONE:
            self.answered, self.silent = False, 0
        if any(worker.train == "running" for worker in trainers):
            self.ran, self.starts, self.deploys, self.cannot_start = True, 0, 0, False
            self.finished = False
            missing = any(worker.is_missing for worker in trainers)
            self.ragged = self.ragged + 1 if missing else 0
        elif trainers:
            self.stops = 0

    def count_loss(self) -> None:
        """A TPU or its training was lost; what comes now begins anew."""
        self.restarts += 1
        self.was_ready = self.ran = self.answered = self.finished = False
        self.deploys = self.starts = self.ragged = 0


@dataclass(frozen=True)
class Step:
    """What to do next.

    Attributes:
        do: create, delete, start-tpu, wait, deploy, start, follow, stop, ended, done or fail.
        why: a sentence for the user; empty where nothing is worth saying.
        loss: it follows the loss of a TPU or a training, and counts as a restart.
        slow: wait longer from time to time.
        code: training's exit code, for ended and stop.
        worker: whose log is worth reading.
        drop: of fail: what this launch created does not train, and is deleted.
    """

    do: str
    why: str = ""
    loss: bool = False
    slow: bool = False
    code: int | None = None
    worker: int = 0
    drop: bool = False
