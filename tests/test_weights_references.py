"""Logits and parameter counts equal torchvision's, timm's and keras.applications'.

The numbers come from tests/references/make_references.py, which names the versions. The weights
come from a generator that knows names and shapes only, and go through the code that loads files:
a wrong name, layout, stride or padding shows up here.
"""

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from references import generator
from references.cases import CASES, CLASSES_KEPT, COUNTERPARTS, KERAS, TIMM_CHANGED, Case
from weights_helpers import arrays_for

from keras_resnet.models import create_model
from keras_resnet.weights import Checkpoint, apply_weights, schemes
from keras_resnet.weights.defaults import HUB, KERAS_URL, default_weights
from keras_resnet.weights.defaults import KERAS as KERAS_FILES
from keras_resnet.weights.timm_networks import TIMM_NETWORKS

REFERENCES = Path(__file__).parent / "references"
COUNTS = json.loads((REFERENCES / "parameter_counts.json").read_text())
TIMM_CONFIGS = json.loads((REFERENCES / "default_weights.json").read_text())
TOLERANCE = 1e-4  # of the range of the logits; measured: below 1e-6


def _with_variant(case: Case) -> Case:
    """The case with our name and arguments, if timm's name alone says them."""
    if case.variant:
        return case
    variant, arguments = TIMM_NETWORKS[case.model]
    return dataclasses.replace(case, variant=variant, arguments=arguments)


# Alike but for depth, width or what has a case of its own: in the ci tier.
ALIKE = {
    *("ResNet101", "ResNet34", "ResNet34D", "ResNet34-output_stride_16", "WideResNet50_2"),
    *(
        "ResNet50D-output_stride_8",
        "ResNet50x1_BiT-output_stride_8",
        "ResNetBlur50-output_stride_8",
    ),
    *("ResNetRS50-blur", "ResNetAA50", "ResNet50V2-timm", "timm-seresnext26d_32x4d"),
}


def _marks(case: Case) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] if case.slow else [pytest.mark.ci] * (case.name in ALIKE)


ALL_CASES = [
    pytest.param(_with_variant(case), id=case.name, marks=_marks(case)) for case in CASES.values()
]


@pytest.fixture(autouse=True)
def _forget_models():
    yield
    keras.backend.clear_session()


def _name_scheme(case: Case) -> schemes.NameScheme:
    if case.library == KERAS:
        return schemes.KERAS_APPLICATIONS
    return schemes.TIMM_V2 if "resnetv2" in case.model else schemes.TORCHVISION


def _build(case: Case, **arguments):
    return create_model(
        case.variant,
        input_shape=(None, None, 3),
        classifier_activation=None,
        **{**case.arguments, **arguments},
    )


def _load(model, case: Case) -> None:
    arrays = arrays_for(model, _name_scheme(case))
    apply_weights(model, Checkpoint("generator", arrays), variant=case.variant)


def _difference(model, case: Case, size: int) -> float:
    """Largest difference of the logits relative to their range."""
    images = keras.ops.convert_to_tensor(generator.images(size))
    found = keras.ops.convert_to_numpy(model(images, training=False))[:, CLASSES_KEPT]
    with np.load(REFERENCES / "logits" / f"{case.name}.npz") as stored:
        expected = stored[f"size_{size}"]
    assert found.shape == expected.shape == (2, 200)
    return float(np.abs(found - expected).max() / np.ptp(expected))


@pytest.mark.parametrize("case", ALL_CASES)
def test_logits_and_parameter_count_equal_the_reference(case):
    model = _build(case)
    if not case.arguments:
        trainable = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
        assert trainable == COUNTS[case.variant]["parameters"], COUNTS[case.variant]["source"]
    _load(model, case)
    for size in case.sizes:
        assert _difference(model, case, size) <= TOLERANCE, f"{size} pixels"


def test_every_network_of_timms_has_a_reference():
    assert TIMM_NETWORKS.keys() - {"resnext101_32x32d"} == set(TIMM_CHANGED)
    # The rows of the table that are timm's own names need no second line.
    assert not TIMM_NETWORKS.keys() & {model for _, model in COUNTERPARTS.values()}


@pytest.mark.parametrize("mistake", [{"stride_in_1x1": True}, {"epsilon": 1e-3}], ids=str)
def test_the_comparison_notices_a_wrong_network(mistake):
    case = CASES["ResNet50"]
    model = _build(case, **mistake)
    _load(model, case)
    assert _difference(model, case, 64) > 3 * TOLERANCE


def test_the_comparison_notices_swapped_weights():
    case = CASES["ResNet18"]
    model = _build(case)
    arrays = arrays_for(model, schemes.TORCHVISION)
    one, other = "layer2.1.conv1.weight", "layer2.1.conv2.weight"
    arrays[one], arrays[other] = arrays[other], arrays[one]
    apply_weights(model, Checkpoint("generator", arrays), variant=case.variant)
    assert _difference(model, case, 64) > 100 * TOLERANCE


def test_every_counterpart_has_its_references():
    assert COUNTS.keys() == COUNTERPARTS.keys()
    stored = {path.stem for path in (REFERENCES / "logits").glob("*.npz")}
    assert stored == CASES.keys()


def test_default_weights_of_the_hub_exist_and_are_of_the_same_network():
    for variant, repository in HUB.items():
        config = TIMM_CONFIGS[repository.removeprefix("timm/")]
        _, model = COUNTERPARTS[variant]
        assert config["architecture"] == model
        assert config["num_classes"] == 1000
        assert default_weights(variant) == f"hf://{repository}"


def test_default_weights_of_keras_are_those_that_keras_knows():
    from keras.src.applications import resnet  # private, so not in the package itself

    assert resnet.BASE_WEIGHTS_PATH == KERAS_URL
    for variant, (name, *hashes) in KERAS_FILES.items():
        assert resnet.WEIGHTS_HASHES[name] == tuple(hashes)
        assert COUNTERPARTS[variant][1].lower() == name
