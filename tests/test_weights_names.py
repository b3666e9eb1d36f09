"""Names of other people's files: prefixes, spellings, by hand, by order; and input channels."""

import argparse
import pathlib

import numpy as np
import pytest
from weights_helpers import assert_equal, filled, save_safetensors, tiny, values

import keras_resnet
from keras_resnet.weights import WeightsError, WeightsNote, read_weights


def _npz(path, arrays):
    """A file that keeps the order of the arrays."""
    np.savez(path, **arrays)
    return path


def _renamed(arrays, *replacements):
    renamed = {}
    for name, array in arrays.items():
        new = name
        for old, other in replacements:
            new = new.replace(old, other)
        renamed[new] = array
    return renamed


SPELLINGS = {
    "plain": [],
    "linear": [("fc.", "linear.")],
    "classifier": [("fc.", "classifier.")],
    "head_fc": [("fc.", "head.fc.")],
    "last_linear": [("fc.", "last_linear.")],
    "after_dropout": [("fc.", "fc.1.")],
    "shortcut": [("downsample", "shortcut")],
    "skip": [("downsample", "skip")],
    "underscores": [("conv1.", "conv_1."), ("bn2.", "bn_2."), ("layer1.", "layer_1.")],
    "norm": [("bn1.", "norm1."), ("bn2.", "norm2.")],
    "named_shortcut": [("downsample.0", "shortcut.conv"), ("downsample.1", "shortcut.bn")],
}


PREFIXED = [
    (spelling, prefix)
    for spelling in ("plain", "linear", "underscores")
    for prefix in ("backbone.", "encoder.", "module.model.net_1.")
]


@pytest.mark.parametrize(("spelling", "prefix"), [*((name, "") for name in SPELLINGS), *PREFIXED])
def test_spellings_and_a_prefix_of_any_kind(tmp_path, spelling, prefix):
    model, arrays = filled()
    arrays = _renamed(arrays, *SPELLINGS[spelling])
    path = _npz(tmp_path / "x.npz", {prefix + name: array for name, array in arrays.items()})
    assert_equal(values(tiny(weights=path)), values(model))


def test_a_head_beside_the_prefix(tmp_path):
    model, arrays = filled()
    names = {n if n.startswith("fc") else f"backbone.{n}": a for n, a in arrays.items()}
    assert_equal(values(tiny(weights=_npz(tmp_path / "x.npz", names))), values(model))


def test_two_networks_in_a_file(tmp_path):
    model, arrays = filled()
    both = {f"encoder_{kind}.{n}": a for kind in "qk" for n, a in arrays.items()}
    path = _npz(tmp_path / "x.npz", both)
    with pytest.raises(WeightsError, match=r"holds 2 networks, under encoder_k\., encoder_q\."):
        tiny(weights=path)
    chosen = read_weights(path, names={r"^encoder_k\..*": ""})
    assert_equal(values(tiny(weights=chosen)), values(model))


def test_names_by_hand(tmp_path):
    model, arrays = filled()
    path = _npz(tmp_path / "x.npz", _renamed(arrays, ("layer", "group"), ("conv", "c")))
    with pytest.raises(WeightsError, match="follows no naming scheme known here"):
        tiny(weights=path)
    names = {r"group(\d)": r"layer\1", r"\bc(\d)": r"conv\1"}
    assert_equal(values(tiny(weights=read_weights(path, names=names))), values(model))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"(": "x"}, r"'\(' -> 'x' is no regular expression"),
        ({"nowhere": "x"}, "'nowhere' is in no name of .*conv1.weight"),
        ({r"layer1\.0\.conv\d": "same"}, "would both be 'same.weight'"),
    ],
)
def test_names_by_hand_that_cannot_be(tmp_path, names, message):
    path = _npz(tmp_path / "x.npz", filled()[1])
    with pytest.raises(WeightsError, match=message):
        read_weights(path, names=names)


def _numbered(arrays, words):
    """Names that say nothing: layers by number, `words` in those of shortcuts."""
    numbers, names = {}, {}
    for name, array in arrays.items():
        layer, _, variable = name.rpartition(".")
        number = numbers.setdefault(layer, len(numbers))
        word = words if "downsample" in layer else "m"
        names[f"{word}{number}.{variable}"] = array
    return names


@pytest.mark.parametrize("variant", ["ResNet18", "ResNet50", "SEResNet18"])
def test_order_and_shape(tmp_path, variant):
    model, arrays = filled(variant)
    path = _npz(tmp_path / "x.npz", _numbered(arrays, "proj"))
    with pytest.raises(WeightsError, match=r"one place each, as above: match='order'") as caught:
        tiny(variant, weights=path)
    assert "stem_conv.weight 8×3×7×7" in str(caught.value)
    assert "m0.weight 8×3×7×7" in str(caught.value)
    by_order = read_weights(path, match="order")
    assert_equal(values(tiny(variant, weights=by_order)), values(model))


def test_order_that_leaves_a_choice(tmp_path):
    _, arrays = filled()
    path = _npz(tmp_path / "x.npz", _numbered(arrays, "m"))
    with pytest.raises(WeightsError, match="leaves a choice: 'stage2_block1_shortcut_norm'"):
        tiny(weights=read_weights(path, match="order"))
    with pytest.raises(WeightsError, match="leaves a choice"):  # its classifier is left out
        tiny(weights=read_weights(path, match="order"), include_top=False)
    more = _npz(tmp_path / "more.npz", {**_numbered(arrays, "m"), "n.weight": np.ones((7, 3))})
    with pytest.raises(WeightsError, match="only the file has a layer of weight 7×3"):
        tiny(weights=read_weights(more, match="order"))
    sorted_file = save_safetensors(_numbered(arrays, "proj"), tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="in the order of their names"):
        tiny(weights=read_weights(sorted_file, match="order"))
    with pytest.raises(WeightsError, match="received 'shape'"):
        read_weights(path, match="shape")


def test_missing_and_unexpected_stand_side_by_side(tmp_path):
    _, arrays = filled()
    arrays["layer1.0.extra.weight"] = arrays.pop("layer1.0.conv1.weight")
    with pytest.raises(WeightsError) as caught:
        tiny(weights=_npz(tmp_path / "x.npz", arrays))
    missing, unexpected = "layer1.0.conv1.weight 8×8×3×3", "layer1.0.extra.weight 8×8×3×3"
    assert f"  {missing}  {unexpected}" in str(caught.value).splitlines()


def test_the_networks_for_small_images_with_the_names_of_the_large_ones(tmp_path):
    model, arrays = filled(stem="cifar")
    arrays = _renamed(arrays, ("downsample", "shortcut"), ("fc.", "linear."))
    path = _npz(tmp_path / "x.npz", arrays)
    with pytest.raises(WeightsError, match=r"first kernel is 3×3, .* --stem=cifar makes it so"):
        tiny(weights=path)
    assert_equal(values(tiny(weights=path, stem="cifar")), values(model))


def test_a_broken_npz_and_one_with_objects(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(b"x" * 100)
    with pytest.raises(WeightsError, match=r"no \.npz file of arrays"):
        read_weights(path)
    np.savez(path, a=np.array([{}], dtype=object))
    with pytest.raises(WeightsError, match=r"no \.npz file of arrays .*allow_pickle=False"):
        read_weights(path)


# PyTorch's training checkpoints


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="needs the extra `torch`")


@pytest.mark.parametrize("suffix", [".pth", ".th", ".ckpt"])
def test_training_checkpoints_hold_more_than_tensors(tmp_path, torch, suffix):
    model, arrays = filled()
    state = {name: torch.from_numpy(array) for name, array in arrays.items()}
    content = {
        "model_state_dict": state,
        "args": argparse.Namespace(lr=0.1, data=pathlib.Path("/data"), names=["a"]),
        "best": np.float64(0.5),
        "epoch": np.int64(3),
        "where": pathlib.PurePosixPath("x"),
        "history": np.ones(3),
        "optimizer": {"state": {0: {"momentum": torch.zeros(2)}}, "param_groups": []},
    }
    path = tmp_path / f"x{suffix}"
    torch.save(content, path)
    assert_equal(values(tiny(weights=path)), values(model))


def test_what_stands_for_inert_types_is_not_run(tmp_path, torch):
    """A pickle that calls a stand-in with a path makes no file and gives no tensor."""

    class Call:
        def __reduce__(self):
            return pathlib.PosixPath, (str(tmp_path / "was_here"),)

    torch.save({"model": {"conv1.weight": Call()}}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="holds no state dict"):
        read_weights(tmp_path / "x.pth")
    assert not (tmp_path / "was_here").exists()


@pytest.mark.parametrize(
    ("averaged", "taken", "other"),
    [(0, "model", r"model_ema' \(which has averaged nothing yet\)"), (7, "model_ema", "model'")],
)
def test_averaged_weights_are_taken_once_something_was_averaged(
    tmp_path, torch, averaged, taken, other
):
    _, arrays = filled()
    state = {name: torch.from_numpy(array) for name, array in arrays.items()}
    average = {f"module.{name}": value + 1 for name, value in state.items()}
    average["n_averaged"] = torch.tensor(averaged)
    torch.save({"model": state, "model_ema": average}, tmp_path / "x.pth")
    said = f"of 2 state dicts '{taken}' was taken, not '{other}"
    with pytest.warns(WeightsNote, match=said):
        checkpoint = read_weights(tmp_path / "x.pth")
    loaded = values(tiny(weights=checkpoint))["predictions/bias"]
    np.testing.assert_array_equal(loaded, arrays["fc.bias"] + (1 if averaged else 0))


def test_what_lies_beside_a_whole_network_can_be_left_out(tmp_path):
    """Training scripts that are modules, as Lightning's, keep the weights of their loss, too."""
    _, arrays = filled()
    arrays = {f"model.{name}": array for name, array in arrays.items()}
    path = _npz(tmp_path / "x.npz", {**arrays, "criterion.weight": np.ones(5, np.float32)})
    expected = r"under model\. and has all .* --rename='\^\(criterion\)\.\*=' leaves the rest out"
    with pytest.raises(WeightsError, match=expected):
        tiny(weights=path)
    tiny(weights=read_weights(path, names={"^(criterion).*": ""}))
    # What may be of the network is not offered to be left out.
    _npz(path, {**arrays, "model.layer1.0.conv1.bias": np.ones(8, np.float32)})
    with pytest.raises(WeightsError, match=r"1 unexpected: model\.layer1\.0\.conv1\.bias\. The"):
        tiny(weights=path)


def test_a_prefix_with_slashes(tmp_path):
    model, arrays = filled()
    path = _npz(tmp_path / "x.npz", {f"net/{name}": array for name, array in arrays.items()})
    assert_equal(values(tiny(weights=path)), values(model))


def test_torchscript_is_refused_with_what_to_do(tmp_path, torch):
    module = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))
    module.save(tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=r"TorchScript program\. Load it with torch\.jit\.load"):
        read_weights(tmp_path / "x.pt")


# Input channels


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_weights_for_rgb_in_other_channels(tmp_path, channels):
    _, arrays = filled()
    path = _npz(tmp_path / "x.npz", arrays)
    said = f"is for RGB, the model for images of {channels} channel"
    with pytest.warns(WeightsNote, match=said):
        model = tiny(weights=path, input_shape=(32, 32, channels))
    kernel = values(model)["stem_conv/kernel"]
    theirs = arrays["conv1.weight"].transpose(2, 3, 1, 0)
    if channels == 1:
        expected = theirs[:, :, :1] + theirs[:, :, 1:2] + theirs[:, :, 2:]
    else:
        repeated = np.concatenate([theirs] * 3, axis=2)[:, :, :channels]
        expected = repeated * 3 / channels
    np.testing.assert_allclose(kernel, expected, rtol=1e-6, atol=1e-7)


# The call of another package


def test_a_tensor_in_the_place_of_include_top():
    tensor = keras_resnet.ResNet18(include_top=False).input
    with pytest.raises(TypeError, match=r"To build on it: ResNet50\(input_tensor=\.\.\.\)"):
        keras_resnet.ResNet50(tensor)
    with pytest.raises(TypeError, match="True or False, received 'no'"):
        keras_resnet.ResNet50(include_top="no")
