"""usage: keras-resnet explain --workdir=DIR --output=FOLDER [PHOTOS...] [--checkpoint=best]
                            [--config.key=value ...]
       keras-resnet explain --model=PATH --output=FOLDER (--data=FOLDER [--split=test]
                            [--training_split=train] | PHOTOS...)

Shows where a network is right and wrong, and what it looks at. Of a run it takes the evaluation
split, of any model the labelled images of --data, of both the PHOTOS instead, image files and
folders, whose labels are not known. It writes into the folder:

  predictions.csv  path, label, prediction, its probability, error, and every class's probability
  index.html       one file that opens offline: the surest mistakes with heat maps of the predicted
                   and of the true class and the training images most like them; of each class the
                   best, the worst and the most doubtful images. Where an image may have several
                   labels: of each class what is falsely predicted and what is missed
  mistakes.png, classes.png  the same as contact sheets

Overrides are for what may have moved since training, for example --config.data.path=DIR. A photo
that cannot be read gets an error in its row, and the exit code is 1 at the end. Contact sheets need
Pillow, which the extra `plot` brings."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tqdm
from absl import flags as absl_flags

from keras_resnet.commands.options import define_checkpoint, define_strings
from keras_resnet.commands.show.contact_sheet import require_pillow
from keras_resnet.commands.startup import start_tensorflow
from keras_resnet.config import KEYS, overrides
from keras_resnet.errors import UsageError, UserError
from keras_resnet.input_pipeline.image_listing import list_images
from keras_resnet.printing import printable
from keras_resnet.storage import replacing, write_text

if TYPE_CHECKING:
    from keras_resnet.explain import Gallery, LabelSetGallery

SUMMARY = "Show the mistakes of a network with heat maps, and the extremes of each class."
_MISTAKES = 3  # on the terminal
_EXAMPLE = "keras-resnet explain --workdir=runs/mine --output=explained"


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines the flags; the module's docstring says what they do."""
    define_strings(
        flags,
        workdir="Work directory of a training run.",
        model="A .keras file, a work directory, or weights that name their network.",
        data="Folder of class folders, alone or below splits, or a table of paths and labels.",
        split="Which part of --data, such as test or train[80%:].",
        training_split="Which part of --data the network was trained on, such as train: similar "
        "images are looked for there.",
        output="Folder to write into; it is made if it is not there.",
        layer="Name of the layer whose feature map is drawn; by default the last one.",
    )
    for name, default, choices, meaning in (
        (
            "method",
            "gradcam",
            ["gradcam", "occlusion"],
            "How heat maps are made; occlusion: by hiding parts of the image, which takes longer.",
        ),
        (
            "on_error",
            "stop",
            ["stop", "skip"],
            "Whether to stop at an image of --data that cannot be read, or to skip it and go on.",
        ),
    ):
        absl_flags.DEFINE_enum(name, default, choices, meaning, flag_values=flags)
    for name, count, least, meaning in (
        ("mistakes", 24, 0, "How many mistakes to show."),
        ("per_class", 3, 1, "How many images of each kind to show of a class."),
        ("neighbors", 4, 0, "How many training images to show beside a mistake or a photo."),
    ):
        absl_flags.DEFINE_integer(name, count, meaning, lower_bound=least, flag_values=flags)
    define_checkpoint(flags)
    overrides.define(flags)


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Explains, writes and prints; returns 0, or raises UserError if a photo could not be read."""
    _check(flags, arguments)
    output = Path(flags.output).expanduser()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output={output}: cannot be made ({error.strerror})") from error
    require_pillow()
    files = list(list_images(arguments)) if arguments else None
    if files is not None and not files:
        raise UserError(f"{', '.join(arguments)}: no image files there")
    start_tensorflow()
    with tqdm.tqdm(unit="image", dynamic_ncols=True, disable=None) as bar:
        found = _gallery(flags, files, bar.update)
    _write(found, output, flags.model or flags.workdir)
    print("\n".join(map(printable, _lines(found, output))))
    problems = found.predictions.problems
    if files is not None and problems:
        first = " ".join(next(iter(problems.items())))
        raise UserError(
            f"{len(problems)} of {len(files)} files could not be read, the first: {first}"
        )
    return 0


def _check(flags: absl_flags.FlagValues, arguments: list[str]) -> None:
    if bool(flags.workdir) == bool(flags.model):
        raise UsageError(f"it takes --workdir=DIR or --model=PATH; for example {_EXAMPLE}")
    if not flags.output:
        raise UsageError(f"--output=FOLDER is missing; for example {_EXAMPLE}")
    if arguments and flags.data:
        raise UsageError("it takes PHOTOS or --data, not both")
    for name, key in (("split", "eval_split"), ("training_split", "train_split")):
        if flags[name].value and not flags.data:
            raise UsageError(f"--{name} goes with --data; a run has --config.data.{key}")
    if flags["on_error"].present and not flags.data:
        raise UsageError("--on_error goes with --data; a run has --config.data.on_error")
    given = [key for key in KEYS if flags[overrides.PREFIX + key].present]
    if given and (flags.model or flags.data):
        raise UsageError(f"--{overrides.PREFIX}{given[0]} goes with --workdir, without --data")
    if flags.model and not (arguments or flags.data):
        raise UsageError(
            "--data=FOLDER with labelled images, or PHOTOS, are missing; for example "
            "keras-resnet explain --model=model.keras --data=photos --output=explained"
        )


def _gallery(
    flags: absl_flags.FlagValues, files: list[Path] | None, progress: Any
) -> "Gallery | LabelSetGallery":
    from keras_resnet import explain
    from keras_resnet.explain.gallery import open_data

    options: dict[str, Any] = {
        name: flags[name].value for name in ("layer", "method", "mistakes", "per_class")
    }
    options |= {"neighbors": flags.neighbors, "progress": progress}
    if flags.workdir and not flags.data:
        changed = {key: flags[overrides.PREFIX + key] for key in KEYS}
        return explain.gallery_of_run(
            flags.workdir,
            files,
            checkpoint=flags.checkpoint,
            overrides={key: flag.value for key, flag in changed.items() if flag.present},
            say=lambda line: print(line, file=sys.stderr),
            **options,
        )
    from keras_resnet.explain.networks import load_classifier
    from keras_resnet.models.classifiers import gives_label_sets

    model = load_classifier(flags.workdir or flags.model, flags.checkpoint)
    data = training = None
    several = gives_label_sets(model)
    if flags.data:
        data = open_data(flags.data, flags.split, flags.on_error, several)
    if flags.training_split and flags.neighbors:
        training = open_data(flags.data, flags.training_split, flags.on_error, several)
    return explain.gallery(model, files, data=data, training=training, **options)


def _write(found: "Gallery | LabelSetGallery", folder: Path, title: str) -> None:
    from keras_resnet.commands.explain import page, sheets

    table = folder.absolute() / "predictions.csv"
    with replacing(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        found.predictions.write_csv(file)
    write_text(folder / "index.html", page.make_page(found, title))
    sheets.write_sheets(found, folder)


def _lines(found: "Gallery | LabelSetGallery", folder: Path) -> list[str]:
    from keras_resnet.explain import LabelSetGallery

    known: list[str] = []
    if found.predictions.labels is not None:
        known = _mistakes_of_sets(found) if isinstance(found, LabelSetGallery) else _mistakes(found)
    notes = [f"note: {note}" for note in found.notes]
    return [found.predictions.source, *known, *notes, f"{folder / 'index.html'}"]


def _mistakes(found: "Gallery") -> list[str]:
    predictions = found.predictions
    right = int((predictions.classes == predictions.labels).sum())
    count = len(predictions.paths)
    lines = [f"top1 {predictions.top1:.4f}  {right:,} of {count:,} images right"]
    for shot in found.mistakes[:_MISTAKES]:
        label = predictions.class_names[shot.label or 0]
        lines.append(
            f"  {shot.path}: {label}, taken for {predictions.class_names[shot.prediction]} "
            f"({shot.probabilities[shot.prediction]:.1%})"
        )
    return lines


def _mistakes_of_sets(found: "LabelSetGallery") -> list[str]:
    figures = found.predictions.figures()
    lines = [f"mAP {figures['map']:.4f}  F1 {figures['f1']:.4f} at the model's thresholds"]
    for one in found.mistakes[:_MISTAKES]:
        has = ", ".join(one.labels) or "no label"
        what = "falsely predicted" if one.predicted else "missed"
        lines.append(f"  {one.path}: has {has}; {one.class_name} is {what} ({one.probability:.1%})")
    return lines
