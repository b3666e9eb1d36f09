"""Big Transfer's weights, from the files of those who have them, and what cannot be expressed.

The logits come from tests/references/make_elsewhere.py, those of the whole networks are compared in
test_weights_references.py.
"""

import json

import numpy as np
import pytest
from test_weights_elsewhere import _assert_logits, _record, _save_pretrained
from weights_helpers import (
    arrays_for,
    assert_equal,
    config_beside,
    save_safetensors,
    tiny,
    values,
)

import keras_resnet
from keras_resnet.architectures import ARCHITECTURES
from keras_resnet.weights import (
    Checkpoint,
    WeightsError,
    WeightsNote,
    read_weights,
    row_of,
    schemes,
)

PREPROCESSOR = {  # as `transformers.BitImageProcessor` saves itself
    "crop_size": {"height": 64, "width": 64},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "image_processor_type": "BitImageProcessor",
    "resample": 2,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 80},
}
SMALL = {"depths": (1, 2), "widths": (32, 64), "stem_width": 32, "classes": 4}


FOUR = {"depths": (1,) * 4, "widths": (8, 16, 24, 32), "stem_width": 8, "input_shape": (32, 32, 3)}


def bit(name="ResNet50x1_BiT", **arguments):
    defaults = {**SMALL, "classifier_activation": None, "input_shape": (None, None, 3)}
    return keras_resnet.create_model(name, **{**defaults, **arguments})


@pytest.mark.parametrize("kind", ["bit", "bit_other"])
def test_a_folder_of_transformers_says_everything(tmp_path, kind):
    record, arrays = _record(f"transformers_{kind}")
    _save_pretrained(tmp_path, record, arrays, **PREPROCESSOR)
    with pytest.warns(WeightsNote, match=r"ResNet50x1_BiT with .*depths="):
        model = keras_resnet.create_model(weights=tmp_path, classifier_activation=None)
    channels = record["config"]["num_channels"]
    assert model.input_shape == (None, 64, 64, channels)
    assert model.class_names == ["animal 0", "animal 1", "animal 2", "animal 3"]
    assert model.preprocessing == {
        "image_size": 64,
        "crop_ratio": 0.8,
        "interpolation": "bilinear",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "channel_order": "rgb",
        "resize": "shortest_edge",
        "exif": "apply",
        "max_pixels": 2**28,
    }
    _assert_logits(model, record, channels)
    model.save(tmp_path / "ours.keras")  # group normalization has as many variables as a bias
    again = keras_resnet.create_model(weights=tmp_path / "ours.keras", classifier_activation=None)
    assert again.architecture == model.architecture
    assert_equal(values(again), values(model))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_type": "bottleneck"}, "layer_type='bottleneck'; only 'preactivation' loads"),
        ({"global_padding": "SAME"}, "global_padding='SAME'; only None loads"),
        ({"embedding_dynamic_padding": True}, "embedding_dynamic_padding=True"),
        ({"output_stride": 16}, "output_stride=16"),
        ({"width_factor": 3}, "width_factor=3"),
        ({"hidden_act": "leaky_relu"}, "hidden_act='leaky_relu'; relu, gelu"),
        ({"hidden_sizes": [120, 240]}, r"hidden_sizes=\[120, 240\].* multiples of 32"),
    ],
)
def test_what_transformers_can_and_we_cannot(tmp_path, changes, message):
    record, arrays = _record("transformers_bit")
    record["config"].update(changes)
    _save_pretrained(tmp_path, record, arrays)
    with pytest.raises(WeightsError, match=message):
        keras_resnet.create_model(weights=tmp_path)


def test_the_rows_are_those_of_transformers_configs(tmp_path):
    """`BitConfig`'s for the published networks (50, 50x3 and 101)."""
    _, arrays = _record("transformers_bit")
    save_safetensors(arrays, tmp_path / "model.safetensors")
    wide = {"hidden_sizes": [768, 1536, 3072, 6144], "embedding_size": 192}
    for config, name in (({}, "50x1"), (wide, "50x3"), ({"depths": [3, 4, 23, 3]}, "101x1")):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "bit", **config}))
        network = read_weights(tmp_path).network
        assert network.pop("name") == f"ResNet{name}_BiT"
        row = ARCHITECTURES[f"ResNet{name}_BiT"]
        assert network == {key: getattr(row, key) for key in network}


def test_google_s_own_files(tmp_path):
    """As timm computes what it reads from them."""
    record, arrays = _record("google_bit")
    np.savez(tmp_path / "BiT-M-R50x1.npz", global_step=np.array(3), **arrays)
    _assert_logits(bit(weights=tmp_path / "BiT-M-R50x1.npz"), record)
    with pytest.warns(UserWarning, match="is for 4 classes, the model for 7"):
        bit(weights=tmp_path / "BiT-M-R50x1.npz", classes=7)


@pytest.mark.parametrize(("name", "stem"), [("ResNet50x3_BiT", 192), ("ResNet152x2_BiT", 128)])
def test_google_s_files_of_the_published_sizes_need_no_name(name, stem):
    units = [
        f"resnet/block{stage}/unit{block:02d}/a/group_norm/gamma"
        for stage, depth in enumerate(ARCHITECTURES[name].depths, start=1)
        for block in range(1, depth + 1)
    ]
    arrays = dict.fromkeys(units, np.zeros(1))
    arrays["resnet/root_block/standardized_conv2d/kernel"] = np.zeros((7, 7, 3, stem))
    assert row_of(Checkpoint("x.npz", arrays)).name == name
    arrays["resnet/root_block/standardized_conv2d/kernel"] = np.zeros((7, 7, 3, 72))
    with pytest.raises(WeightsError, match="does not say which network"):
        row_of(Checkpoint("x.npz", arrays))


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_timm_s_files_name_their_network(tmp_path, suffix):
    model = bit(**FOUR)
    arrays = arrays_for(model, schemes.TIMM_V2)
    path = tmp_path / f"model{suffix}"
    if suffix == ".bin":
        torch = pytest.importorskip("torch", reason="needs the extra `torch`")
        torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)
    else:
        save_safetensors(arrays, path)
    config_beside(path, architecture="resnetv2_50x1_bit", crop_pct=1.0)
    checkpoint = read_weights(path)
    assert row_of(checkpoint).name == "ResNet50x1_BiT"
    again = bit(**FOUR, weights=checkpoint)
    assert again.get_layer("stage1_block1_preact_norm").groups == 8
    kernel = arrays["stages.0.blocks.0.conv2.weight"]
    found = values(again)["stage1_block1_conv2/kernel"]
    np.testing.assert_array_equal(found, kernel.transpose(2, 3, 1, 0))
    with pytest.raises(WeightsError, match=r"of 'resnetv2_50x1_bit', ResNet101x1_BiT is"):
        bit("ResNet101x1_BiT", weights=path)


def test_convert_takes_the_arguments(tmp_path):
    from keras_resnet import commands

    record, arrays = _record("google_bit")
    np.savez(tmp_path / "x.npz", **arrays)
    output = tmp_path / "x.keras"
    flags = [
        *("depths=1,2", "widths=32,64", "stem_width=32", "classifier_activation=linear"),
        *("preactivation=true", "norm_layer=group", "norm_groups=32"),
        *("weight_standardization=true", "projection=first"),
    ]
    command = ["convert", "--model=ResNet50", f"--weights={tmp_path / 'x.npz'}"]
    assert commands.main([*command, f"--output={output}", *(f"--{flag}" for flag in flags)]) == 0
    model = keras_resnet.create_model(
        weights=output, input_shape=(None, None, 3), classifier_activation=None
    )
    assert model.architecture["weight_standardization"] is True
    _assert_logits(model, record)


def test_group_norm_of_ours_loads_by_name(tmp_path):
    model = tiny("ResNet18", norm_layer="group", norm_groups=4)
    assert model.get_layer("stem_norm").groups == 4
    model.save_weights(tmp_path / "x.weights.h5")
    again = tiny("ResNet18", norm_layer="group", norm_groups=4, weights=tmp_path / "x.weights.h5")
    assert_equal(values(again), values(model))
