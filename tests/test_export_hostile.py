"""An export that is open to the world: hostile requests in a process whose memory is watched."""

import numpy as np
import pytest
import tensorflow as tf
from export_helpers import tiny_classifier
from fuzz_images import mutated, originals
from hostile_images import FILES
from input_helpers import encode, smooth_image
from watched_process import Watched

import keras_resnet
from keras_resnet.export import export_saved_model, load_predictor
from keras_resnet.export.serving_config import BATCH_SIZES
from keras_resnet.export.signatures import MAX_BATCH, TOO_MANY

# Whole runs, most of them: `.ci/run` runs them, the README's command has its ten minutes.
pytestmark = pytest.mark.ci

LIMIT_MIB = 4000


def requests(count: int, files: dict[str, bytes]):
    """`count` requests: hostile files alone and in batches, fuzzed ones, and far too many."""
    rng = np.random.default_rng(0)
    names = list(files)
    photos = originals((375, 500))
    tiny = encode(smooth_image(8, 8), "JPEG")
    for number in range(count):
        kind = rng.random()
        if kind < 0.4:
            yield [files[names[number % len(names)]]]
        elif kind < 0.6:
            chosen = rng.choice(names, rng.integers(2, 17))
            yield [files[name] for name in chosen]
        elif kind < 0.95:
            first = int(rng.integers(0, 10**6))
            yield [mutated(first + i, photos) for i in range(rng.integers(1, 17))]
        else:
            yield [tiny] * int(rng.choice([1500, 5000, MAX_BATCH + 1]))


def survives(folder, count: int, files: dict[str, bytes]) -> None:
    with Watched(str(folder), limit_mib=LIMIT_MIB) as process:
        process.limit_of_all(LIMIT_MIB)
        for number, request in enumerate(requests(count, files)):
            outcome = process.decode(*request)
            assert not outcome.said.startswith(("killed", "crashed")), (number, outcome)
            assert outcome.seconds < 2.0 * len(request)
            if len(request) > MAX_BATCH:
                assert TOO_MANY in outcome.said
        assert process.decode(encode(smooth_image(300, 300), "JPEG")).said == "(1, 5)"


@pytest.mark.parametrize("webp", [False, True], ids=["as it comes", "with WebP"])
def test_some_hostile_requests(tmp_path, webp):
    export_saved_model(tiny_classifier(), tmp_path / "served", webp=webp)
    few = ["png 1 x 1,000,000 gray", "gif one-byte parts", "bmp 1 x 2,000,000 1 bit"]
    few += ["webp 1,000,000 chunks"]
    survives(tmp_path / "served" / "1", 30, {name: FILES[name]() for name in few})


@pytest.mark.slow
def test_two_thousand_hostile_requests(tmp_path):
    export_saved_model(keras_resnet.ResNet50(), tmp_path / "served", on_error="flag")
    survives(tmp_path / "served" / "1", 2000, {name: make() for name, make in FILES.items()})


def test_a_request_holds_as_many_images_as_the_export_says(tmp_path):
    model = tiny_classifier()
    size = model.preprocessing.image_size
    export_saved_model(model, tmp_path / "served", max_batch=16)
    served = tf.saved_model.load(str(tmp_path / "served" / "1")).signatures
    images = np.zeros((17, size, size, 3), np.float32)
    encoded = tf.constant([encode(smooth_image(9, 9))] * 17)
    for name, inputs in (
        ("predict_images", {"images": tf.constant(images)}),
        ("predict_images_uint8", {"images": tf.constant(images.astype(np.uint8))}),
        ("serving_default", {"image_bytes": encoded}),
        ("features", {"image_bytes": encoded}),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            served[name](**inputs)
        said = "too many images in one request: this export takes up to 16 (--max-batch); received"
        assert said in str(caught.value)
        served[name](**{key: value[:16] for key, value in inputs.items()})
    # The predictor, which reads 32 at a time, sends as many as it may.
    files = []
    for number in range(20):
        files.append(tmp_path / f"{number}.png")
        files[-1].write_bytes(encode(smooth_image(9, 9, number)))
    files[7].write_bytes(b"no image")
    answers = dict(load_predictor(tmp_path / "served").predict(files))
    assert [isinstance(answer, str) for answer in answers.values()].count(True) == 1
    assert len(answers) == 20
    assert max(BATCH_SIZES) <= MAX_BATCH
