"""What config and environment say about other processes, for the engines to agree on.

Where one engine would pass over what is said to the other, each process would train all by itself.
"""

import json
import os

from ml_collections import ConfigDict

from keras_resnet.errors import UsageError, UserError


def number_of(variable: str, default: int) -> int:
    """Returns what an environment variable of a cluster says, `default` where it is not set.

    Raises:
        UserError: it is no whole number.
    """
    text = os.environ.get(variable, "")
    try:
        return int(text) if text else default
    except ValueError as error:
        raise UserError(
            f"{variable}={text!r} is no whole number; the cluster sets it, or unset it"
        ) from error


def tasks_of_slurm() -> int:
    """Returns how many tasks the Slurm step has that this process is of, 1 outside of Slurm."""
    return number_of("SLURM_STEP_NUM_TASKS", 1)


def told_to_jax(config: ConfigDict) -> str:
    """Returns the keys `distributed` that say that this process is one of several, "" if none."""
    given = config.distributed
    said = {
        "coordinator": given.coordinator if given.coordinator else None,
        "num_processes": given.num_processes if given.num_processes > 1 else None,
        # The first of one process is what a script gives that is told how many there are.
        "process_id": given.process_id
        if given.process_id > 0 or (given.process_id == 0 and given.num_processes != 1)
        else None,
    }
    return ", ".join(
        f"config.distributed.{key}={value!r}" for key, value in said.items() if value is not None
    )


def refuse_what_jax_is_told(config: ConfigDict, why: str) -> None:
    """Raises UsageError where a key of `distributed` names others; `why` it does not count."""
    if keys := told_to_jax(config):
        raise UsageError(f"{keys}: {why}")


def hosts_of_tf_config() -> int:
    """Returns how many hosts TF_CONFIG names, 0 where it is not set or cannot be read."""
    try:
        cluster = json.loads(os.environ.get("TF_CONFIG") or "{}")["cluster"]
        return sum(len(cluster.get(kind, ())) for kind in ("chief", "worker"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return 0
