"""A JobSet for Google Kubernetes Engine that trains on one slice of TPUs, and its text as YAML.

JobSet is Kubernetes' API for jobs of several hosts (kubernetes-sigs/jobset, v1alpha2). What GKE
wants of TPUs is from "Plan TPUs in GKE" (machine types, labels, topologies), "TPU7x (Ironwood)" and
xpk's `system_characteristics.py` (topologies). GKE gives each pod of such a job TPU_WORKER_ID and
TPU_WORKER_HOSTNAMES, by which `jax.distributed.initialize` finds the other hosts
(`jax/_src/clusters/cloud_tpu_cluster.py`, GkeTpuCluster).
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from keras_resnet.errors import UsageError
from keras_resnet.preflight.topologies import Topology

CONTAINER = "train"
# Exit codes of the command line that a restart does not help: error and usage. What does help is
# to be ended by a signal (143) and to lose another host (75).
ERRORS = (1, 2)
# Seconds from SIGTERM to SIGKILL, for a checkpoint to reach its bucket. A spot VM has 30 at most.
GRACE = 120
# Generation -> (value of the node label, number of chips of a VM -> its machine type).
_MACHINES: dict[str, tuple[str, dict[int, str]]] = {
    "v4": ("tpu-v4-podslice", {4: "ct4p-hightpu-4t"}),
    "v5e": (
        "tpu-v5-lite-podslice",
        {1: "ct5lp-hightpu-1t", 4: "ct5lp-hightpu-4t", 8: "ct5lp-hightpu-8t"},
    ),
    "v5p": ("tpu-v5p-slice", {4: "ct5p-hightpu-4t"}),
    "v6e": (
        "tpu-v6e-slice",
        {1: "ct6e-standard-1t", 4: "ct6e-standard-4t", 8: "ct6e-standard-8t"},
    ),
    "tpu7x": ("tpu7x", {1: "tpu7x-standard-1t", 4: "tpu7x-standard-4t"}),
}
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_SMALL_TORUS = ("1x1x1", "2x2x1", "2x2x2", "2x2x4", "2x4x4")
_SPOT = "cloud.google.com/gke-spot"


@dataclasses.dataclass(frozen=True)
class Slice:
    """A slice as GKE has it.

    Attributes:
        sides: such as "2x2x4".
        hosts: its VMs.
        chips: of each VM.
        accelerator: value of the node label cloud.google.com/gke-tpu-accelerator.
        machine: type of the VMs.
    """

    sides: str
    hosts: int
    chips: int
    accelerator: str
    machine: str


def slice_of(topology: Topology) -> Slice:
    """Returns the slice of GKE that `topology` is.

    Raises:
        UsageError: GKE has no such slice; says which there are.
    """
    generation, sides = topology.chip.name, topology.sides
    if generation not in _MACHINES:
        raise UsageError(
            f"--topology={topology.name}: this is for {', '.join(_MACHINES)}; rent {generation} "
            "with run_tpu.sh"
        )
    accelerator, machines = _MACHINES[generation]
    chips = topology.chips // topology.hosts
    if chips not in machines or not _is_offered(sides):
        flat = topology.chip.dimensions == 2
        raise UsageError(
            f"--topology={topology.name}: GKE has no such slice; there are "
            + (
                ", ".join(_FLAT)
                if flat
                else f"{', '.join(_SMALL_TORUS[0 if 1 in machines else 1 :])}, and sides that are "
                "multiples of 4 in ascending order, such as 4x4x8"
            )
        )
    return Slice(sides, topology.hosts, chips, accelerator, machines[chips])


def _is_offered(sides: str) -> bool:
    if sides in _FLAT or sides in _SMALL_TORUS:
        return True
    numbers = [int(side) for side in sides.split("x")]
    multiples = all(number % 4 == 0 for number in numbers)
    return len(numbers) == 3 and multiples and numbers == sorted(numbers)


@dataclasses.dataclass(frozen=True)
class Training:
    """What runs on a slice.

    Attributes:
        name: of the JobSet; its pods are NAME-train-0-0 and so on.
        image: of the container, whose entry point is `keras-resnet`.
        arguments: of that.
        variables: of the environment.
        restarts: how often it may begin anew.
        spot: whether on spot VMs.
        service_account: of Kubernetes; "" for that of the namespace.
    """

    name: str
    image: str
    arguments: Sequence[str]
    variables: Mapping[str, str]
    restarts: int = 20
    spot: bool = False
    service_account: str = ""


def jobset(training: Training, where: Slice) -> dict[str, Any]:
    """Returns the JobSet, as the object that JSON or YAML says.

    One pod on each host, all with the same command. Where one is lost (a preemption, a repair) the
    JobSet makes all anew, and they resume from the last checkpoint. Where one ends with an error of
    ours (ERRORS), the JobSet has failed and its nodes are free.
    """
    failed = {
        "name": "errors",
        "action": "FailJobSet",
        "onJobFailureReasons": ["PodFailurePolicy"],
    }
    metadata: dict[str, Any] = {"name": training.name}
    if where.hosts > 1:  # all in one node pool, which is one slice
        metadata["annotations"] = {
            "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
        }
    template = {"spec": _job(training, where)}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "failurePolicy": {"maxRestarts": training.restarts, "rules": [failed]},
            "replicatedJobs": [{"name": "train", "replicas": 1, "template": template}],
        },
    }


def _job(training: Training, where: Slice) -> dict[str, Any]:
    """A job fails as a whole with its first pod: the others could only wait for it."""
    refuses = {"containerName": CONTAINER, "operator": "In", "values": list(ERRORS)}
    return {
        "parallelism": where.hosts,
        "completions": where.hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": refuses}]},
        "template": {"spec": _pod(training, where)},
    }


def _pod(training: Training, where: Slice) -> dict[str, Any]:
    nodes = {
        "cloud.google.com/gke-tpu-accelerator": where.accelerator,
        "cloud.google.com/gke-tpu-topology": where.sides,
    }
    tolerations = [{"key": "google.com/tpu", "operator": "Exists", "effect": "NoSchedule"}]
    if training.spot:
        nodes[_SPOT] = "true"
        tolerations.append(
            {"key": _SPOT, "operator": "Equal", "value": "true", "effect": "NoSchedule"}
        )
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": training.image,
        "args": list(training.arguments),
        "resources": {"limits": {"google.com/tpu": where.chips}},
    }
    if training.variables:
        container["env"] = [
            {"name": name, "value": value} for name, value in training.variables.items()
        ]
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE,
        "nodeSelector": nodes,
        "tolerations": tolerations,
        "containers": [container],
    }
    if training.service_account:
        pod["serviceAccountName"] = training.service_account
    return pod


class _Dumper(yaml.SafeDumper):
    """Quotes every text that is no plain word: what is a number or true differs between readers."""

    def represent_text(self, text: str) -> yaml.Node:
        style = None if re.fullmatch(r"[A-Za-z][\w./-]{2,}", text, re.ASCII) else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)


def to_yaml(manifest: Mapping[str, Any]) -> str:
    """Returns an object of JSON as YAML for `kubectl`."""
    return yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**20)
