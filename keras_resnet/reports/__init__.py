"""The report of a run: `keras_resnet.report("runs/mine")`, and the page that shows it.

    of_run    gathers what the folder of a run holds and what its network makes of its images
    contents  the report as objects
    selection, images   which images are shown, and how they are read
    findings  what the evaluation tells of the data
    page      the sections in their order; overview, course, classes, trust make them, charts draws

Loads TensorFlow when images are read.
"""

import os

from keras_resnet.reports.contents import Findings, Report, Suspect, Thumbnail
from keras_resnet.reports.of_run import gather, report
from keras_resnet.reports.page import make_page
from keras_resnet.storage import as_path, write_text

__all__ = ["Findings", "Report", "Suspect", "Thumbnail", "gather", "make_page", "report", "write"]


def write(found: Report, path: str | os.PathLike) -> None:
    """Writes a report as one HTML file, which opens without a network; replaces it whole."""
    write_text(as_path(path).expanduser(), make_page(found))
