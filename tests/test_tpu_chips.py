"""A machine with a TPU, which bills while it is idle: who has one, and that training takes it."""

import sys

import pytest
from training_runs import tiny_config

from keras_resnet import backend, tpu_chips
from keras_resnet.errors import UserError
from keras_resnet.training import run
from keras_resnet.training.engine import find_engine


def machine(root, *devices, files=()):
    """Makes a file system with PCI devices, each (vendor, device), and empty files."""
    for index, (vendor, device) in enumerate(devices):
        folder = root / f"sys/bus/pci/devices/0000:00:{index:02x}.0"
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(f"{vendor}\n")
        (folder / "device").write_text(f"{device}\n")
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    return root


@pytest.mark.parametrize(
    ("devices", "files", "said"),
    [
        ([("0x1ae0", "0x0063")] * 4, ["dev/vfio/0", "dev/vfio/vfio"], "4 chips of v5e"),
        ([("0x1ae0", "0x0076")], [], "1 chip of tpu7x"),
        ([("0x1ae0", "0x0027")] * 4, ["dev/accel0"], "4 chips of v3"),
        ([], [f"dev/accel{number}" for number in range(4)], "4 chips"),
        # A virtual machine of Google's with its network card and disk; a GPU handed to a guest; a
        # laptop's accelerator.
        ([("0x1ae0", "0x0042"), ("0x1ae0", "0x001f")], [], ""),
        ([("0x10de", "0x2330")], ["dev/vfio/0", "dev/vfio/vfio", "dev/nvidia0"], ""),
        ([("0x8086", "0x7d1d")], ["dev/accel/accel0"], ""),
        ([("0x10de", "0x0063")], [], ""),  # another vendor's number 0x0063
        ([], [], ""),
    ],
)
def test_chips_are_told_by_the_pci_bus(devices, files, said, tmp_path):
    assert tpu_chips.chips_here(machine(tmp_path, *devices, files=files)) == said


def test_the_numbers_are_those_of_jax():
    """Where JAX is installed, its own table has no chip that ours misses."""
    hardware = pytest.importorskip("jax._src.hardware_utils")
    assert set(hardware._TPU_PCI_DEVICE_IDS) <= set(tpu_chips._CHIPS)
    assert hardware._GOOGLE_PCI_VENDOR_ID == tpu_chips._GOOGLE


def test_the_type_of_a_tpu_vm_counts_where_the_bus_is_hidden(tmp_path):
    environment = machine(tmp_path, files=["etc/environment"]) / "etc/environment"
    environment.write_text('TPU_ACCELERATOR_TYPE="v5litepod-8"\n')
    assert tpu_chips.chips_here(tmp_path) == "a TPU VM's type"
    environment.write_text('PATH="/bin"\n')
    assert tpu_chips.chips_here(tmp_path) == ""


@pytest.fixture
def tpu_vm(tmp_path, monkeypatch):
    """This machine has four chips of v5e, and nothing is set."""
    monkeypatch.setattr(tpu_chips, "_ROOT", machine(tmp_path / "root", *[("0x1ae0", "0x0063")] * 4))
    monkeypatch.delenv("TPU_NAME", raising=False)


def test_training_takes_the_tpu_or_refuses_before_anything_is_written(tpu_vm, tmp_path):
    workdir = tmp_path / "run"
    with pytest.raises(UserError, match=r"TPU \(4 chips of v5e\).*run_tpu\.sh train.*strategy=cpu"):
        run.train(tiny_config(), workdir)
    assert not workdir.exists()
    for strategy in ("cpu", "one_device", "mirrored"):  # chosen by name: meant
        find_engine(tiny_config()).check(tiny_config(strategy=strategy), workdir)


def test_so_do_the_learning_rate_finder_and_evaluation(tpu_vm, tmp_path):
    from keras_resnet.training.evaluation import evaluate
    from keras_resnet.training.learning_rate_finder import find_learning_rate
    from keras_resnet.training.planning.device import find_device
    from keras_resnet.training.workdir import WorkDir

    for call in (
        lambda: find_learning_rate(tiny_config(), steps=20),
        lambda: evaluate(tiny_config(), WorkDir(tmp_path)),
        lambda: find_device(tiny_config()),  # `train --data`
    ):
        with pytest.raises(UserError, match="would leave it idle"):
            call()


def test_a_tpu_that_is_named_is_not_idle(tpu_vm, monkeypatch):
    monkeypatch.setenv("TPU_NAME", "local")
    tpu_chips.refuse_idle("auto")


@pytest.mark.parametrize("device", ["0x0076", "0x007c"])
def test_from_tpu7x_on_it_leads_to_jax(device, tmp_path, monkeypatch):
    monkeypatch.setattr(tpu_chips, "_ROOT", machine(tmp_path, ("0x1ae0", device)))
    monkeypatch.delenv("TPU_NAME", raising=False)
    with pytest.raises(UserError, match="engine=jax") as error:
        tpu_chips.refuse_idle("auto")
    assert "run_tpu.sh" not in str(error.value)


@pytest.mark.parametrize(
    ("there", "installed", "backend_variable", "engine"),
    [
        (True, {"jax", "libtpu"}, None, "jax"),
        (True, {"jax", "libtpu", "tensorflow-tpu"}, None, "tensorflow"),
        (True, {"jax"}, None, "tensorflow"),
        (False, {"jax", "libtpu"}, None, "tensorflow"),
        (True, {"jax", "libtpu"}, "tensorflow", "tensorflow"),
    ],
)
def test_engine_auto_is_what_can_use_the_tpu(
    there, installed, backend_variable, engine, tmp_path, monkeypatch
):
    chips = [("0x1ae0", "0x006f")] if there else []
    monkeypatch.setattr(tpu_chips, "_ROOT", machine(tmp_path, *chips))
    monkeypatch.setattr(tpu_chips, "_is_installed", installed.__contains__)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "keras")
    if backend_variable:
        monkeypatch.setenv("KERAS_BACKEND", backend_variable)
    else:
        monkeypatch.delenv("KERAS_BACKEND", raising=False)
    assert backend.engine_name("auto") == engine
    assert backend.engine_name("tensorflow") == "tensorflow"


def test_a_command_that_computes_on_the_processor_says_so(tpu_vm, capsys):
    from keras_resnet.commands.startup import start_tensorflow

    start_tensorflow()
    assert "has a TPU (4 chips of v5e), which costs money" in capsys.readouterr().err
