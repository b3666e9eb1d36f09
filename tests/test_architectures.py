"""The table: exact parameter counts of every variant, against libraries and closed forms."""

import json
import math
from pathlib import Path

import keras
import pytest
from model_helpers import one_of_each_family
from references.cases import COUNTERPARTS

from keras_resnet.architectures import ARCHITECTURES, get_architecture, list_models
from keras_resnet.models import create_model

# Trainable parameters that torchvision, timm and keras.applications report;
# tests/references/make_references.py wrote them and names the versions.
LIBRARIES = json.loads((Path(__file__).parent / "references/parameter_counts.json").read_text())


def cifar_v1(layers):
    """He et al. 2015, section 4.2: 6n + 2 layers, option A, so no parameters in shortcuts."""
    n, total = (layers - 2) // 6, 9 * 3 * 16 + 2 * 16
    for before, width in ((16, 16), (16, 32), (32, 64)):
        total += 9 * before * width + (2 * n - 1) * 9 * width**2 + 2 * n * 2 * width
    return total + 64 * 10 + 10


def preact_bottlenecks(depths, widths, stem, classes):
    """He et al. 2016: pre-activation bottlenecks, a projection at the head of each stage."""
    total, channels = stem, widths[0]
    for depth, width in zip(depths, widths, strict=True):
        for block in range(depth):
            total += 2 * channels + channels * width  # normalization, 1×1
            total += 2 * width + 9 * width**2  # normalization, 3×3
            total += 2 * width + width * 4 * width  # normalization, 1×1
            total += channels * 4 * width if block == 0 else 0
            channels = 4 * width
    return total + 2 * channels + channels * classes + classes


def wide_resnet(layers, factor):
    """Zagoruyko and Komodakis 2016, table 1, N = (layers - 4) / 6, with identity mappings."""
    total, channels = 9 * 3 * 16, 16
    for width in (16 * factor, 32 * factor, 64 * factor):
        for block in range((layers - 4) // 6):
            total += 2 * channels + 9 * channels * width + 2 * width + 9 * width**2
            total += channels * width if block == 0 else 0
            channels = width
    return total + 2 * channels + channels * 10 + 10


CLOSED_FORMS = {
    **{f"CifarResNet{n}": cifar_v1(n) for n in (20, 32, 44, 56, 110, 1202)},
    "CifarResNet110V2": cifar_v1(110),  # the same layers in another order
    **{
        f"CifarResNet{n}V2": preact_bottlenecks([(n - 2) // 9] * 3, (16, 32, 64), 9 * 3 * 16, 10)
        for n in (164, 1001)
    },
    "ResNet200V2": preact_bottlenecks((3, 24, 36, 3), (64, 128, 256, 512), 49 * 3 * 64, 1000),
    **{
        f"WideResNet{n}_{k}": wide_resnet(n, k)
        for n, k in ((16, 4), (16, 8), (22, 8), (28, 2), (28, 10), (40, 2), (40, 4))
    },
}
EXPECTED = {name: row["parameters"] for name, row in LIBRARIES.items()} | CLOSED_FORMS
# From papers: ResNet-20 0.27 M ... (He et al. 2015, table 6), 164: 1.7 M, 1001: 10.2 M with the
# rounding of He et al. 2016, WRN-28-10 36.5 M (Zagoruyko 2016, table 4).
PUBLISHED = {
    "CifarResNet20": 0.27e6,
    "CifarResNet32": 0.46e6,
    "CifarResNet44": 0.66e6,
    "CifarResNet56": 0.85e6,
    "CifarResNet110": 1.7e6,
    "CifarResNet1202": 19.4e6,
    "CifarResNet164V2": 1.7e6,
    "WideResNet28_10": 36.5e6,
    "WideResNet16_8": 11.0e6,
    "WideResNet40_4": 8.9e6,
    "WideResNet22_8": 17.2e6,
}


def trainable(model):
    return sum(math.prod(v.shape) for v in model.trainable_variables)


def test_every_variant_has_a_reference():
    assert set(EXPECTED) == set(ARCHITECTURES)


def test_rows_name_their_counterparts():
    """Which the stored logits of these libraries belong to."""
    rows = ARCHITECTURES.values()
    assert {r.name: (r.library, r.reference) for r in rows if r.library} == COUNTERPARTS
    assert all(bool(r.library) == bool(r.reference) for r in rows)


@pytest.mark.parametrize(
    ("layers", "factor"), [(50, 1), (50, 3), (101, 1), (101, 3), (152, 2), (152, 4)]
)
def test_big_transfer_has_the_parameters_of_preactivation_bottlenecks(layers, factor):
    depths = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}[layers]
    widths = [factor * width for width in (64, 128, 256, 512)]
    count = preact_bottlenecks(depths, widths, 49 * 3 * 64 * factor, 1000)
    assert count == LIBRARIES[f"ResNet{layers}x{factor}_BiT"]["parameters"]


WIDE = ("ResNet50x3_BiT", "ResNet101x3_BiT", "ResNet152x2_BiT", "ResNet152x4_BiT")


@pytest.mark.parametrize("name", one_of_each_family(ARCHITECTURES, slow=WIDE))
def test_parameters_block_by_block(name):
    """A stage's blocks between its first and its last are alike: build one, count it often."""
    depths = get_architecture(name).depths
    model = create_model(name, depths=[min(depth, 3) for depth in depths])
    total = trainable(model)
    for stage, depth in enumerate(depths, start=1):
        middle = [la for la in model.layers if la.name.startswith(f"stage{stage}_block2_")]
        total += max(depth - 3, 0) * sum(trainable(layer) for layer in middle)
    assert total == EXPECTED[name]


WHOLE = ("ResNet18", "ResNet50", "ResNet50V2", "ResNetRS50", "CifarResNet56", "CifarResNet164V2")


@pytest.mark.parametrize("name", WHOLE)
def test_parameters_of_the_whole_network(name):
    assert trainable(create_model(name)) == EXPECTED[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in ARCHITECTURES if n not in WHOLE])
def test_parameters_of_the_whole_large_network(name):
    assert trainable(create_model(name)) == EXPECTED[name]
    keras.backend.clear_session()


@pytest.mark.parametrize("name", PUBLISHED)
def test_closed_forms_round_to_the_published_numbers(name):
    assert EXPECTED[name] == pytest.approx(PUBLISHED[name], rel=0.02)


def test_resnet20_has_the_count_of_the_paper_exactly():
    assert EXPECTED["CifarResNet20"] == 269_722


def test_option_b_adds_its_projections():
    model = create_model("CifarResNet20", shortcut="B")
    projections = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert trainable(model) == 269_722 + projections


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("resnet50v?", ["ResNet50V1", "ResNet50V2"]),
        ("ResNeXt*", ["ResNeXt50_32x4d", "ResNeXt101_32x8d", "ResNeXt101_64x4d"]),
        ("*1001*", ["CifarResNet1001V2"]),
        ("vgg*", []),
    ],
)
def test_list_models(pattern, expected):
    assert list_models(pattern) == expected
    assert list_models() == list(ARCHITECTURES)


@pytest.mark.parametrize(
    ("name", "overrides", "error", "message"),
    [
        ("ResNet51", {}, ValueError, "no model 'ResNet51'. Did you mean 'ResNet5"),
        ("resnet50", {}, ValueError, "Did you mean 'ResNet50"),
        ("qwerty", {}, ValueError, "list_models"),
        (50, {}, ValueError, "no model 50"),
        ("ResNet50", {"dropout_rat": 0.1}, TypeError, "'dropout_rat'. Did you mean 'dropout_rate'"),
        ("ResNet50", {"pretrained": True}, TypeError, "'pretrained'. Did you mean 'weights'"),
        ("ResNet50", {"in_chans": 1}, TypeError, "'in_chans'. Did you mean 'input_shape'"),
        ("ResNet50", {"num_classes": 3}, TypeError, "'num_classes'. Did you mean 'classes'"),
        ("ResNet50", {"drop_rate": 0.1}, TypeError, "'drop_rate'. Did you mean 'dropout_rate'"),
        ("ResNet50", {"name": "x"}, TypeError, "multiple values|no argument 'name'"),
        ("ResNet50", {"depths": (1, 1)}, ValueError, r"depths=\(1, 1\) and widths=\(64, 128"),
        ("ResNet50", {"depths": (1, 0, 1, 1)}, ValueError, r"\(1, 0, 1, 1\)"),
        ("ResNet50", {"widths": (8, 8.5, 8, 8)}, ValueError, r"8\.5"),
    ],
)
def test_bad_input(name, overrides, error, message):
    with pytest.raises(error, match=message):
        get_architecture(name, **overrides)


def test_bottleneck_is_another_word_for_a_block():
    assert get_architecture("ResNet50", bottleneck=False).block == "basic"
    assert get_architecture("ResNet18", bottleneck=True).block == "bottleneck"
    assert get_architecture("ResNet18", bottleneck=None, depths=None) == ARCHITECTURES["ResNet18"]


def test_custom_depths_and_widths():
    model = create_model("ResNet50", depths=[1, 2], widths=[8, 16], input_shape=(32, 32, 3))
    assert model.get_layer("stage2_block2_out").output.shape == (None, 4, 4, 64)
    assert not any(layer.name.startswith("stage3") for layer in model.layers)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("ResNet49", ["ResNet50", "ResNet34", "ResNet18"]),
        ("resnet50", ["ResNet50"]),  # exact but for the case: nothing else is meant
        ("resnet5", ["ResNet50", "ResNet50D", "ResNet50V2"]),
        ("CifarResNet21", ["CifarResNet20", "CifarResNet32", "CifarResNet44"]),
        ("ResNet51V2", ["ResNet50V2", "ResNet50V1", "ResNet34V2"]),
        ("WideResNet50", ["WideResNet50_2", "WideResNet40_4", "WideResNet40_2"]),
    ],
)
def test_an_unknown_name_offers_the_closest_ones_first(name, near):
    with pytest.raises(ValueError, match=f"There is no model '{name}'") as raised:
        create_model(name)
    assert str(raised.value).endswith(f"Did you mean {' or '.join(map(repr, near))}?")


def test_a_name_that_is_near_none_points_to_the_list():
    with pytest.raises(ValueError, match=r"'efficient'\. keras_resnet\.list_models\(\) has"):
        create_model("efficient")
