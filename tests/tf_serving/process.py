"""Starts the test server as a process, and a model that costs nothing."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras_resnet_cli

TESTS = Path(__file__).parents[1]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "no_proxy": "*",
}


def command(*flags: str) -> list[str]:
    """The command that stands in for `tensorflow_model_server`."""
    return keras_resnet_cli.module_command("tf_serving.server", *flags)


@contextmanager
def running(*flags: str) -> Iterator[tuple[str, str]]:
    """A server while entered; yields the addresses for gRPC and for REST."""
    started = subprocess.Popen(
        command("--port=0", "--rest_api_port=0", "--file_system_poll_wait_seconds=1", *flags),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        ports = started.stdout.readline().split()
        assert len(ports) == 2, f"the server ended with {started.wait()}"
        yield f"localhost:{ports[0]}", f"localhost:{ports[1]}"
    finally:
        started.kill()
        started.wait()
        started.stdout.close()


def write_toy(folder: Path) -> None:
    """A SavedModel that takes any bytes for an image, and tells by their number what they are.

    Probabilities are `length / 100` for "long" and the rest for "short"; what begins with "bad" is
    refused as exports refuse images.
    """
    import tensorflow as tf

    def classify(image_bytes):
        good = tf.strings.substr(image_bytes, 0, 3) != "bad"
        words = ["image_bytes cannot be decoded. Positions in the batch:", tf.where(~good)[:, 0]]
        check = tf.raw_ops.Assert(condition=tf.reduce_all(good), data=words)
        with tf.control_dependencies([check]):
            long = tf.cast(tf.strings.length(image_bytes), tf.float32) / 100
        values, ids = tf.math.top_k(tf.stack([1 - long, long], 1), 2)
        return {
            "classes": tf.gather(tf.constant([b"short", b"long \xff\x1b"]), ids),
            "class_ids": ids,
            "probabilities": values,
        }

    spec = tf.TensorSpec([None], tf.string, "image_bytes")
    function = tf.function(classify, input_signature=[spec], autograph=False)
    tf.saved_model.save(tf.Module(), str(folder), {"serving_default": function})
