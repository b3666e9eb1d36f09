"""The hosts of a `multi_worker` run: who they are, and which of them is lost.

TensorFlow takes a broken TF_CONFIG for no cluster at all, so it is looked at before that starts;
meeting.py then waits for the hosts.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import socket
from collections.abc import Iterator

import tensorflow as tf

from keras_resnet.errors import HostLost, UserError
from keras_resnet.training.cohort import number_of, tasks_of_slurm

EXAMPLE = (
    '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)
_TASK_TYPES = ("chief", "worker")
# What a collective operation fails with when its other end is gone.
LOST_HOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The hosts, in the order of their numbers.

    Attributes:
        addresses: "host:port" of each.
        index: which of them this process is; 0 is the chief, which writes the files.
    """

    addresses: tuple[str, ...]
    index: int


def announced() -> bool:
    """True if the environment says that this process is one of several: TF_CONFIG, or srun."""
    if os.environ.get("TF_CONFIG"):
        return len(from_tf_config().addresses) > 1
    return tasks_of_slurm() > 1


def resolve() -> Cluster:
    """Returns the cluster that TF_CONFIG or Slurm describes, and leaves it in TF_CONFIG.

    Raises:
        UserError: there is none, or its description is broken.
    """
    if os.environ.get("TF_CONFIG"):
        return from_tf_config()
    if "SLURM_PROCID" in os.environ:
        return _from_slurm()
    raise UserError(
        "strategy=multi_worker: neither TF_CONFIG is set nor did srun start this process; on every "
        f"host set TF_CONFIG='{EXAMPLE}' with its own index, or take strategy=mirrored"
    )


def from_tf_config() -> Cluster:
    """Returns the cluster of the variable TF_CONFIG.

    Raises:
        UserError: it cannot be read, or this task is not in it.
    """
    text = os.environ["TF_CONFIG"]

    def refused(reason: str) -> UserError:
        return UserError(f"TF_CONFIG={text!r}: {reason}; it should look like {EXAMPLE}")

    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        hosts = {kind: list(cluster.get(kind, ())) for kind in _TASK_TYPES}
        kind, index = task["type"], int(task["index"])
    except json.JSONDecodeError as error:
        raise refused(f"no JSON ({error})") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise refused(f"{type(error).__name__} {error}") from error
    others = sorted(set(cluster) - set(_TASK_TYPES) - {"evaluator"})
    if others:
        raise refused(
            f"tasks of type {', '.join(others)} have no place here, only chief and worker"
        )
    if kind not in _TASK_TYPES or not 0 <= index < len(hosts[kind]):
        count = len(hosts.get(kind, ()))
        raise refused(f"this task is {kind} {index}, but the cluster has {count} of them")
    addresses = tuple(hosts["chief"] + hosts["worker"])
    for address in addresses:
        host, _, port = str(address).rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 2**16:
            raise refused(f"{address!r} is no host:port")
    if len(set(addresses)) < len(addresses):
        raise refused("an address appears twice")
    return Cluster(addresses, index + (len(hosts["chief"]) if kind == "worker" else 0))


def _from_slurm() -> Cluster:
    """The tasks of this job step by TensorFlow's resolver; GPUs are shared out on each node."""
    has_gpus = shutil.which("nvidia-smi") is not None
    # Without GPUs the resolver divides by their number; one pretended GPU a task avoids it.
    tasks = tasks_of_slurm()
    options = {} if has_gpus else {"gpus_per_node": tasks, "gpus_per_task": 1}
    # Two jobs may share a node: the port follows the number of the job.
    port = 12_000 + number_of("SLURM_JOB_ID", 0) % 20_000
    try:
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=port, auto_set_gpu=has_gpus, **options
        )
        addresses = tuple(
            resolver.cluster_spec().task_address("worker", index) for index in range(tasks)
        )
        _, index = resolver.get_task_info()
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"strategy=multi_worker: Slurm's variables cannot be understood ({reason}); start with "
            "srun, one task a host or a GPU, or set TF_CONFIG"
        ) from error
    cluster = {"worker": list(addresses)}
    os.environ["TF_CONFIG"] = json.dumps(
        {"cluster": cluster, "task": {"type": "worker", "index": index}}
    )
    return Cluster(addresses, index)


@contextlib.contextmanager
def explain_lost_hosts() -> Iterator[None]:
    """Turns TensorFlow's error about a host that went away into HostLost with its address."""
    try:
        yield
    except LOST_HOST as error:
        if not os.environ.get("TF_CONFIG"):
            raise
        hosts = from_tf_config()
        others = [a for i, a in enumerate(hosts.addresses) if i != hosts.index]
        lost = [address for address in others if _knock(address)] or others
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = next((line for line in lines if "Graph execution error" not in line), "no reason")
        raise HostLost(
            f"strategy=multi_worker: lost {', '.join(lost)} ({reason}); start the same command on "
            "every host again, it resumes at the newest checkpoint"
        ) from error


def _knock(address: str) -> str:
    """Returns "" if somebody listens at the address, else why not."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
            return ""
    except OSError as error:
        return error.strerror or str(error)
