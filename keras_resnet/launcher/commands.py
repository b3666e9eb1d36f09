"""The commands of gcloud, as lists of arguments. Nothing is run here.

What applies where is gcloud's own reference, SDK of 2025: `tpu-vm create` and `queued-resources
create` know the same options but for the version's name and --valid-until-duration; `tpu-vm ssh`
and `scp` have --internal-ip, and --tunnel-through-iap in `gcloud alpha` only.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from .options import Plan

# The first worker may hang where another has failed: all are looked at after so many seconds.
POD_SECONDS = 600
# Ends a connection that is dead after two minutes, instead of following it for ever.
SSH_OPTIONS = ("--", "-o", "ServerAliveInterval=30", "-o", "ServerAliveCountMax=4")
# What a VM without our checkout, or with one that half arrived, says of itself.
STATUS = (
    "if grep -qs keras-resnet-vm keras_resnet/tpu_vm.sh; then bash keras_resnet/tpu_vm.sh status; "
    'else w=${HOSTNAME##*-w-}; [ "$w" != "$HOSTNAME" ] || w=0; echo "keras-resnet-vm worker=$w '
    'code=none engine=none train=none exit=- job=- reboot=no"; fi'
)
LOCK = "keras_resnet.lock"
WATCHDOG = "keras_resnet/launcher/watchdog.sh"


class Commands:
    """gcloud's commands for one plan.

    Args:
        plan: what is launched.
        here: the checkout.
    """

    def __init__(self, plan: Plan, here: Path):
        self.plan, self.here = plan, here
        # Another launcher's is another file, unless it is the same.
        self.archive = f"keras_resnet{'-' * bool(plan.code)}{plan.code}.tgz"
        self.place = [f"--zone={plan.zone}"]
        if plan.project:
            self.place.append(f"--project={plan.project}")

    def _tpus(self, group: str, verb: str, *rest: str, alpha: bool = False) -> list[str]:
        track = ["alpha"] if alpha else []
        name = self.plan.name
        return ["gcloud", *track, "compute", "tpus", group, verb, name, *self.place, *rest]

    def describe(self, group: str) -> list[str]:
        """Says what there is; group: tpu-vm or queued-resources."""
        return self._tpus(group, "describe", "--format=json")

    def create(self) -> list[str]:
        """Creates the TPU, or with --queued asks for it."""
        plan, options = self.plan, [f"--accelerator-type={self.plan.type}"]
        options.append(f"--{'runtime-version' if plan.queued else 'version'}={plan.version}")
        if plan.queued:
            # A request that nobody waits for any more must not become a TPU.
            options.append(f"--valid-until-duration={plan.capacity_timeout}s")
        for key in ("spot", "reserved", "internal_ips"):
            if getattr(plan, key):
                options.append(f"--{key.replace('_', '-')}")
        for key in ("service_account", "scopes", "network", "subnetwork", "labels", "metadata"):
            if getattr(plan, key):
                options.append(f"--{key.replace('_', '-')}={getattr(plan, key)}")
        if plan.self_delete:
            path = str(self.here / WATCHDOG)
            apart = "^:^" if "," in path else ""  # gcloud takes a comma for the next pair
            options.append(f"--metadata-from-file={apart}startup-script={path}")
        if plan.queued:
            return self._tpus("queued-resources", "create", f"--node-id={plan.name}", *options)
        return self._tpus("tpu-vm", "create", *options)

    def delete(self, request: bool) -> list[str]:
        """Deletes the TPU, with its queued request if it came by one."""
        if request:
            return self._tpus("queued-resources", "delete", "--force", "--quiet")
        return self._tpus("tpu-vm", "delete", "--quiet")

    def start_tpu(self) -> list[str]:
        """Starts a TPU that is stopped."""
        return self._tpus("tpu-vm", "start", "--quiet")

    def _way(self) -> list[str]:
        if self.plan.tunnel_through_iap:
            return ["--tunnel-through-iap"]
        return ["--internal-ip"] if self.plan.internal_ips else []

    def copy(self, archive: str) -> list[str]:
        """Copies the archive to every worker."""
        alpha = ["alpha"] if self.plan.tunnel_through_iap else []
        target = f"{self.plan.name}:{self.archive}"
        return [
            *("gcloud", *alpha, "compute", "tpus", "tpu-vm", "scp", archive, target),
            *(*self.place, *self._way(), "--worker=all", "--quiet"),
        ]

    def ssh(self, worker: str, command: str) -> list[str]:
        """Runs a command of the shell on one worker, or on all."""
        options = [*self._way(), f"--worker={worker}", "--quiet", f"--command={command}"]
        alpha = self.plan.tunnel_through_iap
        return self._tpus("tpu-vm", "ssh", *options, *SSH_OPTIONS, alpha=alpha)

    def status(self) -> list[str]:
        """Every worker prints one line, which observe.py reads."""
        return self.ssh("all", STATUS)

    def deploy(self) -> list[str]:
        """Puts the archive in the place of what is there, and installs it."""
        unpack = (
            f"rm -rf keras_resnet.new && mkdir keras_resnet.new && tar -xzf {self.archive} -C "
            "keras_resnet.new && bash keras_resnet.new/tpu_vm.sh deploy "
            f"{self.plan.code or 'CODE'} {self.plan.engine}"
        )
        # The lock: another launcher's, or one whose connection broke and that goes on.
        return self.ssh("all", f"flock {LOCK} bash -c {shlex.quote(unpack)}")

    def start(self) -> list[str]:
        """Starts training, detached: JAX on every worker, TensorFlow on the first."""
        plan, variables = self.plan, [f"RUN_TPU_JOB={self.plan.job}"]
        if plan.code:
            variables.append(f"RUN_TPU_CODE={plan.code}")
        if plan.several and plan.engine == "tensorflow":
            variables.append(f"TPU_NAME={plan.name}")
        if plan.self_delete:
            kind = "queuedResources" if plan.queued else "nodes"
            variables.append(f"RUN_TPU_SELF_DELETE={kind}/{plan.self_delete}")
        # No installation that a lost connection left waiting comes in between; --close: training
        # does not keep the lock.
        words = ["flock", "--close", LOCK, "env", "--chdir=keras_resnet", *variables]
        words += ["./run_tpu.sh", "start", *plan.arguments]
        return self.ssh(self.trainers, shell(words))

    @property
    def trainers(self) -> str:
        """The workers that train."""
        return "all" if self.plan.engine == "jax" else "0"

    def follow(self, worker: int = 0) -> list[str]:
        """Prints the log of a worker until its training ends; of several, for some minutes."""
        limit = f" {POD_SECONDS}" if self.plan.several else ""
        return self.ssh(str(worker), f"cd keras_resnet && ./run_tpu.sh follow{limit}")

    def stop(self) -> list[str]:
        """Ends training; it saves first."""
        return self.ssh(self.trainers, "cd keras_resnet && ./run_tpu.sh stop")


def shell(argv: list[str]) -> str:
    """Returns a command as one would type it."""
    return " ".join(map(shlex.quote, argv))
