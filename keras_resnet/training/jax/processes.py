"""The processes of a run, each with its devices: how they meet, and what they settle.

Every process calls the functions that settle something at the same places. With one process all is
settled at once.
"""

import atexit
import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from keras_resnet.errors import HostLost, Interrupted, UsageError, UserError
from keras_resnet.training.cohort import (
    hosts_of_tf_config,
    number_of,
    refuse_what_jax_is_told,
    tasks_of_slurm,
    told_to_jax,
)
from keras_resnet.training.introduction import introduction_of
from keras_resnet.training.jax.rendezvous import meet
from keras_resnet.training.jax.watch import Watch, end_process, lay_lines
from keras_resnet.training.spoken import differences

# A process that has not been heard of for so long is lost, and the others end.
HEARTBEAT_SECONDS = 60
# What a collective operation or the coordination service says when its other end is gone.
_LOST = re.compile(
    r"UNAVAILABLE|ABORTED|DEADLINE_EXCEEDED|CANCELLED|Connection (reset|closed)|heartbeat|"
    r"Gloo|NCCL|coordination service|peer",
    re.IGNORECASE,
)
_exit_code = 0  # of this process, where it ends with an error of its own
_KEYS = ("coordinator", "num_processes", "process_id")


def announced(config: ConfigDict) -> bool:
    """True if config or environment say that this process is one of several."""
    return (
        bool(told_to_jax(config))
        or bool(os.environ.get("JAX_COORDINATOR_ADDRESS"))
        or number_of("JAX_NUM_PROCESSES", 1) > 1
        or tasks_of_slurm() > 1
    )


def check_told_as_jax_is(config: ConfigDict) -> None:
    """Refuses a run that is told of other processes in a way that passes it by.

    Raises:
        UsageError: each process would train everything by itself.
    """
    if config.strategy not in ("auto", "multi_worker", "tpu"):
        refuse_what_jax_is_told(
            config,
            f"config.strategy={config.strategy!r} trains in this process alone; take "
            "strategy=multi_worker, or unset them: config.distributed.coordinator=, "
            ".num_processes=0 and .process_id=-1",
        )
    elif (hosts := hosts_of_tf_config()) > 1 and not announced(config):
        raise UsageError(
            f"TF_CONFIG names {hosts} hosts, but engine=jax does not read it: set "
            "config.distributed.coordinator, .num_processes and .process_id, or unset TF_CONFIG"
        )


def join(config: ConfigDict) -> None:
    """Meets the other processes, and compares what must be the same in all of them.

    Raises:
        UsageError: it is not said who they are.
        UserError: they do not come within `connect_timeout`, or one differs.
    """
    if jax.distributed.is_initialized():
        return
    options = _options(config)
    if options:
        meet(
            options["coordinator_address"],
            options["num_processes"],
            options["process_id"],
            config.connect_timeout,
            introduction_of(config),
        )
    _initialize(config, **options)
    host = options.get("coordinator_address", "").rpartition(":")[0]
    _watch_the_others(host.strip("[]"))
    if not options:  # the cluster knows who they are, and we not yet
        _check_introductions(introduction_of(config))


def _initialize(config: ConfigDict, **options: Any) -> None:
    """Starts JAX's own service; all processes are there, or the cluster has started them."""
    try:
        jax.distributed.initialize(
            initialization_timeout=max(int(config.connect_timeout), 30),
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            **options,
        )
    except RuntimeError as error:
        raise UserError(
            f"strategy={config.strategy}: the processes did not meet ({_first_line(error)}); start "
            "the same command in every process"
        ) from error
    except ValueError as error:
        raise UsageError(
            f"strategy={config.strategy}: nothing says which processes take part ({error}). Start "
            "them with srun, or set config.distributed.coordinator, .num_processes and .process_id "
            "(or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID)"
        ) from error


def join_pod(config: ConfigDict) -> None:
    """Meets the other hosts of a TPU slice, if it has several; they know of each other."""
    if announced(config) or jax.distributed.is_initialized():
        join(config)
        return
    try:
        _initialize(config)
    except UsageError:  # this TPU is of one host
        return
    _watch_the_others("")
    _check_introductions(introduction_of(config))


def several() -> bool:
    """Whether other processes take part in the run."""
    return jax.process_count() > 1


def mean(value: float) -> float:
    """Returns the mean of `value` over all processes, the same float in each."""
    if not several():
        return value
    values = multihost_utils.process_allgather(np.float32(value))
    return float(np.mean(values, dtype=np.float64))


def any_process(value: bool) -> bool:
    """Returns whether `value` is true in some process."""
    return mean(float(value)) > 0


def wait_for_all() -> None:
    """Returns when every process has called this; one that ends earlier counts as lost."""
    mean(0.0)


def that_differ(digest: bytes) -> list[str]:
    """Returns the names of the processes whose digest (16 bytes) is another than ours."""
    if not several():
        return []
    mine = np.frombuffer(digest[:16], np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(mine))
    return [_name(index) for index in range(len(rows)) if (rows[index] != mine).any()]


def _watch_the_others(host: str) -> None:
    """Ends this process where another one is lost, and tells the others how this one ends."""
    lines = lay_lines(jax.process_index(), jax.process_count(), host)
    watch = Watch(lines, partial(end_process, count=jax.process_count()))
    atexit.register(_leave, watch)  # before JAX takes its leave


def _leave(watch: Watch) -> None:
    """Tells the others how this process ends; after a failure without JAX, which waits for them."""
    watch.leave(done=not _exit_code)
    if _exit_code:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(_exit_code)


@contextlib.contextmanager
def explain_lost_processes() -> Iterator[None]:
    """Turns JAX's error about a process that went away into HostLost.

    What else goes wrong inside is this process's own failure, which the others hear of.
    """
    global _exit_code
    try:
        yield
    except Interrupted:  # all end
        raise
    except Exception as error:
        _exit_code = error.code if isinstance(error, UserError) else 1
        lost = isinstance(error, RuntimeError) and several() and _LOST.search(str(error))
        if not lost:
            raise
        _exit_code = HostLost.code
        raise HostLost(
            f"engine=jax: another of the {jax.process_count()} processes is lost "
            f"({_first_line(error)}); start the same command in every process again, it resumes "
            "at the newest checkpoint"
        ) from error


def _options(config: ConfigDict) -> dict[str, Any]:
    """Returns the arguments of `jax.distributed.initialize` that config and variables say."""
    given = config.distributed
    if not given.coordinator and given.num_processes == 0 and given.process_id == -1:
        names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
        address, count, index = (os.environ.get(name, "") for name in names)
        if not (address and count and index):
            return {}  # Slurm's, or a TPU's: JAX finds out
        try:
            return _checked(address, int(count), int(index), names)
        except ValueError as error:
            raise UsageError(f"{names[1]}={count!r}, {names[2]}={index!r}: {error}") from error
    keys = tuple(f"config.distributed.{key}" for key in _KEYS)
    return _checked(given.coordinator, given.num_processes, given.process_id, keys)


def _checked(address: str, count: int, index: int, names: tuple[str, ...]) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise UsageError(
            f"{names[0]}={address!r} is no host:port of the first process, such as 10.0.0.1:1234"
        )
    if count < 1 or not 0 <= index < count:
        raise UsageError(
            f"{names[1]}={count} and {names[2]}={index}: the first is the number of processes, the "
            "second counts them from 0 on"
        )
    return {"coordinator_address": address, "num_processes": count, "process_id": index}


def _check_introductions(ours: dict[str, Any]) -> None:
    """Raises UserError, in every process, unless all have the same config, code and versions."""
    if not several():
        return
    # Texts of any length by two collectives of fixed shapes.
    text = np.frombuffer(json.dumps(ours, default=str).encode(), np.uint8)
    lengths = np.asarray(multihost_utils.process_allgather(np.int32(len(text))))
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: len(text)] = text
    rows = np.asarray(multihost_utils.process_allgather(padded))
    first = json.loads(rows[0][: lengths[0]].tobytes())
    for index in range(1, len(rows)):
        other = json.loads(rows[index][: lengths[index]].tobytes())
        if differing := differences(first, other):
            raise UserError(
                f"{_name(0)} (here) and {_name(index)} (there) do not train the same: "
                f"{'; '.join(differing)}. Start the same command, with the same version of "
                "everything, in every process"
            )


def _name(index: int) -> str:
    return f"process {index}"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
