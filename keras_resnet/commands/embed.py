"""usage: keras-resnet embed (--model=PATH | --workdir=DIR) --output=FILE PHOTOS_OR_FOLDERS...

Writes for each photo the vector that the network's classifier sees, its pooled last feature map:
photos that are alike for the network have vectors of a small angle. --model is a .keras file,
weights that name their network, a SavedModel, or a folder of exported versions; a model may lack a
classifier. Of a folder every image file below it is taken. --output: a .npz file (`paths`,
`vectors`) or a .csv file (path, feature_0, feature_1, ..., error). A photo that cannot be read is
named on standard error, and in the .csv's row, and the exit code is 1 at the end."""

import sys
from pathlib import Path
from typing import Any

import tqdm
from absl import flags as absl_flags

from keras_resnet.commands.options import (
    check_checkpoint,
    check_folder_of,
    define_checkpoint,
    define_strings,
)
from keras_resnet.commands.startup import start_tensorflow
from keras_resnet.errors import UsageError, UserError
from keras_resnet.input_pipeline.image_listing import list_images
from keras_resnet.printing import printable
from keras_resnet.storage import replacing
from keras_resnet.training.workdir import WorkDir

SUMMARY = "Write the vectors of photos, by which alike ones are found."
SUFFIXES = (".npz", ".csv")


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines --model, --workdir, --checkpoint and --output."""
    define_strings(
        flags,
        model="A .keras file, weights that name their network, or a SavedModel.",
        workdir="Work directory of a training run.",
        output="The file to write: a .npz or a .csv.",
    )
    define_checkpoint(flags)


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Embeds and writes; returns 0, or raises UserError if a photo could not be read."""
    if bool(flags.workdir) == bool(flags.model):
        raise UsageError("it takes --model=PATH or --workdir=DIR")
    check_checkpoint(flags)
    if not flags.output or Path(flags.output).suffix.lower() not in SUFFIXES:
        raise UsageError(f"--output={flags.output or ''}: name a file that ends in .npz or .csv")
    if not arguments:
        raise UsageError("name one image file, or folder of images, or more")
    check_folder_of(flags, "output")
    files = list(list_images(arguments))
    if not files:
        raise UserError(f"{', '.join(arguments)}: no image files there")
    start_tensorflow()
    with tqdm.tqdm(total=len(files), unit="image", dynamic_ncols=True, disable=None) as bar:
        found = _embed(flags, files, bar.update)
    output = Path(flags.output).expanduser().absolute()
    with replacing(output) as temporary:
        if output.suffix.lower() == ".npz":
            with temporary.open("wb") as binary:
                found.write_npz(binary)
        else:
            with temporary.open("w", newline="", encoding="utf-8") as text:
                found.write_csv(text)
    print(f"{output}: {len(found.vectors):,} vectors of {found.vectors.shape[1]:,} numbers")
    if found.problems:
        lines = [printable(" ".join(problem)) for problem in found.problems.items()]
        print("\n".join(lines[1:]), end="\n" if lines[1:] else "", file=sys.stderr)
        raise UserError(
            f"{len(lines)} of {len(files)} files could not be read, the first: {lines[0]}"
        )
    return 0


def _embed(flags: absl_flags.FlagValues, files: list[Path], progress: Any) -> Any:
    from keras_resnet import explain
    from keras_resnet.explain.networks import load_embedder

    if not flags.workdir:
        return load_embedder(flags.model)(files, progress=progress)
    from keras_resnet.training.evaluation import load_model_of_workdir

    model = load_model_of_workdir(
        WorkDir(flags.workdir), flags.checkpoint, say=lambda line: print(line, file=sys.stderr)
    )
    return explain.embed(model, files, progress=progress)
