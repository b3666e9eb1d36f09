"""Exports for TF Serving, run by TensorFlow's C++ loader: numbers, signatures, hostile input."""

import io
import json
import os
import struct
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from export_helpers import CLASSES, serve, strings, tiny_classifier
from input_helpers import encode, smooth_image
from PIL import Image

from keras_resnet import input_pipeline
from keras_resnet.commands import main
from keras_resnet.errors import UserError
from keras_resnet.export import comparison, export_saved_model, sample_images, warmup
from keras_resnet.export.formats import FORMATS
from keras_resnet.export.runtime import Runtime
from keras_resnet.export.verify import verify_saved_model

INVALID_ARGUMENT = 3
ONEDNN = os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "0"  # tests/conftest.py turns it on
FILES = [
    encode(smooth_image(40, 61), "JPEG", quality=95),
    encode(smooth_image(33, 32, seed=1), "PNG"),
    encode(smooth_image(390, 250, seed=2), "JPEG"),  # decoded at a half
]


@pytest.fixture(scope="module")
def model():
    model = tiny_classifier()
    model.preprocessing = model.preprocessing.replace(scaled_decoding="auto")
    return model


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """An export that refuses what it cannot decode, without folding."""
    return export_saved_model(model, tmp_path_factory.mktemp("exported"), top=3, fold=False)


@pytest.fixture(scope="module")
def flagging(model, tmp_path_factory):
    """A folded bfloat16 export that flags what it cannot decode."""
    folder = tmp_path_factory.mktemp("flagging")
    return export_saved_model(model, folder, precision="bfloat16", on_error="flag", top=9)


def _expected(model, files):
    pixels = np.stack(
        [input_pipeline.evaluation_image(tf.constant(f), model.preprocessing) for f in files]
    )
    mean, std = (np.array(model.preprocessing[key]) for key in ("mean", "std"))
    inputs = ((pixels / 255.0 - mean) / std).astype("float32")
    return pixels, model.predict(inputs, verbose=0)


def _outputs(signature):
    return {key: (info["dtype"], info["shape"]) for key, info in signature["outputs"].items()}


def test_servers_from_tensorflow_2_15_on_run_it(exported):
    """tests/test_export_runtime.py runs it in the loader of that version."""
    assert exported.runtime == Runtime((2, 15), ())
    assert b"DecodeWebP" not in (exported.path / "saved_model.pb").read_bytes()
    noted = json.loads((exported.path / "assets.extra" / "keras_resnet.json").read_text())
    assert noted["minimum_tensorflow"] == "2.15"
    assert noted["image_formats"] == ["JPEG", "PNG", "GIF", "BMP"]
    assert "tensorflow/serving:2.19.1 " in (exported.serving_config / "docker.sh").read_text()


def test_signatures_have_the_documented_names_types_and_shapes(exported, flagging):
    signatures = exported.report["signatures"]
    assert {
        name: {key: (info["dtype"], info["shape"]) for key, info in signature["inputs"].items()}
        for name, signature in signatures.items()
    } == {
        "serving_default": {"image_bytes": ("string", [None])},
        "features": {"image_bytes": ("string", [None])},
        "predict_images": {"images": ("float32", [None, 32, 32, 3])},
        "predict_images_uint8": {"images": ("uint8", [None, 32, 32, 3])},
    }
    assert _outputs(signatures["serving_default"]) == {
        "classes": ("string", [None, 3]),
        "class_ids": ("int32", [None, 3]),
        "probabilities": ("float32", [None, 3]),
    }
    assert _outputs(signatures["features"]) == {"features": ("float32", [None, 16])}
    assert _outputs(signatures["predict_images"]) == {
        "probabilities": ("float32", [None, 6]),
        "logits": ("float32", [None, 6]),
    }
    # More than there are classes: all of them.
    assert _outputs(flagging.report["signatures"]["serving_default"]) == {
        "classes": ("string", [None, 6]),
        "class_ids": ("int32", [None, 6]),
        "probabilities": ("float32", [None, 6]),
        "valid": ("bool", [None]),
    }


def test_the_cpp_loader_answers_what_keras_does(model, exported, tmp_path):
    pixels, probabilities = _expected(model, FILES)
    requests = [
        ("predict_images", {"images": pixels.astype("float32")}),
        ("predict_images_uint8", {"images": pixels}),
        ("serving_default", {"image_bytes": strings(FILES)}),
        ("features", {"image_bytes": strings(FILES)}),
        ("serving_default", {"image_bytes": strings(FILES[2:])}),
        ("serving_default", {"image_bytes": strings([])}),
    ]
    served = serve(exported.path, requests, tmp_path)
    assert served["imported"] == set()
    floats, uint8, top, features, single, empty = served["answers"]
    np.testing.assert_allclose(floats["probabilities"], probabilities, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(floats["logits"], uint8["logits"])
    order = np.argsort(-probabilities, axis=1)[:, :3]
    np.testing.assert_array_equal(top["class_ids"], order)
    np.testing.assert_array_equal(top["classes"], np.array(CLASSES, "S")[order].astype(object))
    sorted_probabilities = np.take_along_axis(probabilities, order, axis=1)
    np.testing.assert_allclose(top["probabilities"], sorted_probabilities, rtol=1e-5)
    head = model.layers[-1]
    logits = features["features"] @ head.kernel.numpy() + head.bias.numpy()
    np.testing.assert_allclose(logits, floats["logits"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(single["probabilities"], top["probabilities"][2:], rtol=1e-5)
    # oneDNN's fused convolutions refuse a batch without images.
    if isinstance(empty, dict):
        assert empty["classes"].shape == (0, 3)
    else:
        assert ONEDNN
        assert empty[0] == INVALID_ARGUMENT


@pytest.mark.ci
def test_a_network_with_keras_padding_is_served_as_it_is(tmp_path):
    padded = {"padding": "same", "stem_pool_padding": "end", "block_kernel_size": (3, 4)}
    model = tiny_classifier("ResNet18D", **padded)
    exported = export_saved_model(model, tmp_path / "exported")
    pixels, probabilities = _expected(model, FILES)
    request = [("predict_images", {"images": pixels.astype("float32")})]
    (answer,) = serve(exported.path, request, tmp_path)["answers"]
    np.testing.assert_allclose(answer["probabilities"], probabilities, rtol=1e-4, atol=1e-6)


def test_without_folding_the_numbers_are_those_of_keras(exported):
    if ONEDNN:  # it computes the same sums in another order where weights are constants
        assert exported.difference.relative < 1e-6
    else:
        assert exported.difference.max_logit == 0
    assert exported.difference.top1_agreement == 1


def test_bfloat16_reports_its_distance(flagging):
    difference = flagging.difference
    assert 0 < difference.mean_logit < difference.max_logit
    assert 1e-4 < difference.relative < 0.05


def test_python_loads_it_too_and_labels_are_an_asset(exported):
    loaded = tf.saved_model.load(str(exported.path))
    answer = loaded.signatures["serving_default"](image_bytes=tf.constant(FILES))
    assert answer["classes"].shape == (3, 3)
    assert (exported.path / "assets" / "labels.txt").read_text().split() == CLASSES


def test_warmup_records_cover_every_signature_and_batch_size(exported):
    records = warmup.read_records(exported.path / warmup.FILE)
    found = set()
    for record in records:
        signature, inputs = warmup.decode_request(record)
        found.add((signature, len(next(iter(inputs.values())))))
    names = ("serving_default", "features", "predict_images", "predict_images_uint8")
    assert found == {(name, size) for name in names for size in (1, 2, 4, 8, 16)}
    assert exported.report["warmup_records"] == len(records) == 22


def _bomb(width=60_000, height=60_000) -> bytes:
    """A PNG of a few bytes whose header claims gigabytes."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + FILES[1][33:]


def _animation() -> bytes:
    frames = [smooth_image(40, 40, seed=seed) for seed in range(3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


BROKEN = {
    "empty": b"",
    "text": b"hello, I am a picture",
    "truncated JPEG": FILES[0][:200],
    "JPEG start": b"\xff\xd8\xff",
    "truncated PNG": FILES[1][:60],
    "PNG start": FILES[1][:8],
    "truncated GIF": _animation()[:40],
    "BMP start": b"BM",
    "RIFF start": b"RIFF",
    "huge header": _bomb(),
    "negative header": _bomb(2**31 + 5, 2**31 + 5),
}
ODD = {
    "animated": _animation(),
    "CMYK": encode(smooth_image(40, 40).convert("CMYK"), "JPEG"),
    "16-bit": encode(Image.fromarray(np.arange(4000, dtype=np.uint16).reshape(50, 80) * 16)),
    "gray": encode(smooth_image(40, 40).convert("L"), "JPEG"),
    "palette": encode(smooth_image(40, 40).convert("P"), "PNG"),
    "transparent": encode(smooth_image(40, 40).convert("RGBA"), "PNG"),
    "1×1": encode(np.full((1, 1, 3), 7, np.uint8)),
    "12,000×10": encode(np.zeros((10, 12_000, 3), np.uint8) + 99),
    "10×12,000": encode(np.zeros((12_000, 10, 3), np.uint8) + 99, "JPEG"),
}


def test_hostile_images_are_answered_or_refused_and_the_server_lives(model, exported, tmp_path):
    bad = [("serving_default", {"image_bytes": strings([data])}) for data in BROKEN.values()]
    odd = [("serving_default", {"image_bytes": strings([data])}) for data in ODD.values()]
    mixed = ("serving_default", {"image_bytes": strings([FILES[0], b"", FILES[1], b"x"])})
    good = ("serving_default", {"image_bytes": strings(FILES)})
    served = serve(exported.path, [*bad, *odd, mixed, good], tmp_path)
    answers = served["answers"]
    for name, answer in zip(BROKEN, answers, strict=False):
        assert isinstance(answer, tuple), name
        assert answer[0] == INVALID_ARGUMENT, (name, answer)
        assert "image_bytes cannot be decoded" in answer[1], (name, answer)
        assert "[0]" in answer[1]
    _, expected = _expected(model, ODD.values())
    for index, (name, row) in enumerate(zip(ODD, expected, strict=True)):
        answer = answers[len(BROKEN) + index]
        assert isinstance(answer, dict), (name, answer)
        np.testing.assert_allclose(
            answer["probabilities"][0], np.sort(row)[::-1][:3], rtol=1e-4, err_msg=name
        )
    assert answers[-2][0] == INVALID_ARGUMENT
    assert "[1 3]" in answers[-2][1]
    assert answers[-1]["probabilities"].shape == (3, 3)
    assert served["peak_bytes"] < 1.5e9  # the runtime itself takes some 0.5 GB


WRONG_SHAPES = [(1, 16, 16, 3), (1, 32, 32, 4), (1, 3, 32, 32), (32, 32, 3), (1, 1, 32, 32, 3)]


def test_a_wrong_shape_is_refused_with_both_shapes_and_the_server_lives(exported, tmp_path):
    wrong = [
        (name, {"images": np.zeros(shape, dtype)})
        for shape in WRONG_SHAPES
        for name, dtype in (("predict_images", "float32"), ("predict_images_uint8", "uint8"))
    ]
    files = strings(FILES + FILES[:1]).reshape(2, 2)
    wrong += [(name, {"image_bytes": files}) for name in ("serving_default", "features")]
    good = ("predict_images", {"images": np.zeros((2, 32, 32, 3), "float32")})
    *refused, answered = serve(exported.path, [*wrong, good], tmp_path)["answers"]
    for (_, inputs), answer in zip(wrong, refused, strict=True):
        [array] = inputs.values()
        received = ",".join(map(str, array.shape))
        expected = "?" if array.dtype == object else "?,32,32,3"
        assert isinstance(answer, tuple), array.shape
        assert answer[0] == INVALID_ARGUMENT
        assert f"[{received}] is not compatible with expected shape [{expected}]" in answer[1]
    assert answered["logits"].shape == (2, len(CLASSES))


@pytest.mark.ci
def test_flagging_spares_the_neighbors(flagging, tmp_path):
    files = [FILES[0], *BROKEN.values(), FILES[1], FILES[2]]
    requests = [
        ("serving_default", {"image_bytes": strings(files)}),
        ("serving_default", {"image_bytes": strings(FILES)}),
        ("serving_default", {"image_bytes": strings(list(BROKEN.values()))}),
        ("features", {"image_bytes": strings(files)}),
    ]
    mixed, good, none, features = serve(flagging.path, requests, tmp_path)["answers"]
    valid = np.array([True, *[False] * len(BROKEN), True, True])
    np.testing.assert_array_equal(mixed["valid"], valid)
    np.testing.assert_array_equal(features["valid"], valid)
    np.testing.assert_allclose(
        mixed["probabilities"][valid], good["probabilities"], rtol=0.03, atol=1e-3
    )
    assert (mixed["class_ids"][~valid] == -1).all()
    assert (mixed["classes"][~valid] == b"").all()
    assert (mixed["probabilities"][~valid] == 0).all()
    assert (features["features"][~valid] == 0).all()
    assert good["valid"].all()
    assert not none["valid"].any()


def test_verification_refuses_what_only_python_can_load(tmp_path):
    """The very mistake it is there for: a Keras model saved by tf.saved_model.save."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    module = tf.Module()
    module.call = tf.function(
        lambda x: {"y": model(x)}, input_signature=[tf.TensorSpec([None, 4], name="x")]
    )
    module.model = model
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.call})
    loaded = tf.saved_model.load(str(tmp_path))
    assert loaded.signatures["serving_default"](x=tf.ones([1, 4]))["y"].shape == (1, 2)
    with pytest.raises(UserError, match="serving_default fails"):
        verify_saved_model(tmp_path)


def test_verification_refuses_damaged_warmup_and_wrong_folders(exported, tmp_path, capsys):
    assert main(["verify-export", str(tmp_path)]) == 1
    assert "is no SavedModel" in capsys.readouterr().err
    copy = tmp_path / "1"
    tf.io.gfile.makedirs(str(copy / "assets.extra"))
    for name in ("saved_model.pb", "assets", "variables"):
        (copy / name).symlink_to(exported.path / name)
    record = warmup.encode_request("m", "classify", {"images": np.zeros((1, 32, 32, 3), "f4")})
    warmup.write_records(copy / warmup.FILE, [record])
    assert main(["verify-export", "--trusted", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "warm-up record 0 (classify) fails: there is no signature 'classify'" in error
    assert error.count("\n") == 1


@pytest.mark.ci
def test_the_command_verifies_and_reports(exported, capsys):
    assert main(["verify-export", str(exported.path.parent), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["path"] == str(exported.path)
    assert report["warmup_records"] == 22
    assert sorted(report["signatures"]) == sorted(exported.report["signatures"])


def test_a_difference_beyond_tolerance_leaves_nothing(model, tmp_path, monkeypatch):
    from keras_resnet.export import saved_model

    monkeypatch.setitem(FORMATS["saved_model"].tolerances, "bfloat16", 1e-5)
    with pytest.raises(UserError, match="more than its tolerance of 1e-05; nothing was written"):
        export_saved_model(model, tmp_path / "out", precision="bfloat16")
    assert not (tmp_path / "out").exists()
    # What the C++ loader answers is compared too, in the folder that is about to be published.
    seen = []

    def wrong_answers(folder, images):
        seen.extend(item.name for item in folder.iterdir())
        return {}, np.zeros([len(images), len(CLASSES)])

    def touch(folder, *_, **__):
        (folder / "saved_model.pb").touch()

    monkeypatch.setattr(saved_model, "write_saved_model", touch)
    monkeypatch.setattr(saved_model, "verify_saved_model", wrong_answers)
    with pytest.raises(UserError, match="what TensorFlow's C\\+\\+ loader runs differs"):
        export_saved_model(model, tmp_path / "out")
    assert sorted(seen) == ["assets.extra", "saved_model.pb"]
    assert list((tmp_path / "out").iterdir()) == []


def test_models_that_cannot_be_served_are_refused(tmp_path):
    from keras_resnet.models import create_model

    headless = create_model("CifarResNet20", include_top=False, pooling="avg")
    with pytest.raises(UserError, match="does not end in a classifier"):
        export_saved_model(headless, tmp_path / "out")
    plain = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    with pytest.raises(UserError, match="does not end in a classifier"):
        export_saved_model(plain, tmp_path / "out")
    model = tiny_classifier()
    model.preprocessing = None
    with pytest.raises(UserError, match="does not say how its images are prepared"):
        export_saved_model(model, tmp_path / "out")
    model.preprocessing = {**tiny_classifier().preprocessing, "image_size": 48}
    with pytest.raises(UserError, match="makes 48 pixels"):
        export_saved_model(model, tmp_path / "out")
    with pytest.raises(UserError, match="2 class names for the 6 classes"):
        export_saved_model(tiny_classifier(), tmp_path / "out", class_names=["a", "b"])
    assert not (tmp_path / "out").exists()


def test_accuracy_is_counted_on_folders_named_like_classes(model, tmp_path):
    for index, name in enumerate(CLASSES):
        (tmp_path / name).mkdir()
        for number in range(2):
            image = smooth_image(40, 40, seed=10 * index + number)
            (tmp_path / name / f"{number}.png").write_bytes(encode(image))
    samples = sample_images.of_files([tmp_path], model.preprocessing, tuple(CLASSES), 0)
    labels = np.concatenate([truth for _, truth in samples.batches()])
    np.testing.assert_array_equal(labels, np.repeat(np.arange(6), 2))
    always_bee = np.eye(6)[[1]]
    right = np.eye(6)[labels].tolist()  # which is asked for in parts
    reference = comparison.Reference(
        samples.batches, lambda images: np.array([right.pop(0) for _ in images])
    )
    result = reference.compare(lambda images: always_bee.repeat(len(images), 0))
    assert (result.top1_before, result.top1_after) == (1.0, pytest.approx(1 / 6))
    assert result.top1_agreement == pytest.approx(1 / 6)
    assert (result.images, result.max_logit, result.relative) == (12, 1.0, 1.0)


def test_a_full_disk_leaves_the_earlier_versions(tmp_path, monkeypatch):
    (tmp_path / "1").mkdir()

    def full(module, folder, **options):
        raise tf.errors.ResourceExhaustedError(None, None, f"{folder}; No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", full)
    with pytest.raises(UserError, match=r"could not be written.*No space left.*make room"):
        export_saved_model(tiny_classifier(), tmp_path)
    assert os.listdir(tmp_path) == ["1"]
