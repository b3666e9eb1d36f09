"""What is wrong with an installation, and what to do about it."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from keras_resnet.backend import ENGINE_NAMES, backend_name
from keras_resnet.commands.doctor.probes import CUDA_PLUGINS, FLAVORS

# The variables of TensorFlow's TPU on one host (run_tpu.sh sets them); pods do without.
SINGLE_HOST = ("PJRT_DEVICE", "NEXT_PLUGGABLE_DEVICE_USE_C_API", "TF_PLUGGABLE_DEVICE_LIBRARY_PATH")
OLDEST, BEYOND = (2, 19, 1), (2, 22)  # of TensorFlow, as in setup.cfg
OLDEST_KERAS = (3, 10)
# A later one ends the process at `import tensorflow` of tensorflow-tpu (setup.cfg).
LAST_LIBTPU = (0, 0, 14)


def find_problems(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields (what is wrong, what to do) for the facts of `examine`."""
    yield from _installation(facts["versions"], facts["tensorflow"])
    yield from _backend(facts["variables"], facts["versions"])
    yield from _jax(facts)
    if "error" not in facts["tensorflow"]:
        yield from _gpus(facts)
    yield from _tpus(facts)


def _installation(
    versions: Mapping[str, str], tensorflow: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    if "keras-resnet" in versions:
        yield (
            "PyPI's other project keras-resnet is installed, whose package is keras_resnet as well",
            "pip uninstall keras-resnet, then install keras-resnet-tpu again",
        )
    flavors = [name for name in FLAVORS if name in versions]
    if not flavors:
        yield (
            "TensorFlow is not installed",
            "pip install 'keras-resnet-tpu[cpu]', or [gpu] for NVIDIA GPUs, or [tpu] for Cloud TPU",
        )
        return
    if len(flavors) > 1:
        yield (
            f"{' and '.join(flavors)} are installed together: they overwrite each other's files",
            f"pip uninstall {' '.join(flavors)}, then install the one extra that you need",
        )
    version = versions[flavors[0]]
    if not OLDEST <= _numbers(version) < BEYOND:
        yield (
            f"{flavors[0]} {version} is not between 2.19.1 and 2.21, which are tested",
            f"pip install '{flavors[0]}>=2.19.1,<2.22'",
        )
    if tensorflow.get("error"):
        remedy = "import tensorflow in Python shows the whole message; install it into a new venv"
        if "runtime_version" in tensorflow["error"] or "protobuf" in tensorflow["error"].lower():
            remedy = "pip install 'tensorflow-metadata<1.18' and the extra again: protobuf is wrong"
        yield f"TensorFlow does not start: {tensorflow['error']}", remedy
    if "keras" not in versions or _numbers(versions["keras"]) < OLDEST_KERAS:
        yield f"Keras {versions.get('keras', 'is not installed')}", "pip install 'keras>=3.10'"


def _backend(
    variables: Mapping[str, str], versions: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    name = backend_name()
    where = "KERAS_BACKEND" if "KERAS_BACKEND" in variables else "keras.json"
    if name not in ENGINE_NAMES:
        yield (
            f"Keras' backend is {name!r} ({where}), and training runs on "
            f"{' or '.join(ENGINE_NAMES)}",
            "unset KERAS_BACKEND, or export KERAS_BACKEND=tensorflow",
        )
    elif name == "jax" and "jax" not in versions:
        yield (
            f"Keras' backend is 'jax' ({where}), and JAX is not installed",
            "pip install 'keras-resnet-tpu[jax-cpu]', or [jax-cuda], or [jax-tpu]; or unset it",
        )
    if variables.get("TF_USE_LEGACY_KERAS", "0").lower() in ("1", "true"):
        yield "TF_USE_LEGACY_KERAS asks for Keras 2, which cannot run this", "unset it"
    if "TF_CONFIG" in variables:
        try:
            json.loads(variables["TF_CONFIG"])
        except ValueError as error:
            yield f"TF_CONFIG is no JSON ({error})", "docs/training.md shows one; or unset it"


def _gpus(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not facts["hardware"]["nvidia"] or facts["tensorflow"].get("gpus"):
        return
    if any(name in facts["versions"] for name in CUDA_PLUGINS):
        return  # it is JAX's
    if "tensorflow" not in facts["versions"]:
        yield (
            "there is an NVIDIA GPU, and the installed TensorFlow cannot use one",
            "pip uninstall tensorflow-cpu, then pip install 'keras-resnet-tpu[gpu]'",
        )
    elif facts["variables"].get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        yield "CUDA_VISIBLE_DEVICES hides the GPU", "unset CUDA_VISIBLE_DEVICES"
    else:
        yield (
            "there is an NVIDIA GPU, and TensorFlow does not see it",
            "pip install 'keras-resnet-tpu[gpu]' brings CUDA and cuDNN; nvidia-smi must work",
        )


def _tpus(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    versions, variables = facts["versions"], facts["variables"]
    tpu, name = facts["hardware"]["tpu"], facts["variables"].get("TPU_NAME")
    if not (tpu or name):
        return
    if "jax" in versions and "libtpu" in versions and "tensorflow-tpu" not in versions:
        return  # it is JAX's
    if "tensorflow-tpu" not in versions:
        yield (
            "this is a TPU VM" if tpu else f"TPU_NAME={name!r} asks for a TPU",
            "of the flavors of TensorFlow only tensorflow-tpu can use one: in a new environment "
            "pip install 'keras-resnet-tpu[tpu]', or [jax-tpu] for engine=jax",
        )
        return
    if variables.get("TPU_ACCELERATOR_TYPE", "").lower().startswith(("tpu7x", "7x")):
        yield (
            "TensorFlow does not run on TPU7x",
            "engine=jax does: in a new environment pip install 'keras-resnet-tpu[jax-tpu]'",
        )
    missing = [key for key in SINGLE_HOST if key not in variables]
    if name in (None, "local") and missing:
        yield f"{', '.join(missing)} not set", "start with run_tpu.sh, which sets them"
    if name not in (None, "local") and "TF_PLUGGABLE_DEVICE_LIBRARY_PATH" in variables:
        yield (
            f"TPU_NAME={name!r} is a pod, but the variables of a single host are set",
            f"unset {' '.join(SINGLE_HOST)}; export TPU_LOAD_LIBRARY=0",
        )
    if "libtpu" not in versions and name in (None, "local"):
        yield "libtpu is not installed", "pip install 'keras-resnet-tpu[tpu]'"
    if facts["tensorflow"].get("tpu_error"):
        yield (
            f"no TPU at TPU_NAME={name!r}: {facts['tensorflow']['tpu_error']}",
            "on a TPU VM nothing else may use the TPU (sudo lsof /dev/accel* /dev/vfio/*); "
            "elsewhere unset TPU_NAME",
        )


def _jax(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with JAX, and with it beside TensorFlow, which reads its images."""
    versions, seen = facts["versions"], facts.get("jax", {})
    if "jax" not in versions:
        return
    if seen.get("error"):
        yield (
            f"JAX does not start: {seen['error']}",
            "import jax in Python shows the whole message; another process may hold the TPU",
        )
    plugins = [name for name in CUDA_PLUGINS if name in versions]
    if plugins and "tensorflow" in versions:
        yield (
            f"{plugins[0]} and tensorflow, whose build is for GPUs, are installed together: each "
            "asks for CUDA libraries of its own versions",
            "pip uninstall tensorflow, then pip install 'keras-resnet-tpu[jax-cuda]': engine=jax "
            "reads images with tensorflow-cpu",
        )
    if "tensorflow-tpu" in versions and _numbers(versions.get("libtpu", "0")) > LAST_LIBTPU:
        yield (
            f"libtpu {versions['libtpu']} is JAX's; tensorflow-tpu ends at import with it",
            "one environment for each engine: 'keras-resnet-tpu[tpu]' and "
            "'keras-resnet-tpu[jax-tpu]'",
        )
    platforms = {platform for _, platform, _ in seen.get("devices", ())}
    if facts["hardware"]["nvidia"] and seen.get("devices") and "GPU" not in platforms:
        yield (
            "there is an NVIDIA GPU, and JAX does not see it",
            "engine=jax needs pip install 'keras-resnet-tpu[jax-cuda]'; nvidia-smi must work",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])
