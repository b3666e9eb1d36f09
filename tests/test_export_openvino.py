"""OpenVINO IR, run by OpenVINO itself beside the model in Keras."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from export_helpers import CLASSES, given_images, keras_answers, tiny_classifier
from model_helpers import randomize

from keras_resnet.errors import UserError
from keras_resnet.export import export_file, load_predictor, sample_images
from keras_resnet.export.openvino import Runner, import_openvino
from keras_resnet.export.openvino_server import export_version

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def model():
    return tiny_classifier()


@pytest.fixture(scope="module")
def images(model):
    return sample_images.smooth_images(6, 32, seed=5)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """A float32 export, which the tests do not change."""
    path = tmp_path_factory.mktemp("openvino") / "model.xml"
    assert export_file(model, path, format="openvino").relative < 1e-5
    return path


def run(path, images, hint="f32"):
    """Probabilities by OpenVINO, without this package's own runner."""
    core = import_openvino().Core()
    compiled = core.compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": hint})
    return compiled({"images": images})["probabilities"]


def test_answers_like_the_model_for_pixels_of_8_bits(model, images, exported):
    expected = keras_answers(model, images)
    for batch in (images[:1], images):
        np.testing.assert_allclose(run(exported, batch), expected[: len(batch)], atol=1e-5)
    (entry,) = import_openvino().Core().read_model(str(exported)).inputs
    assert (entry.get_element_type().get_type_name(), entry.any_name) == ("u8", "images")
    assert sorted(item.name for item in exported.parent.iterdir()) == ["model.bin", "model.xml"]


def test_the_runtime_info_says_how_images_are_prepared(model, exported):
    told = Runner(exported).description
    assert told.preprocessing == model.preprocessing
    assert list(told.class_names) == CLASSES
    # Without a hint CPUs that multiply bfloat16 would do so here, too.
    read = import_openvino().Core().read_model(str(exported))
    assert read.get_rt_info(["keras_resnet", "inference_precision"]).astype(str) == "f32"


@pytest.mark.ci
def test_predictors_run_it(model, exported, tmp_path):
    from PIL import Image

    photo = tmp_path / "photo.png"
    Image.fromarray(sample_images.smooth_images(1, 60)[0]).save(photo)
    model.save(tmp_path / "model.keras")
    ours, expected = (
        dict(load_predictor(path, top=6).predict_files([photo]))[str(photo)]
        for path in (exported, tmp_path / "model.keras")
    )
    assert [row["class"] for row in ours] == [row["class"] for row in expected]
    probabilities = [[row["probability"] for row in rows] for rows in (ours, expected)]
    np.testing.assert_allclose(*probabilities, atol=1e-5)


@pytest.mark.ci
@pytest.mark.parametrize(("precision", "bytes_per_weight"), [("float16", 2), ("bfloat16", 2)])
def test_16_bits_halve_the_file(model, images, tmp_path, precision, bytes_per_weight):
    path = tmp_path / "model.xml"
    export_file(model, path, format="openvino", precision=precision)
    hint = {"float16": "f32", "bfloat16": "bf16"}[precision]
    tolerance = {"float16": 2e-3, "bfloat16": 2e-2}[precision]
    found = run(path, images, hint)
    np.testing.assert_allclose(found, keras_answers(model, images), atol=tolerance)
    weights = sum(int(np.prod(v.shape)) for v in model.trainable_variables if "kernel" in v.path)
    assert path.with_suffix(".bin").stat().st_size < 1.2 * bytes_per_weight * weights
    assert Runner(path)(images).argmax(1).tolist() == found.argmax(1).tolist()


@pytest.mark.ci
def test_int8_holds_a_byte_for_a_weight(model, images, tmp_path):
    pytest.importorskip("nncf")
    path = tmp_path / "model.xml"
    difference = export_file(
        model, path, format="openvino", precision="int8", samples=given_images(model, 16)
    )
    assert difference.relative < 0.1
    weights = sum(int(np.prod(v.shape)) for v in model.trainable_variables if "kernel" in v.path)
    assert path.with_suffix(".bin").stat().st_size < 1.5 * weights
    np.testing.assert_allclose(run(path, images), keras_answers(model, images), atol=0.1)


def test_weights_of_another_export_are_refused(exported, tmp_path):
    path = tmp_path / "model.xml"
    path.write_bytes(exported.read_bytes())
    with pytest.raises(UserError, match="bin file cannot be found"):
        Runner(path)
    weights = bytearray(exported.with_suffix(".bin").read_bytes())
    weights[-1] ^= 1
    path.with_suffix(".bin").write_bytes(weights)
    with pytest.raises(UserError, match="other weights"):
        Runner(path)
    path.write_text("<net></net>")
    with pytest.raises(UserError, match="cannot be loaded by OpenVINO"):
        Runner(path)


def test_files_of_others_are_refused(tmp_path):
    openvino = import_openvino()
    operations = openvino.opset13
    entry = operations.parameter([1, 8, 8, 3], np.uint8, name="images")
    result = operations.convert(entry, "f32")
    openvino.save_model(openvino.Model([result], [entry]), tmp_path / "other.xml")
    with pytest.raises(UserError, match="does not say how its images are prepared"):
        Runner(tmp_path / "other.xml")


@pytest.mark.ci
def test_both_old_files_stay_until_the_new_ones_have_passed(model, exported, tmp_path, monkeypatch):
    path = tmp_path / "model.xml"
    for suffix in (".xml", ".bin"):
        path.with_suffix(suffix).write_bytes(exported.with_suffix(suffix).read_bytes())
    before = {item.name: item.read_bytes() for item in tmp_path.iterdir()}
    other = randomize(tiny_classifier(), seed=1)
    with monkeypatch.context() as patch:
        patch.setattr("keras_resnet.export.comparison.check", _refuse)
        with pytest.raises(UserError, match="refused"):
            export_file(other, path, format="openvino")
    assert {item.name: item.read_bytes() for item in tmp_path.iterdir()} == before

    # Killed between the two renamings: nothing that runs, and never the weights of another export.
    with monkeypatch.context() as patch:
        real = os.replace
        patch.setattr(os, "replace", lambda a, b: real(a, b) if str(b).endswith("bin") else _die())
        with pytest.raises(KeyboardInterrupt):
            export_file(other, path, format="openvino")
    assert [item.name for item in tmp_path.iterdir()] == ["model.bin"]
    export_file(other, path, format="openvino")
    Runner(path)


def _refuse(*_):
    raise UserError("refused")


def _die():
    raise KeyboardInterrupt


@pytest.mark.ci
@pytest.mark.parametrize("name", ["ResNet50D", "SEResNet50", "ResNet50V2"])
def test_families(name, tmp_path):
    model = tiny_classifier(name)
    images = sample_images.smooth_images(4, 32, seed=5)
    export_file(model, tmp_path / "model.xml", format="openvino")
    found = run(tmp_path / "model.xml", images)
    np.testing.assert_allclose(found, keras_answers(model, images), atol=1e-5)


@pytest.mark.ci
def test_flips_stand_in_the_graph(model, images, tmp_path):
    path = tmp_path / "model.xml"
    export_file(model, path, format="openvino", tta="flip")
    assert Runner(path).description.tta == "flip"
    np.testing.assert_allclose(run(path, images), run(path, images[:, :, ::-1]), atol=1e-6)


@pytest.mark.ci
def test_versions_for_a_server(model, tmp_path):
    """Written, predicted with, and asked by the client over TF Serving's REST API."""
    pytest.importorskip("PIL")
    from PIL import Image

    for number in ("1", "2"):
        version = export_version(model, tmp_path / "net", precision="float32")
        assert version.path == tmp_path / "net" / number / "model.xml"
    config = json.loads((version.serving_config / "openvino.json").read_text())
    (served,) = (entry["config"] for entry in config["model_config_list"])
    assert served["name"] == "net"
    assert served["plugin_config"]["INFERENCE_PRECISION_HINT"] == "f32"
    photos = [tmp_path / "a.png", tmp_path / "b.png"]
    for photo, pixels in zip(photos, sample_images.smooth_images(2, 60), strict=True):
        Image.fromarray(pixels).save(photo)
    rows = [rows for _, rows in load_predictor(tmp_path / "net").predict_files(photos)]

    with ThreadingHTTPServer(("localhost", 0), _rest_of(version.path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = [sys.executable, version.serving_config / "pixels_client.py", *photos]
        address = f"--server=localhost:{server.server_port}"
        done = subprocess.run([*client, address], capture_output=True, text=True, check=False)
        server.shutdown()
    assert done.returncode == 0, done.stderr[-2000:]
    expected = [
        f"{photo} " + ", ".join(f"{row['class']!r} {row['probability']:.1%}" for row in answer)
        for photo, answer in zip(photos, rows, strict=True)
    ]
    assert done.stdout.splitlines() == expected


def _rest_of(path):
    """TF Serving's predict in the row format, as OpenVINO Model Server has it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            assert self.path == "/v1/models/net:predict"
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            pixels = np.array([one["images"] for one in request["instances"]], np.uint8)
            rows = [{"probabilities": row.tolist()} for row in run(path, pixels)]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"predictions": rows}).encode())

        def log_message(self, *_):
            pass

    return Handler
