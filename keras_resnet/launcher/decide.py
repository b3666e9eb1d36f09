"""From what was seen to the next step: a pure function, whose tests are a table.

`Memory` is what one launch knows beyond that: how often it restarted, what it waits for.
"""

from __future__ import annotations

from dataclasses import dataclass

from .gcloud import Result
from .observe import NONE, UNREACHABLE, Seen, Worker
from .options import Plan

# What a node's state asks for. Everything that is on its way is waited for.
NODE = {
    **dict.fromkeys(("CREATING", "STARTING", "RESTARTING", "REIMAGING", "REPAIRING"), "wait"),
    **dict.fromkeys(("STOPPING", "DELETING", "HIDING", "UNHIDING", "STATE_UNSPECIFIED"), "wait"),
    **dict.fromkeys(("PREEMPTED", "TERMINATED", "HIDDEN", "UNKNOWN"), "delete"),
    "STOPPED": "start-tpu",
    "READY": "vm",
}
# What a queued request asks for that has no node (any more).
REQUEST = {
    NONE: "create",
    **dict.fromkeys(("ACCEPTED", "CREATING", "WAITING_FOR_RESOURCES", "PROVISIONING"), "wait"),
    **dict.fromkeys(("SUSPENDING", "DELETING", "STATE_UNSPECIFIED"), "wait"),
    **dict.fromkeys(("ACTIVE", "FAILED", "SUSPENDED"), "delete"),
}
GOING = ("SUSPENDING", "DELETING")  # a request that takes its node along
SIGNALS = (129, 130, 143)  # codes of a training that was ended from outside, and saved
DEPLOYS, STARTS, DELETES, FIRST_LOOKS, RAGGED_LOOKS = 5, 5, 5, 20, 10


@dataclass
class Memory:
    """What this launch has gone through.

    Attributes:
        restarts: how often a TPU or its training was lost.
        was_ready: a TPU was there, whose loss would count.
        ran: training was seen running since its last start, whose loss would count.
        answered: the workers of this TPU have answered.
        deploys, starts, deletes: attempts in a row that came to nothing so far.
        started: this launch has started training.
        silent, ragged: looks in a row at which workers did not answer; at which some trained and
            some did not.
        cannot_start: a stopped TPU could not be started.
        asked: this launch has made a queued request.
        waited: seconds since the last thing that went forward.
        replaced: --replace has ended an older training.
        ended: the exit code of training.
    """

    restarts: int = 0
    was_ready: bool = False
    ran: bool = False
    answered: bool = False
    deploys: int = 0
    starts: int = 0
    deletes: int = 0
    started: bool = False
    silent: int = 0
    ragged: int = 0
    cannot_start: bool = False
    asked: bool = False
    waited: float = 0.0
    replaced: bool = False
    ended: int | None = None


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
    """

    do: str
    why: str = ""
    loss: bool = False
    slow: bool = False
    code: int | None = None
    worker: int = 0


def decide(seen: Seen, plan: Plan, memory: Memory) -> Step:
    """Returns the next step."""
    if memory.ended is not None:
        step = _after_training(seen, plan, memory)
    elif seen.refused:
        step = _refused(seen)
    elif UNREACHABLE in (seen.tpu, seen.request):
        step = Step("wait", f"Google Cloud does not answer; waiting. {_last(seen)}", slow=True)
    elif seen.request in GOING:
        step = Step("wait", f"the queued request is {seen.request}")
    elif seen.tpu == NONE:
        step = _without_node(seen, plan, memory)
    else:
        step = _with_node(seen, plan, memory)
    if step.do in ("wait", "create") and memory.waited > plan.capacity_timeout:
        return Step("fail", f"--capacity-timeout is over: {step.why or 'no TPU came'}")
    if step.do == "delete" and memory.deletes >= DELETES:
        return Step("fail", f"{plan.name} could not be deleted")
    if step.loss and memory.restarts >= plan.restarts:
        return Step("fail", f"{step.why}, and --restarts={plan.restarts} are used up")
    return step


def _refused(seen: Seen) -> Step:
    return Step("fail", f"gcloud refuses:\n{seen.refused}")


def _last(seen: Seen) -> str:
    """Returns the line of an error that says most: its last."""
    return seen.error.splitlines()[-1] if seen.error else ""


def _after_training(seen: Seen, plan: Plan, memory: Memory) -> Step:
    if memory.ended or plan.keep or (seen.tpu, seen.request) == (NONE, NONE):
        return Step("done", code=memory.ended)
    if seen.refused:
        return _refused(seen)
    if UNREACHABLE in (seen.tpu, seen.request):
        why = f"Google Cloud does not answer; then the TPU is deleted. {_last(seen)}"
        return Step("wait", why, slow=True)
    if seen.tpu == "DELETING" or seen.request in GOING:
        return Step("wait", "the TPU is being deleted")
    return Step("delete", "training is done")


def _without_node(seen: Seen, plan: Plan, memory: Memory) -> Step:
    do = REQUEST.get(seen.request, "wait")
    if do == "wait":
        return Step("wait", f"the queued request is {seen.request}")
    if seen.request == "FAILED" and memory.asked:
        kind = Result(1, "", seen.reason).kind
        if kind not in ("capacity", "network", "other"):
            return Step("fail", f"the queued request failed: {seen.reason}")
        return Step("delete", f"the queued request failed, and is made again: {seen.reason}")
    if do == "delete":
        why = f"the queued request is {seen.request} and has no TPU; it is deleted and made again"
        return Step("delete", why, loss=memory.was_ready)
    why = f"{plan.name} is gone" if memory.was_ready else ""
    return Step("create", why, loss=memory.was_ready)


def _with_node(seen: Seen, plan: Plan, memory: Memory) -> Step:
    do = NODE.get(seen.tpu, "wait")
    if seen.type and seen.type != plan.type:
        return Step(
            "fail",
            f"there is a TPU {plan.name} already, a {seen.type}; take another --name, or delete it",
        )
    if do == "wait":
        return Step("wait", f"{plan.name} is {seen.tpu}")
    if do == "vm":
        return _ready(seen, plan, memory)
    # Spot TPUs, those of queued requests and those of several hosts cannot be started again.
    fixed = plan.spot or plan.several or seen.request != NONE or memory.cannot_start
    if do == "start-tpu" and not fixed:
        return Step("start-tpu", f"{plan.name} is STOPPED", loss=memory.was_ready)
    why = f"{plan.name} is {seen.tpu}; it is deleted and created again"
    return Step("delete", why, loss=memory.was_ready)


def _ready(seen: Seen, plan: Plan, memory: Memory) -> Step:
    workers = seen.workers
    if not workers:
        if memory.silent >= FIRST_LOOKS and not memory.answered:
            return Step(
                "fail",
                f"{plan.name} is READY, but ssh does not reach its workers: is port 22 open in its "
                "network? --tunnel-through-iap goes through Google's proxy. " + _last(seen),
            )
        why = f"{plan.name} does not answer by ssh; waiting. {_last(seen)}"
        return Step("wait", why, slow=memory.answered)
    trainers = workers if plan.engine == "jax" else workers[:1]
    running = [worker for worker in trainers if worker.train == "running"]
    if running:
        return _running(trainers, running, plan, memory)
    return _standing(workers, trainers, plan, memory)


def _running(trainers, running, plan: Plan, memory: Memory) -> Step:
    if any(worker.job != plan.job for worker in running):
        if plan.replace:
            return Step("stop", "another training runs there; --replace ends it")
        return Step(
            "fail",
            f"another training runs on {plan.name}: follow it with the command that began it, or "
            "end it with --replace",
        )
    why = ""
    if any(worker.code != plan.code for worker in running) and not memory.replaced:
        if plan.replace:
            return Step("stop", "training runs with an older checkout; --replace ends it")
        why = (
            "training runs with another checkout than this one, and goes on; --replace starts it "
            "again with this one"
        )
    others = [worker for worker in trainers if worker.is_missing]
    if not others:  # those that are through wait for the one that writes the results
        return Step("follow", why, worker=running[0].number)
    which = ", ".join(str(worker.number) for worker in others)
    if memory.ragged < RAGGED_LOOKS:
        return Step("wait", f"training has ended on worker {which} and runs on the others")
    failed = _failed(others)
    if failed is not None:
        return Step("stop", f"training failed on worker {which}", code=failed.exit)
    return Step("stop", f"training is gone on worker {which}", loss=True)


def _standing(workers, trainers, plan: Plan, memory: Memory) -> Step:
    mine = [worker for worker in trainers if worker.job == plan.job and worker.train != "none"]
    if len(mine) == len(trainers) and all(worker.train == "ended" for worker in mine):
        if all(worker.exit == 0 for worker in mine):
            return Step("ended", code=0)
        failed = _failed(mine)
        if memory.started and failed is not None:
            return Step("ended", code=failed.exit, worker=failed.number)
    lost = any(worker.train == "lost" or worker.exit in SIGNALS for worker in mine)
    loss = lost or memory.ran
    why = ""
    if loss:
        rebooted = any(worker.rebooted for worker in mine)
        why = f"training is gone{': the VM was started again' if rebooted else ''}"
    elif mine:
        why = "training had ended with an error; it is started again"
    if not all((worker.code, worker.engine) == (plan.code, plan.engine) for worker in workers):
        if memory.deploys >= DEPLOYS:
            return Step("fail", "the checkout could not be copied or installed; see above")
        return Step("deploy", why, loss=loss)
    if memory.starts >= STARTS:
        return Step("fail", "training does not start; see above")
    return Step("start", why, loss=loss)


def _failed(workers) -> Worker | None:
    """Returns the worker whose training failed by itself: the others may have failed with it."""
    if any(worker.train == "lost" or worker.exit in SIGNALS for worker in workers):
        return None
    failed = [worker for worker in workers if worker.exit]
    return failed[0] if failed else None
