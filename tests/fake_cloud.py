"""A stand-in for Cloud TPU: `gcloud` on PATH, or called in the process of a test.

`Cloud` knows the states of nodes and queued requests, and refuses what the real one refuses
(a second node of a name, ssh to a node that is not READY). `FolderCloud` keeps its state in a
folder, where each worker is a folder too and ssh runs its command there for real: `install()` puts
it on a PATH. `ModelCloud` has a model of tpu_vm.sh instead, and a clock of its own.

It can be told: `rules` decide over single calls (fail, or let an event happen), `event(name)` lets
the machine reboot, be repaired, preempted, stopped, or vanish.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

NO_CAPACITY = (
    "ERROR: (gcloud.compute.tpus.tpu-vm.create) {\n"
    '  "code": 8,\n  "message": "There is no more capacity in the zone \\"us-west4-a\\"; you can '
    "try in another zone where Cloud TPU Nodes are offered (see "
    'https://cloud.google.com/tpu/docs/regions) [EID: 0xba393c906974e61]"\n}'
)
NO_QUOTA = (
    "ERROR: (gcloud.compute.tpus.tpu-vm.create) RESOURCE_EXHAUSTED: Quota limit "
    "'TPUV5sPreemptibleLitepodPerProjectPerZoneForTPUAPI' has been exceeded. Limit: 0 in zone "
    "us-west4-a. This may be due to network connectivity issues. Please check your network settings"
)
NOT_FOUND = (
    "ERROR: (gcloud.compute.tpus.{group}.describe) NOT_FOUND: Resource "
    "'projects/p/locations/z/nodes/{name}' was not found"
)
EXISTS = (
    "ERROR: (gcloud.compute.tpus.{group}.create) ALREADY_EXISTS: Resource "
    "'projects/p/locations/z/nodes/{name}' already exists"
)
NO_NETWORK = (
    "ERROR: gcloud crashed (TransportError): HTTPSConnectionPool(host='oauth2.googleapis.com', "
    "port=443): Max retries exceeded (Caused by NewConnectionError: Network is unreachable)"
)
NO_SSH = (
    "ssh: connect to host 34.1.2.3 port 22: Connection refused\n"
    "ERROR: (gcloud.compute.tpus.tpu-vm.ssh) [/usr/bin/ssh] exited with return code [255]."
)


class Cloud:
    """What Cloud TPU keeps of one name. `self.state` is all of it, as JSON has it."""

    def __init__(self):
        self.state = {"node": None, "request": None, "rules": [], "calls": [], "boot": 0}

    # What tests say.

    def rule(self, match, times=1, code=1, error="", event="", after=False, skip=0):
        """The next `times` calls that have `match` in them fail with `error`, or with after=True
        do what they do; `event` happens first. The first `skip` of them are passed over."""
        self.state["rules"].append(
            {"match": match, "times": times, "code": code, "error": error, "event": event,
             "after": after, "skip": skip}
        )  # fmt: skip

    def add_node(self, *states, type="v5litepod-8", hosts=1):
        """There is a node, in these states one look after the other."""
        self.state["node"] = {"states": list(states) or ["READY"], "type": type, "hosts": hosts}
        self.boot()

    def add_request(self, *states, reason="", type="v5litepod-8", hosts=1):
        """There is a queued request, in these states one look after the other."""
        self.state["request"] = {
            "states": list(states), "reason": reason, "type": type, "hosts": hosts,
        }  # fmt: skip

    def event(self, name):
        """reboot, repair, preempt, stop or vanish; fail: the queued request; release: training
        that was held goes on."""
        node, request = self.state["node"], self.state["request"]
        if name == "release":
            return self.release()
        if name == "fail" and request:
            request.update(states=["FAILED"], reason=self.state["failure"])
        if node is None or name == "fail":
            return None
        self.kill()
        if name == "reboot":
            self.state["boot"] += 1
        elif name == "repair":
            self.state["boot"] += 1
            node["states"] = ["REPAIRING", "REPAIRING", "READY"]
        elif name == "preempt":
            node["states"] = ["PREEMPTED"]
            if request:
                request["states"] = ["SUSPENDING", "SUSPENDED"]
        elif name == "stop":
            node["states"] = ["STOPPED"]
        elif name == "vanish":
            self.state["node"] = None
            self.wipe()
        return None

    # What gcloud asks.

    def call(self, argv):
        """Returns (exit code, stdout, stderr) of `gcloud ...`."""
        self.state["calls"].append(argv)
        ruled = self.ruled(" ".join(argv))
        if ruled is not None:
            return ruled
        words = [word for word in argv if word != "alpha"]
        group, verb = words[3:5]
        name = words[6].partition(":")[0] if verb == "scp" else words[5]
        return getattr(self, f"{verb}_{group.replace('-', '_')}")(name, words)

    def ruled(self, text):
        for rule in self.state["rules"]:
            if rule["match"] not in text or not rule["times"]:
                continue
            if rule["skip"]:
                rule["skip"] -= 1
                continue
            rule["times"] -= 1
            if rule["event"]:
                self.event(rule["event"])
            if not rule["after"]:
                return rule["code"], "", rule["error"]
        return None

    def look(self, thing):
        states = thing["states"]
        return states.pop(0) if len(states) > 1 else states[0]

    def describe_tpu_vm(self, name, words):
        node = self.state["node"]
        if node is None:
            return 1, "", NOT_FOUND.format(group="tpu-vm", name=name)
        state = self.look(node)
        said = {
            "name": f"projects/p/locations/z/nodes/{name}", "state": state,
            "acceleratorType": node["type"], "networkEndpoints": [{}] * node["hosts"],
        }  # fmt: skip
        if state == "DELETING":
            self.state["node"] = None
        return 0, json.dumps(said), ""

    def describe_queued_resources(self, name, words):
        request = self.state["request"]
        if request is None:
            return 1, "", NOT_FOUND.format(group="queued-resources", name=name)
        state = self.look(request)
        if state == "ACTIVE" and self.state["node"] is None and not request.get("had"):
            request["had"] = True
            self.add_node(type=request["type"], hosts=request["hosts"])
        failed = {"failedData": {"error": {"message": request["reason"]}}}
        said = {"state": {"state": state, **(failed if state == "FAILED" else {})}}
        return 0, json.dumps(said), ""

    def _asked(self, words):
        type = next(word for word in words if word.startswith("--accelerator-type=")).split("=")[1]
        size = int(type.split("-")[1])
        return {"type": type, "hosts": 1 if size <= 8 else size // 8}

    def create_tpu_vm(self, name, words):
        if self.state["node"] or self.state["request"]:
            return 1, "", EXISTS.format(group="tpu-vm", name=name)
        self.add_node("READY", **self._asked(words))
        return 0, "", f"Created tpu [{name}].\n"

    def create_queued_resources(self, name, words):
        if self.state["request"] or self.state["node"]:
            return 1, "", EXISTS.format(group="queued-resources", name=name)
        self.add_request("WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE", **self._asked(words))
        return 0, "", "Create request issued\n"

    def delete_tpu_vm(self, name, words):
        if self.state["request"]:
            return 1, "", "ERROR: FAILED_PRECONDITION: the node belongs to a queued resource"
        if self.state["node"] is None:
            return 1, "", NOT_FOUND.format(group="tpu-vm", name=name)
        self.event("vanish")
        return 0, "", ""

    def delete_queued_resources(self, name, words):
        if self.state["request"] is None:
            return 1, "", NOT_FOUND.format(group="queued-resources", name=name)
        assert "--force" in words
        self.event("vanish")
        self.state["request"] = None
        return 0, "", ""

    def start_tpu_vm(self, name, words):
        self.state["node"]["states"] = ["READY"]
        self.state["boot"] += 1
        return 0, "", ""

    def reachable(self):
        node = self.state["node"]
        return node is not None and node["states"][0] == "READY"

    def workers_of(self, words):
        worker = next(word for word in words if word.startswith("--worker=")).split("=")[1]
        return range(self.state["node"]["hosts"]) if worker == "all" else [int(worker)]

    def scp_tpu_vm(self, name, words):
        if not self.reachable():
            return 1, "", NO_SSH
        return self.copy(words[5], words[6].partition(":")[2], self.workers_of(words))

    def ssh_tpu_vm(self, name, words):
        if not self.reachable():
            return 1, "", NO_SSH
        command = next(word for word in words if word.startswith("--command=")).partition("=")[2]
        return self.ssh(self.workers_of(words), command)

    def delete_by_itself(self):
        """What the watchdog's call to the API does."""
        self.event("vanish")
        self.state["request"] = None

    # What a machine is.

    def boot(self):
        """A new machine with an empty disk."""

    def kill(self):
        """Every process of the machine is gone."""

    def wipe(self):
        """Its disk is gone."""

    def release(self):
        """Training that was held goes on."""

    def copy(self, source, target, workers):
        raise NotImplementedError

    def ssh(self, workers, command):
        raise NotImplementedError


# The Python of the TPU VM's environment: says what it was started with.
PYTHON = """\
#!/usr/bin/env bash
case "$*" in
  -c*) echo /lib/libtpu.so ;;
  "-m pip "*) echo "$@" >>"$FAKE/pip.log" ;;
  "-m keras_resnet_cli libtpu-flags "*) echo --xla_flag=1 ;;
  *)
    trap 'echo saved >>"$FAKE/python.log"; exit 143' TERM
    { printf '[%s]' "$@"; echo; env | grep -E 'TPU|XLA|PJRT|PLUGG|JAX'; } >>"$FAKE/python.log"
    echo "training with $# arguments"
    touch "$FAKE/training"
    while [[ -f $FAKE/hold || -f $FAKE/hold.${HOSTNAME##*-w-} ]]; do sleep 0.05; done
    code=$FAKE/code.${HOSTNAME##*-w-} # this worker's, once
    exit "$(cat "$code" 2>/dev/null && rm "$code" || cat "$FAKE/code" 2>/dev/null || echo 0)" ;;
esac
"""
# A Python 3.12 whose environments have that one.
PYTHON312 = '#!/bin/sh\nmkdir -p "$3/bin" && cp "$FAKE/python" "$3/bin/python"\n'


class FolderCloud(Cloud):
    """Its state is a file, its workers are folders."""

    def __init__(self, folder):
        super().__init__()
        self.folder = Path(folder)
        self.log = self.folder / "python.log"

    def install(self):
        """Writes the stand-ins; returns an environment whose PATH has them."""
        for name in ("gcloud", "curl"):
            executable(
                self.folder / "bin" / name,
                f"#!/bin/sh\nexec {sys.executable} -SE '{__file__}' '{self.folder}' {name} "
                '"$@"\n',
            )
        executable(self.folder / "python", PYTHON)
        executable(self.folder / "vm/python3.12", PYTHON312)
        self.save()
        path = f"{self.folder}/bin:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "RUN_TPU_WAIT": "0"}

    def save(self):
        (self.folder / "state.part").write_text(json.dumps(self.state))
        os.replace(self.folder / "state.part", self.folder / "state")

    def load(self):
        self.state = json.loads((self.folder / "state").read_text())
        return self

    @contextmanager
    def change(self):
        """The state, to be changed from a test or from a call, by one at a time."""
        with open(self.folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.load()
            yield self
            self.save()

    def calls(self):
        """The calls so far."""
        return self.load().state["calls"]

    def verbs(self):
        """The verbs of those that change something."""
        verbs = [next(w for w in call if w not in _BEFORE_VERB) for call in self.calls()]
        return [verb for verb in verbs if verb in ("create", "scp", "delete", "start")]

    def disk(self, worker=0):
        """The folder of a worker's user."""
        return self.folder / f"worker-{worker}"

    def boot(self):
        self.wipe()
        for worker in range(self.state["node"]["hosts"]):
            self.disk(worker).mkdir()
        self.state["boot"] += 1

    def hold(self, worker=None):
        """Training goes on until it is killed, or until the event `release`."""
        (self.folder / ("hold" if worker is None else f"hold.{worker}")).touch()

    def held(self):
        return (self.folder / "hold").exists()

    def release(self):
        (self.folder / "hold").unlink(missing_ok=True)

    def kill(self):
        for file in self.folder.glob("worker-*/keras_resnet/train.lock"):
            with open(file) as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:  # it runs: the number is its own
                    while self.held() and not (self.folder / "training").exists():
                        time.sleep(0.02)
                    os.killpg(int((file.parent / "train.pid").read_text()), signal.SIGKILL)
        self.release()

    def wipe(self):
        for folder in self.folder.glob("worker-*"):
            self.end_watchdogs(folder)
            shutil.rmtree(folder)

    def end_watchdogs(self, folder):
        """Those that `tpu_vm.sh start` has detached: a VM that is gone takes its own along."""
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
                if any(w.startswith(os.fsencode(folder)) and b"watchdog" in w for w in words):
                    os.killpg(int(process.name), signal.SIGKILL)  # with its sleep
            except OSError:
                pass  # it ended, or is somebody else's

    def stop_all(self):
        """Ends whatever a test has started, also where it failed."""
        self.release()
        for _ in range(100):
            try:
                self.kill()
                break
            except ProcessLookupError:  # it begins, or ends
                time.sleep(0.05)
        for folder in self.folder.glob("worker-*"):
            self.end_watchdogs(folder)

    def copy(self, source, target, workers):
        for worker in workers:
            shutil.copy(source, self.disk(worker) / target)
        return 0, "", ""

    def ssh(self, workers, command):
        """Returns what is to be run, as it may take long: see `main`."""
        (self.folder / "boot").write_text(str(self.state["boot"]))
        return workers, command, None

    def run(self, workers, command, **options):
        """Runs a command on workers; returns one result of subprocess for each."""
        results = []
        for worker in workers:
            environment = {
                **os.environ,
                "PATH": f"{self.folder}/vm:{self.folder}/bin:{os.environ['PATH']}",
                "HOSTNAME": f"t1v-n-0-w-{worker}",
                "HOME": str(self.disk(worker)),
                "FAKE": str(self.folder),
                "RUN_TPU_BOOT_ID": str(self.folder / "boot"),
            }
            for name in ("TPU_NAME", "LIBTPU_INIT_ARGS", "TF_XLA_FLAGS", "JAX_PLATFORMS"):
                environment.pop(name, None)
            shell, home = ["bash", "-c", command], self.disk(worker)
            results.append(subprocess.run(shell, cwd=home, env=environment, **options))
        return results

    def gcloud(self, argv):
        """What `gcloud ...` comes to, without a process for it: (exit code, stdout, stderr)."""
        with self.change():
            code, out, error = self.call(argv)
        if error is None:
            results = self.run(code, out, capture_output=True, text=True)
            code = max(result.returncode for result in results)
            out = "".join(result.stdout for result in results)
            error = "".join(result.stderr for result in results)
        return code, out, error

    def curl(self, words):
        """The metadata server of the VM, and the API of Cloud TPU."""
        if "DELETE" in words:
            with open(self.folder / "deleted", "a") as file:
                file.write(words[-1] + "\n")
            self.delete_by_itself()
        elif words[-1].endswith("tpu-env"):
            print("NODE_ID: 'net'\nZONE: 'us-west4-a'\nCONSUMER_PROJECT_ID: 'my-project'")
        elif words[-1].endswith("token"):
            print('{"access_token":"ya29.secret","expires_in":3599,"token_type":"Bearer"}')
        elif words[-1].endswith("agent-worker-number"):
            print("0")
        else:
            print("nodes/1")


_BEFORE_VERB = ("gcloud", "alpha", "compute", "tpus", "tpu-vm", "queued-resources")


def executable(path, text):
    """Writes a script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def main(folder, program, *words):
    """The stand-in for gcloud or curl."""
    cloud = FolderCloud(folder)
    with cloud.change():
        if program == "curl":
            return cloud.curl(words) or 0
        code, out, error = cloud.call(["gcloud", *words])
    if error is None:
        return max(result.returncode for result in cloud.run(code, out))
    print(out, end="")
    print(error, end="", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
