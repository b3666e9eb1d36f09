"""Set-up shared by all tests: four logical CPUs for tests with replicas, and no chatter.

`KERAS_BACKEND=jax` (or `torch`) runs the tests of what works on every backend, and only those.
"""

import gc
import importlib.metadata
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# As the command line does (keras_resnet.backend): without it TensorFlow takes half as long again.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# Away from Google Cloud, tensorflow-tpu would ask its metadata server for a TPU for ever.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")

import pytest
from browser_helpers import browser  # noqa: F401 (a fixture)

_TPU_BUILD = any(importlib.metadata.distributions(name="tensorflow-tpu"))


def _split_the_cpu(count: int = 4) -> None:
    # Only possible before TensorFlow starts its runtime, so here and not in a fixture.
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * count
    )


if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
    _split_the_cpu()
else:
    # Small networks run for milliseconds and compile for seconds: half of them saved (measured).
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
        " --xla_force_host_platform_device_count=4",  # for tests with replicas
    )
    # Data, training, export and the command line run on TensorFlow.
    _EVERY_BACKEND = (
        "architectures",
        "blocks",
        "explain",
        "features",
        "layers",
        "models",
        "weights",
    )
    collect_ignore = [
        path.name
        for path in Path(__file__).parent.glob("test_*.py")
        if path.stem.split("_")[1] not in _EVERY_BACKEND
    ]


def pytest_collection_finish():
    """What is imported stays: garbage is looked for in what tests make, not in TensorFlow."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """tensorflow-tpu skips what needs XLA on the CPU: grouped convolutions and compiled steps."""
    try:
        return (yield)
    except Exception as error:
        if _TPU_BUILD and "transfer manager for platform Host" in str(error):
            pytest.skip("tensorflow-tpu has no XLA for CPUs")
        raise


def pytest_collection_modifyitems(items):
    """Looking for a TPU comes first: TensorFlow then goes through all that the process has made.

    Measured: 0.2 s in a new process, 90 s after a thousand tests.
    """
    items.sort(key=lambda item: item.path.name != "test_tpu_strategy.py")


@pytest.fixture(scope="module", autouse=True)
def _data_sets_as_written(request):
    """TensorFlow rewrites no data set of the pipeline's tests, which make hundreds of small ones.

    The rewriting takes longer than reading them (measured: a third of these tests' time). What runs
    whole, from the command line or in `test_run.py`, is rewritten as everywhere.
    """
    if not request.module.__name__.startswith("test_input_"):
        yield
        return
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


@pytest.fixture(params=[2, 4], ids=["2 replicas", "4 replicas"])
def mirrored(request):
    """A MirroredStrategy over 2 and over 4 logical CPUs."""
    return mirrored_strategy(request.param)


def mirrored_strategy(replicas: int):
    """Returns a MirroredStrategy over logical CPUs."""
    import tensorflow as tf

    # TensorFlow's default for CPUs, collective operations, cannot serve groups of two sizes in
    # one process: "joining a group with size 4, but that group has size 2".
    return tf.distribute.MirroredStrategy(
        [f"CPU:{index}" for index in range(replicas)],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )
