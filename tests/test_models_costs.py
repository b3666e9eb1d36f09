"""Multiply-adds against the numbers other libraries publish; the table in the docs."""

from pathlib import Path

import keras
import pytest
from model_helpers import small

from keras_resnet.architectures import ARCHITECTURES
from keras_resnet.models import create_model
from keras_resnet.models.costs import HEADER, profile, table_row

TABLE = (Path(__file__).parent.parent / "docs/models.md").read_text()
# `_ops` in torchvision 0.28's weights' meta data, billions of multiply-adds at 224 pixels.
TORCHVISION = {
    "ResNet18": 1.814,
    "ResNet34": 3.664,
    "ResNet50": 4.089,
    "ResNet101": 7.801,
    "ResNet152": 11.514,
    "ResNeXt50_32x4d": 4.23,
    "ResNeXt101_32x8d": 16.414,
    "ResNeXt101_64x4d": 15.46,
    "WideResNet50_2": 11.398,
    "WideResNet101_2": 22.753,
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_the_table_agrees_with_torchvision(name):
    (line,) = (row for row in TABLE.splitlines() if row.startswith(f"| `{name}` "))
    assert float(line.split("|")[3].strip().removesuffix(" G")) == TORCHVISION[name]


@pytest.mark.parametrize("name", ["ResNet18", "ResNet50", "ResNeXt50_32x4d"])
def test_multiply_adds(name):
    costs = profile(create_model(name))
    assert round(costs.multiply_adds / 1e9, 3) == TORCHVISION[name]
    assert costs.input_shape == (224, 224, 3)


def test_the_table_has_every_variant_and_is_current():
    """A full check builds every variant (slow test below); here the cheap ones and the rest."""
    assert TABLE.startswith(HEADER)
    names = [row.split("`")[1] for row in TABLE.splitlines() if row.startswith("| `")]
    assert names == list(ARCHITECTURES)
    for name in ("ResNet18D", "CifarResNet20", "WideResNet16_4"):
        assert table_row(name) in TABLE


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_row_of_the_table(name):
    assert table_row(name) in TABLE


def test_counts_by_hand():
    x = keras.Input((10, 12, 4))
    y = keras.layers.Conv2D(6, 3, strides=2, groups=2, padding="valid")(x)  # 4×5 outputs
    y = keras.layers.GlobalAveragePooling2D()(y)
    shared = keras.layers.Dense(6)
    y = shared(shared(y))
    costs = profile(keras.Model(x, y))
    assert costs.multiply_adds == 4 * 5 * 6 * (9 * 2) + 2 * 6 * 6
    assert costs.parameters == 9 * 2 * 6 + 6 + 6 * 6 + 6
    assert costs.moving_statistics == 0


def test_nested_models_and_ranks_count():
    inner = small("CifarResNet20")
    x = keras.Input((8, 8, 3))
    assert profile(keras.Model(x, inner(x))).multiply_adds == profile(inner).multiply_adds
    line = small("ResNet18", input_shape=(64, 3), include_top=False)
    first = profile(line).multiply_adds
    assert (
        profile(small("ResNet18", input_shape=(128, 3), include_top=False)).multiply_adds
        == 2 * first
    )


def test_open_sizes_need_an_input_shape():
    model = small("ResNet18", input_shape=(None, None, 3))
    fixed = small("ResNet18", input_shape=(64, 32, 3))
    assert profile(model, (64, 32, 3)) == profile(fixed)
    with pytest.raises(ValueError, match="received None"):
        profile(model)
    with pytest.raises(ValueError, match=r"received \(64, 32, 4\)"):
        profile(model, (64, 32, 4))
    with pytest.raises(ValueError, match=r"received \(64, 32\)"):
        profile(fixed, (64, 32))
