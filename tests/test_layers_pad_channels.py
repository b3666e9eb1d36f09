"""The option-A shortcut: strided subsampling and appended zero channels."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_resnet.layers import PadChannels

SIZES = {3: (2, 9), 4: (2, 9, 6), 5: (2, 9, 6, 5)}


def _mean_of_windows(x, stride):
    """Means over windows of `stride` positions along every spatial axis, cut at the border."""
    for axis in range(1, x.ndim - 1):
        starts = range(0, x.shape[axis], stride)
        parts = [np.take(x, range(s, min(s + stride, x.shape[axis])), axis) for s in starts]
        x = np.stack([part.mean(axis) for part in parts], axis)
    return x


@pytest.mark.parametrize("placement", ["behind", "centered", "pooled"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("rank", SIZES)
def test_subsamples_then_adds_zeros(rank, data_format, stride, placement):
    x = np.random.default_rng(0).normal(size=(*SIZES[rank], 4)).astype("float32")
    kept = x[(slice(None), *(slice(None, None, stride),) * (rank - 2))]
    if placement == "pooled":
        kept = _mean_of_windows(x, stride)
    zeros = np.zeros((*kept.shape[:-1], 3))
    before = {"behind": 0, "centered": 1, "pooled": 1}[placement]
    expected = np.concatenate([zeros[..., :before], kept, zeros[..., before:]], axis=-1)
    if data_format == "channels_first":
        x, expected = np.moveaxis(x, -1, 1), np.moveaxis(expected, -1, 1)
    layer = PadChannels(7, stride, data_format=data_format, placement=placement)
    y = ops.convert_to_numpy(layer(x))
    tolerance = 1e-6 if placement == "pooled" else 0
    np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance)
    assert layer.compute_output_shape(x.shape) == expected.shape
    assert layer.count_params() == 0


def test_is_the_identity_without_stride_and_new_channels():
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 4)).astype("float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(PadChannels(4)(x)), x)


def test_symbolic_shapes_dtype_and_saved_model(tmp_path):
    inputs = keras.Input((None, 5, 4), dtype="float32")
    outputs = PadChannels(8, stride=2, data_format="channels_last", name="pad")(inputs)
    assert outputs.shape == (None, None, 3, 8)
    model = keras.Model(inputs, outputs)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype("float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(again(x)), ops.convert_to_numpy(model(x)))
    assert keras.saving.get_registered_name(PadChannels) == "keras_resnet>PadChannels"
    half = PadChannels(8, data_format="channels_last", dtype="mixed_bfloat16")(x)
    assert keras.backend.standardize_dtype(half.dtype) == "bfloat16"


def test_configs_without_a_placement_mean_behind():
    config = PadChannels(8).get_config()
    assert config.pop("placement") == "behind"
    assert PadChannels.from_config(config).placement == "behind"


@pytest.mark.parametrize("stored", ["behind", "centered", "pooled"])
@pytest.mark.parametrize("wanted", ["behind", "centered", "pooled"])
def test_files_of_weights_know_their_placement(tmp_path, stored, wanted):
    def model(placement):
        inputs = keras.Input((4, 4, 2))
        outputs = PadChannels(6, 2, "channels_last", placement, name="pad")(inputs)
        return keras.Model(inputs, keras.layers.Dense(1)(outputs))

    path = tmp_path / "x.weights.h5"
    model(stored).save_weights(path)
    if stored == wanted:
        model(wanted).load_weights(path)
        return
    message = f"'pad' places its zeros {wanted!r}, the file is of one that places them {stored!r}"
    with pytest.raises(ValueError, match=message):
        model(wanted).load_weights(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": 0}, "positive integer as `filters`, received 0"),
        ({"filters": 4, "stride": 1.5}, r"positive integer as `stride`, received 1\.5"),
        ({"filters": 4, "data_format": "NHWC"}, "received 'NHWC'"),
        ({"filters": 4, "placement": "front"}, "'centered', 'pooled', received 'front'"),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        PadChannels(**arguments)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 8), r"rank 3, 4 or 5 .* received the shape \(2, 8\)"),
        ((2, 3, 3, 8), r"takes 1 to 4 of them on axis 3, received the shape \(2, 3, 3, 8\)"),
    ],
)
def test_refuses_bad_inputs(shape, message):
    with pytest.raises(ValueError, match=message):
        PadChannels(4, data_format="channels_last")(np.zeros(shape, "float32"))
