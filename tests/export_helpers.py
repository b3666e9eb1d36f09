"""What the export tests share: a tiny trained-looking classifier, and TensorFlow's C++ loader."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from model_helpers import randomize

from keras_resnet import input_pipeline
from keras_resnet.export.sample_images import Samples, smooth_images
from keras_resnet.models import create_model

ROOT = Path(__file__).parent.parent
CLASSES = ["ant", "bee", "cat", "dog", "eel", "fox"]

_PROGRAM = """
import os, sys
import keras_resnet_cli

keras_resnet_cli.defer_loading()
import pickle, re
from keras_resnet.export.c_api import LoaderError, Session
session = Session(sys.argv[1])
answers = []
for signature, inputs in pickle.load(open(sys.argv[2], "rb")):
    try:
        answers.append(session.run(signature, inputs))
    except LoaderError as error:
        answers.append((error.code, str(error)))
result = {
    "answers": answers,
    # Not getrusage: its peak begins with that of the process that started this one.
    "peak_bytes": 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]),
    "imported": {"tensorflow", "keras"} & sys.modules.keys(),
    "signatures": session.signatures,
}
pickle.dump(result, open(sys.argv[3], "wb"))
os._exit(0)
"""


def tiny_classifier(name="CifarResNet20", **kwargs):
    """Six classes, 32 pixels, every weight random, with its preprocessing and class names."""
    options = {"classes": len(CLASSES), "input_shape": (32, 32, 3)}
    if name.startswith("Cifar"):
        options |= {"depths": (1, 1, 1), "widths": (16, 16, 16)}
    else:
        options |= {"depths": (1, 1, 1, 1), "widths": (8, 16, 16, 16)}
    model = randomize(create_model(name, **{**options, **kwargs}))
    # Logits of a few units, so that probabilities are neither all alike nor 0 and 1.
    model.layers[-1].kernel.assign(model.layers[-1].kernel / 4)
    model.preprocessing = {**model.preprocessing, "image_size": 32, "crop_ratio": 0.8}
    model.class_names = CLASSES
    return model


def keras_answers(model, images: np.ndarray) -> np.ndarray:
    """Probabilities of uint8 images of the model's size, without any export."""
    inputs = input_pipeline.normalize(tf.constant(images), model.preprocessing)
    return model(inputs, training=False).numpy()


def given_images(model, count: int, labels: np.ndarray | None = None) -> Samples:
    """Images of the model's size, as somebody would have given them, all in one batch."""
    images = smooth_images(count, model.preprocessing.image_size, seed=5)
    return Samples(lambda: iter([(images, labels)]), f"{count} images")


def strings(values: list[bytes]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def serve(folder: Path, requests: list[tuple[str, dict]], scratch: Path) -> dict:
    """Runs requests with TensorFlow's C++ loader in a process without TensorFlow in Python.

    Returns:
        {"answers": a dict of outputs, or (status code, message), for each request, "peak_bytes",
        "imported", "signatures"}.
    """
    asked, told = scratch / "requests.pickle", scratch / "answers.pickle"
    asked.write_bytes(pickle.dumps(requests))
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(folder), str(asked), str(told)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return pickle.loads(told.read_bytes())
