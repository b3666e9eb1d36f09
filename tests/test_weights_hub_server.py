"""hf:// against a stand-in for the hub on loopback: revisions, cache, broken downloads, offline."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from hub_server import serving
from weights_helpers import arrays_for, tiny, values

from keras_resnet.weights import WeightsError, apply_weights, read_weights, schemes
from keras_resnet.weights.hub import TORCH_FILE

huggingface_hub = pytest.importorskip("huggingface_hub", reason="needs the extra `hf`")
constants = pytest.importorskip("huggingface_hub.constants")
numpy_files = pytest.importorskip("safetensors.numpy", reason="needs the extra `safetensors`")

ADDRESS = "hf://somebody/net"
CONFIG = {
    "architecture": "resnet18",
    "pretrained_cfg": {
        "input_size": [3, 176, 176],
        "crop_pct": 0.875,
        "interpolation": "bilinear",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    },
}
NAME = "fc.bias"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with serving() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)  # 10 MB: more than the files
        monkeypatch.setattr(
            "time.sleep", lambda seconds: None
        )  # the client's, before it tries again
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        yield server


@pytest.fixture(scope="module")
def arrays():
    return arrays_for(tiny(), schemes.TORCHVISION)


def files_of(arrays, shift=0.0):
    """The files of a repository; `shift` is added to the biases of the classifier."""
    moved = {**arrays, NAME: arrays[NAME] + np.float32(shift)}
    return {
        "model.safetensors": numpy_files.save(moved),
        "config.json": json.dumps(CONFIG).encode(),
    }


def bias(address):
    return read_weights(address).arrays[NAME]


def test_a_repository_is_fetched_once(hub, arrays, tmp_path):
    commit = hub.push("somebody/net", files_of(arrays))
    model = tiny()
    apply_weights(model, ADDRESS, variant="ResNet18")
    np.testing.assert_array_equal(values(model)["predictions/bias"], arrays[NAME])
    assert read_weights(ADDRESS).preprocessing.image_size == 176
    # The large file came by the redirect, once; after that only its ETag was asked for.
    assert hub.asked("GET", "/lfs/") == 1
    assert hub.asked("GET", "config.json") == 1
    assert hub.asked("HEAD", "/resolve/main/model.safetensors") == 2
    stored = tmp_path / "cache" / "models--somebody--net" / "snapshots" / commit
    assert sorted(file.name for file in stored.iterdir()) == ["config.json", "model.safetensors"]


def test_revisions(hub, arrays):
    first = hub.push("somebody/net", files_of(arrays), "main", "v1")
    second = hub.push("somebody/net", files_of(arrays, 1), "main", "v2")
    for revision, shift in ((first, 0), ("v1", 0), (second, 1), ("v2", 1), ("main", 1)):
        np.testing.assert_array_equal(bias(f"{ADDRESS}@{revision}"), arrays[NAME] + shift)
    np.testing.assert_array_equal(bias(ADDRESS), arrays[NAME] + 1)
    assert hub.asked("GET", "/lfs/") == 2  # a file of each commit, whatever it was called
    # A branch that moves on is followed.
    hub.push("somebody/net", files_of(arrays, 2))
    np.testing.assert_array_equal(bias(ADDRESS), arrays[NAME] + 2)
    np.testing.assert_array_equal(bias(f"{ADDRESS}@v1"), arrays[NAME])


def test_a_commit_in_the_cache_is_not_asked_for_again(hub, arrays):
    commit = hub.push("somebody/net", files_of(arrays))
    bias(f"{ADDRESS}@{commit}")
    hub.requests.clear()
    np.testing.assert_array_equal(bias(f"{ADDRESS}@{commit}"), arrays[NAME])
    assert hub.requests == []


@pytest.mark.parametrize("cuts", [1, 3])
def test_a_broken_download_goes_on_where_it_broke(hub, arrays, cuts):
    hub.push("somebody/net", files_of(arrays))
    hub.cut = cuts
    np.testing.assert_array_equal(bias(ADDRESS), arrays[NAME])
    ranges = [given for method, path, given in hub.requests if method == "GET" and "/lfs/" in path]
    assert ranges[0] is None
    starts = [int(given.removeprefix("bytes=").removesuffix("-")) for given in ranges[1:]]
    assert len(starts) == cuts
    assert starts[0] > 0
    assert starts == sorted(set(starts))  # each time from farther on


def test_a_download_that_never_ends_is_no_file(hub, arrays, tmp_path):
    hub.push("somebody/net", files_of(arrays))
    hub.cut = 10**6
    with pytest.raises(WeightsError, match=r"Could not fetch model.safetensors of hf://somebody/n"):
        bias(ADDRESS)
    assert not list((tmp_path / "cache").rglob("model.safetensors"))
    hub.cut = 0  # and the next try gets it
    np.testing.assert_array_equal(bias(ADDRESS), arrays[NAME])


def test_offline(hub, arrays, monkeypatch):
    commit = hub.push("somebody/net", files_of(arrays))
    bias(ADDRESS)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    for address in (ADDRESS, f"{ADDRESS}@main", f"{ADDRESS}@{commit}"):
        np.testing.assert_array_equal(bias(address), arrays[NAME])
    with pytest.raises(
        WeightsError, match=r"not in the cache .*, and HF_HUB_OFFLINE forbids to as"
    ):
        bias(f"{ADDRESS}@v1")
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE forbids to ask"):
        bias("hf://somebody/other")
    assert hub.requests == []


def test_a_server_that_does_not_answer(hub, arrays, monkeypatch):
    hub.push("somebody/net", files_of(arrays))
    bias(ADDRESS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{free.getsockname()[1]}"
    hub.broken = True
    np.testing.assert_array_equal(bias(ADDRESS), arrays[NAME])  # out of the cache
    with pytest.raises(
        WeightsError, match=rf"{hub.endpoint} fails \(.*500.*\), and the file is not"
    ):
        bias("hf://somebody/other")
    monkeypatch.setattr(constants, "ENDPOINT", gone)
    template = gone + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    np.testing.assert_array_equal(bias(ADDRESS), arrays[NAME])  # out of the cache
    with pytest.raises(
        WeightsError, match=f"{gone} does not answer, and the file is not in the ca"
    ):
        bias("hf://somebody/other")


def test_what_is_not_there(hub, arrays):
    hub.push("somebody/net", files_of(arrays))
    with pytest.raises(
        WeightsError, match=r"has no repository somebody/nett, or only for those wh"
    ):
        bias("hf://somebody/nett")
    with pytest.raises(
        WeightsError, match=r"somebody/net has no revision 'v9'; give the name of a"
    ):
        bias(f"{ADDRESS}@v9")
    with pytest.raises(
        WeightsError, match=r"no such file \(404\)\. Weights there: model\.safetensors\."
    ):
        bias(f"{ADDRESS}/other.safetensors")
    hub.gated.add("somebody/net")
    with pytest.raises(
        WeightsError, match=r"its terms have to be accepted at http://127.*/somebody"
    ):
        bias(f"{ADDRESS}@main")


def test_a_repository_without_safetensors_has_pytorchs_file(hub, arrays):
    torch = pytest.importorskip("torch")
    import io

    buffer = io.BytesIO()
    torch.save({name: torch.from_numpy(array.copy()) for name, array in arrays.items()}, buffer)
    config = files_of(arrays)["config.json"]
    hub.push("somebody/net", {TORCH_FILE: buffer.getvalue(), "config.json": config})
    np.testing.assert_array_equal(bias(ADDRESS), arrays[NAME])


@pytest.mark.ci
def test_the_command_line_with_its_environment(hub, arrays, tmp_path):
    hub.push("somebody/net", files_of(arrays))
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_CACHE": str(tmp_path / "other"),
    }
    command = [sys.executable, "-m", "keras_resnet_cli", "convert", f"--weights={ADDRESS}"]
    command += ["--depths=1,1", "--widths=8,16", "--stem_width=8"]
    for number, offline in enumerate(("0", "1")):
        output = tmp_path / f"{number}.keras"
        done = subprocess.run(
            [*command, f"--output={output}"],
            env={**environment, "HF_HUB_OFFLINE": offline},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith("5 classes, 176 pixels, bilinear, crop 0.875\n")
        assert output.is_file()
    assert hub.asked("GET", "/lfs/") == 1
