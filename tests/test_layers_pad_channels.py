"""The option-A shortcut: strided subsampling and appended zero channels."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_resnet.layers import PadChannels

SIZES = {3: (2, 9), 4: (2, 9, 6), 5: (2, 9, 6, 5)}


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("rank", SIZES)
def test_subsamples_then_appends_zeros(rank, data_format, stride):
    x = np.random.default_rng(0).normal(size=(*SIZES[rank], 4)).astype("float32")
    kept = x[(slice(None), *(slice(None, None, stride),) * (rank - 2))]
    expected = np.concatenate([kept, np.zeros((*kept.shape[:-1], 3))], axis=-1)
    if data_format == "channels_first":
        x, expected = np.moveaxis(x, -1, 1), np.moveaxis(expected, -1, 1)
    layer = PadChannels(7, stride, data_format=data_format)
    y = ops.convert_to_numpy(layer(x))
    np.testing.assert_array_equal(y, expected)
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": 0}, "positive integer as `filters`, received 0"),
        ({"filters": 4, "stride": 1.5}, r"positive integer as `stride`, received 1\.5"),
        ({"filters": 4, "data_format": "NHWC"}, "received 'NHWC'"),
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
