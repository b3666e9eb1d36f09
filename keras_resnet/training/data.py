"""The splits of a run: opened, and checked to be those that it began with."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from ml_collections import ConfigDict

from keras_resnet import input_pipeline
from keras_resnet.config import preprocessing, source_options, training_image_size
from keras_resnet.config.records import Changes
from keras_resnet.errors import UserError
from keras_resnet.storage import write_text
from keras_resnet.training.reporting import to_json
from keras_resnet.training.workdir import WorkDir


@contextlib.contextmanager
def explain_moved() -> Iterator[None]:
    """Says of images that a run cannot find any more how it is told where they are."""
    try:
        yield
    except input_pipeline.DataError as error:
        raise input_pipeline.DataError(
            f"{error} If the images have moved, --config.data.path=FOLDER says where they are."
        ) from error


def open_sources(
    config: ConfigDict, kept_in: str
) -> tuple[input_pipeline.Source, input_pipeline.Source]:
    """Opens the training and the evaluation split.

    Args:
        config: of the run.
        kept_in: the folder where data.cache=decoded keeps photos, unless data.cache_path names one.

    Raises:
        DataError: their classes differ.
    """
    sides = _resized_sides(config)
    train_source = open_source(config, config.data.train_split, sides["train"], kept_in)
    eval_source = open_source(config, config.data.eval_split, sides["eval"], kept_in)
    if train_source.class_names != eval_source.class_names:
        differing = sorted(set(train_source.class_names) ^ set(eval_source.class_names))
        raise input_pipeline.DataError(
            f"the classes of {config.data.train_split} and {config.data.eval_split} differ: "
            f"{', '.join(differing[:10])} in only one of them"
        )
    return train_source, eval_source


def open_test_source(
    config: ConfigDict, class_names: Sequence[str], kept_in: str = ""
) -> input_pipeline.Source | None:
    """Opens `data.test_split`; returns None without one.

    Raises:
        DataError: it cannot be opened, or its classes are not `class_names`.
    """
    if not config.data.test_split:
        return None
    side = _resized_sides(config)["eval"]
    source = open_source(config, config.data.test_split, side, kept_in)
    check_classes(source, list(class_names))
    return source


def open_source(
    config: ConfigDict, split: str, decoded_side: int = 0, kept_in: str = ""
) -> input_pipeline.Source:
    """Opens one split of the data set of `data.*`.

    Args:
        config: of the run.
        split: as TFDS writes it.
        decoded_side: see `input_pipeline.open_source`.
        kept_in: see `open_sources`.
    """
    options = source_options(config)
    if options["cache"] == "decoded" and not options["cache_path"]:
        options["cache_path"] = kept_in
    return input_pipeline.open_source(split=split, decoded_side=decoded_side, **options)


def _resized_sides(config: ConfigDict) -> dict[str, int]:
    """Returns what the short side of an image is resized to, in training at least."""
    side = input_pipeline.resized_side(preprocessing(config))
    return {"train": training_image_size(config), "eval": side}


def remember_dataset(
    workdir: WorkDir,
    train_source: input_pipeline.Source,
    eval_source: input_pipeline.Source,
    test_source: input_pipeline.Source | None = None,
) -> Changes:
    """Writes dataset.json, or checks that the classes are those the run began with.

    The number of images may change, as where a broken one was removed; config.json's history notes
    it.

    Returns:
        The old and the new number of images of each split that has others now, by its key in the
        history, such as "dataset.train_examples".

    Raises:
        UserError: the classes are others, or in another order.
    """
    now: dict[str, Any] = {
        "classes": list(train_source.class_names),
        "train_examples": train_source.num_examples,
        "eval_examples": eval_source.num_examples,
    }
    if test_source is not None:
        now["test_examples"] = test_source.num_examples
    before = workdir.find_dataset() or now
    if before["classes"] != now["classes"]:
        raise UserError(
            f"the data set is not the one this run began with: "
            f"{_differing(before['classes'], now['classes'])}. Bring it back, or take another "
            "--workdir"
        )
    changes = {
        f"dataset.{key}": (before[key], now[key])
        for key in now
        if key in before and before[key] != now[key]
    }
    # The note comes first: after a kill in between, it would never come.
    if changes:
        workdir.note(changes)
    write_text(workdir.dataset, to_json(now))
    return changes


def _differing(before: list[str], now: list[str]) -> str:
    """Returns in words how two lists of class names differ."""
    if set(before) == set(now):
        return "its classes are in another order"
    parts = []
    for names, others, what in ((before, now, "missing"), (now, before, "new")):
        if differing := [name for name in names if name not in set(others)]:
            parts.append(f"{len(differing)} {what} ({', '.join(map(repr, differing[:10]))})")
    return f"of its classes {' and '.join(parts)}"


def check_classes(source: input_pipeline.Source, class_names: list[str]) -> None:
    """Raises DataError unless the data set has the classes of the network, in their order."""
    theirs = list(source.class_names)
    if theirs == class_names:
        return
    if len(theirs) != len(class_names):
        how = f"it has {len(theirs)} classes, the network {len(class_names)}"
    else:
        index = next(i for i, name in enumerate(theirs) if name != class_names[i])
        how = f"its class {index} is {theirs[index]!r}, the network's is {class_names[index]!r}"
    raise input_pipeline.DataError(
        f"{source.description}: not the classes this run was trained on: {how}. Point "
        "config.data.* at data with these classes, or fine-tune with config.model.weights"
    )
