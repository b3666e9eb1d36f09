"""Pictures of batches with their labels, and the figures that go with them."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.printing import printable

COLUMNS = 8
_SMALLEST = 112  # pixels of a thumbnail; smaller images are enlarged by a whole factor
_GAP = 6
_LINE = 15
_FONT = 12


@dataclasses.dataclass
class Section:
    """A row of images under a heading.

    Attributes:
        title: the heading.
        images: uint8[n, h, w, 3].
        captions: a line for each.
    """

    title: str
    images: np.ndarray
    captions: list[str]


def require_pillow() -> None:
    """Raises UserError unless contact sheets can be drawn."""
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise UserError(
            "the contact sheet needs Pillow: pip install 'keras-resnet-tpu[plot]'"
        ) from error


def write_sheet(
    path: str | Path, sections: list[Section], columns: int = COLUMNS
) -> tuple[int, int]:
    """Writes the sections, one below the other, as a picture; returns its width and height.

    Raises:
        UserError: Pillow is missing, or the file cannot be written.
    """
    require_pillow()
    from PIL import Image, ImageDraw, ImageFont

    size = max(section.images.shape[1] for section in sections)
    factor = max(1, math.ceil(_SMALLEST / size))
    cell = size * factor + _GAP
    heights = [
        2 * _LINE + math.ceil(len(section.images) / columns) * (cell + _LINE)
        for section in sections
    ]
    sheet = Image.new("RGB", (columns * cell + _GAP, sum(heights) + _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT)
    top = _GAP
    for section, height in zip(sections, heights, strict=True):
        draw.text((_GAP, top), printable(section.title), "black", font)
        for place, (image, caption) in enumerate(
            zip(section.images, section.captions, strict=True)
        ):
            row, column = divmod(place, columns)
            left = _GAP + column * cell
            upper = top + 2 * _LINE - _GAP + row * (cell + _LINE)
            enlarged = image.repeat(factor, axis=0).repeat(factor, axis=1)
            sheet.paste(Image.fromarray(enlarged), (left, upper))
            text = _fitting(
                printable(caption), lambda text: draw.textlength(text, font) <= cell - _GAP
            )
            draw.text((left, upper + size * factor), text, "black", font)
        top += height
    try:
        sheet.save(path)
    except (OSError, ValueError) as error:
        raise UserError(f"--output={path}: cannot be written: {error}") from error
    return sheet.size


def _fitting(text: str, fits: Callable[[str], bool]) -> str:
    if fits(text):
        return text
    while text and not fits(text + "…"):
        text = text[:-1]
    return text + "…"


def caption(
    names: tuple[str, ...], label: int | np.ndarray, partner: int | np.ndarray, share: float
) -> str:
    """Returns the class, or both classes of a mixed example with the share of the first.

    Labels that are rows of 0 and 1 are of several classes.
    """
    own, other = _label_text(names, label), _label_text(names, partner)
    if share >= 0.995 or own == other:
        return own
    if share <= 0.005:
        return other
    return f"{own} {share:.0%} + {other}"


def _label_text(names: tuple[str, ...], label: int | np.ndarray) -> str:
    if np.ndim(label) == 0:
        return names[int(label)]
    return ", ".join(names[number] for number in np.flatnonzero(label)) or "no label"


def label_histogram(labels: np.ndarray, names: tuple[str, ...], lines: int = 10) -> list[str]:
    """Returns lines that show how often each class occurs, the most frequent ones first."""
    several = labels.ndim == 2
    counts = labels.sum(axis=0, dtype=int) if several else np.bincount(labels, minlength=len(names))
    present = int((counts > 0).sum())
    order = np.argsort(-counts, kind="stable")[: min(lines, present)]
    shown = {label: printable(names[label]) for label in order}
    width = max(map(len, shown.values()))
    rows = [
        f"  {len(labels)} images read: {present} of {len(names)} classes, "
        f"{counts.min()}–{counts.max()} images each"
    ]
    for label in order:
        bar = "█" * max(1, round(30 * counts[label] / counts.max()))
        rows.append(f"  {shown[label]:<{width}} {counts[label]:>5} {bar}")
    if present > len(order):
        rows.append(f"  … and {present - len(order)} more classes")
    return rows


def value_ranges(pixels: np.ndarray, normalized: np.ndarray) -> list[str]:
    """Returns lines with the range of [n, h, w, 3] before and after normalization, by channel."""
    rows = [f"  {'':<22}{'least':>8}{'most':>8}{'mean':>8}{'std':>8}"]
    for kind, values in (("pixels", pixels), ("normalized", normalized)):
        for place, channel in enumerate("RGB"):
            one = np.asarray(values[..., place], np.float64)
            figures = "".join(
                f"{figure:>8.2f}" for figure in (one.min(), one.max(), one.mean(), one.std())
            )
            rows.append(f"  {kind + ' ' + channel:<22}{figures}")
    return rows
