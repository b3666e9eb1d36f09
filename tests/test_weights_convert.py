"""`keras-resnet convert`: the file it writes, and what it says when it cannot."""

import inspect
import json
import warnings

import keras
import numpy as np
import pytest
from references import generator
from weights_helpers import arrays_for

import keras_resnet
from keras_resnet import commands
from keras_resnet.commands.model_flags import MODEL_FLAGS
from keras_resnet.weights import Checkpoint, apply_weights, read_weights, schemes
from keras_resnet.weights.network import OF_TRAINING

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


@pytest.fixture
def cifar_file(tmp_path):
    """Option A with a head called `linear`, under a prefix, two blocks per stage."""
    arguments = {"depths": (1, 1), "widths": (8, 16), "stem_width": 8, "classes": 3}
    model = keras_resnet.CifarResNet20(shortcut="A-centered", **arguments)
    arrays = arrays_for(model, schemes.TORCHVISION)
    apply_weights(model, Checkpoint("x", arrays), variant="CifarResNet20", given={"shortcut"})
    names = {f"net.{n.replace('fc.', 'linear.')}": array for n, array in arrays.items()}
    np.savez(tmp_path / "cifar.npz", **names)
    return tmp_path / "cifar.npz", model


CIFAR = ["--model=CifarResNet20", "--depths=1,1", "--widths=8,16", "--stem_width=8"]


def test_arguments_of_the_model_preprocessing_and_class_names(cifar_file, tmp_path, capsys):
    path, model = cifar_file
    (tmp_path / "names.txt").write_text("cat\ndog\n\nfish\n")
    output = tmp_path / "x.keras"
    arguments = [
        f"--weights={path}",
        f"--output={output}",
        "--mean=0.1,0.2,0.3",
        "--std=0.5,0.5,0.5",
        "--crop_ratio=0.8",
        f"--class_names={tmp_path / 'names.txt'}",
    ]
    assert commands.main(["convert", *CIFAR, *arguments]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "CifarResNet20 with shortcut='A-centered'" in said[0]
    assert "CifarResNet20, 5,099 parameters, 3 classes, 32 pixels" in said[1]
    loaded = keras.saving.load_model(output)
    assert loaded.class_names == ["cat", "dog", "fish"]
    assert loaded.preprocessing["mean"] == [0.1, 0.2, 0.3]
    assert loaded.preprocessing["crop_ratio"] == 0.8
    images = generator.images(32)
    np.testing.assert_array_equal(loaded.predict_on_batch(images), model.predict_on_batch(images))


def test_sizes_for_each_axis_and_keras_padding_in_the_shell(tmp_path, capsys):
    arguments = {
        "depths": (1, 1),
        "widths": (8, 16),
        "stem_width": 8,
        "classes": 3,
        "input_shape": (5, 32, 32, 2),
        "padding": "same",
        "block_kernel_size": ((1, 3, 3), (3, 3, 3)),
        "stage_stride": (1, 2, 2),
        "stem_kernel_size": (3, 7, 7),
        "stem_stride": (1, 2, 2),
        "stem_pool_size": 2,
        "stem_pool_stride": (1, 2, 2),
        "stem_pool_padding": "end",
    }
    model = keras_resnet.ResNet18(**arguments)
    arrays = arrays_for(model, schemes.TORCHVISION)
    apply_weights(model, Checkpoint("x", arrays), variant="ResNet18")
    np.savez(tmp_path / "x.npz", **arrays)
    flags = [f"--{key}={value}".replace(" ", "") for key, value in arguments.items()]
    flags += [f"--weights={tmp_path / 'x.npz'}", f"--output={tmp_path / 'x.keras'}"]
    assert commands.main(["convert", "--model=ResNet18", *flags]) == 0
    assert "3 classes, no image preprocessing" in capsys.readouterr().out
    loaded = keras.saving.load_model(tmp_path / "x.keras")
    x = np.random.default_rng(0).normal(size=(2, 5, 32, 32, 2)).astype("float32")
    np.testing.assert_array_equal(loaded.predict_on_batch(x), model.predict_on_batch(x))
    # What the file says of its network is enough to convert it again.
    again = [f"--weights={tmp_path / 'x.keras'}", f"--output={tmp_path / 'y.keras'}"]
    assert commands.main(["convert", *again, "--input_shape=5,32,32,2"]) == 0
    loaded = keras.saving.load_model(tmp_path / "y.keras")
    assert loaded.architecture == model.architecture
    np.testing.assert_array_equal(loaded.predict_on_batch(x), model.predict_on_batch(x))


def test_a_file_of_ours_needs_no_name(cifar_file, tmp_path):
    path, model = cifar_file
    first, second = tmp_path / "1.keras", tmp_path / "2.keras"
    commands.main(["convert", *CIFAR, f"--weights={path}", f"--output={first}"])
    assert commands.main(["convert", f"--weights={first}", f"--output={second}"]) == 0
    loaded = keras.saving.load_model(second)
    assert loaded.architecture["depths"] == [1, 1]
    images = generator.images(32)
    np.testing.assert_array_equal(loaded.predict_on_batch(images), model.predict_on_batch(images))


def test_names_and_order_in_the_shell(cifar_file, tmp_path, capsys):
    path, model = cifar_file
    with np.load(path) as file:
        odd = {name.replace("layer", "group").replace("linear", "out"): file[name] for name in file}
    np.savez(path, **odd)
    output = tmp_path / "x.keras"
    command = ["convert", *CIFAR, f"--weights={path}", f"--output={output}", "--classes=3"]
    command += ["--shortcut=A-centered"]
    assert commands.main(command) == 1
    message = capsys.readouterr().err
    assert "  stem_conv.weight 8×3×3×3" in message
    assert "--match=order loads them so" in message
    images = generator.images(32)
    for more in (["--match=order"], ["--rename=group=layer", "--rename=out[.]=linear."]):
        assert commands.main([*command, *more]) == 0
        loaded = keras.saving.load_model(output)
        expected = model.predict_on_batch(images)
        np.testing.assert_array_equal(loaded.predict_on_batch(images), expected)


@pytest.mark.parametrize(
    ("flag", "code", "message"),
    [
        ("--depths=many", 2, "--depths=many: cannot be read; for example --depths=3,4,6,3"),
        ("--use_bias=2", 2, "--use_bias=2: cannot be read"),
        ("--rename=x", 2, "should be REGEX=NEW"),
        ("--class_names=nowhere.txt", 1, "--class_names=nowhere.txt: cannot be read"),
        ("--shortcut=C", 1, "received 'C'"),
    ],
)
def test_arguments_that_cannot_be(cifar_file, tmp_path, capsys, flag, code, message):
    arguments = [f"--weights={cifar_file[0]}", f"--output={tmp_path / 'x.keras'}", flag]
    assert commands.main(["convert", *CIFAR, *arguments]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x.keras").exists()


def test_every_argument_of_a_model_is_a_flag():
    taken = set(inspect.signature(keras_resnet.create_model).parameters)
    # What text cannot say, what training alone needs, and what the command says otherwise.
    other = {"name", "weights", "input_tensor", "model_name", "norm", "dtype", "bottleneck"}
    other |= {"rematerialize", *OF_TRAINING}
    assert set(MODEL_FLAGS) == taken - other


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


@pytest.mark.parametrize("classes", [3, 7])
def test_order_leaves_a_classifier_of_other_classes_alone(cifar_file, classes):
    """Of the same number of classes it is taken, too; without one in file or model the rest is."""
    path, model = cifar_file
    with np.load(path) as file:
        odd = {name.replace("layer", "group").replace("linear", "out"): file[name] for name in file}
    body = {name: array for name, array in odd.items() if "out." not in name}
    arguments = {"depths": (1, 1), "widths": (8, 16), "stem_width": 8, "shortcut": "A-centered"}
    for arrays, top in ((odd, True), (body, True), (odd, False), (body, False)):
        np.savez(path, **arrays)
        weights = read_weights(path, match="order")
        fresh = top and (arrays is body or classes != 3)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            made = keras_resnet.CifarResNet20(
                weights=weights, classes=classes, include_top=top, **arguments
            )
        said = [str(one.message) for one in caught if "starts from random ones" in str(one.message)]
        assert len(said) == fresh
        ours = {weight.path: weight for weight in made.weights}
        for weight in model.weights:
            if "predictions" in weight.path and (fresh or not top):
                continue
            np.testing.assert_array_equal(ours[weight.path], weight)
