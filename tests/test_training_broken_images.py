"""data.on_error=stop: the broken image is named, and found among the batches that failed."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import mirrored_strategy
from input_helpers import encode
from training_runs import built_engine, tiny_config

from keras_resnet.input_pipeline import DataError, corrupt_images, open_source
from keras_resnet.training import steps_per_call
from keras_resnet.training.evaluation import evaluate_source
from keras_resnet.training.metrics import SUMS

IMAGES, BATCH = 64, 8


def only_reads(iterator, count, parts=1):
    """Stands for the compiled steps: takes the batches and computes nothing."""
    for _ in range(int(count) * parts):
        next(iterator)
    return tf.ones([int(count), len(SUMS)])


@pytest.fixture
def decoded(monkeypatch):
    """Grows by an entry for each image that the search decodes."""
    images = []

    def decode_window(encoded, *arguments, **options):
        images.append(encoded)
        return original(encoded, *arguments, **options)

    original = corrupt_images.decode_window
    monkeypatch.setattr(corrupt_images, "decode_window", decode_window)
    return images


@pytest.mark.ci
@pytest.mark.parametrize(("replicas", "parts"), [(1, 1), (2, 2)])
def test_only_the_step_that_failed_is_searched(tmp_path, monkeypatch, decoded, replicas, parts):
    monkeypatch.setattr(steps_per_call, "SECONDS_PER_CALL", 0)  # one step a call
    for number in range(IMAGES):
        file = tmp_path / "train" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(np.full((8, 8, 3), number, np.uint8)))
    source = open_source("image_folder", path=str(tmp_path), split="train")
    late = source.example_name(IMAGES - 3)
    Path(late).write_bytes(b"text")
    config = tiny_config(
        batch_size=BATCH, epochs=2, accumulate_steps=parts, data={"augment": {"repeats": 2}}
    )
    engine = built_engine(config, mirrored_strategy(replicas), source.class_names, IMAGES)
    engine.steps.train_loop = partial(only_reads, parts=parts)
    engine.steps.evaluation_loop = lambda iterator, steps, every: (
        only_reads(iterator, steps),
        *(tf.zeros(shape) for shape in ([1, 2], [1, 2], [1])),
    )
    batches = engine.train_batches(source, first=4, end=17)
    with pytest.raises(DataError, match=f"^{late} is no image that can be read"):
        [engine.train(batches, 1) for _ in range(4, 17)]
    assert len(decoded) <= BATCH
    decoded.clear()
    with pytest.raises(DataError, match=f"^{late} is no image"):
        evaluate_source(engine, source)
    assert len(decoded) <= BATCH
