"""Which Keras backend will run, and whether it is there."""

import importlib.util
import json
import os
import sys
from pathlib import Path

from keras_resnet import tpu_chips
from keras_resnet.errors import UserError

NO_TENSORFLOW = (
    "TensorFlow is not installed. keras-resnet-tpu leaves the choice to you: "
    "pip install 'keras-resnet-tpu[cpu]', or [gpu] for NVIDIA GPUs, or [tpu] for Cloud TPU"
)

_JAX_EXTRAS = (
    "pip install 'keras-resnet-tpu[jax-cpu]', or [jax-cuda] for NVIDIA GPUs, or [jax-tpu] for "
    "Cloud TPU"
)
# Engines of training, by the name of Keras' backend for each.
ENGINE_NAMES = ("tensorflow", "jax")
# NVIDIA's Ampere, the first with bfloat16 (CUDA C++ Programming Guide, "Compute Capabilities").
FIRST_BFLOAT16_GPU = (8, 0)


def backend_name() -> str:
    """Returns the backend Keras will choose, by Keras' own rules, without importing Keras."""
    if backend := os.environ.get("KERAS_BACKEND"):  # Keras takes no notice of an empty one
        return backend
    home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
    try:
        return json.loads((home / "keras.json").read_text()).get("backend", "tensorflow")
    except (OSError, ValueError, AttributeError):
        return "tensorflow"


def tensorflow_is_installed() -> bool:
    """True if `import tensorflow` would find one of TensorFlow's distributions."""
    return importlib.util.find_spec("tensorflow") is not None


def engine_name(choice: str) -> str:
    """Returns the engine that the config key `engine` comes to, "tensorflow" or "jax", or whatever
    backend KERAS_BACKEND names. Beside a TPU that only JAX can use here, "auto" is JAX."""
    if choice != "auto":
        return choice
    if not os.environ.get("KERAS_BACKEND") and "keras" not in sys.modules and tpu_chips.takes_jax():
        return "jax"
    return backend_name()


def require_engine(choice: str) -> None:
    """Raises UserError unless a run can be trained with `engine`.

    Both engines read their images through TensorFlow. Keras' backend is the engine's, so it has to
    be chosen before anything imports Keras.

    Args:
        choice: of the config key `engine`.
    """
    name = engine_name(choice)
    if name not in ENGINE_NAMES:
        raise UserError(
            f"KERAS_BACKEND={name}: training runs on {' or '.join(ENGINE_NAMES)}; unset the "
            "variable (models and blocks work on every backend)"
        )
    if name == "jax" and not jax_is_installed():
        raise UserError(f"engine=jax, but JAX is not installed. {_JAX_EXTRAS}")
    if not tensorflow_is_installed():
        reads = f"engine=jax reads images through TensorFlow, too. {_JAX_EXTRAS}"
        raise UserError(reads if name == "jax" else NO_TENSORFLOW)


def jax_is_installed() -> bool:
    """True if `import jax` would find it."""
    return importlib.util.find_spec("jax") is not None


def require_backend() -> None:
    """Raises ImportError, naming the extras, if Keras would run on TensorFlow and it is missing."""
    if backend_name() == "tensorflow" and not tensorflow_is_installed():
        # With the name `python -m keras_resnet` prints one line instead of a stack trace.
        raise ImportError(NO_TENSORFLOW, name="keras_resnet")


def require_tensorflow_installed() -> None:
    """Raises UserError unless images can be read, whatever backend Keras runs on."""
    if not tensorflow_is_installed():
        raise UserError(NO_TENSORFLOW)


def require_tensorflow() -> None:
    """Raises UserError unless what runs on TensorFlow alone can: prediction and exports."""
    require_tensorflow_installed()
    if backend_name() != "tensorflow":
        raise UserError(
            f"KERAS_BACKEND={backend_name()}: this runs on TensorFlow; set the variable to that "
            "before anything imports Keras (models and blocks work on every backend, training on "
            "TensorFlow and JAX)"
        )


def prefer_onednn() -> None:
    """Lets TensorFlow compute with oneDNN on every processor, unless the user chose or it runs.

    It leaves oneDNN off on processors without AVX-512, where it trains twice as fast all the same
    (measured: ResNet-20 on AVX2). TensorFlow reads the variable once, when it is imported.
    """
    if "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def cpu_multiplies_bfloat16() -> bool:
    """Whether the processor has units for products of bfloat16 matrices (AMX), which pay off."""
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def cpu_has_bfloat16() -> bool:
    """Whether the processor computes in bfloat16; True where that cannot be told."""
    try:
        cpu = Path("/proc/cpuinfo").read_text()
    except OSError:
        return True
    return "flags" not in cpu or "avx512_bf16" in cpu or "amx_bf16" in cpu
