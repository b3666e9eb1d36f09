"""`keras-resnet convert`: the file it writes, and what it says when it cannot."""

import json

import keras
import numpy as np
import pytest
from references import generator
from weights_helpers import arrays_for

import keras_resnet
from keras_resnet import commands
from keras_resnet.weights import Checkpoint, apply_weights, schemes

numpy_files = pytest.importorskip("safetensors.numpy", reason="needs the extra `safetensors`")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """ResNet18 for 7 classes at 96 pixels: the file, and the model it should become."""
    model = keras_resnet.ResNet18(classes=7, input_shape=(96, 96, 3))
    arrays = arrays_for(model, schemes.TORCHVISION)
    apply_weights(model, Checkpoint("generator", arrays), variant="ResNet18")
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    numpy_files.save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, path)
    config = {"input_size": [3, 96, 96], "crop_pct": 0.9, "interpolation": "bicubic"}
    config |= {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    config = {"architecture": "resnet18", "pretrained_cfg": config}
    path.with_name("config.json").write_text(json.dumps(config))
    return path, model


def _convert(weights, output, model="ResNet18"):
    arguments = [f"--model={model}", f"--weights={weights}", f"--output={output}"]
    return commands.main(["convert", *arguments])


def test_converts_and_describes(weights, tmp_path, capsys):
    path, model = weights
    output = tmp_path / "model.keras"
    assert _convert(path, output) == 0
    assert "ResNet18, 11,189,703 parameters, 7 classes, 96 pixels" in capsys.readouterr().out
    assert [file.name for file in tmp_path.iterdir()] == ["model.keras"]
    loaded = keras.saving.load_model(output)
    assert loaded.preprocessing["image_size"] == 96
    assert loaded.preprocessing["crop_ratio"] == 0.9
    images = generator.images(96)
    np.testing.assert_array_equal(loaded.predict_on_batch(images), model.predict_on_batch(images))


@pytest.mark.parametrize(
    ("model", "output", "code", "message"),
    [
        ("ResNet19", "x.keras", 1, "Did you mean 'ResNet1"),
        ("ResNet34", "x.keras", 1, "'resnet18', ResNet34 is 'resnet34'"),
        ("ResNet18", "x.h5", 2, "should end with .keras"),
        ("ResNet18", "no/x.keras", 1, "there is no folder"),
    ],
)
def test_refuses(weights, tmp_path, capsys, model, output, code, message):
    assert _convert(weights[0], tmp_path / output, model) == code
    stderr = capsys.readouterr().err
    assert message in stderr
    assert len(stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_missing_flag(capsys):
    assert commands.main(["convert", "--model=ResNet18"]) == 2
    assert "--weights and --output" in capsys.readouterr().err


def test_a_failed_write_leaves_the_old_file(weights, tmp_path, monkeypatch):
    output = tmp_path / "model.keras"
    output.write_text("old")

    def half(self, path):
        path.write_text("half")
        raise OSError("No space left on device")

    monkeypatch.setattr(keras_resnet.ResNet, "save", half)
    assert _convert(weights[0], output) == 1
    assert output.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["model.keras"]
