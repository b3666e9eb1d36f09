"""usage: keras-resnet predict (--model=PATH | --workdir=DIR) [--top=5] [--format=FORMAT]
                            [--threshold=P] [--checkpoint=best] [--calibrated] [--unknown=90%]
                            [--output=FILE] [--tta=flip]
                            IMAGES_OR_FOLDERS...

Prints the most probable classes of each image; where an image may have several labels, all that are
above their thresholds, or above --threshold. --model is a .keras, .tflite or .onnx file, a
SavedModel, a folder of exported versions, of which the newest is taken, or weights that name their
network (a file, a folder of transformers, hf://OWNER/REPOSITORY). --workdir is the work directory
of a run: its finished model.keras is taken, or its newest checkpoint, or with --checkpoint=best the
one with the highest top-1 or mAP. Of a folder of images every image file below it is taken.
--format: text, jsonl (one JSON object a line, with "image" and "predictions", a list of {"class",
"class_id", "probability"}; --json is short for it) or csv (image, class_1, class_id_1,
probability_1, ...; of several labels an image a cell for all labels and one for all probabilities,
with | between). jsonl holds names exactly; text and csv escape what no terminal should get, and csv
puts a quote before a name that a spreadsheet would take for a formula. --calibrated makes of its
probabilities such that can be believed, and --unknown answers "unknown" below one of them, or so
often that 90% of the images are answered (both measured on held-out images when the run ended):
text puts it above the classes, jsonl and csv have it in "answer", beside the classes. A file that
cannot be read gets an "error" in its row, and the exit code is 1 at the end. Files of folders that
are passed over are counted by suffix in the last line; HEIC, AVIF and TIFF, which take longer, need
`pip install 'keras-resnet-tpu[heif]'`."""

import contextlib
import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import tqdm
from absl import flags as absl_flags

from keras_resnet.calibration import UNKNOWN, Unknown
from keras_resnet.commands.options import (
    check_checkpoint,
    define_calibration,
    define_checkpoint,
    define_trusted_switch,
    define_tta,
    notes_on_stderr,
    unknown_of,
)
from keras_resnet.commands.startup import start_tensorflow
from keras_resnet.errors import UsageError, UserError
from keras_resnet.export.labels import read_labels
from keras_resnet.input_pipeline import label_sets
from keras_resnet.input_pipeline.image_listing import in_words, list_images
from keras_resnet.input_pipeline.other_formats import SUFFIXES, suffixes_read
from keras_resnet.printing import csv_cell, printable
from keras_resnet.storage import check_keras_file, replacing
from keras_resnet.training.workdir import WorkDir

if TYPE_CHECKING:
    from keras_resnet.export.predictor import Predictor

SUMMARY = "Classify image files or folders of them."
_COLUMNS = ("class", "class_id", "probability")


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines the flags; the module's docstring says what they do."""
    for name, meaning in (
        ("model", "A .keras file, an export, or weights that name their network."),
        ("workdir", "Work directory of a training run."),
        ("labels", "File of class names, one a line, for a .keras file that has none."),
        ("output", "File to write instead of printing."),
    ):
        absl_flags.DEFINE_string(name, None, meaning, flag_values=flags)
    define_checkpoint(flags)
    absl_flags.DEFINE_integer(
        "top",
        None,
        "Number of classes to print for each image: 5, or all above their thresholds where an "
        "image may have several labels.",
        lower_bound=1,
        flag_values=flags,
    )
    absl_flags.DEFINE_float(
        "threshold",
        None,
        "Where an image may have several labels: the probability above which it has one, instead "
        "of the model's own thresholds.",
        lower_bound=0.0,
        upper_bound=1.0,
        flag_values=flags,
    )
    absl_flags.DEFINE_enum(
        "format", "text", ["text", "jsonl", "csv"], "How to print the rows.", flag_values=flags
    )
    absl_flags.DEFINE_boolean("json", False, "Short for --format=jsonl.", flag_values=flags)
    define_calibration(
        flags, "Answer unknown where the most probable class is not probable enough."
    )
    define_tta(flags, "as the model says, which a run sets by config.evaluation.tta")
    define_trusted_switch(flags)


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Predicts and prints; returns 0, or raises UserError if a file could not be read."""
    if not flags.workdir and not flags.model:
        raise UsageError("--model=PATH or --workdir=DIR is missing")
    if flags.workdir and flags.model:
        raise UsageError("it takes --model or --workdir, not both")
    check_checkpoint(flags)
    unknown = unknown_of(flags)
    if not arguments:
        raise UsageError("name one image file, or folder of images, or more")
    if flags.workdir and not WorkDir(flags.workdir).model.exists():
        WorkDir(flags.workdir).read_config()  # raises if no run was started there
    passed_over: Counter[str] = Counter()
    files = list(list_images(arguments, passed_over, also=suffixes_read()))
    if not files:
        raise UserError(f"{', '.join(arguments)}: no image files there{_but(passed_over)}")
    if flags.output:
        _check_output(flags.output)
    labels = read_labels(Path(flags.labels)) if flags.labels else None
    if flags.model and Path(flags.model).suffix == ".keras":
        check_keras_file(Path(flags.model))
    start_tensorflow()
    predictor = _predictor(flags, labels, unknown)
    if flags.threshold is not None:
        predictor = predictor.with_threshold(flags.threshold)
    if predictor.threshold is not None:
        threshold = f"below a calibrated probability of {predictor.threshold:.4g}"
        print(f"note: the answer is unknown {threshold}", file=sys.stderr)
    from keras_resnet.export.signatures import TOP

    kind = "jsonl" if flags.json else flags.format
    answers = predictor.threshold is not None
    write = _Writer(kind, flags.top or TOP, answers, predictor.is_multilabel)
    failures = []
    with _output(flags.output) as file, _progress(len(files), file) as bar:
        for path, answer in predictor.predict_files(files):
            if isinstance(answer, str):
                failures.append(f"{path} {answer}")
            write(file, path, answer)
            bar.update()
    if passed_over:
        count = f"{len(files):,} file{' was' if len(files) == 1 else 's were'} predicted"
        print(f"note: {count}{printable(_but(passed_over))}", file=sys.stderr)
    if failures:
        raise UserError(
            f"{len(failures)} of {len(files)} files could not be read, the first: {failures[0]}"
        )
    return 0


def _but(passed_over: Mapping[str, int]) -> str:
    """What to say of the files in folders that were passed over, to follow a statement."""
    if not passed_over:
        return ""
    needed = [suffix for suffix in SUFFIXES if suffix in passed_over]
    hint = f"; pip install 'keras-resnet-tpu[heif]' reads {', '.join(needed)}" if needed else ""
    return f", and passed over for their names: {in_words(passed_over)}{hint}"


def _predictor(
    flags: absl_flags.FlagValues, labels: list[str] | None, unknown: Unknown | None
) -> "Predictor":
    from keras_resnet.export.loading import load_predictor
    from keras_resnet.export.predictor import Predictor

    if not flags.workdir:
        with notes_on_stderr():
            return load_predictor(
                flags.model,
                flags.top,
                labels,
                trusted=flags.trusted,
                calibrated=flags.calibrated,
                unknown=unknown,
                tta=flags.tta,
            )
    from keras_resnet.training.evaluation import load_model_of_workdir

    model = load_model_of_workdir(
        WorkDir(flags.workdir), flags.checkpoint, say=lambda line: print(line, file=sys.stderr)
    )
    with notes_on_stderr():
        return Predictor.of_model(
            model,
            flags.top,
            labels,
            calibrated=flags.calibrated,
            unknown=unknown,
            tta=flags.tta,
        )


def _check_output(path: str) -> None:
    if Path(path).is_dir():
        raise UserError(f"--output={path}: is a folder; name a file")
    if not Path(path).absolute().parent.is_dir():
        raise UserError(f"--output={path}: there is no folder {Path(path).absolute().parent}")


@contextlib.contextmanager
def _output(path: str | None) -> Iterator[IO[str]]:
    if path is None:
        yield sys.stdout
        return
    with (
        replacing(Path(path).absolute()) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        yield file


def _progress(total: int, file: IO[str]) -> tqdm.tqdm:
    # A bar where it does not mix with the rows: not if both go to the same terminal.
    mixed = file is sys.stdout and sys.stdout.isatty()
    return tqdm.tqdm(total=total, unit="image", dynamic_ncols=True, disable=True if mixed else None)


class _Writer:
    """Writes a row in one of the formats; with `answers` also the class, or that it is unknown."""

    def __init__(self, kind: str, top: int, answers: bool = False, is_multilabel: bool = False):
        self.kind, self.top, self.answers, self.columns = kind, top, answers, 0
        self.is_multilabel = is_multilabel

    def __call__(self, file: IO[str], path: str, answer: list[dict] | str) -> None:
        getattr(self, f"_{self.kind}")(file, path, answer)
        if file is sys.stdout:
            file.flush()

    def _text(self, file: IO[str], path: str, answer: list[dict] | str) -> None:
        if isinstance(answer, str):
            print(f"{printable(path)}\n  error: {printable(answer)}", file=file)
            return
        names = [printable(row["class"]) for row in answer]
        width = max(map(len, names), default=0)
        rows = [
            f"  {name:<{width}}  {row['probability']:7.2%}"
            for name, row in zip(names, answer, strict=True)
        ]
        if answer and answer[0].get("unknown"):
            rows = [f"  {UNKNOWN}, perhaps one of these:", *rows]
        nothing = ["  no class is above its threshold"] if not rows else []
        print("\n".join([printable(path), *rows, *nothing]), file=file)

    def _jsonl(self, file: IO[str], path: str, answer: list[dict] | str) -> None:
        if isinstance(answer, str):
            print(json.dumps({"image": path, "error": answer}), file=file)
            return
        said = {"answer": _said(answer)} if self.answers else {}
        rows = [{key: row[key] for key in _COLUMNS} for row in answer]
        print(json.dumps({"image": path, **said, "predictions": rows}), file=file)

    def _csv(self, file: IO[str], path: str, answer: list[dict] | str) -> None:
        writer = csv.writer(file)
        if self.is_multilabel:
            self._csv_of_sets(writer, path, answer)
            return
        if not self.columns:
            # As many as there are classes, if a good file comes first; the header cannot wait.
            self.columns = self.top if isinstance(answer, str) else len(answer)
            names = [f"{key}_{i + 1}" for i in range(self.columns) for key in _COLUMNS]
            writer.writerow(["image", *["answer"] * self.answers, *names, "error"])
        if isinstance(answer, str):
            empty = [""] * (3 * self.columns + self.answers)
            writer.writerow([csv_cell(path), *empty, csv_cell(answer)])
            return
        cells = [
            csv_cell(row[key]) if key == "class" else row[key] for row in answer for key in _COLUMNS
        ]
        said = [csv_cell(_said(answer))] if self.answers else []
        empty = [""] * (3 * self.columns - len(cells))
        writer.writerow([csv_cell(path), *said, *cells, *empty, ""])

    def _csv_of_sets(self, writer: Any, path: str, answer: list[dict] | str) -> None:
        """As many labels as there are in one cell, as tables of labelled images have them."""
        if not self.columns:
            self.columns = 4
            writer.writerow(["image", "labels", "probabilities", "error"])
        if isinstance(answer, str):
            writer.writerow([csv_cell(path), "", "", csv_cell(answer)])
            return
        labels = label_sets.join([row["class"] for row in answer])
        probabilities = "|".join(f"{row['probability']:.6g}" for row in answer)
        writer.writerow([csv_cell(path), csv_cell(labels), probabilities, ""])


def _said(answer: list[dict]) -> str:
    """The most probable class, or that it is not probable enough."""
    return UNKNOWN if answer[0]["unknown"] else answer[0]["class"]
