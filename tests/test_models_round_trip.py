"""Every variant survives get_config, .keras files and clone_model, with identical outputs."""

import dataclasses

import keras
import numpy as np
import pytest
from model_helpers import images, one_of_each_family, randomize, run, small
from references.cases import TOO_LARGE

from keras_resnet.architectures import ARCHITECTURES
from keras_resnet.calibration import Calibration
from keras_resnet.models import ResNet, create_model

CALIBRATION = Calibration(
    temperature=1.7, quantiles=tuple(np.linspace(1, 0.3, 101).tolist()), split="val", images=123
)


def _structure(name):
    """What is left of a row in its small twin: depths, widths and preprocessing are not."""
    gone = ("name", "source", "depths", "widths", "image_size", "crop_ratio", "classes")
    row = dataclasses.asdict(ARCHITECTURES[name])
    return tuple(value for key, value in row.items() if key not in gone)


DISTINCT = {_structure(name): name for name in reversed(ARCHITECTURES)}


def check_round_trips(model, folder):
    model.class_names = [f"class {i}" for i in range(model.output_shape[-1])]
    model.calibration = CALIBRATION
    x = images(model)
    expected = run(model, x)
    path = folder / "model.keras"
    model.save(path)
    copies = [
        ResNet.from_config(model.get_config()),
        keras.models.clone_model(model),
        keras.saving.load_model(path),
    ]
    for copy in copies[:2]:
        copy.set_weights(model.get_weights())
    for copy in copies:
        assert type(copy) is ResNet
        assert copy.name == model.name
        assert [la.name for la in copy.layers[1:]] == [la.name for la in model.layers[1:]]
        assert copy.preprocessing == model.preprocessing
        assert copy.class_names == model.class_names
        assert copy.calibration == CALIBRATION
        assert copy.rematerialize == model.rematerialize
        np.testing.assert_array_equal(run(copy, x), expected)


@pytest.mark.parametrize("name", one_of_each_family(sorted(DISTINCT.values())))
def test_round_trips(name, tmp_path):
    """One of each structure; the variants that are left out differ from one in depth only."""
    model = randomize(small(name, drop_path_rate=0.1, rematerialize=name.endswith("V2")))
    check_round_trips(model, tmp_path)


def test_round_trips_of_other_outputs_and_ranks(tmp_path):
    model = small("ResNet18V2", input_shape=(64, 2), output_stride=8, include_top=False)
    check_round_trips(randomize(model), tmp_path)


def test_round_trips_of_standardized_kernels_and_projections(tmp_path):
    arguments = {
        "norm_layer": "group",
        "norm_groups": 4,
        "weight_standardization": True,
        "projection": "first",
        "shortcut_norm": False,
    }
    model = randomize(small("ResNet18D", classes=5, **arguments))
    assert model.get_layer("stage1_block1_norm1").groups == 4
    names = {layer.name for layer in model.layers}
    assert {f"stage{n}_block1_shortcut_conv" for n in (1, 2, 3, 4)} <= names
    assert not any("shortcut_norm" in name for name in names)
    check_round_trips(model, tmp_path)
    described = {key: model.architecture[key] for key in arguments}
    assert described == arguments
    again = create_model(weights=tmp_path / "model.keras")
    np.testing.assert_array_equal(run(again, images(model)), run(model, images(model)))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in TOO_LARGE])
def test_round_trips_of_the_whole_network(name, tmp_path):
    size = 32 if "Cifar" in name or "WideResNet" in name else 64
    check_round_trips(create_model(name, input_shape=(size, size, 3)), tmp_path)
    keras.backend.clear_session()
