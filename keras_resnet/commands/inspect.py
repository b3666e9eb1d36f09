"""usage: keras-resnet inspect DATA [--output=FOLDER] [--json] [--leave_out=KIND,...]
                            [--model=PATH | --workdir=RUN] [--split=NAME] [--folds=K]

Looks at every image of a labelled set for what spoils training or its evaluation: files that cannot
be read, exact and near duplicates, the same image in training and evaluation or under two labels,
dark, blurred, single-colored, tiny, huge and narrow images, EXIF rotation, wrong extensions,
classes with few images. DATA is a folder of class folders, alone or below train, test, val or their
like, or a table (.csv, .tsv, .jsonl) of paths and labels. With a model or a run it also names
labels of the evaluation images that are probably wrong; the model must not have been trained on
those. With --folds it names such labels among all images, by cross-validation.

Prints a table. --output writes inspection.json, exclude.txt and a contact sheet KIND.png for each
finding into a folder; exclude.txt is for training: --config.data.exclude=FOLDER/exclude.txt. Sheets
need Pillow, which the extra `plot` brings."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tqdm
from absl import flags as absl_flags

from keras_resnet.commands.options import check_folder_of, define_json_switch, define_strings
from keras_resnet.commands.startup import start_tensorflow
from keras_resnet.errors import UsageError, UserError, did_you_mean
from keras_resnet.inspection.findings import KINDS, LEFT_OUT
from keras_resnet.storage import write_text
from keras_resnet.training.workdir import WorkDir

if TYPE_CHECKING:
    from keras_resnet.inspection import Finding, Inspection, Item

SUMMARY = "Find bad images, duplicates, leaks and wrong labels in a labelled set."
_EXAMPLE = "keras-resnet inspect photos --output=inspection"
_ON_A_SHEET = 64
_GROUP = 8  # images of one group on a sheet


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines the flags; the module's docstring says what they do."""
    define_strings(
        flags,
        output="Folder to write inspection.json, exclude.txt and contact sheets into.",
        model="A .keras file, an export, or weights that name their network, to judge labels.",
        workdir="Work directory of a training run, whose network judges labels.",
        split="The images whose labels are judged, such as test or train[80%:]; by default the "
        "test images, else the validation images, else all.",
    )
    absl_flags.DEFINE_integer(
        "folds",
        0,
        "Judge the labels of all images: each by a linear classifier on the network's vectors of "
        "the other parts of so many. Needs scikit-learn.",
        flag_values=flags,
    )
    absl_flags.DEFINE_list(
        "leave_out",
        list(LEFT_OUT),
        f"Findings whose files exclude.txt lists, among {', '.join(KINDS)}.",
        flag_values=flags,
    )
    absl_flags.DEFINE_boolean(
        "near_duplicates",
        True,
        "Look for copies that are not exact, too; the search compares all pairs of images.",
        flag_values=flags,
    )
    define_json_switch(flags)


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Inspects, prints and writes; returns 0 whatever is found."""
    if len(arguments) != 1:
        what = "DATA is missing" if not arguments else f"it takes one DATA, not {len(arguments)}"
        raise UsageError(f"{what}; for example: {_EXAMPLE}")
    if flags.model and flags.workdir:
        raise UsageError("it takes --model or --workdir, not both")
    if flags.split and not (flags.model or flags.workdir):
        raise UsageError(
            "--split goes with --model or --workdir; without, all images are inspected"
        )
    if flags.folds and not (flags.model or flags.workdir):
        raise UsageError("--folds goes with --model or --workdir, whose vectors it takes")
    if flags.folds < 0 or flags.folds == 1:
        raise UsageError(f"--folds={flags.folds}: must be 2 or more; 5 is usual")
    for kind in flags.leave_out:
        if kind not in KINDS:
            raise UsageError(
                f"--leave_out: {kind!r} is no kind of finding.{did_you_mean(kind, KINDS)} There "
                f"are {', '.join(KINDS)}"
            )
    check_folder_of(flags, "output")
    if flags.output and Path(flags.output).is_file():
        raise UserError(f"--output={flags.output}: is a file; name a folder")
    start_tensorflow()
    from keras_resnet import inspection
    from keras_resnet.inspection.text import describe

    with tqdm.tqdm(unit="image", dynamic_ncols=True, disable=None) as bar:
        found = inspection.inspect_images(
            arguments[0],
            model=_model(flags),
            model_split=flags.split,
            folds=flags.folds,
            near_duplicates=flags.near_duplicates,
            progress=bar.update,
        )
    kinds = tuple(flags.leave_out)
    print(json.dumps(found.to_dict()) if flags.json else describe(found, kinds))
    if flags.output:
        for line in _write(found, Path(flags.output), kinds):
            print(line, file=sys.stderr if flags.json else sys.stdout)
    return 0


def _model(flags: absl_flags.FlagValues) -> Any:
    if not flags.workdir:
        return flags.model
    from keras_resnet.training.evaluation import load_model_of_workdir

    return load_model_of_workdir(
        WorkDir(flags.workdir), say=lambda line: print(line, file=sys.stderr)
    )


def _write(found: "Inspection", folder: Path, kinds: tuple[str, ...]) -> list[str]:
    """Writes the folder; returns lines that say what is in it."""
    folder.mkdir(exist_ok=True)
    write_text(folder / "inspection.json", json.dumps(found.to_dict(), indent=2) + "\n")
    write_text(folder / "exclude.txt", found.exclude_list(kinds))
    names = ["inspection.json", "exclude.txt"]
    note = []
    for kind in KINDS:  # of an earlier look
        (folder / f"{kind}.png").unlink(missing_ok=True)
    for finding in found.findings:
        if not any(item.path for item in finding.items):
            continue
        try:
            _write_sheet(finding, folder / f"{finding.kind}.png")
        except UserError as error:  # without Pillow the rest is as good
            note = [f"no contact sheets: {error}"]
            break
        names.append(f"{finding.kind}.png")
    left_out = len(found.files_to_leave_out(kinds))
    return [
        "",
        f"{folder}: {', '.join(names)}",
        *note,
        f"to train without the {left_out:,} files of exclude.txt: "
        f"--config.data.exclude={folder / 'exclude.txt'}",
    ]


def _write_sheet(finding: "Finding", path: Path) -> None:
    from keras_resnet.commands.show.contact_sheet import Section, write_sheet
    from keras_resnet.inspection.thumbnails import thumbnails
    from keras_resnet.printing import printable

    items: list[Item] = []
    captions: list[str] = []
    for number, group in enumerate(finding.groups, start=1):
        if len(items) + min(len(group), _GROUP) > _ON_A_SHEET:
            break
        for item in group[:_GROUP]:
            items.append(item)
            what = f"{item.split}/{item.label}" if len(group) > 1 else item.note or item.label
            captions.append(f"{number}: {printable(what)}")
    total = len(finding.items)
    some = "" if len(items) == total else f", {len(items):,} of {total:,} shown"
    title = f"{finding.kind}: {finding.meaning}{some}"
    write_sheet(path, [Section(title, thumbnails([item.path for item in items]), captions)])
