"""What is there: the TPU, its queued request, and on each worker the code and the training."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from .commands import Commands
from .gcloud import Result

NONE, UNREACHABLE = "NONE", "UNREACHABLE"
_LINE = re.compile(
    r"keras-resnet-vm worker=(\d+) code=(\S+) engine=(\S+) train=(none|running|ended|lost) "
    r"exit=(-|\d+) job=(\S+) reboot=(yes|no)"
)


@dataclass(frozen=True)
class Worker:
    """One host of a TPU, as tpu_vm.sh says.

    Attributes:
        number: from 0 on.
        code, engine: what is installed completely: the checkout's hash, and for which engine.
        train: none, running, ended (with a code), or lost: its process is gone without a code.
        exit: the exit code, where it ended.
        job: which training command it was.
        rebooted: whether the machine was started again since training was.
    """

    number: int
    code: str = "none"
    engine: str = "none"
    train: str = "none"
    exit: int | None = None
    job: str = "-"
    rebooted: bool = False

    @property
    def is_missing(self) -> bool:
        """Neither trains nor has trained to the end."""
        return self.train in ("none", "lost") or bool(self.exit)


@dataclass(frozen=True)
class Seen:
    """All that was seen in one look.

    Attributes:
        tpu: the state that Cloud TPU gives it; NONE: there is no such TPU; UNREACHABLE: nobody
            answered.
        request: the same of the queued request.
        reason: why a request failed.
        type: the type of the TPU that is there.
        workers: those of a READY TPU, by number; empty unless every one of them answered.
        refused: what gcloud says where waiting does not help: permissions, a wrong zone.
        error: what it says where nobody answered.
    """

    tpu: str = NONE
    request: str = NONE
    reason: str = ""
    type: str = ""
    workers: tuple[Worker, ...] = ()
    refused: str = ""
    error: str = ""


def look(
    run: Callable[..., Result], commands: Commands, at_workers: bool = True, patience: float = 120
) -> Seen:
    """Looks once.

    Args:
        run: `gcloud.run`, or what stands in for it.
        commands: the commands to look with.
        at_workers: False leaves the workers out.
        patience: seconds that each question to Google Cloud may take.
    """
    # First the request: where it was ACTIVE and there is no TPU afterwards, the TPU is gone.
    request, found, failed = _describe(run, commands.describe("queued-resources"), patience)
    state = found.get("state") or {}
    reason = json.dumps(state.get("failedData") or "") if isinstance(state, dict) else ""
    tpu, node, failed_tpu = _describe(run, commands.describe("tpu-vm"), patience)
    failed = failed or failed_tpu
    error = failed.error.strip() if failed else ""
    refused = error if failed and failed.kind in ("permission", "invalid") else ""
    workers: tuple[Worker, ...] = ()
    if tpu == "READY" and at_workers:
        hosts = max(1, len(node.get("networkEndpoints") or ()))
        result = run(commands.status(), timeout=300)
        workers, error = read_workers(result.out, hosts), error or result.error.strip()
    kind = str(node.get("acceleratorType") or "").rpartition("/")[2]
    return Seen(tpu, request, reason, kind, workers, refused, error)


def _describe(run, command: list[str], patience: float) -> tuple[str, dict, Result | None]:
    """Returns a state, all that is known, and where nobody answered what gcloud said."""
    result = run(command, timeout=patience)
    if result.kind == "missing":
        return NONE, {}, None
    if result.code:
        said = result.error.strip() or f"gcloud ended with exit code {result.code} and no word"
        return UNREACHABLE, {}, Result(result.code, "", said)
    try:  # a wrapper or a plugin may print before it
        start = re.search(r"^\{", result.out, re.MULTILINE)
        found, _ = json.JSONDecoder().raw_decode(result.out[start.start() :] if start else "")
    except ValueError:
        said = f"gcloud's answer is no JSON: {result.out[:200]!r} {result.error.strip()}"
        return UNREACHABLE, {}, Result(1, "", said)
    state = found.get("state") or "STATE_UNSPECIFIED"
    return str(state.get("state") if isinstance(state, dict) else state), found, None


def read_workers(text: str, hosts: int) -> tuple[Worker, ...]:
    """Returns the workers that printed their line, by number; none unless all of them did."""
    found = {}
    for number, code, engine, train, ended, job, reboot in _LINE.findall(text):
        exit_code = None if ended == "-" else int(ended)
        found[int(number)] = Worker(
            int(number), code, engine, train, exit_code, job, reboot == "yes"
        )
    if len(found) < hosts:
        return ()
    return tuple(found[number] for number in sorted(found))


def trainers(workers: tuple[Worker, ...], engine: str) -> tuple[Worker, ...]:
    """Returns the workers that train: all of JAX's, the first of TensorFlow's."""
    return workers if engine == "jax" else workers[:1]
