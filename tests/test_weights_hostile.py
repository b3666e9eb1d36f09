"""Weight files made to do harm: each is refused in one line, in memory that its own size bounds."""

import zipfile
import zlib
from pathlib import Path

import h5py
import hostile_weights
import keras
import numpy as np
import pytest
from weights_helpers import filled, tiny

from keras_resnet import bounds
from keras_resnet.commands import main
from keras_resnet.errors import UserError
from keras_resnet.models import create_model
from keras_resnet.models.loading import load_model
from keras_resnet.weights import WeightsError, read_weights

# What the message says, where it is not the limit of a file's size.
SAID = {
    "external_link_to_array": "points out of the file",
    "external_link_to_layer": "points out of the file",
    "external_link_to_all": "points out of the file",
    "external_link_in_a_keras_file": "points out of the file",
    "soft_link_through_an_external_one": "points out of the file",
    "external_data": "points out of the file",
    "virtual_data": "points out of the file",
    "h5_without_attributes": "has no weight_names",
    "h5_with_names_that_are_numbers": "it has no layer '0'",
    "h5_with_names_of_nothing": "it has no layer 'nowhere'",
    "h5_whose_chunk_unpacks_to_more": "unpacks to more than its 256 bytes",
    "keras_with_deep_json": "nested too deeply",
    "keras_with_an_odd_method": "packed by an unusual method",
    "keras_with_an_unknown_method": "packed by an unusual method",
    "keras_with_a_password": "packed with a password",
    "keras_whose_config_is_a_list": "no .keras file",
    "keras_of_a_huge_network": "larger than its",
    "keras_with_a_huge_kernel": "larger than its",
    "config_of_a_million_channels": "larger than its",
    "config_of_deep_json": "config.json is no JSON file",
    "config_with_labels_that_are_no_numbers": "config.json is broken",
    "config_with_depths_of_text": "config.json is broken",
    "npz_that_claims_terabytes": "is truncated",
    "npz_that_claims_gigabytes": "is truncated",
    "npz_with_a_broken_header": "is broken",
    "npz_with_pickles": "no .npz file of arrays",
    "npz_of_text": "holds str",
    "safetensors_of_eight_bits": "holds F8_E4M3",
    "safetensors_that_claims_terabytes": "no safetensors file",
    "safetensors_of_deep_json": "recursion limit",
    "pth_that_contains_itself": "no state dict",
    "pth_of_deep_mappings": "no state dict",
    "pth_with_integer_keys": "no state dict",
    "pth_whose_key_has_no_end": "hold each other so often",
    "pth_whose_wide_key_has_no_end": "hold each other so often",
    "pth_of_the_old_kind_whose_key_has_no_end": "hold each other so often",
    "pth_of_eight_bits": "holds float8_e4m3fn",
    "pth_that_is_sparse": "holds sparse_coo",
    "pth_that_is_complex": "holds complex64",
    "pth_without_data": "on meta",
    "pth_that_asks_for_a_gigabyte": "MemoryError",
    "pth_of_the_old_kind_that_claims_terabytes": "no PyTorch file",
}
# They say nothing that can be used, so the file's arrays are those of another network.
NOT_READ = {
    "keras_whose_preprocessing_is_a_number": "are not those of ResNet18",
    "keras_whose_architecture_is_nonsense": "are not those of ResNet18",
    "config_with_odd_values": "no naming scheme",
    "pth_with_some_integer_keys": "no naming scheme",
    "pth_whose_average_is_an_array": "no naming scheme",
}


def _peak() -> int:
    """Bytes of memory that this process has had since `_forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("the peak of this process cannot be reset")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", hostile_weights.FILES)
def test_a_hostile_file_is_refused_in_one_line_and_in_little_memory(tmp_path, name):
    path = hostile_weights.FILES[name](tmp_path)
    tiny()  # so that no code is loaded for the first time below
    _forget_peak()
    before = _peak()
    with pytest.raises(WeightsError) as caught:
        create_model("ResNet18", weights=read_weights(path), classes=5)
    grown = _peak() - before
    message = str(caught.value.args[0])
    said = SAID.get(name) or NOT_READ.get(name) or "which no "
    assert said in message
    assert "\n" not in message
    assert tmp_path.name in message
    # Nothing here is larger than 5 MB; what PyTorch and TensorFlow allocate for themselves is seen.
    assert grown < bounds.ALLOWANCE + bounds.FACTOR * 5_000_000


@pytest.mark.parametrize("name", ["pth_that_contains_itself", "h5_that_claims_terabytes"])
def test_convert_says_one_line(tmp_path, capsys, name):
    path = hostile_weights.FILES[name](tmp_path)
    output = f"--output={tmp_path / 'y.keras'}"
    assert main(["convert", "--model=ResNet18", f"--weights={path}", output]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("keras-resnet convert: ")
    assert not (tmp_path / "y.keras").exists()


@pytest.mark.parametrize(
    "name",
    [name for name in hostile_weights.FILES if name.startswith("keras_") or "keras" in name],
)
def test_a_hostile_model_file_does_not_load(tmp_path, name):
    if "huge" in name or name in NOT_READ:
        pytest.skip("is about what weights tell of their network")
    path = hostile_weights.FILES[name](tmp_path)
    with pytest.raises(UserError) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_what_is_packed_tightly_but_within_the_limit_is_read(tmp_path):
    arrays = {"conv1.weight": np.zeros([1000, 1000], "float32")}  # 4 MB in 4 KB
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    np.testing.assert_array_equal(
        read_weights(tmp_path / "x.npz").arrays["conv1.weight"], arrays["conv1.weight"]
    )


def test_gzip_shuffle_and_checksums_in_h5_are_read(tmp_path):
    model, _ = filled("ResNet50V1", hostile_weights.schemes.KERAS_APPLICATIONS)
    plain = hostile_weights.legacy_h5(tmp_path / "x.h5")
    with plain as file:
        content = file[hostile_weights.KERNEL][()]
        del file[hostile_weights.KERNEL]
        file.create_dataset(
            hostile_weights.KERNEL, data=content, compression="gzip", shuffle=True, fletcher32=True
        )
    read = read_weights(tmp_path / "x.h5").arrays["conv1_conv/kernel"]
    np.testing.assert_array_equal(read, content)
    del model


def test_a_chunk_that_skips_another_filter_is_looked_at_all_the_same(tmp_path):
    with hostile_weights.legacy_h5(tmp_path / "x.h5") as file:
        del file[hostile_weights.KERNEL]
        dataset = file.create_dataset(
            hostile_weights.KERNEL,
            (64,),
            "float32",
            chunks=(64,),
            compression="gzip",
            shuffle=True,
        )
        dataset.id.write_direct_chunk((0,), zlib.compress(bytes(2**20)), 1)
    with pytest.raises(WeightsError, match="unpacks to more"):
        read_weights(tmp_path / "x.h5")


def test_an_unknown_filter_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("a", data=np.zeros(100), compression="lzf")
    with pytest.raises(WeightsError, match="packed in an unusual way"):
        read_weights(tmp_path / "x.h5")


def test_the_limit_is_that_of_the_documentation(tmp_path):
    path = tmp_path / "x.keras"
    allowed = 64 * 2**20  # docs/weights.md: 64 MiB and 20 times the file

    def size_after(content: int) -> int:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a", bytes(content))
        return path.stat().st_size

    size = size_after(allowed)
    budget = bounds.Budget(path)
    assert budget.limit == allowed + 20 * size
    with bounds.opened_zip(budget):
        assert budget.left == 20 * size
    size_after(allowed + 40 * size)
    with pytest.raises(bounds.RefusedError, match="20 times the file and 64 MiB"):
        bounds.opened_zip(bounds.Budget(path)).__enter__()


def test_models_of_keras_load_as_before(tmp_path):
    model, _ = filled()
    model.save(tmp_path / "x.keras")
    images = np.ones([1, 32, 32, 3], "float32")
    loaded = load_model(tmp_path / "x.keras")
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(loaded(images)), keras.ops.convert_to_numpy(model(images))
    )
