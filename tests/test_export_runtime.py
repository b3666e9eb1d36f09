"""Which servers can run an export: by the operations in it, and in the loaders of other wheels."""

import platform
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from export_helpers import serve, strings, tiny_classifier
from input_helpers import encode, smooth_image
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

from keras_resnet.commands import main
from keras_resnet.errors import UsageError, UserError
from keras_resnet.export import export_saved_model, load_predictor
from keras_resnet.export.runtime import SINCE, Runtime, parse_version, runtime_of
from keras_resnet.export.serving_config import write_serving_config

INVALID_ARGUMENT = 3
PHOTO = smooth_image(40, 50)
WEBP = encode(PHOTO, "WEBP", lossless=True)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export_saved_model(tiny_classifier(), tmp_path_factory.mktemp("exported") / "net")


def graph(folder, *operations, in_function=False):
    """A SavedModel of operations, each a name or a name with one attribute, as "Name.attribute"."""
    saved = saved_model_pb2.SavedModel()
    definition = saved.meta_graphs.add().graph_def
    nodes = definition.library.function.add().node_def if in_function else definition.node
    for operation in ("Placeholder", *operations):
        name, _, attribute = operation.partition(".")
        node = nodes.add(name=f"node_{len(nodes)}", op=name)
        if attribute:
            node.attr[attribute].b = True
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())
    return folder


def test_the_table_names_what_this_tensorflow_has():
    """Operations and attributes are spelt as TensorFlow's own registry does."""
    installed = parse_version(tf.__version__)
    for name, version in SINCE.items():
        operation, _, attribute = name.partition(".")
        definition = op_def_registry.get(operation)
        assert (definition is not None) == (version <= installed), name
        if definition is not None and attribute:
            assert attribute in {attr.name for attr in definition.attr}, name


@pytest.mark.parametrize("in_function", [False, True])
def test_the_newest_operation_decides(tmp_path, in_function):
    old = graph(tmp_path / "old", "MatMul", "DecodeJpeg", in_function=in_function)
    assert runtime_of(old) == Runtime((2, 15), ())
    both = graph(
        tmp_path / "both", "MatMul.grad_a", "GatherNd.bad_indices_policy", in_function=in_function
    )
    assert runtime_of(both) == Runtime((2, 17), ("GatherNd.bad_indices_policy",))
    webp = graph(tmp_path / "webp", "MatMul.grad_a", "DecodeWebP", in_function=in_function)
    assert str(runtime_of(webp)) == "TensorFlow 2.20 or newer (DecodeWebP)"


def test_a_runtime_that_is_too_old_is_refused(tmp_path, capsys):
    folder = graph(tmp_path / "webp", "DecodeWebP")
    runtime_of(folder).check((2, 20))
    assert main(["verify-export", "--runtime=2.19.1", "--trusted", str(folder)]) == 1
    error = capsys.readouterr().err
    assert "needs TensorFlow 2.20 or newer (DecodeWebP), and one of 2.19 refuses it" in error
    assert "export it again without --webp" in error
    with pytest.raises(UserError, match=r"TensorFlow 2\.3 knows is not listed here \(from 2\.15"):
        runtime_of(folder).check((2, 3))
    for text in ("2", "new", "2.x", "", "2.15-gpu"):
        with pytest.raises(UsageError, match="no version of TensorFlow"):
            parse_version(text)
    assert parse_version("2.22.0-rc1") == (2, 22)


def test_a_damaged_graph_is_an_error(tmp_path):
    folder = graph(tmp_path / "net", "DecodeWebP")
    content = (folder / "saved_model.pb").read_bytes()
    (folder / "saved_model.pb").write_bytes(content[:-3])
    with pytest.raises(UserError, match="is damaged"):
        runtime_of(folder)
    (folder / "saved_model.pb").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be read"):
        runtime_of(folder)


@pytest.mark.ci
def test_the_command_checks_a_runtime(exported, capsys):
    assert main(["verify-export", "--runtime=2.15.1", str(exported.path.parent)]) == 0
    assert "needs TensorFlow 2.15 or newer" in capsys.readouterr().out


def test_a_newer_runtime_gets_a_newer_image(tmp_path):
    for needs, image in (((2, 20), "2.20.0"), ((2, 21), "latest")):
        text = (write_serving_config(tmp_path, "net", needs) / "docker.sh").read_text()
        assert f"tensorflow/serving:{image} " in text


@pytest.mark.ci
def test_webp_is_refused_by_the_server_and_read_by_predict(exported, tmp_path):
    request = ("serving_default", {"image_bytes": strings([WEBP])})
    (code, message) = serve(exported.path, [request], tmp_path)["answers"][0]
    assert code == INVALID_ARGUMENT
    assert "WebP: export --webp" in message
    files = tmp_path / "photos"
    files.mkdir()
    for name, content in (("a.webp", WEBP), ("b.png", encode(PHOTO, "PNG"))):
        (files / name).write_bytes(content)
    predictor = load_predictor(exported.path)
    answers = dict(predictor.predict(files))
    webp, png = (answers[str(files / name)] for name in ("a.webp", "b.png"))
    assert [row["class"] for row in webp] == [row["class"] for row in png]
    np.testing.assert_allclose(
        [row["probability"] for row in webp], [row["probability"] for row in png], rtol=1e-6
    )
    (files / "a.webp").write_bytes(WEBP[:60])
    assert "damaged WebP (60 bytes)" in dict(predictor.predict(files))[str(files / "a.webp")]


@pytest.mark.ci
def test_webp_by_option(tmp_path, capsys):
    tiny_classifier().save(tmp_path / "m.keras")
    arguments = [f"--model={tmp_path / 'm.keras'}", f"--output={tmp_path / 'net'}", "--webp"]
    assert main(["export", *arguments]) == 0
    assert "needs TensorFlow 2.20 or newer (DecodeWebP)" in capsys.readouterr().out
    requests = [
        ("serving_default", {"image_bytes": strings([file])})
        for file in (WEBP, encode(PHOTO, "PNG"))
    ]
    webp, png = serve(tmp_path / "net" / "1", requests, tmp_path)["answers"]
    np.testing.assert_allclose(webp["probabilities"], png["probabilities"], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the wheels are for x86-64")
def test_the_oldest_tensorflow_serves_an_export(exported, tmp_path, capsys):
    """In the C++ loader of another wheel; 200 MB are downloaded."""
    place = tmp_path / "old"
    wheel = ["--python-version=3.11", "--only-binary=:all:", "tensorflow-cpu==2.15.1"]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", f"--target={place}", *wheel]
    if subprocess.run(pip, check=False).returncode:
        pytest.skip("the wheel cannot be downloaded")
    assert main(["verify-export", f"--tensorflow={place}", str(exported.path)]) == 0
    assert "loader of TensorFlow 2.15.1; needs TensorFlow 2.15" in capsys.readouterr().out


def test_another_tensorflow_that_is_not_there(tmp_path, capsys):
    folder = graph(tmp_path / "net", "MatMul")
    command = ["verify-export", f"--tensorflow={tmp_path}", "--trusted", str(folder)]
    assert main(command) == 1
    assert f"{tmp_path}: holds no tensorflow/libtensorflow_cc.so*" in capsys.readouterr().err
