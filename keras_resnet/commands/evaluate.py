"""usage: keras-resnet evaluate --model=PATH --data=FOLDER [--split=NAME] [--format=FORMAT]
                             [--output=FILE] [--class_names=FILE] [--on_error=skip] [--tta=flip]
       keras-resnet evaluate --model=PATH --config.data.source=tfds --config.data.name=cifar10
       keras-resnet evaluate --workdir=DIR [--checkpoint=best] [--json] [--tta=flip]
                             [--config.key=value ...]

Counts every image of a labelled set once. --model is a .keras file, a SavedModel, a folder of
exported versions, a .tflite or .onnx file, the work directory of a run, or trained weights that
name their network (a file, a folder of transformers, hf://OWNER/REPOSITORY). --data is a folder of
class folders, alone or below train, test, val or their like, or a table (.csv, .tsv, .jsonl) of
paths and labels; its test images are taken, else its validation images, else all, or --split.
Labels are matched to the classes of the model by name. A model of several labels an image gets mean
average precision and F1 in place of top-1. Prints the accuracy of each class as well;
--format=json (short: --json) prints one object, csv a line for each class. --tta=flip answers each
image together with its mirror image, and =none does not, whatever the model was evaluated with.

With --workdir alone a checkpoint, the newest or the best, is evaluated on the evaluation split of
the run; overrides are then for what may have moved since, for example --config.data.path=DIR."""

import json
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tqdm
from absl import flags as absl_flags

from keras_resnet.backend import jax_is_installed
from keras_resnet.commands.model_flags import read_class_names
from keras_resnet.commands.options import (
    check_checkpoint,
    check_folder_of,
    define_checkpoint,
    define_json_switch,
    define_strings,
    define_trusted_switch,
    define_tta,
    notes_on_stderr,
)
from keras_resnet.commands.startup import start_engine, start_tensorflow
from keras_resnet.config import KEYS, check, default_config, overrides, source_options
from keras_resnet.data_evaluation import LabelSetDataEvaluation
from keras_resnet.errors import UsageError
from keras_resnet.flips import in_words
from keras_resnet.input_pipeline.sources import SETTINGS
from keras_resnet.printing import printable
from keras_resnet.storage import in_bucket, replacing
from keras_resnet.training.workdir import WorkDir

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from keras_resnet.data_evaluation import DataEvaluation

SUMMARY = "Evaluate a model on labelled images, or a checkpoint of a work directory."
# The keys that say which images; how they are prepared, the model says.
_OF_DATA = {"data.eval_split", *(f"data.{setting.name}" for setting in SETTINGS)}
_EXAMPLE = "keras-resnet evaluate --model=model.keras --data=photos"


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines the flags; the module's docstring says what they do."""
    define_strings(
        flags,
        model="A .keras file, an export, a work directory, or weights that name their network.",
        data="Folder of class folders, alone or below splits, or a table of paths and labels.",
        split="Which part of --data, such as test or train[80%:].",
        class_names="A file with the names of the model's classes: a line for each, or a JSON "
        "list.",
        output="File to write instead of printing.",
        workdir="Work directory of a training run.",
    )
    for name, default, choices, meaning in (
        ("format", "text", ["text", "json", "csv"], "What to print of --model."),
        (
            "on_error",
            "stop",
            ["stop", "skip"],
            "Whether to stop at an image of --data that cannot be read, or to skip it and go on.",
        ),
    ):
        absl_flags.DEFINE_enum(name, default, choices, meaning, flag_values=flags)
    define_checkpoint(flags)
    define_tta(flags, "as the model or the run says")
    define_json_switch(flags)
    define_trusted_switch(flags)
    overrides.define(flags)


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Evaluates and prints; returns 0."""
    if arguments:
        raise UsageError(
            f"there is no argument that is no flag, but {arguments[0]!r}; for example {_EXAMPLE}"
        )
    if flags.model and flags.workdir:
        raise UsageError("it takes --model or --workdir, not both")
    if not flags.model and not flags.workdir:
        raise UsageError(
            f"--model=PATH with --data=FOLDER, or --workdir=DIR is missing; for example {_EXAMPLE}"
        )
    check_checkpoint(flags)
    if flags.workdir and not flags.data:
        return _run_workdir(flags)
    return _run_model(flags)


def _run_workdir(flags: absl_flags.FlagValues) -> int:
    _refuse(flags, ("split", "class_names", "output"), "goes with --data")
    if flags.format == "csv":
        raise UsageError("--format=csv goes with --data; a run has its classes.csv")
    workdir = WorkDir(flags.workdir)
    config = overrides.apply(workdir.read_config_for_one(), flags)
    config.evaluation.tta = flags.tta or config.evaluation.tta
    resolved = check(config)
    start_engine(resolved.engine if jax_is_installed() else "auto")  # either will do
    from keras_resnet.training import evaluation

    result = evaluation.evaluate(resolved, workdir, flags.checkpoint)
    if flags.json or flags.format == "json":
        print(json.dumps(result))
    else:
        classes = len(workdir.read_dataset()["classes"])
        print(evaluation.describe_result(result, classes))
    return 0


def _refuse(flags: absl_flags.FlagValues, names: tuple[str, ...], why: str) -> None:
    for name in names:
        if flags[name].present:
            raise UsageError(f"--{name} {why}")


def _run_model(flags: absl_flags.FlagValues) -> int:
    names = read_class_names(flags.class_names) if flags.class_names else None
    check_folder_of(flags, "output")
    config = _config_of_data(flags)
    start_tensorflow()
    from keras_resnet import evaluation
    from keras_resnet.export.origin import ForeignModelWarning
    from keras_resnet.input_pipeline import open_source

    data: Any = flags.data
    if config is not None:
        split = flags.split or config.data.eval_split
        data = open_source(split=split, **source_options(config))
    with notes_on_stderr(), tqdm.tqdm(unit="image", dynamic_ncols=True, disable=None) as bar:
        if flags.trusted:
            warnings.simplefilter("ignore", ForeignModelWarning)
        result = evaluation.evaluate(
            _model(flags),
            data,
            split=flags.split,
            class_names=names,
            on_error=flags.on_error,
            tta=flags.tta,
            progress=bar.update,
        )
    text = _text(result, "json" if flags.json else flags.format, _name(flags))
    if flags.output:
        with replacing(Path(flags.output).absolute()) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    else:
        print(text, end="")
    return 0


def _config_of_data(flags: absl_flags.FlagValues) -> "ConfigDict | None":
    """The config whose `data` is to be evaluated on; None for --data."""
    given = [key for key in KEYS if flags[overrides.PREFIX + key].present]
    if flags.data:
        if given:
            raise UsageError(f"--data stands instead of --{overrides.PREFIX}{given[0]}; take one")
        return None
    for key in given:
        if key not in _OF_DATA:
            raise UsageError(
                f"--{overrides.PREFIX}{key}: of --model the data can be chosen, the rest it "
                "brings itself"
            )
    _refuse(flags, ("on_error",), "goes with --data; here it is --config.data.on_error")
    run = None if in_bucket(flags.model) else WorkDir(flags.model)
    if run is not None and run.is_begun() and (run.path / "dataset.json").is_file():
        return check(overrides.apply(run.read_config_for_one(), flags))
    if not given:
        raise UsageError(
            f"--data=FOLDER is missing, or --config.data.source and what it needs; for example "
            f"{_EXAMPLE}"
        )
    return check(overrides.apply(default_config(), flags))


def _model(flags: absl_flags.FlagValues) -> Any:
    """What `evaluation.evaluate` takes for --model or --workdir."""
    if flags.model:
        return flags.model
    from keras_resnet.training.evaluation import load_model_of_workdir

    return load_model_of_workdir(
        WorkDir(flags.workdir), flags.checkpoint, say=lambda line: print(line, file=sys.stderr)
    )


def _name(flags: absl_flags.FlagValues) -> str:
    return flags.model or flags.workdir


def _text(result: "DataEvaluation | LabelSetDataEvaluation", kind: str, model: str) -> str:
    if kind == "json":
        return json.dumps({"model": model, **result.to_dict()}) + "\n"
    if kind == "csv":
        return result.class_table()
    lines = [f"model      {model}"]
    if result.layout:
        lines.append(f"data       {result.layout}")
    lines.append(f"evaluated  {result.source}")
    if result.tta != "none":
        lines.append(f"flips      {in_words(result.tta)}")
    lines += [f"note       {note}" for note in result.notes]
    lines += [f"skipped    {problem}" for problem in result.unreadable]
    if isinstance(result, LabelSetDataEvaluation):
        lines += ["", *_label_lines(result), "", _label_figures(result)]
    else:
        lines += ["", *_class_lines(result), "", _figures(result)]
    return "".join(f"{printable(line)}\n" for line in lines)


def _class_lines(result: "DataEvaluation") -> list[str]:
    rows = [row for row in result.per_class() if row["examples"]]
    for row in rows:
        row["class"] = printable(row["class"])
    width = max(len("class"), *(len(row["class"]) for row in rows))
    lines = [f"{'class':<{width}}  {'images':>7}  {'right':>7}  {'top1':>6}  most often taken for"]
    for row in rows:
        confused = f"{row['most_confused_with']} ({row['times']:,})" if row["times"] else ""
        lines.append(
            f"{row['class']:<{width}}  {row['examples']:>7,}  {row['correct']:>7,}  "
            f"{row['accuracy']:>6.4f}  {confused}".rstrip()
        )
    return lines


def _label_lines(result: LabelSetDataEvaluation) -> list[str]:
    rows = [row for row in result.per_class() if row["examples"]]
    width = max(len("class"), *(len(printable(row["class"])) for row in rows))
    keys = ("average_precision", "precision", "recall", "f1", "threshold")
    heads = ("AP", "precision", "recall", "F1", "threshold")
    lines = [f"{'class':<{width}}  {'images':>7}" + "".join(f"  {head:>9}" for head in heads)]
    for row in rows:
        values = ("" if row[key] is None else f"{row[key]:.4f}" for key in keys)
        cells = "".join(f"  {value:>9}" for value in values)
        lines.append(f"{printable(row['class']):<{width}}  {row['examples']:>7,}{cells}")
    return lines


def _label_figures(result: LabelSetDataEvaluation) -> str:
    figures = result.figures()
    return (
        f"mAP {figures['map']:.4f}  F1 {figures['f1']:.4f} (at the thresholds "
        f"{figures['f1_at_thresholds']:.4f})  loss {figures['loss']:.4f}  "
        f"{result.examples:,} images"
    )


def _figures(result: "DataEvaluation") -> str:
    figures = {"top1": result.top1, "top5": result.top5}
    shown = [f"{name} {value:.4f}" for name, value in figures.items() if value is not None]
    if result.loss is not None:
        shown.append(f"loss {result.loss:.4f}")
    right = round(result.top1 * result.examples)
    return f"{'  '.join(shown)}  {right:,} of {result.examples:,} images right"
