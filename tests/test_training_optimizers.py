"""Optimizers against the papers' formulas in NumPy, on one and on two replicas."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import mirrored_strategy
from training_runs import built_engine, first_state, tiny_config

from keras_resnet import input_pipeline
from keras_resnet.config import default_config
from keras_resnet.config.keras_optimizers import KEYS_OF_OURS, keras_optimizers
from keras_resnet.errors import UsageError
from keras_resnet.layers import BatchNormalization
from keras_resnet.training import checkpoint_file, optimizers, state
from keras_resnet.training.keras_optimizers import keras_optimizer
from keras_resnet.training.tensorflow.strategy import make_strategy

STEPS = 3


def network():
    """One variable of each kind, in a stem, two stages, and a classifier."""
    x = inputs = keras.Input((2, 2, 3))
    for name in ("stem_conv", "stage1_block1_conv1", "stage2_block1_conv1"):
        x = keras.layers.Conv2D(3, 1, name=name)(x)
        x = BatchNormalization(name=name.replace("conv", "norm"))(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(4, name="predictions")(x))


def settings(name, **options):
    config = default_config()
    config.optimizer.update({"name": name, "weight_decay": 0.05, **options})
    return config


def run(config, rate=0.1, replicas=1, prepare=lambda model: None, steps=STEPS):
    """Applies some gradients; returns (initial weights, gradients, trained weights, model).

    On several replicas each has its own share of the gradients.
    """
    strategy = mirrored_strategy(replicas)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = network()
        prepare(model)
        optimizer = optimizers.make_optimizer(config, rate, model)
    variables = model.trainable_variables
    initial = [variable.numpy().astype("float64") for variable in variables]
    random = np.random.default_rng(1)
    shares = [
        [random.normal(size=(replicas, *v.shape)).astype("float32") for v in variables]
        for _ in range(steps)
    ]

    @tf.function
    def step(*gradients):
        def apply():
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            optimizer.apply([g[replica] for g in gradients], variables)

        strategy.run(apply)

    for gradients in shares:
        step(*(tf.constant(g) for g in gradients))
    sums = [[g.sum(axis=0).astype("float64") for g in gradients] for gradients in shares]
    return initial, sums, [variable.numpy() for variable in variables], model


def expected(rule, initial, gradients, decayed, rates):
    """Applies a NumPy rule (w, g, state, decay, rate, t) -> w to every variable."""
    weights, states = list(initial), [{} for _ in initial]
    for t, step in enumerate(gradients, start=1):
        weights = [
            rule(w, g, state, 0.05 if is_decayed else None, rate, t)
            for w, g, state, is_decayed, rate in zip(
                weights, step, states, decayed, rates, strict=True
            )
        ]
    return weights


def sgd(nesterov):
    def rule(w, g, state, decay, rate, t):
        # torch.optim.SGD with the rate inside the momentum, where it is for a constant rate too.
        g = g + (decay or 0.0) * w
        v = state["v"] = 0.9 * state.get("v", 0.0) - rate * g
        return w + (0.9 * v - rate * g if nesterov else v)

    return rule


def lars(w, g, state, decay, rate, t):
    # MLPerf Training, lars_optimizer.py.
    trust = 1.0
    if decay is not None:
        w_norm, g_norm = np.linalg.norm(w), np.linalg.norm(g)
        if w_norm > 0 and g_norm > 0:
            trust = 0.001 * w_norm / (g_norm + decay * w_norm)
        g = g + decay * w
    v = state["v"] = 0.9 * state.get("v", 0.0) + rate * trust * g
    return w - v


def adam_direction(g, state, t, epsilon=1e-7):
    m = state["m"] = 0.9 * state.get("m", 0.0) + 0.1 * g
    v = state["v"] = 0.999 * state.get("v", 0.0) + 0.001 * g * g
    return (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + epsilon)


def adamw(w, g, state, decay, rate, t):
    # torch.optim.AdamW, but for epsilon: Keras adds it before the correction of v, as the last
    # line of section 2 of Kingma and Ba 2015 has it.
    w = w * (1 - rate * (decay or 0.0))
    return w - rate * adam_direction(g, state, t, epsilon=1e-7 / np.sqrt(1 - 0.999**t))


def lamb(w, g, state, decay, rate, t):
    # timm.optim.Lamb: the ratio only where there is decay.
    update = adam_direction(g, state, t)
    if decay is not None:
        update = update + decay * w
        w_norm, u_norm = np.linalg.norm(w), np.linalg.norm(update)
        update = update * (w_norm / u_norm if w_norm > 0 and u_norm > 0 else 1.0)
    return w - rate * update


RULES = {
    "sgd": ({"nesterov": False}, sgd(nesterov=False)),
    "nesterov": ({"name": "sgd"}, sgd(nesterov=True)),
    "lars": ({"nesterov": False}, lars),
    "adamw": ({}, adamw),
    "lamb": ({}, lamb),
}


def assert_follows(name, config, rates, replicas=1, prepare=lambda model: None, clip=None):
    initial, gradients, weights, model = run(config, replicas=replicas, prepare=prepare)
    if clip:
        norms = [np.sqrt(sum((g**2).sum() for g in step)) for step in gradients]
        assert max(norms) > clip
        gradients = [
            [g * min(1.0, clip / norm) for g in step]
            for step, norm in zip(gradients, norms, strict=True)
        ]
    decayed = [variable.name == "kernel" for variable in model.trainable_variables]
    wanted = expected(RULES[name][1], initial, gradients, decayed, rates(model))
    # Keras' Adam takes 1 - beta_2**t in float32, which is 5e-5 off at t = 1.
    rtol = 2e-4 if name == "adamw" else 2e-5
    for ours, theirs in zip(weights, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=2e-6)


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("name", RULES)
def test_rule_of_the_paper(name, replicas):
    config = settings(**{"name": name, **RULES[name][0]})
    assert_follows(
        name, config, lambda model: [0.1] * len(model.trainable_variables), replicas=replicas
    )


@pytest.mark.parametrize("name", ["nesterov", "lamb"])
def test_the_norm_of_the_summed_gradient_is_clipped(name):
    config = settings(**{"name": name, **RULES[name][0], "clip_norm": 1.5})
    rates = lambda model: [0.1] * len(model.trainable_variables)  # noqa: E731
    assert_follows(name, config, rates, replicas=2, clip=1.5)


@pytest.mark.parametrize("name", RULES)
def test_layer_decay_and_frozen_stages(name):
    """A frozen stem; stage 1 learns at a quarter of the rate, stage 2 at half of it."""

    def freeze(model):
        for layer in model.layers:
            if layer.name.startswith("stem"):
                layer.trainable = False

    def rates(model):
        by_stage = {"stage1": 0.025, "stage2": 0.05, "predictions": 0.1}
        return [
            by_stage[variable.path.split("/")[-2].split("_")[0]]
            for variable in model.trainable_variables
        ]

    config = settings(**{"name": name, **RULES[name][0], "layer_decay": 0.5})
    assert_follows(name, config, rates, replicas=2, prepare=freeze)


def schedule_free(w, g, state, decay, rate, t):
    # Defazio et al. 2024, algorithm 1, with Keras' decay of y and weights 1 / t.
    z, x = state.get("z", w), state.get("x", w)
    y = w * (1 - rate * (decay or 0.0))
    x = x + (y - w) / 0.9
    v = state["v"] = 0.999 * state.get("v", 0.0) + 0.001 * g * g
    z = state["z"] = z - rate * g / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    x = state["x"] = (1 - 1 / t) * x + z / t
    return 0.1 * z + 0.9 * x


OF_KERAS = {
    **dict.fromkeys(keras_optimizers(), ()),
    "Adam": ("amsgrad=true",),
    "Muon": ("exclude_layers=stage", "ns_steps=3", "rms_rate=none"),
    "RMSprop": ("rho=0.8", "momentum=0.5", "centered=True"),
}
THEIRS = {
    "Adam": {"amsgrad": True},
    "Muon": {
        "exclude_layers": ["stage"],
        "ns_steps": 3,
        "rms_rate": None,
        "adam_weight_decay": 0.05,
    },
    "RMSprop": {"rho": 0.8, "momentum": 0.5, "centered": True},
}


def plain_keras(name, initial, gradients):
    """The weights after Keras' own optimizer, with the decay of kernels alone."""
    model = network()
    variables = model.trainable_variables
    for variable, value in zip(variables, initial, strict=True):
        variable.assign(value)
    kind = getattr(keras.optimizers, name)
    optimizer = kind(learning_rate=0.1, weight_decay=0.05, **THEIRS.get(name, {}))
    optimizer.exclude_from_weight_decay([v for v in variables if v.name != "kernel"])
    optimizer.build(variables)
    for step in gradients:
        optimizer.apply([tf.constant(g, tf.float32) for g in step], variables)
    return [variable.numpy() for variable in variables]


def test_every_optimizer_of_keras_is_there():
    """Those with a learning rate, but for what differs from ours in its case alone."""
    found = {
        name
        for name, kind in vars(keras.optimizers).items()
        if isinstance(kind, type)
        and issubclass(kind, keras.optimizers.Optimizer)
        and kind is not keras.optimizers.Optimizer
        and "learning_rate" in inspect.signature(kind).parameters
    }
    assert set(keras_optimizers()) == found - {"SGD", "AdamW", "Lamb"}
    assert {"Adafactor", "Adam", "Lion", "Nadam", "RMSprop"} < found


def test_keys_of_ours_are_those_of_our_optimizers():
    assert set(KEYS_OF_OURS) == {key for _, keys in optimizers.OPTIMIZERS.values() for key in keys}


def test_arguments_as_the_signatures_have_them():
    """What is read from Keras' source against Keras itself."""
    for name, arguments in keras_optimizers().items():
        parameters = inspect.signature(getattr(keras.optimizers, name)).parameters
        base = inspect.signature(keras.optimizers.Lion).parameters
        own = {key for key in parameters if key not in base or key in ("beta_1", "beta_2")}
        assert set(arguments) == own, name
        assert all(row.default == parameters[key].default for key, row in arguments.items())


@pytest.mark.parametrize("name", OF_KERAS)
@pytest.mark.parametrize("replicas", [1, pytest.param(2, marks=pytest.mark.ci)])
def test_optimizers_of_keras_are_those_of_keras(name, replicas):
    config = settings(name, arguments=OF_KERAS[name])
    initial, gradients, weights, _ = run(config, replicas=replicas, steps=5)
    if name == "ScheduleFreeAdamW":  # Keras' own is this on JAX: test_jax_engine
        decayed = [w.ndim > 1 for w in initial]
        wanted = expected(schedule_free, initial, gradients, decayed, [0.1] * len(initial))
    else:
        wanted = plain_keras(name, initial, gradients)
    rtol = 1e-5 if name == "ScheduleFreeAdamW" else 1e-6
    for ours, theirs in zip(weights, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=1e-6)


def test_rates_and_decay_of_layers_in_an_optimizer_of_keras():
    """Lion moves each number by its rate, whatever the gradient is."""
    config = settings("Lion", layer_decay=0.5, arguments=("beta_1=0.95",))
    initial, _, weights, model = run(config, rate=0.125, steps=1)
    depths = {"predictions": 0, "stage2": 1, "stage1": 2, "stem": 3}
    for before, after, variable in zip(initial, weights, model.trainable_variables, strict=True):
        rate = 0.125 * 0.5 ** depths[variable.path.split("/")[-2].split("_")[0]]
        decayed = before * (1 - rate * 0.05) if variable.name == "kernel" else before
        np.testing.assert_allclose(np.abs(after - decayed), rate, rtol=1e-5)


def test_what_keras_refuses_is_one_line():
    with pytest.raises(UsageError, match=r"arguments=\('beta_1=-0.5',\): Lion refuses them: Arg"):
        optimizers.make_optimizer(settings("Lion", arguments=("beta_1=-0.5",)), 0.1, network())


@pytest.mark.parametrize("name", OF_KERAS)
def test_a_checkpoint_holds_all_that_an_optimizer_of_keras_knows(name, tmp_path):
    """Two updates, a file, a new model and optimizer, two more: the bits of four in a row."""

    def made():
        keras.utils.set_random_seed(0)
        x = inputs = keras.Input((2, 2, 3))
        x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 1, name="stem_conv")(x))
        model = keras.Model(inputs, keras.layers.Dense(4, name="predictions")(x))
        return model, optimizers.make_optimizer(config, 0.1, model)

    def update(model, optimizer, steps):
        variables = model.trainable_variables
        for step in steps:
            optimizer.apply([tf.sin(step + v.value) for v in variables], variables)

    config = settings(name, arguments=OF_KERAS[name], clip_norm=1.0, layer_decay=0.5)
    straight, first, second = made(), made(), made()
    update(*straight, (0.1, 0.2, 0.3, 0.4))
    update(*first, (0.1, 0.2))
    arrays = state.arrays_of(state.named_variables(*first))
    checkpoint_file.write(tmp_path / "one", arrays, {})
    state.load(state.named_variables(*second), checkpoint_file.read(tmp_path / "one")[1])
    update(*second, (0.3, 0.4))
    wanted = state.arrays_of(state.named_variables(*straight))
    found = state.arrays_of(state.named_variables(*second))
    assert [*wanted] == [*found]
    assert all(found[key].tobytes() == wanted[key].tobytes() for key in wanted)
    assert all(wanted[key].tobytes() != arrays[key].tobytes() for key in ("optimizer/iteration",))


def test_frozen_layers_have_no_slots():
    model = network()
    for layer in model.layers[:-1]:
        layer.trainable = False
    optimizer = optimizers.make_optimizer(settings("adamw"), 0.1, model)
    shapes = [tuple(v.shape) for v in optimizer.variables if len(v.shape)]
    assert sorted(shapes) == [(3, 4), (3, 4), (4,), (4,)]


def test_every_stage_of_a_network_has_its_rate():
    from keras_resnet.models import create_model

    for name in ("CifarResNet20", "CifarResNet110V2"):
        model = create_model(name, classes=10, input_shape=(32, 32, 3))
        factors = {id(v): f for v, f in optimizers.rate_factors(model, 0.1)}
        assert len(factors) == len(model.trainable_variables)
        by_layer = {
            layer.name: factors[id(layer.trainable_variables[0])]
            for layer in model.layers
            if layer.trainable_variables
        }
        for layer, factor in by_layer.items():
            depth = {"predictions": 0, "stage3": 1, "final": 1, "stage2": 2, "stage1": 3, "stem": 4}
            assert factor == pytest.approx(0.1 ** depth[layer.split("_")[0]]), layer


def kinds():
    return [
        *(kind for kind, _ in optimizers.OPTIMIZERS.values()),
        *map(keras_optimizer, keras_optimizers()),
    ]


@pytest.mark.parametrize("kind", kinds())
def test_optimizers_serialize(kind):
    optimizer = kind(0.3, weight_decay=0.01, global_clipnorm=2.0)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert type(again) is kind
    assert again.get_config() == optimizer.get_config()


@pytest.fixture
def hooks(monkeypatch):
    """Counts how often Keras calls each hook that `DecayMixin` overrides."""
    calls = dict.fromkeys(
        ("_apply_weight_decay", "_clip_gradients", "_all_reduce_sum_gradients"), 0
    )

    def counted(name, hook):
        def call(self, *arguments):
            calls[name] += 1
            return hook(self, *arguments)

        return call

    for name in calls:
        hook = getattr(optimizers.DecayMixin, name)
        monkeypatch.setattr(optimizers.DecayMixin, name, counted(name, hook))
    return calls


@pytest.mark.parametrize("name", [*optimizers.OPTIMIZERS, *keras_optimizers()])
def test_keras_calls_each_hook_once_an_update(name, hooks):
    """They are private names of Keras: an override that it no longer calls would change nothing."""
    config = settings(name, clip_norm=1.0)
    optimizer = optimizers.make_optimizer(config, 0.1, model := network())
    variables = model.trainable_variables
    optimizer.apply([tf.ones(variable.shape) for variable in variables], variables)
    assert set(hooks.values()) == {1}, hooks


def test_decay_is_applied_once_and_clipping_goes_by_the_norm_of_all():
    """Plain SGD at rate 1, so that the update is the gradient: one number for each fault."""
    config = settings("sgd", weight_decay=0.25, momentum=0.0, nesterov=False, clip_norm=3.0)
    optimizer = optimizers.make_optimizer(config, 1.0, model := network())
    variables = model.trainable_variables
    for variable in variables:
        variable.assign(tf.fill(variable.shape, 2.0))
    optimizer.apply([tf.ones(variable.shape) for variable in variables], variables)
    size = sum(int(np.prod(variable.shape)) for variable in variables)
    for variable in variables:
        decay = 0.25 * 2.0 if variable.name == "kernel" else 0.0
        np.testing.assert_allclose(variable, 2.0 - decay - 3.0 / np.sqrt(size), rtol=1e-6)


@pytest.mark.ci
@pytest.mark.parametrize(
    ("name", "arguments"), [("Muon", ("exclude_layers=stem",)), ("ScheduleFreeAdamW", ())]
)
def test_a_run_goes_on_with_the_same_bits(name, arguments):
    """Ten steps, the state handed to a new engine, ten more, in parts; against twenty in a row."""
    options = {"name": name, "arguments": arguments, "learning_rate": 1e-3, "clip_norm": 1.0}
    config = tiny_config(
        optimizer={**options, "layer_decay": 0.8},
        accumulate_steps=2,
        deterministic=True,
        ema={"decay": 0.9},
    )
    source = input_pipeline.open_source("tfds", name="digits", path="", split="train")
    engine = built_engine(config, make_strategy("cpu"), source.class_names, 20 * config.batch_size)
    engine.load_state(first_state(config, make_strategy("cpu"), 10))
    engine.train(engine.train_batches(source, 10, 20), 10)
    found, wanted = engine.state(), first_state(config, make_strategy("cpu"), 20)
    assert int(wanted["optimizer/iteration"]) == 20
    assert [*found] == [*wanted]
    assert [key for key in wanted if found[key].tobytes() != wanted[key].tobytes()] == []
