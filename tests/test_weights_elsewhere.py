"""Weights trained elsewhere give the logits that they gave there, without a hint from the caller.

The numbers come from tests/references/make_elsewhere.py and make_keras_hub.py, which name the
versions.
"""

import json
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from references import generator
from weights_helpers import assert_equal, save_safetensors, tiny, values

import keras_resnet
from keras_resnet.weights import (
    Checkpoint,
    WeightsError,
    WeightsNote,
    apply_weights,
    read_weights,
)

REFERENCES = Path(__file__).parent / "references" / "elsewhere"
PREPROCESSOR = {
    "crop_pct": 0.875,
    "do_normalize": True,
    "do_resize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.25, 0.3],
    "image_processor_type": "ConvNextImageProcessor",
    "resample": 3,
    "size": {"shortest_edge": 64},
}


def _record(name):
    """The reference, and the arrays of its network, as the generator makes them."""
    record = json.loads((REFERENCES / f"{name}.json").read_text())
    counters = "num_batches_tracked"
    arrays = {
        key: np.array(3) if key.endswith(counters) else generator.weight(key, tuple(shape))
        for key, shape in record["arrays"].items()
    }
    return record, arrays


def _assert_logits(model, record, channels=3):
    for size, expected in record["logits"].items():
        images = generator.images(int(size))[..., :channels]
        logits = keras.ops.convert_to_numpy(model(images))
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.ptp(expected))


# Option A


@pytest.fixture
def cifar_file(tmp_path):
    """ResNet-20 with centered zeros, wrapped as training scripts do."""
    _, arrays = _record("cifar_centered")
    path = tmp_path / "resnet20.npz"
    np.savez(path, **{f"module.{name}": array for name, array in arrays.items()})
    return path


def _cifar(**arguments):
    arguments = {"input_shape": (None, None, 3), "classifier_activation": None, **arguments}
    return keras_resnet.CifarResNet20(**arguments)


def test_a_head_called_linear_means_centered_zeros_and_that_is_said(cifar_file):
    record, _ = _record("cifar_centered")
    with pytest.warns(WeightsNote, match="CifarResNet20 with shortcut='A-centered'"):
        model = _cifar(weights=cifar_file)
    assert model.architecture == {"name": "CifarResNet20", "shortcut": "A-centered"}
    _assert_logits(model, record)


@pytest.mark.parametrize(("kind", "shortcut"), [("centered", "A-centered"), ("pooled", "A-pooled")])
def test_the_shortcut_that_is_asked_for_is_taken(tmp_path, kind, shortcut):
    record, arrays = _record(f"cifar_{kind}")
    path = save_safetensors(arrays, tmp_path / "x.safetensors")
    _assert_logits(_cifar(weights=path, shortcut=shortcut), record)


def test_another_shortcut_than_the_files_is_said(cifar_file):
    said = "seems to be of a network with shortcut='A-centered'; the model has shortcut='A', as you"
    with pytest.warns(WeightsNote, match=said):
        model = _cifar(weights=cifar_file, shortcut="A")
    assert model.architecture == {"name": "CifarResNet20"}


def test_a_file_that_cannot_tell_is_refused(tmp_path):
    record, arrays = _record("cifar_centered")
    arrays = {name.replace("linear", "fc"): array for name, array in arrays.items()}
    path = save_safetensors(arrays, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=r"cannot tell where .* --shortcut=, 'A' \(all behind"):
        _cifar(weights=path)
    model = _cifar()
    before = values(model)
    with pytest.raises(WeightsError, match="cannot tell where"):
        apply_weights(model, path, variant="CifarResNet20")
    assert_equal(values(model), before)
    _assert_logits(_cifar(weights=path, shortcut="A-centered"), record)


def test_a_model_that_is_already_built_refuses_another_placement(cifar_file):
    with pytest.raises(WeightsError, match="build the model with shortcut='A-centered'"):
        apply_weights(_cifar(), cifar_file, variant="CifarResNet20")
    apply_weights(_cifar(shortcut="A-centered"), cifar_file, variant="CifarResNet20")


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_our_own_files_know_their_placement(tmp_path, cifar_file, suffix):
    model = _cifar(weights=cifar_file, shortcut="A-centered")
    path = tmp_path / f"model{suffix}"
    (model.save if suffix == ".keras" else model.save_weights)(path)
    with pytest.warns(WeightsNote, match="shortcut='A-centered'"):
        again = _cifar(weights=path)
    _assert_logits(again, _record("cifar_centered")[0])
    with pytest.raises(WeightsError, match="build the model with shortcut='A-centered'"):
        apply_weights(_cifar(), path, variant="CifarResNet20")


def test_files_with_projections_get_a_network_with_projections(tmp_path):
    model = tiny("CifarResNet20", shortcut="B", depths=(1, 1), input_shape=(32, 32, 3))
    model.save_weights(tmp_path / "x.weights.h5")
    with pytest.warns(WeightsNote, match="with shortcut='B'"):
        again = tiny("CifarResNet20", weights=tmp_path / "x.weights.h5")
    assert_equal(values(again), values(model))


# torchvision's networks of videos, and Caffe's max pool


def test_a_network_of_videos(tmp_path):
    """torchvision's r3d_18 in short: kernels of (3, 7, 7), strides of (1, 2, 2)."""
    record, arrays = _record("video")
    np.savez(tmp_path / "r3d.npz", **arrays)
    clip = generator.uniform("clip", (2, 3, 9, 40, 48)).transpose(0, 2, 3, 4, 1)
    model = keras_resnet.ResNet18(
        depths=(1, 1, 1, 1),
        classes=7,
        stem="cifar",
        stem_kernel_size=(3, 7, 7),
        stem_stride=(1, 2, 2),
        input_shape=clip.shape[1:],
        classifier_activation=None,
        weights=tmp_path / "r3d.npz",
    )
    logits, expected = keras.ops.convert_to_numpy(model(clip)), record["logits"]["clip"]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.ptp(expected))


def test_the_pool_of_networks_from_caffe(tmp_path):
    record, arrays = _record("caffe_pool")
    np.savez(tmp_path / "caffe.npz", **arrays)
    arguments = {"depths": (1, 1, 1, 1), "classes": 7, "classifier_activation": None}
    arguments |= {"input_shape": (None, None, 3), "weights": tmp_path / "caffe.npz"}
    _assert_logits(keras_resnet.ResNet18(stem_pool_padding="end", **arguments), record)
    with pytest.raises(AssertionError):
        _assert_logits(keras_resnet.ResNet18(**arguments), record)


# transformers


def _save_pretrained(folder, record, arrays, **preprocessor):
    save_safetensors(arrays, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(record["config"]))
    settings = json.dumps({**PREPROCESSOR, **preprocessor})
    (folder / "preprocessor_config.json").write_text(settings)


KINDS = ["basic", "bottleneck", "downsample_in_bottleneck", "downsample_in_first_stage"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_transformers_says_everything(tmp_path, kind):
    record, arrays = _record(f"transformers_{kind}")
    _save_pretrained(tmp_path, record, arrays)
    with pytest.warns(WeightsNote, match="with .*depths="):
        model = keras_resnet.create_model(weights=tmp_path, classifier_activation=None)
    channels = record["config"]["num_channels"]
    assert model.input_shape == (None, 64, 64, channels)
    assert model.class_names == ["animal 0", "animal 1", "animal 2", "animal 3"]
    assert model.preprocessing == {
        "image_size": 64,
        "crop_ratio": 0.875,
        "interpolation": "bicubic",
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.25, 0.3],
        "channel_order": "rgb",
        "resize": "shortest_edge",
        "exif": "apply",  # nobody has trained it here
    }
    _assert_logits(model, record, channels)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"layer_type": "dense"}, "layer_type='dense'"),
    ],
)
def test_what_transformers_can_and_we_cannot(tmp_path, changes, message):
    record, arrays = _record("transformers_basic")
    record["config"].update(changes)
    _save_pretrained(tmp_path, record, arrays)
    with pytest.raises(WeightsError, match=message):
        keras_resnet.create_model(weights=tmp_path)


@pytest.mark.parametrize(
    ("settings", "size", "ratio"),
    [
        ({"size": 224}, 224, 0.875),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.95}, 224, 0.95),
        (
            {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": 224},
            224,
            224 / 256,
        ),
        (
            {"size": {"shortest_edge": 64}, "do_center_crop": True,
             "crop_size": {"height": 48, "width": 48}},
            48,
            0.75,
        ),
    ],
)  # fmt: skip
def test_sizes_of_its_preprocessors(tmp_path, settings, size, ratio):
    record, arrays = _record("transformers_basic")
    _save_pretrained(tmp_path, record, arrays, **settings)
    preprocessing = read_weights(tmp_path).preprocessing
    assert (preprocessing.image_size, preprocessing.crop_ratio) == (size, ratio)


def test_a_preprocessor_that_warps_resizes_plainly(tmp_path):
    record, arrays = _record("transformers_basic")
    _save_pretrained(tmp_path, record, arrays, size={"height": 96, "width": 96})
    preprocessing = read_weights(tmp_path).preprocessing
    assert (preprocessing.image_size, preprocessing.crop_ratio) == (96, 1.0)
    assert preprocessing.resize == "plain"
    for key, value in (("resample", 0), ("do_normalize", False), ("rescale_factor", 1.0)):
        _save_pretrained(tmp_path, record, arrays, **{key: value})
        with pytest.raises(WeightsError, match=f"{key}={value!r}"):
            read_weights(tmp_path)


# KerasHub

HUB_KINDS = (
    *("basic", "bottleneck", "v2", "vd", "basic_vd"),
    *("v2_wide_stem", "v2_equal_widths"),
)
# What has to be said where the preset's config.json is not beside the weights.
HUB_NETWORKS = {
    "basic": ("ResNet18", {}),
    "bottleneck": ("ResNet50", {}),
    "v2": (
        "ResNet50V2",
        {"stride_in_last_block": False, "use_bias": False, "zero_pad_pool": False, "epsilon": 1e-5},
    ),
    "vd": ("ResNet50D", {}),
    "basic_vd": ("ResNet18D", {"projection": "first"}),
}


def _save_preset(folder, kind):
    record, arrays = _record(f"keras_hub_{kind}")
    _write_layers(folder / "model.weights.h5", arrays, lambda name: name != "predictions")
    _write_layers(folder / "task.weights.h5", arrays, lambda name: name == "predictions")
    (folder / "config.json").write_text(json.dumps(record["config"]))
    return record


@pytest.mark.parametrize("kind", HUB_KINDS)
def test_a_preset_of_keras_hub_names_its_network(tmp_path, kind):
    record = _save_preset(tmp_path, kind)
    with pytest.warns(WeightsNote, match="depths="):
        model = keras_resnet.create_model(
            weights=tmp_path, input_shape=(64, 64, 3), classifier_activation=None
        )
    _assert_logits(model, record)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stackwise_num_strides": [2, 2]}, r"stackwise_num_strides=\[2, 2\]"),
        ({"use_pre_activation": True}, "'basic_block_vd' with use_pre_activation=True"),
        ({"input_conv_kernel_sizes": [5, 3, 3]}, r"input_conv_kernel_sizes=\[5, 3, 3\]"),
    ],
)
def test_what_keras_hub_can_and_we_cannot(tmp_path, changes, message):
    record = _save_preset(tmp_path, "basic_vd")
    record["config"]["config"].update(changes)
    (tmp_path / "config.json").write_text(json.dumps(record["config"]))
    with pytest.raises(WeightsError, match=message):
        keras_resnet.create_model(weights=tmp_path)


def test_projections_that_the_model_lacks_are_named(tmp_path):
    _save_preset(tmp_path, "basic_vd")
    (tmp_path / "config.json").unlink()
    shape = {"depths": (2, 1), "widths": (64, 128), "classes": 4}
    with pytest.raises(WeightsError, match="projection='first' or --projection=first makes them"):
        keras_resnet.ResNet18D(weights=tmp_path, **shape)
    model = tiny("ResNet18", shortcut_norm=False)
    keras.Model.save_weights(model, tmp_path / "x.weights.h5")  # without its description
    with pytest.raises(WeightsError, match="shortcut_norm=False or --shortcut_norm=false leaves"):
        tiny("ResNet18", weights=tmp_path / "x.weights.h5")
    again = tiny("ResNet18", shortcut_norm=False, weights=tmp_path / "x.weights.h5")
    assert_equal(values(again), values(model))


@pytest.mark.parametrize("kind", HUB_NETWORKS)
def test_a_preset_of_keras_hub_without_its_description(tmp_path, kind):
    record = _save_preset(tmp_path, kind)
    (tmp_path / "config.json").unlink()
    variant, arguments = HUB_NETWORKS[kind]
    model = keras_resnet.create_model(
        variant,
        weights=tmp_path,
        depths=(2, 1),
        widths=(64, 128),
        classes=4,
        input_shape=(64, 64, 3),
        classifier_activation=None,
        **arguments,
    )
    _assert_logits(model, record)


def _write_layers(path, arrays, wanted):
    """A weight file as Keras writes it: layers by class and number, their names as attributes."""
    layers: dict = {}
    for name, array in arrays.items():
        layers.setdefault(name.split("/")[0], []).append(array)
    with h5py.File(path, "w") as file:
        for number, (name, variables) in enumerate(layers.items()):
            if wanted(name):
                group = file.create_group(f"backbone/layers/layer_{number}/vars")
                group.attrs["name"] = name
                for place, array in enumerate(variables):
                    group[str(place)] = array


def test_a_file_of_ours_under_another_name(tmp_path):
    model = tiny("ResNet34")
    model.save(tmp_path / "x.keras")
    loaded = keras_resnet.create_model(weights=tmp_path / "x.keras")
    assert_equal(values(loaded), values(model))
    assert loaded.architecture == model.architecture
    assert_equal(values(tiny("ResNet18", weights=tmp_path / "x.keras")), values(model))  # the same
    message = r"are of ResNet34, not of ResNet50: create_model\('ResNet34', weights=...\)"
    with pytest.raises(WeightsError, match=message):
        tiny("ResNet50", weights=tmp_path / "x.keras")


def test_older_files_of_ours_are_known_by_their_layers(tmp_path):
    arguments = {"shortcut": "B", "depths": (2, 1), "input_shape": (32, 32, 3)}
    model = tiny("CifarResNet20", **arguments)
    model._set_metadata("architecture", None)
    model.save(tmp_path / "x.keras")
    assert read_weights(tmp_path / "x.keras").network == {
        "name": "CifarResNet20",
        "depths": (2, 1),
        "widths": (8, 16),
        "block": "basic",
        "shortcut": "B",
    }


def test_weights_that_do_not_name_their_network():
    arrays = {"layer1.0.conv1.weight": np.zeros((8, 8, 3, 3), "float32")}
    with pytest.raises(WeightsError, match="does not say which network"):
        keras_resnet.create_model(weights=Checkpoint("x.npz", arrays))
    with pytest.raises(ValueError, match=r"needs a name of keras_resnet.list_models\(\)"):
        keras_resnet.create_model()
