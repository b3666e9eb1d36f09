"""Weight files made to do harm, each by a function of (folder) that returns its path.

What they hold is a network that the tests know (`weights_helpers.filled`), changed in one place.
"""

import io
import json
import struct
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from weights_helpers import filled, write_legacy_layers

from keras_resnet.weights import schemes

HUGE = 2**40  # elements of a data set that would take 4 TiB
DEEP = 100_000  # levels of JSON


def torch():
    return pytest.importorskip("torch", reason="needs the extra `torch`")


def legacy_h5(path: Path) -> h5py.File:
    """Writes a whole file as keras.applications does, and opens it to be spoiled."""
    _, arrays = filled("ResNet50V1", schemes.KERAS_APPLICATIONS)
    with h5py.File(path, "w") as file:
        write_legacy_layers(file, arrays, "predictions")
    return h5py.File(path, "r+")


def _secret(folder: Path) -> None:
    """A file that is none of the one who reads."""
    legacy_h5(folder / "secret.h5").close()
    (folder / "secret.raw").write_bytes(b"\1" * 1_000_000)


KERNEL = "conv1_conv/conv1_conv/kernel:0"


def external_link_to_array(folder):
    _secret(folder)
    with legacy_h5(folder / "x.h5") as file:
        del file[KERNEL]
        file[KERNEL] = h5py.ExternalLink("secret.h5", KERNEL)
    return folder / "x.h5"


def external_link_to_layer(folder):
    _secret(folder)
    with legacy_h5(folder / "x.h5") as file:
        del file["conv1_conv"]
        file["conv1_conv"] = h5py.ExternalLink("secret.h5", "conv1_conv")
    return folder / "x.h5"


def external_link_to_all(folder):
    _secret(folder)
    with h5py.File(folder / "x.h5", "w") as file:
        file["model_weights"] = h5py.ExternalLink("secret.h5", "/")
    return folder / "x.h5"


def soft_link_through_an_external_one(folder):
    _secret(folder)
    with legacy_h5(folder / "x.h5") as file:
        file["elsewhere"] = h5py.ExternalLink("secret.h5", "/")
        del file["conv1_conv"]
        file["conv1_conv"] = h5py.SoftLink("/elsewhere/conv1_conv")
    return folder / "x.h5"


def external_data(folder):
    _secret(folder)
    with legacy_h5(folder / "x.h5") as file:
        shape = file[KERNEL].shape
        del file[KERNEL]
        external = [(str(folder / "secret.raw"), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset(KERNEL, shape, "float32", external=external)
    return folder / "x.h5"


def virtual_data(folder):
    _secret(folder)
    with legacy_h5(folder / "x.h5") as file:
        shape = file[KERNEL].shape
        del file[KERNEL]
        layout = h5py.VirtualLayout(shape, "float32")
        layout[...] = h5py.VirtualSource(str(folder / "secret.h5"), KERNEL, shape)
        file.create_virtual_dataset(KERNEL, layout)
    return folder / "x.h5"


def external_link_in_a_keras_file(folder):
    _secret(folder)
    whole = keras_file(folder / "whole.keras")
    with zipfile.ZipFile(whole) as archive:
        config, weights = archive.read("config.json"), archive.read("model.weights.h5")
    (folder / "w.h5").write_bytes(weights)
    with h5py.File(folder / "w.h5", "r+") as file:
        layer = next(iter(file["layers"]))
        del file[f"layers/{layer}"]
        file[f"layers/{layer}"] = h5py.ExternalLink(str(folder / "secret.h5"), "conv1_conv")
    with zipfile.ZipFile(folder / "x.keras", "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", config)
        archive.write(folder / "w.h5", "model.weights.h5")
    return folder / "x.keras"


def h5_without_attributes(folder):
    with legacy_h5(folder / "x.h5") as file:
        del file["conv1_conv"].attrs["weight_names"]
    return folder / "x.h5"


def h5_with_names_that_are_numbers(folder):
    with legacy_h5(folder / "x.h5") as file:
        file.attrs["layer_names"] = np.arange(3)
    return folder / "x.h5"


def h5_with_names_of_nothing(folder):
    with legacy_h5(folder / "x.h5") as file:
        file.attrs["layer_names"] = [b"nowhere", b"\xff\xfe"]
    return folder / "x.h5"


def h5_that_claims_terabytes(folder):
    with legacy_h5(folder / "x.h5") as file:
        del file[KERNEL]
        file.create_dataset(KERNEL, (HUGE,), "float32", chunks=(1024,))
    return folder / "x.h5"


def h5_with_a_huge_chunk(folder):
    with legacy_h5(folder / "x.h5") as file:
        del file[KERNEL]
        rows = 2**25 * 3 // 2
        dataset = file.create_dataset(
            KERNEL, (rows,), "float32", chunks=(rows,), compression="gzip"
        )
        # Zeros of 192 MiB, as deflate has them, in a thousandth of that.
        packer = zlib.compressobj(9)
        packed = b"".join(packer.compress(bytes(2**24)) for _ in range(12)) + packer.flush()
        dataset.id.write_direct_chunk((0,), packed)
    return folder / "x.h5"


def h5_whose_chunk_unpacks_to_more(folder):
    with legacy_h5(folder / "x.h5") as file:
        del file[KERNEL]
        dataset = file.create_dataset(KERNEL, (64,), "float32", chunks=(64,), compression="gzip")
        packer = zlib.compressobj(9)
        packed = b"".join(packer.compress(bytes(2**24)) for _ in range(12)) + packer.flush()
        dataset.id.write_direct_chunk((0,), packed)
    return folder / "x.h5"


def h5_that_names_an_array_a_hundred_times(folder):
    with h5py.File(folder / "x.h5", "w") as file:
        layer = file.create_group("conv1_conv")
        layer["kernel:0"] = np.ones([2**20], "float32")
        for number in range(100):
            layer[f"kernel{number}:0"] = layer["kernel:0"]  # a hard link
        file.attrs["layer_names"] = [b"conv1_conv"]
        layer.attrs["weight_names"] = [b"kernel%d:0" % n for n in range(100)]
    return folder / "x.h5"


def keras_file(path: Path) -> Path:
    filled("ResNet18")[0].save(path)
    return path


def keras_with_deep_json(folder):
    with zipfile.ZipFile(folder / "x.keras", "w") as archive:
        archive.writestr("config.json", '{"config":' * DEEP + "{}" + "}" * DEEP)
        archive.writestr("model.weights.h5", b"")
    return folder / "x.keras"


def keras_bomb(folder):
    with zipfile.ZipFile(folder / "x.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", '{"config": {}}')
        with archive.open("model.weights.h5", "w", force_zip64=True) as member:
            for _ in range(12):
                member.write(bytes(2**24))
    return folder / "x.keras"


def keras_with_an_odd_method(folder):
    with zipfile.ZipFile(folder / "x.keras", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("config.json", '{"config": {}}')
        archive.writestr("model.weights.h5", bytes(1000))
    return folder / "x.keras"


def keras_with_an_unknown_method(folder):
    path = keras_file(folder / "x.keras")
    content = bytearray(path.read_bytes())
    for mark, place in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        start = content.find(mark)
        while start >= 0:
            struct.pack_into("<H", content, start + place, 93)
            start = content.find(mark, start + 4)
    path.write_bytes(content)
    return path


def keras_with_a_password(folder):
    path = keras_file(folder / "x.keras")
    content = bytearray(path.read_bytes())
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        start = content.find(mark)
        while start >= 0:
            content[start + place] |= 1
            start = content.find(mark, start + 4)
    path.write_bytes(content)
    return path


def _keras_with_config(folder, config):
    with zipfile.ZipFile(keras_file(folder / "whole.keras")) as archive:
        weights = archive.read("model.weights.h5")
    with zipfile.ZipFile(folder / "x.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", weights)
    return folder / "x.keras"


def keras_whose_config_is_a_list(folder):
    return _keras_with_config(folder, {"config": [1]})


def keras_whose_preprocessing_is_a_number(folder):
    return _keras_with_config(folder, {"config": {"preprocessing": 3}})


def keras_whose_architecture_is_nonsense(folder):
    architecture = {"name": ["ResNet18"], "depths": {"a": None}}
    return _keras_with_config(folder, {"config": {"architecture": architecture}})


def keras_of_a_huge_network(folder):
    architecture = {"name": "ResNet18", "depths": [1, 1], "widths": [8, 1_000_000]}
    return _keras_with_config(folder, {"config": {"architecture": architecture}})


def keras_with_a_huge_kernel(folder):
    architecture = {"name": "ResNet18", "depths": [1, 1], "widths": [8, 16]}
    architecture["block_kernel_size"] = 30_000
    return _keras_with_config(folder, {"config": {"architecture": architecture}})


def config_of_a_million_channels(folder):
    content = {"model_type": "resnet", "num_channels": 10**8}
    return _with_config(folder, json.dumps(content))


def _npy_header(shape: str, kind: str = "<f4") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text


def _npz(folder, name, content, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(folder / "x.npz", "w", method) as archive:
        archive.writestr(name, content)
    return folder / "x.npz"


def npz_that_claims_terabytes(folder):
    return _npz(folder, "conv1.weight.npy", _npy_header(f"({HUGE},)") + bytes(64))


def npz_that_claims_gigabytes(folder):
    return _npz(folder, "conv1.weight.npy", _npy_header(f"({2**28},)") + bytes(64))


def npz_bomb(folder):
    content = _npy_header(f"({2**24 * 3},)") + bytes(2**26 * 3)
    return _npz(folder, "conv1.weight.npy", content, zipfile.ZIP_DEFLATED)


def npz_with_a_broken_header(folder):
    return _npz(folder, "conv1.weight.npy", b"\x93NUMPY\1\0\x20\0" + b"[" * 32)


def npz_with_pickles(folder):
    np.savez(folder / "x.npz", **{"conv1.weight": np.array([{}], object)})
    return folder / "x.npz"


def npz_of_text(folder):
    np.savez(folder / "x.npz", **{"conv1.weight": np.array(["a"])})
    return folder / "x.npz"


def _safetensors(folder, header, data=b""):
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    (folder / "x.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    return folder / "x.safetensors"


def safetensors_of_eight_bits(folder):
    entry = {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}
    return _safetensors(folder, {"conv1.weight": entry}, bytes(4))


def safetensors_that_claims_terabytes(folder):
    entry = {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4 * HUGE]}
    return _safetensors(folder, {"conv1.weight": entry}, bytes(64))


def safetensors_of_deep_json(folder):
    return _safetensors(folder, b'{"a":' * DEEP + b"1" + b"}" * DEEP)


def _with_config(folder, text):
    from weights_helpers import save_safetensors

    save_safetensors({"conv1.weight": np.zeros([8, 3, 7, 7], "float32")}, folder / "x.safetensors")
    (folder / "config.json").write_text(text)
    return folder / "x.safetensors"


def config_of_deep_json(folder):
    return _with_config(folder, "[" * DEEP + "]" * DEEP)


def config_with_odd_values(folder):
    return _with_config(folder, json.dumps({"architecture": {"a": 1}, "label_names": 3}))


def config_with_labels_that_are_no_numbers(folder):
    content = {"model_type": "resnet", "id2label": {"first": "cat"}}
    return _with_config(folder, json.dumps(content))


def config_with_depths_of_text(folder):
    return _with_config(folder, json.dumps({"model_type": "resnet", "hidden_sizes": "abcd"}))


def _pth(folder, content):
    torch().save(content, folder / "x.pth")
    return folder / "x.pth"


def pth_that_contains_itself(folder):
    content = {"epoch": 1}
    content["state_dict"] = content
    content["model"] = content
    content["net"] = content
    return _pth(folder, content)


def pth_of_deep_mappings(folder):
    content: dict = {}
    inner = content
    for _ in range(400):
        inner["model"] = inner = {}
    return _pth(folder, content)


def pth_with_integer_keys(folder):
    return _pth(folder, {0: torch().zeros(3), 1: torch().zeros(3)})


def pth_with_some_integer_keys(folder):
    return _pth(folder, {"state_dict": {0: torch().zeros(3), "odd": torch().zeros(3)}})


def pth_of_eight_bits(folder):
    return _pth(folder, {"conv1.weight": torch().zeros(4).to(torch().float8_e4m3fn)})


def pth_that_is_sparse(folder):
    return _pth(folder, {"conv1.weight": torch().eye(4).to_sparse()})


def pth_that_is_complex(folder):
    return _pth(folder, {"conv1.weight": torch().zeros(4, dtype=torch().complex64)})


def pth_without_data(folder):
    return _pth(folder, {"conv1.weight": torch().zeros(4, device="meta")})


def pth_whose_average_is_an_array(folder):
    return _pth(folder, {"n_averaged": torch().zeros(4), "conv1.weight": torch().zeros(3)})


def pth_that_repeats_one_number(folder):
    return _pth(folder, {"conv1.weight": torch().zeros(1).expand(HUGE)})


def pth_that_views_one_array_a_hundred_times(folder):
    array = torch().zeros(2**20)
    return _pth(folder, {f"conv{number}.weight": array for number in range(100)})


def pth_bomb(folder):
    _pth(folder, {"conv1.weight": torch().zeros(2**24 * 3)})
    with zipfile.ZipFile(folder / "x.pth") as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(folder / "x.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return folder / "x.pth"


def pth_that_asks_for_a_gigabyte(folder):
    """A pickle that makes a bytearray of 2^30: allowed by PyTorch, and no code of anybody's."""
    _pth(folder, {})
    with zipfile.ZipFile(folder / "x.pth") as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    pickled = b"\x80\x02}X\x01\x00\x00\x00ac__builtin__\nbytearray\nJ\0\0\0\x40\x85Rs."
    with zipfile.ZipFile(folder / "x.pth", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, pickled if name.endswith("data.pkl") else content)
    return folder / "x.pth"


def pth_of_the_old_kind_that_claims_terabytes(folder):
    buffer = io.BytesIO()
    torch().save({"conv1.weight": torch().zeros(7)}, buffer, _use_new_zipfile_serialization=False)
    claim = buffer.getvalue().replace(b"K\x07", b"\x8a\x06" + (HUGE).to_bytes(6, "little"))
    (folder / "x.pth").write_bytes(claim)
    return folder / "x.pth"


def _pth_of_pickle(folder, pickled):
    _pth(folder, {})
    with zipfile.ZipFile(folder / "x.pth") as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(folder / "x.pth", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, pickled if name.endswith("data.pkl") else content)
    return folder / "x.pth"


def pth_whose_key_has_no_end(folder):
    """A tuple of a tuple and itself, forty levels: its hash takes a trillion steps."""
    return _pth_of_pickle(folder, b"\x80\x02})" + b"q\x00h\x00\x86" * 40 + b"Ns.")


def pth_whose_wide_key_has_no_end(folder):
    level = b"q\x000(" + b"h\x00" * 1000 + b"t"
    return _pth_of_pickle(folder, b"\x80\x02})" + level * 6 + b"Ns.")


def pth_of_the_old_kind_whose_key_has_no_end(folder):
    buffer = io.BytesIO()
    torch().save({"a": 1}, buffer, _use_new_zipfile_serialization=False)
    wanted = b"}q\x00X\x01\x00\x00\x00aq\x01K\x01s."
    assert wanted in buffer.getvalue()
    hostile = b"})" + b"q\x00h\x00\x86" * 40 + b"Ns."
    (folder / "x.pth").write_bytes(buffer.getvalue().replace(wanted, hostile))
    return folder / "x.pth"


# Everything above that is a file, by the name of its function.
FILES = {
    name: function
    for name, function in list(globals().items())
    if callable(function)
    and getattr(function, "__module__", None) == __name__
    and function.__code__.co_varnames[: function.__code__.co_argcount] == ("folder",)
    and not name.startswith("_")
}
