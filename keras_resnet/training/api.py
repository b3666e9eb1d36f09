"""The commands `train`, `evaluate` and `predict` as functions."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from keras_resnet import config as configs
from keras_resnet.training.workdir import WorkDir


def load_config(name_or_path: str, overrides: Mapping[str, Any] | None = None) -> ConfigDict:
    """Returns a checked config.

    Args:
        name_or_path: a bundled config, such as "digits", or a Python file with `get_config()`.
        overrides: values by dotted key, as in {"optimizer.learning_rate": 0.05}.

    Raises:
        UsageError: there is no such config or key, or a value cannot be used.
    """
    config = configs.load_config(name_or_path)
    return configs.check(configs.merge(config, overrides or {}, where="overrides"))


def train(config: ConfigDict, workdir: str | os.PathLike) -> dict[str, float]:
    """Trains in `workdir`, from its newest checkpoint if there is one.

    Ctrl-C and SIGTERM save and raise `keras_resnet.errors.Interrupted`; calling it again resumes.

    Returns:
        top1, top5, loss, examples, step and train_images_per_second.

    Raises:
        UserError: the config, the work directory, the devices or a checkpoint cannot be used.
        input_pipeline.DataError: the data set cannot be used.
    """
    from keras_resnet.training import run

    return run.train(configs.check(config), workdir)


def evaluate(
    workdir: str | os.PathLike,
    checkpoint: str = "newest",
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Evaluates the "newest" or "best" checkpoint; returns top1, top5, loss, examples and step.

    Args:
        workdir: of a run.
        checkpoint: which one.
        overrides: for what has moved since, such as {"data.path": ...}.

    Raises:
        UserError, input_pipeline.DataError: as `train`.
    """
    from keras_resnet.training import run

    workdir = WorkDir(workdir)
    config = configs.merge(workdir.read_config(), overrides or {}, where="overrides")
    return run.evaluate(configs.check(config), workdir, checkpoint)


def predict(
    workdir: str | os.PathLike, paths: Sequence[str], top: int = 5
) -> Iterator[tuple[str, list[dict]]]:
    """Yields (path, rows) for each image file with the newest checkpoint.

    Rows are the `top` classes by probability, {"class": name, "class_id": index, "probability": p}.

    Raises:
        UserError, input_pipeline.DataError: as `train`.
    """
    from keras_resnet.training import run

    workdir = WorkDir(workdir)
    return run.predict(configs.check(workdir.read_config()), workdir, paths, top)
