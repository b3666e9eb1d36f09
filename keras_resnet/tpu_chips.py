"""Whether this machine has a TPU, told without TensorFlow and JAX, and whether it lies idle.

A TPU bills by the hour, used or not, so nothing here may train beside one by accident.
"""

import importlib.metadata
import os
from pathlib import Path

from keras_resnet.errors import UserError

_ROOT = Path("/")
# What JAX 0.12 looks for on the PCI bus (jax/_src/hardware_utils.py); Google's vendor number is on
# network cards and disks of its other machines, too. v2 has the number of v3.
_GOOGLE = "0x1ae0"
_CHIPS = {
    "0x0027": "v3",
    "0x0056": "an unnamed generation",
    "0x005e": "v4",
    "0x0062": "v5p",
    "0x0063": "v5e",
    "0x006f": "v6e",
    "0x0076": "tpu7x",
    "0x007c": "tpu8t",
    "0x0083": "tpu8i",
}


def chips_here(root: Path | None = None) -> str:
    """Returns the chips of this machine in words, such as "4 chips of v5e"; "" without any.

    /dev/vfio is no sign of one: it is where any device is handed to a guest. Nor is the folder
    /dev/accel, which is Linux' own for accelerators such as those of laptops.

    Args:
        root: of the file system; that of this machine if None.
    """
    root = root or _ROOT
    found = []
    for vendor in sorted(root.glob("sys/bus/pci/devices/*/vendor")):
        if _text(vendor) == _GOOGLE and (kind := _CHIPS.get(_text(vendor.with_name("device")))):
            found.append(kind)
    if found:
        return f"{len(found)} chip{'s' if len(found) > 1 else ''} of {found[0]}"
    if count := len([*root.glob("dev/accel[0-9]*")]):
        return f"{count} chip{'s' if count > 1 else ''}"
    # The images of TPU VMs write the type there; a sandbox may hide everything else.
    return "a TPU VM's type" if "TPU_ACCELERATOR_TYPE" in _text(root / "etc/environment") else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def takes_jax() -> bool:
    """Whether engine=auto comes to JAX: there is a TPU, and JAX is what can use it here."""
    has_jax = _is_installed("jax") and _is_installed("libtpu")
    return has_jax and bool(chips_here()) and not _is_installed("tensorflow-tpu")


def _is_installed(distribution: str) -> bool:
    return any(importlib.metadata.distributions(name=distribution))


def refuse_idle(strategy: str) -> None:
    """Refuses to train with TensorFlow on the processor of a machine that has a TPU.

    Args:
        strategy: the config key; whatever is chosen by name is meant.

    Raises:
        UserError: says what takes the TPU.
    """
    if strategy == "auto" and (chips := idle_chips()):
        takes = "--config.engine=jax"
        if "of tpu" not in chips:  # TensorFlow ends with v6e
            takes = f"./run_tpu.sh train … (in a checkout), or {takes}"
        raise UserError(
            f"this machine has a TPU ({chips}), which costs money, and engine=tensorflow would "
            f"leave it idle, as TPU_NAME is not set. To take it, run {takes} with "
            "keras-resnet-tpu[jax-tpu] installed; to train on the processor, set "
            "--config.strategy=cpu"
        )


def idle_chips() -> str:
    """Returns `chips_here` where TensorFlow is not told to take them; else ""."""
    return "" if os.environ.get("TPU_NAME") else chips_here()
