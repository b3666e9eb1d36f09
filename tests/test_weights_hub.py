"""Weights by address: the hub's real client on a cache made by hand, and stubs for the network."""

import hashlib
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from references import generator
from weights_helpers import arrays_for, assert_equal, tiny, values

import keras_resnet
from keras_resnet.weights import (
    WeightsError,
    WeightsNote,
    apply_weights,
    defaults,
    hub,
    read_weights,
    schemes,
)
from keras_resnet.weights.hub import HubAddress

huggingface_hub = pytest.importorskip("huggingface_hub", reason="needs the extra `hf`")
constants = pytest.importorskip("huggingface_hub.constants")
numpy_files = pytest.importorskip("safetensors.numpy", reason="needs the extra `safetensors`")

ELSEWHERE = Path(__file__).parent / "references" / "elsewhere"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = {
    "architecture": "resnet18",
    "pretrained_cfg": {
        "input_size": [3, 176, 176],
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    },
}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The hub's cache in an empty folder, and the client without a network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def _put(cache, repository, files):
    """Files as the hub's client stores them: blobs by SHA-256, links by name."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    for name in ("blobs", "refs", f"snapshots/{COMMIT}"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(COMMIT)
    for name, content in files.items():
        blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        (folder / "snapshots" / COMMIT / name).symlink_to(blob)
    return folder


@pytest.fixture
def repository(cache):
    """A repository `timm/resnet18.x` in the cache, and the weights in it."""
    arrays = arrays_for(tiny(), schemes.TORCHVISION)
    content = {"model.safetensors": numpy_files.save(arrays), "config.json": json.dumps(CONFIG)}
    content["config.json"] = content["config.json"].encode()
    return _put(cache, "timm/resnet18.x", content), arrays


@pytest.mark.parametrize("address", ["", f"@{COMMIT}", "/model.safetensors"])
def test_a_cached_repository_is_loaded_with_its_preprocessing(repository, address):
    model = tiny(weights=f"hf://timm/resnet18.x{address}", input_shape=(None, None, 3))
    kernel = repository[1]["layer1.0.conv1.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(values(model)["stage1_block1_conv1/kernel"], kernel)
    assert model.preprocessing["image_size"] == 176
    assert model.preprocessing["interpolation"] == "bicubic"


def test_a_repository_of_transformers(cache):
    record = json.loads((ELSEWHERE / "transformers_basic.json").read_text())
    arrays = {
        name: generator.weight(name, tuple(shape))
        for name, shape in record["arrays"].items()
        if not name.endswith("num_batches_tracked")
    }
    settings = {"size": {"shortest_edge": 96}, "crop_pct": 0.8, "resample": 2}
    content = {
        "model.safetensors": numpy_files.save(arrays),
        "config.json": json.dumps(record["config"]).encode(),
        "preprocessor_config.json": json.dumps(settings).encode(),
    }
    folder = _put(cache, "somebody/animals", content)
    model = keras_resnet.create_model(weights="hf://somebody/animals", classifier_activation=None)
    assert model.class_names == [f"animal {number}" for number in range(4)]
    fields = ("image_size", "crop_ratio", "interpolation")
    assert [model.preprocessing[key] for key in fields] == [96, 0.8, "bilinear"]
    model = keras_resnet.create_model(
        weights="hf://somebody/animals", classifier_activation=None, input_shape=(64, 64, 3)
    )
    logits = keras.ops.convert_to_numpy(model(generator.images(64)))
    np.testing.assert_allclose(logits, record["logits"]["64"], atol=1e-4)
    (folder / "snapshots" / COMMIT / "preprocessor_config.json").unlink()
    with pytest.warns(WeightsNote, match=r"no preprocessor_config.json that could be fetched"):
        assert read_weights("hf://somebody/animals").preprocessing is None


def test_a_broken_file_in_the_cache_is_noticed(repository):
    blob = (repository[0] / "snapshots" / COMMIT / "model.safetensors").resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(bytes(content))
    model = tiny()
    before = values(model)
    with pytest.raises(WeightsError, match="is broken: the SHA-256") as caught:
        apply_weights(model, "hf://timm/resnet18.x", variant="ResNet18")
    assert str(blob) in str(caught.value)
    assert_equal(values(model), before)


def test_weights_of_another_variant(repository):
    with pytest.raises(WeightsError, match=r"'resnet18', ResNet50 is 'resnet50'.*'ResNet18'"):
        tiny("ResNet50", weights="hf://timm/resnet18.x")


@pytest.mark.usefixtures("cache")
def test_without_network_and_cache():
    with pytest.raises(WeightsError, match=r"Could not fetch model.safetensors of hf://timm/no"):
        tiny(weights="hf://timm/no")


def test_a_repository_without_config_or_without_the_file(repository, monkeypatch):
    folder, _ = repository
    real = huggingface_hub.hf_hub_download

    def download(repository, file, revision=None):
        if not (folder / "snapshots" / COMMIT / file).exists():
            raise huggingface_hub.errors.EntryNotFoundError(f"404: {file}")
        return real(repository, file, revision=revision)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    (folder / "snapshots" / COMMIT / "config.json").unlink()
    model = tiny(weights="hf://timm/resnet18.x", input_shape=(None, None, 3))
    assert model.preprocessing["image_size"] == 224  # the table's
    with pytest.raises(WeightsError, match=r"Could not fetch other.pth .*404"):
        tiny(weights="hf://timm/resnet18.x/other.pth")


@pytest.mark.parametrize("address", ["hf://resnet18", "hf://a/b@", "hf://a b/c", "hf://"])
def test_what_is_no_address(address):
    with pytest.raises(WeightsError, match=r"hf://OWNER/REPOSITORY\[@REVISION\]\[/FILE\]"):
        HubAddress.parse(address)


def test_addresses():
    parse = HubAddress.parse
    assert parse("hf://a/b") == HubAddress("a/b", None, "model.safetensors")
    assert parse("hf://a/b.c@v1") == HubAddress("a/b.c", "v1", "model.safetensors")
    assert parse("hf://a/b@v1/sub/w.pth") == HubAddress("a/b", "v1", "sub/w.pth")


def test_imagenet_takes_the_repository_of_the_table(cache, monkeypatch):
    monkeypatch.setitem(defaults.HUB, "ResNet18", "timm/resnet18.x")
    arrays = arrays_for(tiny(), schemes.TORCHVISION)
    _put(cache, "timm/resnet18.x", {"model.safetensors": numpy_files.save(arrays)})
    # Offline, absence of config.json cannot be told from not having it.
    monkeypatch.setattr(hub, "_download_if_there", lambda where, file, address: None)
    loaded = values(tiny(weights="imagenet"))
    np.testing.assert_array_equal(loaded["predictions/bias"], arrays["fc.bias"])


@pytest.mark.parametrize("include_top", [True, False])
def test_imagenet_of_keras_applications(tmp_path, monkeypatch, include_top):
    source = tiny("ResNet50V1", weights=None, include_top=include_top)
    source.save_weights(tmp_path / "x.weights.h5")
    asked = []

    def get_file(name, origin, cache_subdir, file_hash):
        asked.append((name, origin, file_hash))
        return tmp_path / "x.weights.h5"

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    loaded = tiny("ResNet50V1", weights="imagenet", include_top=include_top)
    assert_equal(values(loaded), values(source))
    name = f"resnet50_weights_tf_dim_ordering_tf_kernels{'' if include_top else '_notop'}.h5"
    file_hash = defaults.KERAS["ResNet50V1"][1 if include_top else 2]
    assert asked == [(name, defaults.KERAS_URL + name, file_hash)]


def test_a_download_with_the_wrong_hash(monkeypatch, tmp_path):
    """The real `get_file`, fetching from a file: address."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    (tmp_path / "resnet50v2_weights_tf_dim_ordering_tf_kernels.h5").write_bytes(b"broken")
    monkeypatch.setattr(hub, "KERAS_URL", tmp_path.as_uri() + "/")
    monkeypatch.setattr(keras.config, "keras_home", lambda: str(tmp_path), raising=False)
    with pytest.raises(WeightsError, match=r"Could not fetch file:.*corrupted"):
        tiny("ResNet50V2", weights="imagenet")


@pytest.mark.parametrize("variant", ["ResNet200", "CifarResNet20", "ResNet200V2"])
def test_variants_without_published_weights(variant):
    with pytest.raises(WeightsError, match=f"no published ImageNet weights for {variant}"):
        defaults.default_weights(variant)
