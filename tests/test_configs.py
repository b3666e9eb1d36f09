"""The bundled configs: each loads, says where it comes from, and builds its model and optimizer."""

import importlib.util

import keras
import numpy as np
import pytest

from keras_resnet import config as configs
from keras_resnet.commands.benchmark.step_timing import bare_engine
from keras_resnet.errors import UsageError
from keras_resnet.training.progress import Timeline
from keras_resnet.training.schedules import learning_rate_at, make_schedule
from keras_resnet.training.tensorflow.strategy import make_strategy

NAMES = sorted(configs.bundled_configs())


def _docstring(name):
    path = configs.bundled_configs()[name]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.__doc__


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_has_the_command_and_the_accuracy(name):
    text = _docstring(name)
    assert f"keras-resnet train --config={name} --workdir=" in text
    words = ("from the source", "reproduced here", "docs/results.md", "accuracy")
    assert any(word in text for word in words)


@pytest.mark.parametrize("name", NAMES)
def test_model_and_optimizer_are_built(name):
    """With one block a stage and small images: names, options and schedules are what counts."""
    config = configs.load_config(name)
    if not config.model.name.startswith(("Cifar", "Wide")):
        config.model.depths, config.model.widths = (1, 1, 1, 1), (8, 8, 8, 8)
        config = configs.merge(config, {"data.image_size": 64}, "")  # in place of a schedule
        config.data.train_image_size = 32 if config.data.train_image_size else 0
    else:
        config.model.depths, config.model.widths = (1, 1, 1), (16, 16, 16)
    config.batch_size = 8 * config.data.augment.repeats
    engine = bare_engine(configs.check(config), make_strategy("cpu"))
    kinds = {"sgd": "SGD", "lars": "LARS", "lamb": "LAMB"}
    assert type(engine.optimizer).__name__ == kinds[config.optimizer.name]
    last = 1000 * config.epochs - 1
    rates = [learning_rate_at(engine.optimizer._learning_rate, step) for step in (0, last)]
    assert all(0 <= rate < 30 for rate in rates)
    keras.backend.clear_session()


@pytest.mark.parametrize("name", [name for name in NAMES if "_fast" in name])
def test_rate_and_sizes_are_those_of_ffcv(name):
    """Straight lines through three points, and a ramp rounded to 32 pixels by whole epochs."""
    config = configs.load_config(name)
    epochs, peak = config.epochs, config.optimizer.learning_rate
    timeline = Timeline(config, 1_281_167)
    schedule = make_schedule(config, timeline)
    steps = np.linspace(0, timeline.total_steps - 1, 41).astype(int)
    there = np.interp(steps / timeline.steps_per_epoch, [0, 2, epochs], [0, peak, 0])
    rates = [learning_rate_at(schedule, int(step)) for step in steps]
    step_of_ramp = peak / (2 * timeline.steps_per_epoch)  # a step ahead, of whole steps
    np.testing.assert_allclose(rates, there, atol=1.5 * step_of_ramp)

    begin, end = {16: (11, 13), 32: (23, 27), 88: (65, 76)}[epochs]
    line = np.interp(range(epochs), [begin, end], [160, 192])
    sizes = [
        timeline.segment_at(round((epoch + 0.5) * timeline.steps_per_epoch)).image_size
        for epoch in range(epochs)
    ]
    assert sizes == list(32 * np.round(line / 32).astype(int))
    assert config.batch_size == {"ResNet50": 8 * 512, "ResNet18": 1024}[config.model.name]
    assert (config.evaluation.image_size, config.evaluation.tta) == (256, "flip")


def test_decay_of_the_mild_recipe_is_the_decoupled_one_of_its_source():
    """At the peak a kernel shrinks by the same share in a step, the momentum's steps included."""
    options = configs.load_config("resnet50_mild").optimizer
    share = options.learning_rate * options.weight_decay / (1 - options.momentum)
    assert share == pytest.approx(5e-4, rel=1e-12)


EXPECTED = {
    # name: values that the source states, by key
    "resnet50_imagenet": {"epochs": 90, "schedule.boundaries": (30, 60, 80)},
    "resnet50_a1": {"epochs": 600, "optimizer.weight_decay": 0.01, "data.augment.mixup": 0.2},
    "resnet50_a2": {"epochs": 300, "optimizer.learning_rate": 5e-3, "model.drop_path_rate": 0.05},
    "resnet50_a3": {"data.train_image_size": 160, "optimizer.learning_rate": 8e-3},
    "resnet50_lars": {"batch_size": 32768, "optimizer.learning_rate": 29.0},
    "resnet50_fast32": {"batch_size": 4096, "optimizer.learning_rate": 1.7, "epochs": 32},
    "resnet18_fast88": {"model.name": "ResNet18", "optimizer.weight_decay": 5e-5, "epochs": 88},
    "resnet50_mild": {"loss.label_smoothing": 0.08, "data.crop_ratio": 224 / 232, "epochs": 32},
    "resnet_rs50": {"epochs": 350, "model.dropout_rate": 0.25, "data.image_size": 160},
    "cifar10_wide": {"schedule.factor": 0.2, "optimizer.weight_decay": 5e-4},
    "degradation": {"data.name": "cifar10", "epochs": 10},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_what_builds_on_another_config_keeps_and_changes(name):
    values = dict(configs.flatten(configs.load_config(name)))
    assert {key: values[key] for key in EXPECTED[name]} == EXPECTED[name]


def _write(folder, name, base, body="{}"):
    path = folder / name
    path.write_text(f"BASE = {base!r}\ndef get_config():\n    return {body}\n")
    return str(path)


def test_own_files_build_on_bundled_ones_and_on_each_other(tmp_path):
    _write(tmp_path, "first.py", "cifar10", "{'epochs': 7, 'batch_size': 32}")
    config = configs.load_config(_write(tmp_path, "second.py", "first.py", "{'epochs': 8}"))
    assert (config.data.name, config.batch_size, config.epochs) == ("cifar10", 32, 8)


@pytest.mark.parametrize(
    ("base", "quoted"),
    [("cifar11", "Did you mean 'cifar10'"), ("own.py", "builds on itself")],
)
def test_a_base_that_cannot_be(base, quoted, tmp_path):
    with pytest.raises(UsageError, match=quoted):
        configs.load_config(_write(tmp_path, "own.py", base))
