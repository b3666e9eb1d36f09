"""Which images a split that was cut from a folder holds: written down when a run begins.

A slice such as `train[:80%]` depends on what lies in the folder. So the list says later what the
network was trained on, and a run that resumes sees whether an image has changed sides.
"""

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from keras_resnet.input_pipeline.label_tables import path_cell, path_of_cell
from keras_resnet.storage import absolute, replacing
from keras_resnet.training.workdir import WorkDir

_COLUMNS = ("path", "label", "split")
_ANY_NAME = "surrogateescape"  # of files whose names are no UTF-8


def remember_splits(
    workdir: WorkDir, config: ConfigDict, sources: Mapping[str, Any]
) -> Iterator[str]:
    """Writes splits.csv, a table that `--data` takes, if a split is a slice of an image folder.

    Args:
        workdir: of the run.
        config: of the run.
        sources: the open split of "train", "eval" and "test"; None where there is none.

    Yields:
        A warning, if images that the list has in a held-out split are now trained on.
    """
    sliced = any("[" in config.data[f"{name}_split"] for name in sources)
    if config.data.source != "image_folder" or not sliced:
        return
    if not workdir.splits.exists():
        with replacing(workdir.splits) as temporary:
            temporary.write_text(_table(sources), "utf-8")
        return
    held_out = _held_out(workdir.splits.read_bytes())
    moved = [path for path in _paths(sources["train"]) if path in held_out]
    if moved:
        yield (
            f"warning: the data has changed since the run began: {len(moved):,} images that were "
            f"held out are now trained on, such as {moved[0]}, so the accuracy is too good. "
            f"Another --workdir with --data={workdir.splits} keeps the images of each split"
        )


def _held_out(table: bytes) -> set[str]:
    text = table.decode(errors=_ANY_NAME)  # as lists were that hold bytes as they are
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except csv.Error:
        return set()
    return {
        path_of_cell(row["path"]) for row in rows if row.get("path") and row["split"] != "train"
    }


def _table(sources: Mapping[str, Any]) -> str:
    # Read back, it has the roles that the splits had; without a test split the one is the test.
    held_out = "validation" if sources.get("test") is not None else "test"
    roles = {"train": "train", "eval": held_out, "test": "test"}
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for name, source in sources.items():
        if source is not None:
            rows = zip(_paths(source), map(source.label_cell, source.labels()), strict=True)
            writer.writerows((path_cell(path), label, roles[name]) for path, label in rows)
    return text.getvalue()


def _paths(source: Any) -> Iterator[str]:
    """The files of an image folder, wherever the command is started."""
    for name, _ in source.records():
        yield absolute(name)
