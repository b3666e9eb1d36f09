"""One test for each name that Keras does not promise: these fail when it drops or bypasses one."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_resnet.layers import BatchNormalization, keras_internals
from keras_resnet.models.resnet import ResNet
from keras_resnet.training import optimizers

PACKAGE = Path(keras_internals.__file__).parent.parent


@pytest.fixture
def model():
    """A dense layer, called twice, inside and outside of a nested model."""
    shared = keras.layers.Dense(3, name="shared")
    inner_input = keras.Input((3,))
    inner = keras.Model(inner_input, keras.layers.ReLU(name="relu")(inner_input), name="inner")
    inputs = keras.Input((3,), name="image")
    return ResNet(inputs, inner(shared(shared(inputs))), name="outer")


def test_run_through_graph_calls_a_function_for_each_layer(model):
    called = []

    def operation_fn(layer):
        called.append(layer.name)
        return lambda x, **kwargs: x + 1

    assert keras_internals.is_functional(model)
    assert not keras_internals.is_functional(keras.layers.Dense(1))
    assert keras_internals.run_through_graph(model, [0], operation_fn) == 3
    assert called == ["shared", "shared", "inner"]


def test_run_through_graph_is_what_keras_calls(model, monkeypatch):
    """`ResNet` overrides it, and `clone_model` and plain calls have to pass there."""
    assert keras_internals.OVERRIDDEN_BY_MODELS == ("_run_through_graph",)
    passed = []
    original = ResNet._run_through_graph

    def spy(self, *args, **kwargs):
        passed.append(self.name)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(ResNet, "_run_through_graph", spy)
    model(np.zeros((1, 3), "float32"))
    assert passed == ["outer"]
    keras.models.clone_model(model)
    assert len(passed) > 1


def test_standardize_inputs_gives_a_flat_list(model):
    x = np.ones((1, 3), "float32")
    for given in (x, {"image": x}):
        (tensor,) = keras_internals.standardized_inputs(model, given)
        np.testing.assert_array_equal(tensor, x)


def test_nodes_by_depth_come_in_running_order(model):
    nodes = list(keras_internals.nodes_in_running_order(model))
    assert [node.operation.name for node in nodes] == ["shared", "shared", "inner"]
    values = {id(tensor): "x" for tensor in model.inputs}
    for node in nodes:
        args, kwargs = node.arguments.fill_in(values)
        assert args == ("x",)
        assert kwargs.get("mask") is None
        assert [id(tensor) for tensor in node.input_tensors] == [list(values)[-1]]
        values[id(node.outputs[0])] = "x"
    assert id(model.outputs[0]) in values


def test_inbound_nodes_count_calls(model):
    assert keras_internals.number_of_calls(model.get_layer("shared")) == 2
    assert keras_internals.number_of_calls(keras.layers.Dense(1)) == 0


def test_flatten_layers_goes_into_nested_models(model):
    names = [layer.name for layer in keras_internals.layers_within(model)]
    assert sorted(name for name in names if "input" not in name) == [
        "image",
        "inner",
        "relu",
        "shared",
    ]
    bare = BatchNormalization(name="bare")
    assert keras_internals.layers_within(bare) == []


@pytest.fixture
def variable():
    return keras.Variable(np.ones(2, "float32"), name="kernel")


def test_var_key_tells_variables_apart(variable):
    optimizer, other = keras.optimizers.SGD(), keras.Variable(np.ones(2, "float32"))
    key = keras_internals.variable_key(optimizer, variable)
    assert key == keras_internals.variable_key(optimizer, variable)
    assert key != keras_internals.variable_key(optimizer, other)


def test_use_weight_decay_follows_the_exclusions(variable):
    other = keras.Variable(np.ones(2, "float32"))
    optimizer = keras.optimizers.SGD(weight_decay=0.1)
    optimizer.exclude_from_weight_decay([other])
    assert keras_internals.uses_weight_decay(optimizer, variable)
    assert not keras_internals.uses_weight_decay(optimizer, other)


@pytest.mark.parametrize("kind", [keras.optimizers.Adam, keras.optimizers.Lamb])
def test_slots_of_adam(kind, variable):
    """`_get_variable_index`, `_momentums` and `_velocities`."""
    other = keras.Variable(np.ones(3, "float32"))
    optimizer = kind(0.1, beta_1=0.9, beta_2=0.99)
    optimizer.build([other, variable])
    optimizer.apply([keras.ops.zeros(3), keras.ops.convert_to_tensor([1.0, 2.0])])
    momentum, velocity = keras_internals.adam_slots(optimizer, variable)
    np.testing.assert_allclose(momentum, [0.1, 0.2], rtol=1e-6)
    np.testing.assert_allclose(velocity, [0.01, 0.04], rtol=1e-5)


@pytest.mark.parametrize("name", keras_internals.OVERRIDDEN_BY_OPTIMIZERS)
@pytest.mark.parametrize("kind", [kind for kind, _ in optimizers.OPTIMIZERS.values()])
def test_keras_calls_what_our_optimizers_override(kind, name, variable, monkeypatch):
    """In `apply`, eagerly and in a `tf.function`; Keras' own parents have the method as well."""
    assert name in vars(optimizers.DecayMixin)
    assert hasattr(keras.optimizers.Optimizer, name)
    passed = []
    original = vars(optimizers.DecayMixin)[name]

    def spy(self, *args, **kwargs):
        passed.append(name)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(optimizers.DecayMixin, name, spy)
    optimizer = kind(0.1, weight_decay=0.01)
    optimizer.build([variable])
    gradients = [tf.ones(2)]
    optimizer.apply(gradients, [variable])
    assert passed == [name]
    tf.function(lambda: optimizer.apply(gradients, [variable]))()
    assert len(passed) >= 2


def test_what_muon_trains_by_adam(variable):
    """`_should_use_adamw`: all but matrices."""
    optimizer = keras.optimizers.Muon(exclude_layers=["head"])
    matrix = keras.Variable(np.ones((2, 2), "float32"), name="kernel")
    head = keras.Variable(np.ones((2, 2), "float32"), name="head")
    by_adam = [keras_internals.trains_by_adam(optimizer, v) for v in (variable, matrix, head)]
    assert by_adam == [True, False, True]


def test_product_of_nadam_has_a_name_and_one_place(variable):
    """`_u_product` and `_untrack_variable`."""
    plain, ours = keras.optimizers.Nadam(0.1), keras.optimizers.Nadam(0.1)
    for optimizer in (plain, ours):
        optimizer.build([variable])
    keras_internals.share_product_of_nadam(ours)
    assert len(plain.variables) == len(ours.variables)
    named = [v for v in ours.variables if v.path.endswith("/u_product")]
    assert len(named) == 1
    ours.apply([tf.ones(2)], [variable])
    np.testing.assert_allclose(named[0], 0.9 * (1 - 0.5 * 0.96), rtol=1e-6)


def test_nothing_else_overrides_a_private_method_of_an_optimizer():
    private = [name for name in vars(optimizers.DecayMixin) if re.match("_[a-z]", name)]
    of_keras = [name for name in private if hasattr(keras.optimizers.Optimizer, name)]
    assert sorted(of_keras) == sorted(keras_internals.OVERRIDDEN_BY_OPTIMIZERS)


KERAS_NAMES = re.compile(
    r"\._(run_through_graph|nodes_by_depth|inbound_nodes|flatten_layers|standardize_inputs"
    r"|inputs|outputs|inputs_struct|outputs_struct|var_key|use_weight_decay|get_variable_index"
    r"|momentums|velocities|keras_history|should_use_adamw|u_product|untrack_variable)\b|keras\.src"
)


def test_no_other_module_reaches_into_keras():
    found = [
        f"{path.relative_to(PACKAGE)}: {line.strip()}"
        for path in PACKAGE.rglob("*.py")
        if path.name != "keras_internals.py"
        for line in path.read_text().splitlines()
        if KERAS_NAMES.search(line) and "super()._run_through_graph" not in line
    ]
    assert found == []
