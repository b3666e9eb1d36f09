"""From what was seen to the next step: a pure function, whose tests are a table."""

from __future__ import annotations

from .gcloud import Result
from .observe import NONE, UNREACHABLE, Seen, Worker, trainers
from .options import Plan
from .steps import Memory, Step

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
ALONE = 75  # that of one that has lost another host
ATTEMPTS, FIRST_LOOKS, RAGGED_LOOKS = 5, 20, 10


def decide(seen: Seen, plan: Plan, memory: Memory) -> Step:
    """Returns the next step."""
    if memory.ended is not None:
        step = _after_training(seen, plan, memory)
    elif seen.refused:
        step = _refused(seen)
    elif UNREACHABLE in (seen.tpu, seen.request):
        step = Step("wait", f"Google Cloud does not answer; waiting. {_last(seen)}", slow=True)
    elif memory.finished and seen.tpu != "READY":
        step = Step("ended", "training ended with exit code 0", code=0)
    elif seen.request in GOING:
        step = Step("wait", f"the queued request is {seen.request}")
    elif seen.tpu == NONE:
        step = _without_node(seen, plan, memory)
    else:
        step = _with_node(seen, plan, memory)
    if step.do in ("wait", "create") and memory.waited > plan.capacity_timeout:
        why = f"--capacity-timeout is over: {step.why or 'no TPU came'}"
        return Step("fail", why, drop=memory.ended is None)
    if step.do == "delete" and memory.deletes >= ATTEMPTS:
        return Step("fail", f"{plan.name} could not be deleted")
    if step.do == "stop" and memory.stops >= ATTEMPTS:
        return Step("fail", f"training on {plan.name} could not be ended")
    if step.loss and memory.restarts >= plan.restarts:
        return Step("fail", f"{step.why}, and --restarts={plan.restarts} are used up", drop=True)
    return step


def _refused(seen: Seen) -> Step:
    old = "" if "Invalid choice" not in seen.refused else "\nTry: gcloud components update"
    return Step("fail", f"gcloud refuses:\n{seen.refused}{old}")


def _last(seen: Seen) -> str:
    """Returns the line of an error that says most: its last, but for gcloud's word on ssh's end."""
    lines = [line for line in seen.error.splitlines() if line.strip()]
    telling = [line for line in lines if "exited with return code" not in line]
    return (telling or lines or [""])[-1]


def _after_training(seen: Seen, plan: Plan, memory: Memory) -> Step:
    if (memory.ended and not memory.drops) or plan.keep or (seen.tpu, seen.request) == (NONE, NONE):
        return Step("done", code=memory.ended)
    if seen.refused:
        return _refused(seen)
    if UNREACHABLE in (seen.tpu, seen.request):
        why = f"Google Cloud does not answer; then the TPU is deleted. {_last(seen)}"
        return Step("wait", why, slow=True)
    if seen.tpu == "DELETING" or seen.request in GOING:
        return Step("wait", "the TPU is being deleted")
    return Step("delete", "it is deleted" if memory.drops else "training is done")


def _without_node(seen: Seen, plan: Plan, memory: Memory) -> Step:
    do = REQUEST.get(seen.request, "wait")
    if do == "wait":
        return Step("wait", f"the queued request is {seen.request}")
    if seen.request == "FAILED" and memory.asked:
        kind = Result(1, "", seen.reason).kind
        if kind not in ("capacity", "network", "other"):
            return Step("fail", f"the queued request failed: {seen.reason}", drop=True)
        return Step("delete", f"the queued request failed, and is made again: {seen.reason}")
    if do == "delete":
        why = f"the queued request is {seen.request} and has no TPU; it is deleted and made again"
        return Step("delete", why, loss=memory.was_ready)
    asked = "asked for" if plan.queued else "created"
    why = f"{plan.name} is gone" if memory.was_ready else f"{plan.name}, {plan.type}, is {asked}"
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
                drop=True,
            )
        why = f"{plan.name} does not answer by ssh; waiting. {_last(seen)}"
        return Step("wait", why, slow=memory.answered)
    training = trainers(workers, plan.engine)
    running = [worker for worker in training if worker.train == "running"]
    if running:
        return _running(training, running, plan, memory)
    return _standing(workers, training, plan, memory)


def _running(training, running, plan: Plan, memory: Memory) -> Step:
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
    others = [worker for worker in training if worker.is_missing]
    if not others:  # those that are through wait for the one that writes the results
        return Step("follow", why, worker=running[0].number)
    which = ", ".join(str(worker.number) for worker in others)
    if memory.ragged < RAGGED_LOOKS:
        return Step("wait", f"training has ended on worker {which} and runs on the others")
    failed = _failed(others)
    if failed is not None:
        why = f"training failed on worker {which}"
        return Step("stop", why, code=failed.exit, worker=failed.number)
    return Step("stop", f"training is gone on worker {which}", loss=True)


def _standing(workers, training, plan: Plan, memory: Memory) -> Step:
    mine = [worker for worker in training if worker.job == plan.job and worker.train != "none"]
    if len(mine) == len(training) and all(worker.train == "ended" for worker in mine):
        if all(worker.exit == 0 for worker in mine):
            return Step("ended", code=0)
        failed = _failed(mine)
        if memory.started and failed is not None:
            return Step("ended", code=failed.exit, worker=failed.number)
    lost = any(worker.train == "lost" or worker.exit in (*SIGNALS, ALONE) for worker in mine)
    loss = lost or memory.ran
    why = ""
    if loss:
        rebooted = any(worker.rebooted for worker in mine)
        why = f"training is gone{': the VM was started again' if rebooted else ''}"
    elif mine:
        why = "training had ended with an error; it is started again"
    if not all((worker.code, worker.engine) == (plan.code, plan.engine) for worker in workers):
        if memory.deploys >= ATTEMPTS:
            why = "the checkout could not be copied or installed; see above"
            return Step("fail", why, drop=True)
        return Step("deploy", why, loss=loss)
    if memory.starts >= ATTEMPTS:
        return Step("fail", "training does not start; see above", drop=True)
    return Step("start", why, loss=loss)


def _failed(workers) -> Worker | None:
    """Returns the worker whose training failed by itself: the others may have failed with it."""
    if any(worker.train == "lost" or worker.exit in SIGNALS for worker in workers):
        return None
    failed = [worker for worker in workers if worker.exit not in (None, 0, ALONE)]
    return failed[0] if failed else None
