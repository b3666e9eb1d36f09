"""The loop: look, decide, act, until training is done or there is a reason to stop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from . import gcloud
from .commands import Commands
from .decide import decide
from .observe import NONE, UNREACHABLE, Seen, look, trainers
from .options import Plan
from .sentences import advice, what_costs
from .steps import Memory, Step

LONG = 20  # the longest wait, in looks: ten minutes at one in 30 s


class Stopped(Exception):
    """The launch cannot go on; the message says why."""


class Launcher:
    """One launch.

    Args:
        plan: what is launched.
        here: the checkout.
        archive: the checkout at the start: a restart days later runs the code that was launched.
        run, say: run a command, as `gcloud.run`; print a line for the user.
        sleep, clock: `time.sleep` and `time.monotonic`.
        wait: seconds between two looks.
    """

    def __init__(
        self,
        plan: Plan,
        here: Path,
        archive: Path,
        run: Callable[..., gcloud.Result] = gcloud.run,
        say: Callable[[str], None] = print,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        wait: float = float(os.environ.get("RUN_TPU_WAIT", 30)),
    ):
        self.plan, self.archive, self.run, self.say = plan, archive, run, say
        self.sleep, self.clock, self.wait = sleep, clock, wait
        self.commands = Commands(plan, here)
        self.memory = Memory()
        self.since: float | None = None  # when the waiting began
        self.pauses, self.said = 0, ""
        self.created = self.followed = False  # this launch has created something; has shown a log
        self.by_request = plan.queued  # what is there came by a queued request
        self.creating = False  # a call that creates has begun, and nobody knows what came of it

    def go(self) -> int:
        """Runs the launch; returns its exit code, which is training's where that ended."""
        while True:
            seen = look(self.run, self.commands)
            self._note(seen)
            step = decide(seen, self.plan, self.memory)
            if step.loss:
                self.memory.count_loss()
            if step.why and (step.why != self.said or step.do not in ("wait", "create")):
                self._tell(step)
            if step.do == "done":
                return step.code or 0
            if step.do != "fail":
                getattr(self, "_" + step.do.replace("-", "_"))(step, seen)
            elif step.drop and self.created:
                self.memory.ended, self.memory.drops = 1, True
            else:
                return 1

    def _note(self, seen: Seen) -> None:
        """Keeps of a look what later ones need."""
        if UNREACHABLE not in (seen.tpu, seen.request):
            self.creating = False
            self._is_request(seen)
        if seen.workers or (seen.tpu == "READY" and not self.memory.was_ready):
            self.since, self.pauses = None, 0  # it went forward: waiting begins anew
        self.memory.note(seen, trainers(seen.workers, self.plan.engine))
        self.memory.waited = 0.0 if self.since is None else self.clock() - self.since

    def _is_request(self, seen: Seen) -> bool:
        """Whether what is there came by a queued request, and is deleted with it."""
        if seen.request != UNREACHABLE and (seen.tpu, seen.request) != (NONE, NONE):
            self.by_request = seen.request != NONE
        return self.by_request

    def _tell(self, step: Step) -> None:
        self.said = step.why
        count = f"; restart {self.memory.restarts} of {self.plan.restarts}" if step.loss else ""
        self.say(f"run_tpu.sh: {step.why}{count}")

    def _pause(self, times: int = 0) -> None:
        """Waits, each time twice as long."""
        if self.since is None:
            self.since = self.clock()
        self.sleep(self.wait * min(2**times, LONG))

    def _pause_longer(self) -> None:
        self._pause(self.pauses)
        self.pauses = min(self.pauses + 1, LONG)

    def _failed(self, result: gcloud.Result) -> bool:
        """Says what a command that failed printed."""
        if result.code:
            self.say((result.error.strip() or result.out.strip() or "no word of gcloud")[-2000:])
        return result.code != 0

    def _wait(self, step: Step, seen: Seen) -> None:
        self._pause_longer() if step.slow else self._pause()

    def _create(self, step: Step, seen: Seen) -> None:
        self.creating = True
        result = self.run(self.commands.create(), timeout=2 * 3600)
        self.creating = result.kind == "network"
        self.created = self.created or self.creating or result.code == 0
        if not self._failed(result):
            self.memory.asked = self.plan.queued
            self.memory.was_ready = not self.plan.queued
            if self.memory.was_ready:  # what took a day to come is not deleted while it starts
                self.since, self.pauses = None, 0
            return
        # A quota that an earlier TPU of this launch used is free again soon.
        soon = result.kind == "quota" and (self.memory.started or self.memory.restarts)
        if result.kind in ("capacity", "network") or soon:
            kind = "Google Cloud does not answer" if result.kind == "network" else "no free TPU"
            self.say(f"run_tpu.sh: {kind} in {self.plan.zone}; trying on")
            self._pause_longer()
        elif result.kind != "exists":  # it came between the look and the call
            raise Stopped(advice(result.kind, self.plan))
        else:
            self._pause()

    def _delete(self, step: Step, seen: Seen) -> None:
        self.memory.deletes += 1
        result = self.run(self.commands.delete(self._is_request(seen)), timeout=3600)
        if seen.request == "FAILED" and not self.memory.drops:
            self._pause_longer()
        elif self._failed(result):
            self._pause()

    def _start_tpu(self, step: Step, seen: Seen) -> None:
        self.memory.cannot_start = True  # a second time, before it trains
        self._failed(self.run(self.commands.start_tpu(), timeout=3600))

    def _deploy(self, step: Step, seen: Seen) -> None:
        self.memory.deploys += 1
        self.say(f"run_tpu.sh: copying the checkout {self.plan.code} and installing it")
        result = self.run(self.commands.copy(str(self.archive)), timeout=1800)
        if result.code == 0:
            result = self.run(self.commands.deploy(), timeout=3600)
        if self._failed(result):
            self._pause(self.memory.deploys)

    def _start(self, step: Step, seen: Seen) -> None:
        self.memory.starts += 1
        self.memory.ran = False
        if self._failed(self.run(self.commands.start(), timeout=600)):
            self._pause(self.memory.starts)
        else:
            self.memory.started = True
            self._follow(step, seen)

    def _follow(self, step: Step, seen: Seen) -> None:
        self.followed = True
        # The connection ends for many reasons; whether training did, the next look says.
        code = self.run(self.commands.follow(step.worker), stream=True).code
        self.memory.finished = (code, step.worker) == (0, 0)
        if code and not self.plan.several:  # where it ends every ten minutes
            self.say("run_tpu.sh: the log has ended; looking what became of training")
        self.sleep(self.wait if code else 0)

    def _stop(self, step: Step, seen: Seen) -> None:
        self.memory.stops += 1
        if self._failed(self.run(self.commands.stop(), timeout=600)):
            self._pause()
        elif step.code is not None:
            self._ended(step, seen)
        else:
            self.memory.replaced, self.memory.ran, self.memory.ragged = True, False, 0

    def _ended(self, step: Step, seen: Seen) -> None:
        if step.worker or not self.followed:  # its log was not seen yet
            self.say("run_tpu.sh: training has ended; the end of its log:")
            self.run(self.commands.follow(step.worker), stream=True, timeout=120)
        self.memory.ended = step.code
        if step.code:
            self.say(f"run_tpu.sh: training ended with exit code {step.code}; its log is above")

    def say_what_costs(self) -> None:
        """Says at an exit what may still cost money, and the command that deletes it."""
        seen = look(self.run, self.commands, at_workers=False, patience=30)
        if (seen.tpu, seen.request) != (NONE, NONE) or self.creating:
            delete = self.commands.delete(self._is_request(seen))
            self.say(what_costs(self.plan, delete))
