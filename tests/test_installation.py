"""Installations that are not whole: another project's files among ours, links that were lost."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from keras_resnet import installation

ROOT = Path(__file__).parent.parent
# What PyPI's keras-resnet 0.2.0 brings that has the name of something of ours.
THEIRS = {
    "__init__.py": "from . import layers\ncustom_objects = {}\n",
    "layers/__init__.py": "from ._batch_normalization import BatchNormalization\n",
    "layers/_batch_normalization.py": "import keras.layers_of_long_ago\n",
    "blocks/__init__.py": "",
    "models/__init__.py": "",
    "metrics.py": "",
    "backend/__init__.py": "from .common import *\n",
    "backend/common.py": "import keras.backend_of_long_ago\n",
}


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """A copy of the installed files, links followed."""
    site = tmp_path_factory.mktemp("site")
    skip = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(ROOT / "keras_resnet", site / "keras_resnet", ignore=skip)
    shutil.copy(ROOT / "keras_resnet_cli.py", site)
    return site


@pytest.fixture
def site(ours, tmp_path):
    shutil.copytree(ours, tmp_path, dirs_exist_ok=True)
    return tmp_path


def install_theirs(site, *, only_new=False):
    for name, text in THEIRS.items():
        path = site / "keras_resnet" / name
        if not (only_new and path.exists()):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)


def uninstall_theirs(site):
    for name in THEIRS:
        (site / "keras_resnet" / name).unlink()
    (site / "keras_resnet" / "backend").rmdir()


def python(site, *arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=site)


def assert_the_sentence(done):
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "PyPI's other project keras-resnet" in last
    assert "`pip uninstall keras-resnet`" in last
    assert "install keras-resnet-tpu again" in last


def test_theirs_before_ours(site):
    install_theirs(site, only_new=True)
    assert_the_sentence(python(site, "-c", "import keras_resnet"))
    done = python(site, "-m", "keras_resnet_cli", "doctor")
    assert_the_sentence(done)
    assert done.stderr.count("\n") == 1


def test_theirs_after_ours(site):
    """Our `__init__.py` is gone, so the command is who can say so."""
    install_theirs(site)
    done = python(site, "-m", "keras_resnet_cli", "doctor")
    assert_the_sentence(done)
    assert done.stderr.count("\n") == 1


def test_theirs_uninstalled(site):
    install_theirs(site)
    uninstall_theirs(site)
    assert_the_sentence(python(site, "-m", "keras_resnet_cli", "train"))


def test_what_pip_leaves_of_theirs_does_no_harm(site):
    install_theirs(site, only_new=True)
    (site / "keras_resnet/backend/__pycache__").mkdir()
    (site / "keras_resnet/backend/__init__.py").unlink()
    (site / "keras_resnet/backend/common.py").unlink()
    assert installation.find_damage(site / "keras_resnet") == ""


def test_a_lost_link(site):
    link = site / "keras_resnet" / "input_pipeline"
    shutil.rmtree(link)
    link.write_text("../input_pipeline")  # what a ZIP archive makes of it
    for arguments in (["-c", "import keras_resnet"], ["-m", "keras_resnet_cli", "doctor"]):
        done = python(site, *arguments)
        assert done.returncode == 1
        assert "symbolic link" in done.stderr.splitlines()[-1]


def test_this_installation_is_whole():
    assert installation.find_damage() == ""
