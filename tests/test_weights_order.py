"""Networks that somebody wrote with `keras.layers`, under Keras' own numbered names."""

import re

import keras
import numpy as np
import pytest
from keras import layers
from weights_helpers import assert_equal, tiny, values

from keras_resnet.commands import main
from keras_resnet.models import create_model
from keras_resnet.weights import (
    Checkpoint,
    WeightsError,
    WeightsNote,
    classes_of,
    likely_networks,
    read_weights,
    schemes,
)
from keras_resnet.weights.written_layers import layers_of_model

pytestmark = pytest.mark.filterwarnings("ignore:.*so is the model:keras_resnet.weights.WeightsNote")

FILES = ("x.keras", "x.weights.h5", "x.h5")
# What a file of weights alone does not say of these networks.
KERAS = {"padding": "same", "epsilon": 1e-3}
SIZE = (16, 16, 3)


class Hand:
    """Writes a network down, its shortcuts before or after the branches."""

    def __init__(self, shortcut_at=-1, shortcut_norm=True, use_bias=False, stride_in_1x1=False):
        self.shortcut_at = shortcut_at
        self.shortcut_norm, self.use_bias = shortcut_norm, use_bias
        self.stride_in_1x1 = stride_in_1x1

    def conv(self, x, width, kernel=3, stride=1, norm=True, act=True):
        arguments = {"strides": stride, "padding": "same", "use_bias": self.use_bias}
        x = layers.Conv2D(width, kernel, **arguments)(x)
        x = layers.BatchNormalization()(x) if norm else x
        return layers.ReLU()(x) if act else x

    def block(self, x, widths, kernels, stride, project):
        shortcut, branch = x, x
        first = 0 if self.stride_in_1x1 else kernels.index(3)
        place = self.shortcut_at % (len(kernels) + 1)
        for number, (width, kernel) in enumerate(zip(widths, kernels, strict=True)):
            if project and number == place:
                shortcut = self.conv(x, widths[-1], 1, stride, self.shortcut_norm, act=False)
            last = number == len(kernels) - 1
            branch = self.conv(
                branch, width, kernel, stride if number == first else 1, act=not last
            )
        if project and place == len(kernels):
            shortcut = self.conv(x, widths[-1], 1, stride, self.shortcut_norm, act=False)
        return layers.ReLU()(layers.Add()([branch, shortcut]))

    def network(self, depths=(1, 1), widths=(8, 16), bottleneck=False, stem=8, classes=5):
        inputs = layers.Input(SIZE)
        x = self.conv(inputs, stem)
        share = 4 if bottleneck else 1
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            for number in range(depth):
                inside = (width, width, share * width) if bottleneck else (width, width)
                stride = 2 if number == 0 and stage else 1
                project = x.shape[-1] != share * width or stride > 1
                x = self.block(x, inside, (1, 3, 1) if bottleneck else (3, 3), stride, project)
        x = layers.GlobalAveragePooling2D()(x)
        return filled(keras.Model(inputs, layers.Dense(classes)(x)))


def filled(model):
    """The model with weights that keep its activations in range, each layer's its own."""
    random = np.random.default_rng(0)
    for variable in model.weights:
        shape = tuple(variable.shape)
        if len(shape) > 1:
            variable.assign(random.normal(size=shape) / np.sqrt(np.prod(shape[:-1])))
        elif variable.name in ("gamma", "moving_variance"):
            variable.assign(random.uniform(0.7, 1.3, shape))
        else:
            variable.assign(random.normal(size=shape) * 0.1)
    return model


def saved(model, path):
    if path.name.endswith(".weights.h5"):
        model.save_weights(path)
    else:
        model.save(path)
    return path


def loaded(path, variant="CifarResNet20", **arguments):
    """The network for a file, by order and shape."""
    weights = read_weights(path, match="order")
    arguments |= {"classes": classes_of(weights), "classifier_activation": None}
    known = {"depths": (1, 1), "widths": (8, 16), "stem_width": 8, "stem": "cifar"}
    if path.name.endswith(".weights.h5"):
        known |= KERAS
    return create_model(variant, weights=weights, input_shape=SIZE, **{**known, **arguments})


def assert_same_logits(model, other):
    x = np.random.default_rng(1).normal(size=(2, *SIZE)).astype("float32")
    expected, logits = model.predict(x, verbose=0), other.predict(x, verbose=0)
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.ptp(expected), rtol=0)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0, -1])
def test_numbers_tell_the_order_and_shapes_the_shortcuts_place(tmp_path, name, place):
    model = Hand(place).network(depths=(2, 3), widths=(8, 16))
    assert sum("conv2d" in layer.name for layer in model.layers) == 12  # conv2d_10 before conv2d_2
    path = saved(model, tmp_path / name)
    assert_same_logits(model, loaded(path, depths=(2, 3)))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0, -1])
def test_shortcuts_that_look_like_the_branch(tmp_path, name, place):
    model = Hand(place, use_bias=True).network(widths=(8, 8), bottleneck=True)
    path = saved(model, tmp_path / name)
    given = {"block": "bottleneck", "shortcut": "B", "widths": (8, 8), "use_bias": True}
    assert_same_logits(model, loaded(path, **given))


@pytest.mark.parametrize("name", FILES)
def test_the_example_of_keras(tmp_path, name):
    """keras.io's `cifar10_resnet.py`: biases, and projections without normalization at the end."""
    model = Hand(shortcut_norm=False, use_bias=True).network()
    path = saved(model, tmp_path / name)
    told = "use_bias=True, shortcut='B', shortcut_norm=False"
    with pytest.warns(WeightsNote, match=rf"is of CifarResNet20 with {told}"):
        other = loaded(path)
    assert_same_logits(model, other)


def test_connections_decide_what_order_leaves_open(tmp_path):
    model = Hand(2).network(depths=(1,), widths=(8,), bottleneck=True)
    given = {"block": "bottleneck", "shortcut": "B", "depths": (1,), "widths": (8,)}
    path = saved(model, tmp_path / "x.weights.h5")
    with pytest.raises(
        WeightsError, match=r"leaves a choice: 'stage1_block1_conv3' may be 'conv2d"
    ):
        loaded(path, **given)
    for name in ("x.keras", "x.h5"):
        assert_same_logits(model, loaded(saved(model, tmp_path / name), **given))


def test_another_network_of_the_same_shapes_is_refused(tmp_path):
    given = {"block": "bottleneck", "shortcut": "B"}
    model = Hand(stride_in_1x1=True).network(bottleneck=True)
    path = saved(model, tmp_path / "x.keras")
    with pytest.raises(WeightsError, match=r"no stride, 'conv2d_\d+' there has the strides \(2, 2"):
        loaded(path, **given)
    assert_same_logits(model, loaded(path, **given, stride_in_1x1=True))
    inputs = layers.Input(SIZE)  # without the first block's addition
    x = Hand().conv(Hand().conv(Hand().conv(inputs, 8), 8), 8)
    x = Hand().block(x, (16, 16), (3, 3), 2, project=True)
    plain = keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))
    with pytest.raises(WeightsError, match=r"its network is another one: as 'stage2_block1_conv1'"):
        loaded(saved(filled(plain), tmp_path / "plain.h5"), shortcut="B")


@keras.saving.register_keras_serializable(package="tests")
class OwnBlock(layers.Layer):
    """A block as a layer of somebody's own, whose layers have the same names in each."""

    def __init__(self, width=8, stride=1, **kwargs):
        super().__init__(**kwargs)
        same = {"padding": "same", "use_bias": False}
        self.first = layers.Conv2D(width, 3, stride, **same, name="conv1")
        self.norm1 = layers.BatchNormalization(name="bn1")
        self.second = layers.Conv2D(width, 3, **same, name="conv2")
        self.norm2 = layers.BatchNormalization(name="bn2")
        self.skip = keras.Sequential(name="skip") if stride > 1 else None
        if self.skip:
            self.skip.add(layers.Conv2D(width, 1, stride, use_bias=False))
            self.skip.add(layers.BatchNormalization())

    def call(self, x):
        y = self.norm2(self.second(keras.ops.relu(self.norm1(self.first(x)))))
        return keras.ops.relu(y + (self.skip(x) if self.skip else x))


@pytest.mark.parametrize("name", FILES)
def test_blocks_that_are_layers_of_ones_own(tmp_path, name):
    inputs = layers.Input(SIZE)
    x = OwnBlock()(Hand().conv(inputs, 8))
    x = OwnBlock(16, 2)(x)
    model = keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))
    path = saved(filled(model), tmp_path / name)
    taken = r"taken are padding='symmetric', epsilon=(1e-05|0\.001), as in CifarResNet20"
    with pytest.warns(WeightsNote, match=taken):
        loaded(path, shortcut="B", **{"padding": None, "epsilon": None})
    assert_same_logits(model, loaded(path, shortcut="B", **KERAS))


@pytest.mark.parametrize("name", FILES)
def test_gates_of_dense_layers(tmp_path, name):
    inputs = layers.Input(SIZE)
    x = Hand().conv(inputs, 32)
    y = Hand().conv(Hand().conv(x, 32), 32, act=False)
    gate = layers.GlobalAveragePooling2D()(y)
    gate = layers.Dense(32, "sigmoid")(layers.Dense(8, "relu")(gate))  # the outer one is made first
    y = layers.Multiply()([y, layers.Reshape((1, 1, 32))(gate)])
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.Add()([x, y])))
    model = filled(keras.Model(inputs, layers.Dense(5)(x)))
    given = {"depths": (1,), "widths": (32,), "stem_width": 32, "se_ratio": 0.25}
    assert_same_logits(model, loaded(saved(model, tmp_path / name), shortcut="B", **given))


def test_the_error_has_both_sides_in_one_order_and_the_layout_of_the_file(tmp_path):
    path = saved(Hand().network(depths=(2, 2)), tmp_path / "x.keras")
    with pytest.raises(WeightsError, match="one place each, as above: match='order'") as caught:
        tiny("ResNet18", weights=path, stem="cifar", depths=(2, 2))
    rows = [line.split() for line in str(caught.value).splitlines()[2:12]]
    assert [row[0] for row in rows[:3]] == [
        "stem_conv/kernel",
        "stage1_block1_conv1/kernel",
        "stage1_block1_conv2/kernel",
    ]
    assert all(re.fullmatch(r"conv2d(_\d+)?/kernel", row[2]) for row in rows[:9])
    assert [row[1] for row in rows] == [row[3] for row in rows]
    assert rows[0][1] == "3×3×3×8"
    with pytest.raises(WeightsError, match=r"only the model has 2 layers of kernel") as caught:
        tiny("ResNet18", weights=path, stem="cifar", depths=(3, 2))
    rows = [line.split() for line in str(caught.value).splitlines()[2:6]]
    assert [row[1] for row in rows] == [row[3] for row in rows]


def test_the_error_says_which_argument_makes_layers_agree(tmp_path):
    path = saved(Hand(use_bias=True).network(), tmp_path / "x.weights.h5")
    with pytest.raises(WeightsError, match=r"have biases: use_bias=True or --use_bias=true"):
        loaded(path, shortcut="B", use_bias=False)
    with pytest.raises(WeightsError, match="may be projections: shortcut='B' or --shortcut=B"):
        loaded(path, shortcut="A", use_bias=True)


@pytest.mark.parametrize(
    "name",
    ["CifarResNet20", "ResNet18V2", "ResNet26D", "ResNet50V1", "SEResNet18", "WideResNet16_4"],
)
def test_shapes_tell_the_network_of_a_file(name):
    model = create_model(name)
    layers = layers_of_model(model, schemes.by_order(()))
    arrays = {
        f"net.{layer}.{variable}": np.broadcast_to(np.float32(0), shape)
        for layer, shapes in layers.items()
        for variable, shape in shapes.items()
    }
    checkpoint = Checkpoint("x.pth", arrays)
    assert likely_networks(checkpoint) == [name]
    with pytest.raises(WeightsError, match=rf"--model={name}\. The shapes are those of {name}\."):
        create_model(weights=checkpoint)


def test_shapes_of_no_network():
    arrays = {"x.weight": np.zeros((8, 3, 5, 5), "float32"), "y.weight": np.zeros(3, "float32")}
    assert likely_networks(Checkpoint("x.pth", arrays)) == []
    assert likely_networks(Checkpoint("x.pth", {})) == []


# PyTorch


def _odd_names(path, shortcut):
    """A file of option A or B with names that say nothing; the order is that of its modules."""
    arguments = {"depths": (1, 1), "widths": (8, 16), "stem_width": 8}
    model = create_model("CifarResNet20", shortcut=shortcut, classes=5, **arguments)
    filled(model)
    arrays = {}
    parts = ["stem", "stage1_block1", "stage2_block1", "predictions"]
    variables = {
        "kernel": "weight",
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
    }
    variables |= {"moving_variance": "running_var"}
    in_order = sorted(
        (layer for layer in model.layers if layer.weights),
        key=lambda layer: (
            next(n for n, part in enumerate(parts) if layer.name.startswith(part)) * 2
            + ("shortcut" in layer.name)
        ),
    )
    for number, layer in enumerate(in_order):
        for variable in layer.weights:
            array = keras.ops.convert_to_numpy(variable)
            if array.ndim > 1:
                array = np.moveaxis(array, (-1, -2), (0, 1))
            arrays[f"net.a{number}.{variables.get(variable.name, variable.name)}"] = array
    np.savez(path, **arrays)
    return model


@pytest.mark.parametrize("shortcut", ["A-centered", "B"])
def test_what_the_error_proposes_works_when_it_is_pasted(tmp_path, capsys, shortcut):
    path = tmp_path / "x.npz"
    model = _odd_names(path, shortcut)
    command = ["convert", "--model=CifarResNet20", f"--weights={path}", "--depths=1,1"]
    command += ["--widths=8,16", "--stem_width=8", f"--output={tmp_path / 'x.keras'}"]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "stem_conv.weight 8×3×3×3" in said
    proposed = re.findall(r"--[a-z]+=[a-z]+", said.splitlines()[-1])
    assert proposed == ["--match=order"]
    if shortcut != "B":
        assert re.search(r"--shortcut= to say which of 'A', 'A-centered' and 'A-pooled'", said)
        command += [f"--shortcut={shortcut}"]
    assert main([*command, *proposed]) == 0
    converted = keras.saving.load_model(tmp_path / "x.keras")
    assert_equal(values(converted), values(model))
