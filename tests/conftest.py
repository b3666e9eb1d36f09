"""Set-up shared by all tests: four logical CPUs for tests with replicas, and no chatter."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest


def _split_the_cpu(count: int = 4) -> None:
    # Only possible before TensorFlow starts its runtime, so here and not in a fixture.
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * count
    )


if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
    _split_the_cpu()


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
