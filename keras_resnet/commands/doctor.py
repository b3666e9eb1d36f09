"""usage: keras-resnet doctor [--json]

Says which versions are installed, which devices TensorFlow sees and which variables are set, what
is wrong with them and what to do. Paste it into a bug report. Exit code 0: nothing is wrong,
1: something is."""

import glob
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from absl import flags as absl_flags

from keras_resnet.backend import backend_name
from keras_resnet.commands.options import define_json_switch
from keras_resnet.errors import UsageError

SUMMARY = "Say what is installed, which devices are seen, and what is wrong."

FLAVORS = ("tensorflow", "tensorflow-cpu", "tensorflow-tpu", "tensorflow-intel", "tf-nightly")
PACKAGES = (
    *("keras-resnet-tpu", "keras-resnet"),
    *FLAVORS,
    *("keras", "tf-keras", "numpy", "protobuf", "ml-dtypes", "ml-collections", "absl-py"),
    *("tensorflow-datasets", "tensorflow-metadata", "tensorboard"),
    *("libtpu", "jax", "jaxlib", "torch", "matplotlib", "safetensors", "nvidia-cudnn-cu12"),
)
# What decides on which devices TensorFlow runs, and how. None of them holds a secret.
VARIABLES = (
    *("KERAS_BACKEND", "KERAS_HOME", "TF_USE_LEGACY_KERAS", "TF_CONFIG", "CUDA_VISIBLE_DEVICES"),
    *("TPU_NAME", "TPU_LOAD_LIBRARY", "TPU_ACCELERATOR_TYPE", "TPU_WORKER_ID", "PJRT_DEVICE"),
    *("NEXT_PLUGGABLE_DEVICE_USE_C_API", "TF_PLUGGABLE_DEVICE_LIBRARY_PATH", "LIBTPU_INIT_ARGS"),
    *("XLA_FLAGS", "TF_XLA_FLAGS", "TF_ENABLE_ONEDNN_OPTS", "TF_NUM_INTRAOP_THREADS"),
    *("TF_GPU_ALLOCATOR", "TF_FORCE_GPU_ALLOW_GROWTH", "TFDS_DATA_DIR", "LD_LIBRARY_PATH"),
)
# The variables of TensorFlow's TPU on one host (run_tpu.sh sets them); pods do without.
SINGLE_HOST = ("PJRT_DEVICE", "NEXT_PLUGGABLE_DEVICE_USE_C_API", "TF_PLUGGABLE_DEVICE_LIBRARY_PATH")
OLDEST, BEYOND = (2, 19, 1), (2, 22)  # of TensorFlow, as in setup.cfg
OLDEST_KERAS = (3, 10)

PROBE = """
import json, os, tensorflow as tf
found = {"version": tf.__version__}
found["devices"] = [[d.name, d.device_type] for d in tf.config.list_physical_devices()]
found["gpus"] = [tf.config.experimental.get_device_details(d).get("device_name", "unknown")
                 for d in tf.config.list_physical_devices("GPU")]
found["cuda"] = tf.sysconfig.get_build_info().get("cuda_version")
if os.environ.get("TPU_NAME"):
    try:
        tpu = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=os.environ["TPU_NAME"])
        tf.config.experimental_connect_to_cluster(tpu)
        tf.tpu.experimental.initialize_tpu_system(tpu)
        found["tpus"] = len(tf.config.list_logical_devices("TPU"))
    except Exception as error:
        found["tpu_error"] = (str(error).splitlines() or [type(error).__name__])[0]
print("FOUND" + json.dumps(found))
"""


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines --json."""
    define_json_switch(flags)


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Examines and prints; returns 0, or 1 if there are problems."""
    if arguments:
        raise UsageError(f"unexpected argument {arguments[0]!r}; doctor takes only --json")
    facts = examine()
    print(json.dumps(facts, indent=2) if flags.json else describe(facts))
    return 1 if facts["problems"] else 0


def examine(timeout: float = 180) -> dict[str, Any]:
    """Returns everything that is known about this machine and installation.

    TensorFlow is imported in a process of its own, so that an installation that crashes or hangs is
    a finding and no crash of ours.

    Keys: `system`, `versions`, `variables` (mappings of names to strings), `hardware` (what the
    machine has, whether or not TensorFlow sees it), `tensorflow` (what it sees, or `error`) and
    `problems`, a list of {"problem": ..., "remedy": ...}.

    Args:
        timeout: seconds that TensorFlow may take to start.
    """
    facts: dict[str, Any] = {
        "system": {
            "python": f"{platform.python_version()} ({sys.executable})",
            "platform": platform.platform(),
            "cpus": str(os.cpu_count()),
            "memory": _memory(),
        },
        "versions": installed_versions(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "hardware": {
            "nvidia": bool(glob.glob("/proc/driver/nvidia/version") or shutil.which("nvidia-smi")),
            "tpu": bool(glob.glob("/dev/accel*")) or _is_tpu_vm(),
        },
    }
    flavors = [name for name in FLAVORS if name in facts["versions"]]
    facts["tensorflow"] = probe(timeout) if flavors else {"error": "not installed"}
    facts["problems"] = [
        {"problem": problem, "remedy": remedy} for problem, remedy in find_problems(facts)
    ]
    return facts


def installed_versions() -> dict[str, str]:
    """Returns the versions of those of PACKAGES that are installed."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name) or "unknown"
        except Exception:  # a damaged installation has no metadata, or half of it
            continue
    return versions


def probe(timeout: float, program: str = PROBE) -> dict[str, Any]:
    """Returns what TensorFlow sees, in a process of its own: {"error": ...} where that fails."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return {"error": f"did not start within {timeout:g} seconds"}
    except OSError as error:
        return {"error": f"Python could not be started: {error}"}
    for line in done.stdout.splitlines():
        if line.startswith("FOUND"):
            return json.loads(line.removeprefix("FOUND"))
    if done.returncode < 0:
        return {"error": f"crashed with signal {-done.returncode}"}
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return {"error": lines[-1] if lines else f"ended with exit code {done.returncode}"}


def find_problems(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields (what is wrong, what to do) for the facts of `examine`."""
    yield from _installation(facts["versions"], facts["tensorflow"])
    yield from _backend(facts["variables"])
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


def _backend(variables: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    name = backend_name()
    if name != "tensorflow":
        where = "KERAS_BACKEND" if "KERAS_BACKEND" in variables else "keras.json"
        yield (
            f"Keras' backend is {name!r} ({where}), and the command line runs on TensorFlow",
            "unset KERAS_BACKEND, or export KERAS_BACKEND=tensorflow",
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
    if "tensorflow-tpu" not in versions:
        yield (
            "this is a TPU VM" if tpu else f"TPU_NAME={name!r} asks for a TPU",
            "of the flavors of TensorFlow only tensorflow-tpu can use one: in a new environment "
            "pip install 'keras-resnet-tpu[tpu]'",
        )
        return
    if variables.get("TPU_ACCELERATOR_TYPE", "").lower().startswith(("tpu7x", "7x")):
        yield "TensorFlow does not run on TPU7x", "take v5e, v5p, v4 or v6e"
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


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _memory() -> str:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return "unknown"
    return f"{size / 2**30:.1f} GiB"


def _is_tpu_vm() -> bool:
    # /dev/vfio alone is no sign of a TPU; that the images write its type here is.
    try:
        with open("/etc/environment") as file:
            return "TPU_ACCELERATOR_TYPE" in file.read() or "TPU_ACCELERATOR_TYPE" in os.environ
    except OSError:
        return "TPU_ACCELERATOR_TYPE" in os.environ


def describe(facts: Mapping[str, Any]) -> str:
    """Returns the facts of `examine` as text to read and to paste into a bug report."""
    seen = facts["tensorflow"]
    if "error" in seen:
        devices = {"TensorFlow": seen["error"]}
    else:
        kinds = [kind for _, kind in seen["devices"]]
        devices = {kind: str(kinds.count(kind)) for kind in dict.fromkeys(kinds)}
        if seen["gpus"]:
            devices["GPU"] += f" ({', '.join(seen['gpus'])}; built for CUDA {seen['cuda']})"
        if "tpus" in seen or "tpu_error" in seen:
            devices["TPU"] = seen.get("tpu_error") or f"{seen['tpus']} cores"
    sections = {
        "system": facts["system"],
        "versions": facts["versions"] or {"none": "is known"},
        "variables": facts["variables"] or {"none": "of those that matter is set"},
        "devices TensorFlow sees": devices,
    }
    lines = []
    for title, rows in sections.items():
        width = max(len(name) for name in rows)
        lines += [title, *(f"  {name:<{width}}  {value}" for name, value in rows.items())]
    lines.append("problems" if facts["problems"] else "problems: none found")
    for entry in facts["problems"]:
        lines += [f"  * {entry['problem']}", f"    what to do: {entry['remedy']}"]
    return "\n".join(lines)
