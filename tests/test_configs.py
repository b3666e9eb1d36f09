"""The bundled configs: each loads, says where it comes from, and builds its model and optimizer."""

import importlib.util

import keras
import pytest

from keras_resnet import config as configs
from keras_resnet.commands.benchmark.step_timing import bare_engine
from keras_resnet.errors import UsageError
from keras_resnet.training.schedules import learning_rate_at
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
        config.data.image_size = 64
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


EXPECTED = {
    # name: values that the source states, by key
    "resnet50_imagenet": {"epochs": 90, "schedule.boundaries": (30, 60, 80)},
    "resnet50_a1": {"epochs": 600, "optimizer.weight_decay": 0.01, "data.augment.mixup": 0.2},
    "resnet50_a2": {"epochs": 300, "optimizer.learning_rate": 5e-3, "model.drop_path_rate": 0.05},
    "resnet50_a3": {"data.train_image_size": 160, "optimizer.learning_rate": 8e-3},
    "resnet50_lars": {"batch_size": 32768, "optimizer.learning_rate": 29.0},
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
