"""tpu_vm.sh and its watchdog, on a machine that is a folder."""

import fcntl
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from fake_cloud import PYTHON, FolderCloud, executable
from launches import ROOT, make_checkout, wait_for

from keras_resnet.launcher.observe import Worker, read_workers


class VM:
    """One TPU VM, with the project where `launch` puts it."""

    def __init__(self, folder: Path):
        self.cloud = FolderCloud(folder / "cloud")  # no space: a pattern names it
        self.cloud.folder.mkdir()
        self.environment = self.cloud.install()
        with self.cloud.change():
            self.cloud.add_node()
        self.home = make_checkout(self.cloud.disk() / "keras_resnet")
        executable(self.home / ".venv/bin/python", PYTHON)
        (self.cloud.folder / "boot").write_text("1")

    def __call__(self, command: str) -> subprocess.CompletedProcess:
        (done,) = self.cloud.run([0], command, capture_output=True, text=True)
        return done

    def status(self) -> Worker:
        (worker,) = read_workers(self("keras_resnet/tpu_vm.sh status").stdout, 1)
        return worker


@pytest.fixture
def vm(tmp_path):
    vm = VM(tmp_path)
    yield vm
    vm.cloud.stop_all()


def test_a_full_disk_hides_nothing(vm):
    """Codes that could not be written: training is lost, nothing is installed, and that is said."""
    vm.cloud.hold()
    vm("RUN_TPU_JOB=abc keras_resnet/run_tpu.sh start train")
    vm.cloud.release()
    wait_for((vm.home / "train.exit").exists)
    for name in ("train.exit", ".installed", "train.job"):
        (vm.home / name).write_text("")
    (vm.home / ".heartbeat").unlink()
    (vm.home / ".heartbeat").symlink_to("/nowhere/to/write")
    assert vm.status() == Worker(0, train="lost")
    (vm.home / ".installed").write_text("abc")  # half of it
    assert vm.status() == Worker(0, train="lost")


def test_follow_with_a_limit_is_no_end_of_training(vm):
    vm.cloud.hold()
    vm("keras_resnet/run_tpu.sh start train")
    wait_for((vm.cloud.folder / "training").exists)
    done = vm("keras_resnet/run_tpu.sh follow 0.2")
    assert done.returncode == 1
    assert "training with" in done.stdout
    vm.cloud.release()


@pytest.mark.ci
def test_follow_says_whether_training_came_to_its_end(vm):
    for code in (3, 0):
        (vm.cloud.folder / "code").write_text(str(code))
        vm("keras_resnet/run_tpu.sh start train")
        assert (vm("keras_resnet/run_tpu.sh follow").returncode == 0) == (code == 0)
        wait_for((vm.home / "train.exit").exists)


def test_status_tells_what_became_of_training(vm):
    assert vm.status() == Worker(0)
    vm.cloud.hold()
    for _ in range(2):  # the second leaves the first alone
        assert vm("RUN_TPU_JOB=abc keras_resnet/run_tpu.sh start train").returncode == 0
    assert vm.status() == Worker(0, train="running", job="abc")
    with vm.cloud.change():
        vm.cloud.event("reboot")
    assert vm.status() == Worker(0, train="lost", job="abc")
    (vm.cloud.folder / "boot").write_text("2")
    assert vm.status() == Worker(0, train="lost", job="abc", rebooted=True)
    (vm.cloud.folder / "code").write_text("7")
    assert vm("keras_resnet/run_tpu.sh start train").returncode == 0
    wait_for((vm.home / "train.exit").exists)
    assert vm.status() == Worker(0, train="ended", exit=7)
    assert "training with 3 arguments" in vm("keras_resnet/run_tpu.sh follow").stdout
    assert vm.cloud.log.read_text().count("[train]") == 2


def test_every_look_is_a_heartbeat(vm):
    heartbeat = vm.home / ".heartbeat"
    (vm.home / "train.log").touch()
    for command in ("status", "follow", "start train"):
        heartbeat.touch()
        os.utime(heartbeat, (0, 0))
        vm(f"keras_resnet/tpu_vm.sh {command}")
        assert heartbeat.stat().st_mtime > 0


def test_stop_ends_training_which_saves(vm):
    vm.cloud.hold()
    vm("keras_resnet/run_tpu.sh start train")
    wait_for((vm.cloud.folder / "training").exists)
    assert vm("keras_resnet/run_tpu.sh stop").returncode == 0
    assert vm.status().train == "none"
    assert vm.cloud.log.read_text().endswith("saved\n")
    assert vm("keras_resnet/run_tpu.sh stop").returncode == 0


def test_follow_ends_with_training(vm):
    vm.cloud.hold()
    vm("keras_resnet/run_tpu.sh start train")
    wait_for((vm.cloud.folder / "training").exists)
    follow = subprocess.Popen(
        ["bash", vm.home / "tpu_vm.sh", "follow"], stdout=subprocess.PIPE, text=True
    )
    assert follow.stdout.readline() == "training with 3 arguments\n"
    vm.cloud.release()
    assert follow.wait(timeout=30) == 0


def test_sigterm_reaches_training(vm):
    vm.cloud.hold()
    environment = {**os.environ, "FAKE": str(vm.cloud.folder)}
    process = subprocess.Popen([vm.home / "run_tpu.sh", "train"], env=environment)
    wait_for((vm.cloud.folder / "training").exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    assert vm.cloud.log.read_text().endswith("saved\n")


def deploy(vm, code: str, engine: str, environment: str = "") -> subprocess.CompletedProcess:
    make_checkout(vm.cloud.disk() / "keras_resnet.new")
    (vm.cloud.disk() / "keras_resnet.new" / code).touch()
    return vm(f"{environment} bash keras_resnet.new/tpu_vm.sh deploy {code} {engine}")


def test_deploy_replaces_the_code_and_keeps_environment_and_log(vm):
    (vm.home / "train.log").write_text("earlier")
    (vm.home / "stale.py").touch()
    (vm.home / ".venv/extra").write_text("tpu\n")
    (vm.home / ".venv/mark").touch()
    assert deploy(vm, "one", "tensorflow").returncode == 0
    assert vm.status() == Worker(0, "one", "tensorflow")
    assert (vm.home / "one").exists()
    assert not (vm.home / "stale.py").exists()
    assert (vm.home / "train.log").read_text() == "earlier"
    assert (vm.home / ".venv/mark").exists()
    # JAX wants another libtpu: an environment of its own.
    assert deploy(vm, "two", "jax").returncode == 0
    assert vm.status() == Worker(0, "two", "jax")
    assert not (vm.home / ".venv/mark").exists()
    pip = (vm.cloud.folder / "pip.log").read_text().splitlines()
    assert pip == [f"-m pip install --quiet -e {vm.home}[{extra}]" for extra in ("tpu", "jax-tpu")]


def test_what_another_launcher_has_installed_is_not_installed_again(vm):
    for _ in range(2):
        assert deploy(vm, "one", "tensorflow").returncode == 0
        assert vm.status() == Worker(0, "one", "tensorflow")
    assert len((vm.cloud.folder / "pip.log").read_text().splitlines()) == 1


def test_what_is_half_installed_does_not_count(vm):
    """Killed in the middle, an installation leaves nothing that the next one takes for whole."""
    executable(vm.home / ".venv/bin/python", "#!/bin/sh\nkill -9 $PPID\n")
    (vm.home / ".venv/extra").write_text("tpu\n")
    assert deploy(vm, "one", "tensorflow").returncode != 0
    assert vm.status() == Worker(0)
    assert deploy(vm, "one", "tensorflow").returncode == 0
    assert vm.status() == Worker(0, "one", "tensorflow")
    assert (vm.home / ".venv/bin/python").read_text() == PYTHON


def test_deploy_leaves_running_training_alone(vm):
    vm.cloud.hold()
    vm("keras_resnet/run_tpu.sh start train")
    done = deploy(vm, "one", "tensorflow")
    assert done.returncode == 1
    assert "training runs in" in done.stderr
    assert vm.status().train == "running"
    vm.cloud.release()


def test_install_takes_a_python_that_is_new_enough(vm):
    """Python 3.10 of the images is not; a failed installation leaves no half environment."""
    fails_once = '[ -f "$FAKE/worked" ] || { touch "$FAKE/worked"; exit 1; }'
    pip = f'#!/bin/sh\necho "$@" >> "$FAKE/log"\n{fails_once}\n'
    executable(vm.cloud.folder / "python", pip)
    subprocess.run(["rm", "-r", vm.home / ".venv"], check=True)
    for code in (1, 0, 0):
        assert vm("keras_resnet/run_tpu.sh install").returncode == code
        assert (vm.home / ".venv").exists() == (code == 0)
    log = (vm.cloud.folder / "log").read_text()
    assert log == f"-m pip install --quiet -e {vm.home}[tpu]\n" * 2


FAST = {"RUN_TPU_MINUTE": "0.1", "RUN_TPU_FRESH": "2"}


def watch(vm, *arguments: str) -> subprocess.Popen:
    environment = {
        **vm.environment,
        **FAST,
        "HOME": str(vm.cloud.disk()),
        "RUN_TPU_FOLDERS": f"{vm.home.parent}/keras_resn*",
    }
    script = ROOT / "keras_resnet/launcher/watchdog.sh"
    return subprocess.Popen(
        ["bash", script, *arguments], env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "call"),
    [
        ([], "v2/projects/my-project/locations/us-west4-a/nodes/net"),
        (
            ["queuedResources/2"],
            "v2/projects/my-project/locations/us-west4-a/queuedResources/net?force=true",
        ),
    ],
)
@pytest.mark.ci
def test_the_watchdog_deletes_when_nobody_has_a_use_for_the_tpu(vm, arguments, call):
    vm.cloud.hold()
    vm("keras_resnet/run_tpu.sh start train")
    wait_for((vm.cloud.folder / "training").exists)
    deleted = vm.cloud.folder / "deleted"
    watchdog = watch(vm, *arguments)
    try:
        os.utime(vm.home / ".heartbeat", (0, 0))  # nobody looks
        time.sleep(1)  # training runs: several times the grace
        assert not deleted.exists()
        vm.cloud.release()
        wait_for((vm.home / "train.exit").exists)
        end = time.monotonic() + 1
        while time.monotonic() < end:  # a launcher looks
            (vm.home / ".heartbeat").touch()
            time.sleep(0.05)
        assert not deleted.exists()
        wait_for(deleted.exists)
        assert deleted.read_text().splitlines()[0] == f"https://tpu.googleapis.com/{call}"
        wait_for(lambda: vm.cloud.load().state["node"] is None)
    finally:
        os.killpg(watchdog.pid, signal.SIGKILL)
        watchdog.wait()


def test_the_watchdog_lets_an_installation_end(vm):
    """It may last longer than the grace; its lock is held, and nobody's looks are needed."""
    (vm.cloud.folder / "deleted").unlink(missing_ok=True)
    with open(vm.home.parent / "keras_resnet.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        watchdog = watch(vm)
        try:
            time.sleep(1)  # several times the grace
            assert not (vm.cloud.folder / "deleted").exists()
            fcntl.flock(lock, fcntl.LOCK_UN)
            wait_for((vm.cloud.folder / "deleted").exists)
        finally:
            os.killpg(watchdog.pid, signal.SIGKILL)
            watchdog.wait()


def test_on_a_pod_the_first_worker_watches(vm):
    vm.environment["HOSTNAME"] = "t1v-n-0-w-1"  # whatever the metadata server says
    assert watch(vm).wait(timeout=30) == 0


def test_one_watchdog_is_enough_and_it_says_what_it_wants(vm):
    both = [watch(vm, "nodes/600") for _ in range(2)]
    try:
        wait_for(lambda: any(one.poll() is not None for one in both))
        assert sorted(str(one.poll()) for one in both) == ["0", "None"]
        assert watch(vm, "nodes").wait(timeout=30) == 2
    finally:
        for one in both:
            if one.poll() is None:
                os.killpg(one.pid, signal.SIGKILL)
            one.wait()
