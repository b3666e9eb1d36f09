"""Launches in the process of a test, against the stand-in for Cloud TPU."""

import shutil
import time
from dataclasses import replace
from pathlib import Path

from keras_resnet.launcher import gcloud, pack
from keras_resnet.launcher.loop import Launcher, Stopped
from keras_resnet.launcher.options import parse

ROOT = Path(__file__).parent.parent
OPTIONS = ["--name=net", "--zone=us-west4-a", "--type=v5litepod-8", "--bucket=gs://my-bucket"]
TRAIN = ["--", "train", "--config=resnet50"]


def wait_for(condition, seconds: float = 30) -> None:
    """Waits until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def make_checkout(folder: Path) -> Path:
    """Returns a checkout that has what the VM half needs, and nothing else."""
    for name in ("run_tpu.sh", "tpu_vm.sh", "keras_resnet/launcher/watchdog.sh"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def launch(cloud, checkout: Path, *words: str) -> tuple[int, str]:
    """Returns the exit code of `run_tpu.sh launch WORDS` and what it says.

    Args:
        cloud: a FolderCloud that is installed.
        checkout: what is sent to it.
    """
    names = pack.list_files(checkout)
    archive = cloud.folder / "keras_resnet.tgz"
    pack.write(checkout, names, archive)
    said: list[str] = []

    def run(argv, timeout=None, stream=False):
        result = gcloud.Result(*cloud.gcloud(argv))
        if stream:
            said.append(result.out)
        return result

    launcher = Launcher(
        replace(parse(list(words)), code=pack.digest(checkout, names)),
        checkout,
        archive,
        run=run,
        say=said.append,
        sleep=lambda seconds: None,
        wait=0,
    )
    try:
        code = launcher.go()
    except Stopped as stopped:
        code = 1
        said.append(str(stopped))
    launcher.say_what_costs()
    return code, "\n".join(said)
