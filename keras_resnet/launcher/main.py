"""The command line of the launcher: checks, signals, and what is said at the end."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from . import pack
from .additions import Refused
from .commands import Commands, shell
from .loop import Launcher, Stopped
from .options import Plan, parse

HERE = Path(__file__).resolve().parent.parent.parent


class Signaled(BaseException):
    """A signal ends the launcher; training goes on."""


def main(words: list[str]) -> int:
    """Runs `run_tpu.sh launch`; returns the exit code: 2 for a command line that cannot work."""
    try:
        plan = parse(words)
    except Refused as refused:
        say(f"run_tpu.sh: launch: {refused}")
        return 2
    if plan.dry_run:
        for argv in fresh_run(plan):
            print(shell(argv))
        return 0
    if shutil.which("gcloud") is None:
        say("run_tpu.sh: gcloud is not installed: https://cloud.google.com/sdk")
        return 1
    if not (HERE / "keras_resnet/input_pipeline").is_dir():
        say(
            f"run_tpu.sh: {HERE}/keras_resnet/input_pipeline is no link to a folder; check the "
            "project out with symbolic links (git config core.symlinks true)"
        )
        return 1
    with tempfile.TemporaryDirectory(prefix="run_tpu.") as folder:
        archive = Path(folder, "keras_resnet.tgz")
        try:
            names = pack.list_files(HERE)
            pack.write(HERE, names, archive)
            plan = replace(plan, code=pack.digest(HERE, names))
        except (OSError, Refused) as error:
            say(f"run_tpu.sh: the checkout cannot be packed: {error}")
            return 1
        return launch(plan, archive)


def fresh_run(plan: Plan) -> list[list[str]]:
    """Returns the commands of a run that meets nothing and loses nothing."""
    commands = Commands(plan, HERE)
    run = [commands.create(), commands.copy(commands.archive), commands.deploy()]
    run += [commands.start(), commands.follow()]
    return run if plan.keep else [*run, commands.delete(plan.queued)]


def launch(plan: Plan, archive: Path) -> int:
    """Runs the loop; every way out says what may still cost money."""
    launcher = Launcher(plan, HERE, archive, say=say)
    # What is ignored stays so: nohup is meant.
    every = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    numbers = [number for number in every if signal.getsignal(number) != signal.SIG_IGN]
    for number in numbers:
        signal.signal(number, _raise)
    code = 1
    try:
        code = launcher.go()
    except Stopped as stopped:
        say(f"run_tpu.sh: {stopped}")
    except Signaled:
        code = 130
    finally:
        for number in numbers:  # nothing cuts the last lines short
            signal.signal(number, signal.SIG_IGN)
        launcher.say_what_costs()
    return code


def _raise(number, frame) -> None:
    raise Signaled


def say(line: str) -> None:
    """Prints a line on stderr; the terminal may be gone."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)
