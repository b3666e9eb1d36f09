"""SavedModels of others: what they could do is said before they are loaded."""

import json
import warnings

import pytest
import tensorflow as tf
from export_helpers import CLASSES, tiny_classifier
from input_helpers import encode, smooth_image

from keras_resnet.commands import main
from keras_resnet.export import export_saved_model, load_predictor
from keras_resnet.export.origin import FILE, ForeignModelWarning, read_origin

# Whole runs, most of them: `.ci/run` runs them, the README's command has its ten minutes.
pytestmark = pytest.mark.ci


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    model = tiny_classifier()
    return export_saved_model(model, tmp_path_factory.mktemp("ours") / "model").path


@pytest.fixture
def foreign(tmp_path):
    """One with our signature that writes a file whenever it is run."""
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def answer(image_bytes):
        tf.io.write_file(str(tmp_path / "written"), "by the model")
        count = tf.size(image_bytes)
        return {
            "classes": tf.fill([count, 1], "a"),
            "class_ids": tf.zeros([count, 1], tf.int32),
            "probabilities": tf.ones([count, 1]),
        }

    folder = tmp_path / "foreign"
    tf.saved_model.save(module, str(folder), signatures={"serving_default": answer})
    (folder / "assets").mkdir(exist_ok=True)
    (folder / "assets" / "labels.txt").write_text("a\n")
    return folder


def test_an_export_says_that_it_is_ours_and_no_more_once_it_was_changed(ours, tmp_path):
    assert read_origin(ours)["class_names"] == CLASSES
    with warnings.catch_warnings():
        warnings.simplefilter("error", ForeignModelWarning)
        load_predictor(ours)
    copy = tmp_path / "copy"
    (copy / FILE).parent.mkdir(parents=True)
    for name in ("saved_model.pb", FILE):
        (copy / name).write_bytes((ours / name).read_bytes())
    assert read_origin(copy) == read_origin(ours)
    with (copy / "saved_model.pb").open("ab") as file:
        file.write(b"\0")
    assert read_origin(copy) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", "[" * 100_000, '{"saved_model_sha256": 3}'])
def test_a_damaged_note_is_none(tmp_path, content):
    (tmp_path / FILE).parent.mkdir()
    (tmp_path / FILE).write_text(content)
    (tmp_path / "saved_model.pb").write_bytes(b"x")
    assert read_origin(tmp_path) is None


def test_a_foreign_model_is_named_before_it_is_loaded(foreign, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ForeignModelWarning)
        with pytest.raises(ForeignModelWarning, match="read and write files"):
            load_predictor(foreign)
        predictor = load_predictor(foreign, trusted=True)
    assert not (tmp_path / "written").exists()
    image = tmp_path / "x.png"
    image.write_bytes(encode(smooth_image(20, 30, seed=1)))
    list(predictor.predict([image]))
    assert (tmp_path / "written").exists()  # which is what the warning is about


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("command", ["predict", "verify-export"])
def test_commands_say_a_line_on_standard_error(foreign, ours, tmp_path, capsys, command, trusted):
    image = tmp_path / "x.png"
    image.write_bytes(encode(smooth_image(20, 30, seed=1)))
    for folder, lines in ((foreign, 0 if trusted else 1), (ours, 0)):
        arguments = [f"--model={folder}", str(image)] if command == "predict" else [str(folder)]
        main([command, "--json", *(["--trusted"] if trusted else []), *arguments])
        said = capsys.readouterr()
        notes = [line for line in said.err.splitlines() if line.startswith("note: ")]
        assert len(notes) == lines
        assert all(str(folder) in line and "--trusted" in line for line in notes)
        if said.out:
            json.loads(said.out)
