"""Weights that do not fit or cannot be read: a clear error each, and an unchanged model."""

import hashlib
import pickle
import sys
import zipfile

import h5py
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
from keras_resnet.errors import UserError
from keras_resnet.weights import WeightsError, schemes


@pytest.fixture
def safetensors_file(tmp_path):
    _, arrays = filled()
    return save_safetensors(arrays, tmp_path / "weights.safetensors")


def _refused(path, *fragments, variant="ResNet18", error=WeightsError, **arguments):
    """Loading fails with a message that has the fragments; the model does not change."""
    model = tiny(variant, **arguments)
    before = values(model)
    preprocessing = model.preprocessing
    with pytest.raises(error) as caught:
        keras_resnet.weights.apply_weights(model, path, variant=variant)
    for fragment in fragments:
        assert fragment in str(caught.value)
    assert_equal(values(model), before)
    assert model.preprocessing == preprocessing


def test_the_error_is_one_for_users_and_a_value_error():
    assert issubclass(WeightsError, ValueError)
    assert issubclass(WeightsError, UserError)


def test_mismatch_lists_missing_unexpected_and_misshapen_names(tmp_path):
    _, arrays = filled()
    arrays["layer9.weight"] = arrays.pop("layer1.0.conv1.weight")
    arrays["bn1.bias"] = np.zeros(9, "float32")
    _refused(
        save_safetensors(arrays, tmp_path / "x.safetensors"),
        "1 missing: layer1.0.conv1.weight",
        "1 unexpected: layer9.weight",
        "1 of another shape: bn1.bias is (9,), should be (8,)",
        "The model is unchanged",
    )


def test_long_lists_are_cut_after_ten_names(safetensors_file):
    _refused(safetensors_file, "missing: ", ", ...", variant="ResNet50")


@pytest.mark.parametrize("variant", ["ResNet50", "ResNet50V2", "ResNet18D", "SEResNet18"])
def test_weights_of_another_variant(safetensors_file, variant):
    _refused(safetensors_file, f"are not those of {variant}", variant=variant)


def test_another_architecture_with_the_same_names(safetensors_file):
    config_beside(safetensors_file, architecture="resnet14t")
    _refused(safetensors_file, "'resnet14t'", "'resnet18'", "no variant here is that")
    config_beside(safetensors_file, architecture="resnet18d")
    _refused(safetensors_file, "create_model('ResNet18D') takes them")


def test_channels_that_are_not_those_of_rgb(tmp_path):
    _, arrays = filled()
    arrays["conv1.weight"] = arrays["conv1.weight"][:, :2]
    path = save_safetensors(arrays, tmp_path / "x.safetensors")
    _refused(path, "conv1.weight is (8, 2, 7, 7), should be (8, 3, 7, 7)")


def test_unknown_naming(tmp_path):
    path = save_safetensors({"encoder.0.weight": np.zeros(3)}, tmp_path / "x.safetensors")
    _refused(path, "no naming scheme known here", "encoder.0.weight")


def test_no_file_folder_and_unknown_format(tmp_path):
    _refused(tmp_path / "none.keras", "does not exist")
    _refused(tmp_path, "is a folder")
    (tmp_path / "weights.onnx").write_bytes(b"")
    _refused(tmp_path / "weights.onnx", "No weight format known", ".safetensors")
    _refused("imagnet", "Did you mean 'imagenet'?")
    _refused(3, "received 3")


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".h5", ".safetensors", ".pth"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage"])
def test_broken_files(tmp_path, suffix, damage):
    path = tmp_path / f"model{suffix}"
    if suffix == ".pth":
        torch = pytest.importorskip("torch", reason="needs the extra `torch`")
        torch.save({"layer1.0.conv1.weight": torch.zeros(1000)}, path)
    elif suffix == ".safetensors":
        save_safetensors(filled()[1], path)
    else:
        model, _ = filled()
        (model.save_weights if suffix == ".weights.h5" else model.save)(path)
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[:-200], "empty": b"", "garbage": b"x" * 999}[damage])
    _refused(path, str(path), "truncated")


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path, suffix):
    torch = pytest.importorskip("torch", reason="needs the extra `torch`")
    trace = tmp_path / "was_here"

    class Attack:
        def __reduce__(self):
            return open, (str(trace), "w")

    content = {"layer1.0.conv1.weight": Attack()}
    path = tmp_path / f"weights{suffix}"
    torch.save(content, path)
    _refused(path, "was refused: it holds more than tensors (io.open)", "any code")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(content, protocol=protocol))
        _refused(path, str(path), "tensors")
    assert not trace.exists()


def test_pth_without_tensors(tmp_path):
    torch = pytest.importorskip("torch", reason="needs the extra `torch`")
    torch.save({"epoch": 3}, tmp_path / "x.pth")
    _refused(tmp_path / "x.pth", "holds no state dict")


def test_hash_in_the_name_of_a_pth(tmp_path):
    torch = pytest.importorskip("torch", reason="needs the extra `torch`")
    _, arrays = filled()
    plain = tmp_path / "x.pth"
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, plain)
    digest = hashlib.sha256(plain.read_bytes()).hexdigest()
    good = plain.rename(tmp_path / f"resnet18-{digest[:8]}.pth")
    tiny(weights=good)
    bad = good.rename(tmp_path / "resnet18-abcdef01.pth")
    _refused(bad, "SHA-256 starts with " + digest[:8], "should be abcdef01")


@pytest.mark.parametrize("package", ["torch", "safetensors"])
def test_a_missing_package_names_its_extra(tmp_path, monkeypatch, package):
    path = tmp_path / ("x.pth" if package == "torch" else "x.safetensors")
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, package, None)
    _refused(path, f"pip install 'keras-resnet-tpu[{package}]'", error=ImportError)


def test_h5_that_points_out_of_the_file(tmp_path):
    _, arrays = filled("ResNet50V1", schemes.KERAS_APPLICATIONS)
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["kernel"] = arrays["conv1_conv/kernel"]
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        write_legacy_layers(file, arrays, "predictions")
        del file["conv1_conv/conv1_conv/kernel:0"]
        file["conv1_conv/conv1_conv/kernel:0"] = h5py.ExternalLink("secret.h5", "kernel")
    _refused(path, "points out of the file", variant="ResNet50V1")


def test_keras_archive_without_weights(tmp_path):
    path = tmp_path / "x.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    _refused(path, "no .keras file")
