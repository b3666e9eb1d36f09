"""What is installed, and what TensorFlow and JAX see, each asked in a process of its own."""

import importlib.metadata
import json
import subprocess
import sys
from typing import Any

# JAX on NVIDIA GPUs.
CUDA_PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin")
FLAVORS = ("tensorflow", "tensorflow-cpu", "tensorflow-tpu", "tensorflow-intel", "tf-nightly")
PACKAGES = (
    *("keras-resnet-tpu", "keras-resnet"),
    *FLAVORS,
    *("keras", "tf-keras", "numpy", "protobuf", "ml-dtypes", "ml-collections", "absl-py"),
    *("tensorflow-datasets", "tensorflow-metadata", "tensorboard"),
    *("libtpu", "jax", "jaxlib", *CUDA_PLUGINS, "torch", "matplotlib", "safetensors"),
    "nvidia-cudnn-cu12",
)
# What decides on which devices TensorFlow and JAX run, and how. None of them holds a secret.
VARIABLES = (
    *("KERAS_BACKEND", "KERAS_HOME", "TF_USE_LEGACY_KERAS", "TF_CONFIG", "CUDA_VISIBLE_DEVICES"),
    *("TPU_NAME", "TPU_LOAD_LIBRARY", "TPU_ACCELERATOR_TYPE", "TPU_WORKER_ID", "PJRT_DEVICE"),
    *("NEXT_PLUGGABLE_DEVICE_USE_C_API", "TF_PLUGGABLE_DEVICE_LIBRARY_PATH", "LIBTPU_INIT_ARGS"),
    *("XLA_FLAGS", "TF_XLA_FLAGS", "TF_ENABLE_ONEDNN_OPTS", "TF_NUM_INTRAOP_THREADS"),
    *("TF_GPU_ALLOCATOR", "TF_FORCE_GPU_ALLOW_GROWTH", "TFDS_DATA_DIR", "LD_LIBRARY_PATH"),
    *("JAX_PLATFORMS", "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"),
    "XLA_PYTHON_CLIENT_MEM_FRACTION",
)
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
JAX_PROBE = """
import json, jax
print("FOUND" + json.dumps({"version": jax.__version__, "devices": [
    [str(device.id), device.platform.upper(), device.device_kind] for device in jax.devices()]}))
"""


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
    """Returns what a library sees, in a process of its own: {"error": ...} where that fails."""
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
