"""The splits of a run: opened, and checked to be those that it began with."""

from typing import Any

from ml_collections import ConfigDict

from keras_resnet import input_pipeline
from keras_resnet.config import source_options
from keras_resnet.errors import UserError
from keras_resnet.storage import read_json, write_text
from keras_resnet.training.reporting import to_json
from keras_resnet.training.workdir import WorkDir


def open_sources(config: ConfigDict) -> tuple[input_pipeline.Source, input_pipeline.Source]:
    """Opens the training and the evaluation split; raises DataError unless their classes agree."""
    train_source = open_source(config, config.data.train_split)
    eval_source = open_source(config, config.data.eval_split)
    if train_source.class_names != eval_source.class_names:
        differing = sorted(set(train_source.class_names) ^ set(eval_source.class_names))
        raise input_pipeline.DataError(
            f"the classes of {config.data.train_split} and {config.data.eval_split} differ: "
            f"{', '.join(differing[:10])} in only one of them"
        )
    return train_source, eval_source


def open_source(config: ConfigDict, split: str) -> input_pipeline.Source:
    """Opens one split of the data set of `data.*`."""
    return input_pipeline.open_source(split=split, **source_options(config))


def remember_dataset(
    workdir: WorkDir, train_source: input_pipeline.Source, eval_source: input_pipeline.Source
) -> None:
    """Writes dataset.json, or checks that the data set is still the one the run began with."""
    now: dict[str, Any] = {
        "classes": list(train_source.class_names),
        "train_examples": train_source.num_examples,
        "eval_examples": eval_source.num_examples,
    }
    before = read_json(workdir.dataset)
    if before is not None and before != now:
        changed = [key for key in now if before.get(key) != now[key]]
        values = [f"{key} {before.get(key)!r} -> {now[key]!r}" for key in changed]
        raise UserError(
            f"the data set is not the one this run began with: {'; '.join(values)}. "
            "Bring it back, or take another --workdir"
        )
    write_text(workdir.dataset, to_json(now))


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
