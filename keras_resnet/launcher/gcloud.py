"""Runs gcloud, and reads from its words what kind of failure it was."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import NamedTuple

# The first pattern that an error has decides. gcloud adds "may be due to network connectivity
# issues" to refused quotas, and its texts for quota and for lack of capacity share the status
# RESOURCE_EXHAUSTED, hence the order. Where the network is away it cannot refresh its token either,
# and says "Please run gcloud auth login to obtain new credentials" all the same.
_KINDS = (
    ("network", r"per minute|per 100 seconds|rateLimitExceeded"),  # too many calls, not TPUs
    (
        "network",
        r"Max retries exceeded|NewConnectionError|Unable to find the server|failure in name resol"
        r"|Network is unreachable|Name or service not known",
    ),
    ("quota", r"\bquota"),
    (
        "capacity",
        r"no more capacity|insufficient (reserved )?capacity|not have enough resources|stockout"
        r"|RESOURCE_POOL_EXHAUSTED|RESOURCE_EXHAUSTED|currently unavailable in|no capacity",
    ),
    ("exists", r"ALREADY_EXISTS|already exists"),
    # Only what the API says of a resource: a proxy or a shell finds things missing, too.
    ("missing", r"NOT_FOUND|(Resource|Requested entity) .*not found"),
    (
        "permission",
        r"PERMISSION_DENIED|permission|forbidden|UNAUTHENTICATED|reauth|gcloud auth|credential"
        r"|SERVICE_DISABLED|has not been used in project|not enabled|billing",
    ),
    (
        "invalid",
        r"INVALID_ARGUMENT|unrecognized arguments|Invalid (value|choice)|must be specified"
        r"|\[project\]|not properly specified|do not currently have this command",
    ),
    (
        "network",
        r"UNAVAILABLE|INTERNAL|DEADLINE|ABORTED|timed? ?out|unreachable|connect|network|resolve"
        r"|temporar|\b50[0234]\b|SSL|reset by peer|broken pipe",
    ),
)


class Result(NamedTuple):
    """What a command came to: its exit code, and what it printed."""

    code: int
    out: str
    error: str

    @property
    def kind(self) -> str:
        """ok, or the kind of failure: see _KINDS; "other" for none of them."""
        if self.code == 0:
            return "ok"
        for kind, pattern in _KINDS:
            if re.search(pattern, self.error, re.IGNORECASE):
                return kind
        return "other"


def run(argv: list[str], timeout: float | None = None, stream: bool = False) -> Result:
    """Runs a command.

    Args:
        argv: the command.
        timeout: seconds after which it is given up, as a failure of the network.
        stream: print its output as it comes, instead of returning it.

    Returns:
        The result; code 127 where it could not be started, as while gcloud is updated.
    """
    try:
        return _run(argv, timeout, stream)
    except OSError as error:
        return Result(127, "", f"{argv[0]} cannot be started: {error.strerror}")


def _run(argv: list[str], timeout: float | None, stream: bool) -> Result:
    # Without a terminal it gets a group of its own, so that the ssh below it ends with it; with
    # one it stays in ours, as ssh may ask for a passphrase.
    alone = not sys.stdin or not sys.stdin.isatty()
    pipe = None if stream else subprocess.PIPE
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        text=True,
        errors="replace",
        start_new_session=alone,
    ) as process:
        try:
            out, error = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            _end(process, alone)
            return Result(255, "", f"{argv[0]} timed out after {timeout:g} s")
        except BaseException:
            _end(process, alone)
            raise
    return Result(process.returncode, out or "", error or "")


def _end(process: subprocess.Popen, alone: bool) -> None:
    try:
        if alone:
            os.killpg(process.pid, signal.SIGTERM)
        else:
            process.terminate()
        process.wait(5)
    except ProcessLookupError:
        process.kill()
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL) if alone else process.kill()
