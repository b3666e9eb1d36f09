"""Weight files: every format loads what was stored."""

import h5py
import keras
import numpy as np
import pytest
from weights_helpers import (
    assert_equal,
    config_beside,
    filled,
    save_safetensors,
    tiny,
    values,
    write_legacy_layers,
)

import keras_resnet
from keras_resnet.weights import schemes


@pytest.fixture
def safetensors_file(tmp_path):
    _, arrays = filled()
    return save_safetensors(arrays, tmp_path / "weights.safetensors")


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
@pytest.mark.parametrize("variant", ["ResNet18", "ResNet50V2", "SEResNet50", "ResNetRS50"])
def test_our_own_files(tmp_path, variant, suffix):
    model, _ = filled(variant, schemes.OURS)
    path = tmp_path / f"model{suffix}"
    (model.save if suffix == ".keras" else model.save_weights)(path)
    assert_equal(values(tiny(variant, weights=path)), values(model))


RANDOM_LAYERS = {"drop_path_rate": 0.5, "dropout_rate": 0.5}


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".safetensors"])
@pytest.mark.parametrize("stored", [{}, RANDOM_LAYERS], ids=["plain", "random"])
@pytest.mark.parametrize("wanted", [{}, RANDOM_LAYERS], ids=["plain", "random"])
def test_seeds_of_random_layers_are_no_weights(tmp_path, suffix, stored, wanted):
    model, arrays = filled(**stored)
    path = tmp_path / f"model{suffix}"
    if suffix == ".safetensors":
        save_safetensors(arrays, path)
    else:
        (model.save if suffix == ".keras" else model.save_weights)(path)
    assert_equal(values(tiny(weights=path, **wanted)), values(model))


def test_our_own_file_brings_preprocessing_and_class_names(tmp_path):
    model, _ = filled()
    model.preprocessing = {**model.preprocessing, "crop_ratio": 0.9, "interpolation": "bicubic"}
    model.class_names = ["a", "b", "c", "d", "e"]
    model.save(tmp_path / "model.keras")
    loaded = tiny(weights=str(tmp_path / "model.keras"))
    assert loaded.class_names == model.class_names
    assert loaded.preprocessing == {**model.preprocessing, "image_size": 32}


def test_keras_reloads_what_was_loaded_with_its_preprocessing(tmp_path, safetensors_file):
    config_beside(safetensors_file, architecture="resnet18", crop_pct=0.96)
    model = tiny(weights=safetensors_file)
    model.save(tmp_path / "again.keras")
    again = keras.saving.load_model(tmp_path / "again.keras")
    assert again.preprocessing == model.preprocessing
    assert again.preprocessing["crop_ratio"] == 0.96
    assert_equal(values(again), values(model))


@pytest.mark.parametrize("variant", ["ResNet50V1", "ResNet50V2"])
@pytest.mark.parametrize("classifier", ["predictions", "probs"])
@pytest.mark.parametrize("whole_model", [False, True])
def test_h5_of_keras_applications(tmp_path, variant, classifier, whole_model):
    model, arrays = filled(variant, schemes.KERAS_APPLICATIONS, pooling="avg")
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if whole_model else file
        write_legacy_layers(root, arrays, classifier)
    loaded = tiny(variant, weights=path)
    assert_equal(values(loaded), values(model))
    assert loaded.preprocessing["channel_order"] == ("bgr" if variant == "ResNet50V1" else "rgb")


@pytest.mark.slow
def test_h5_saved_by_keras_applications_itself(tmp_path):
    theirs = keras.applications.ResNet50(weights=None, classes=5, input_shape=(32, 32, 3))
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    expected = keras.ops.convert_to_numpy(theirs(images))
    for name in ("full.h5", "new.keras", "new.weights.h5"):
        path = tmp_path / name
        (theirs.save_weights if name.endswith(".weights.h5") else theirs.save)(path)
        ours = keras_resnet.ResNet50V1(weights=path, classes=5, input_shape=(32, 32, 3))
        np.testing.assert_allclose(keras.ops.convert_to_numpy(ours(images)), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_safetensors(tmp_path, dtype):
    import ml_dtypes

    model, arrays = filled()
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    stored = {name: array.astype(kind) for name, array in arrays.items()}
    stored["bn1.num_batches_tracked"] = np.array(7)
    loaded = values(tiny(weights=save_safetensors(stored, tmp_path / "x.safetensors")))
    rounding = {"float32": 0, "float16": 1e-3, "bfloat16": 8e-3}[dtype]
    for name, value in values(model).items():
        np.testing.assert_allclose(loaded[name], value, rtol=rounding, atol=rounding / 100)


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "model_ema", "lightning", "compiled"])
def test_pth_and_the_wrappers_of_training_scripts(tmp_path, wrap):
    torch = pytest.importorskip("torch", reason="needs the extra `torch`")
    model, arrays = filled()
    state = {name: torch.from_numpy(array) for name, array in arrays.items()}
    state["bn1.num_batches_tracked"] = torch.tensor(3)
    content = {
        "plain": state,
        "state_dict": {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}},
        "model_ema": {"model": {"x": torch.zeros(1)}, "model_ema": state, "lr": 0.1},
        "lightning": {"state_dict": {f"model.{k}": v for k, v in state.items()}},
        "compiled": {"model": {f"_orig_mod.module.{k}": v for k, v in state.items()}},
    }[wrap]
    torch.save(content, tmp_path / "weights.pth")
    assert_equal(values(tiny(weights=tmp_path / "weights.pth")), values(model))


@pytest.mark.parametrize("rank", [1, 3])
def test_other_ranks(tmp_path, rank):
    shape = (*(32,) * rank, 3)
    _, arrays = filled(input_shape=shape)
    path = save_safetensors(arrays, tmp_path / "x.safetensors")
    kernel = values(tiny(weights=path, input_shape=shape))["stage1_block1_conv1/kernel"]
    assert kernel.shape == (*(3,) * rank, 8, 8)
    their = arrays["layer1.0.conv1.weight"]
    center = (1,) * rank
    np.testing.assert_array_equal(kernel[center], their[(slice(None), slice(None), *center)].T)


def test_config_beside_the_file_gives_the_preprocessing(safetensors_file):
    config_beside(safetensors_file, architecture="resnet18", label_names=list("abcde"))
    model = tiny(weights=safetensors_file, input_shape=(None, None, 3))
    assert model.preprocessing == {
        "image_size": 160,
        "crop_ratio": 0.91,
        "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "channel_order": "rgb",
        "resize": "floor",
        "exif": "apply",  # nobody has trained it here
    }
    assert model.class_names == list("abcde")
    # A model of fixed size keeps its size.
    assert tiny(weights=safetensors_file).preprocessing["image_size"] == 32


def test_a_model_of_the_size_for_tests_takes_the_crop_for_tests(safetensors_file):
    test = {"test_input_size": [3, 64, 64], "test_crop_pct": 0.965}
    config_beside(safetensors_file, architecture="resnet18", pretrained=test)
    for size, crop_ratio in ((64, 0.965), (32, 0.91), (None, 0.91)):
        model = tiny(weights=safetensors_file, input_shape=(size, size, 3))
        assert model.preprocessing["crop_ratio"] == crop_ratio
        assert model.preprocessing["image_size"] == (size or 160)


@pytest.mark.parametrize(("mode", "resize"), [("center", "floor"), ("squash", "plain")])
def test_timm_files_bring_timms_rule_for_the_resized_side(safetensors_file, mode, resize):
    config_beside(safetensors_file, architecture="resnet18", pretrained={"crop_mode": mode})
    assert tiny(weights=safetensors_file).preprocessing["resize"] == resize
    config_beside(safetensors_file, architecture="resnet18", pretrained={"crop_mode": "border"})
    with pytest.raises(ValueError, match=r"crop_mode='border'; .* \('center', 'squash'\)"):
        tiny(weights=safetensors_file)


# Another head


@pytest.mark.parametrize("missing", [False, True])
def test_another_number_of_classes_keeps_the_body_and_says_so(tmp_path, missing):
    model, arrays = filled()
    if missing:
        del arrays["fc.weight"], arrays["fc.bias"]
    path = save_safetensors(arrays, tmp_path / "x.safetensors")
    reason = "has no classifier" if missing else "is for 5 classes, the model for 7"
    with pytest.warns(UserWarning, match=f"{reason}: the body of ResNet18"):
        loaded = values(tiny(weights=path, classes=7))
    assert loaded["predictions/kernel"].std() > 0
    for name, value in values(model).items():
        if not name.startswith("predictions"):
            np.testing.assert_array_equal(loaded[name], value)


@pytest.mark.filterwarnings("error::UserWarning")
def test_without_top_the_classifier_is_left_out_silently(safetensors_file):
    model = tiny(weights=safetensors_file, include_top=False, pooling="avg")
    assert "predictions/kernel" not in values(model)
