"""Names from elsewhere, of classes and files: exact inside, escaped where people or programs read.

A name is a `str`; bytes that are no UTF-8 stand in it as Python has them in names of files
(`surrogateescape`), so that nothing is lost. JSON holds a name exactly. Standard library only: the
input pipeline, too, may import this.
"""

import contextlib
import csv
import io
import re
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Cells that begin so are formulas to spreadsheets (OWASP, "CSV Injection"), some of which run
# programs; the wide ones are those of East Asian keyboards. With a quote in front it is text.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
# Of what systems bring, those with many scripts.
_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Source Han Sans SC"),
    *("WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "Arial Unicode MS"),
    *("PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic"),
    *("Malgun Gothic", "Noto Sans Arabic", "Noto Sans Devanagari", "Noto Sans Thai", "Nirmala UI"),
)
_SHOWN = {"Zs", "Mn", "Mc", "Me"}  # spaces and accents; the rest of what is not printable is not


def printable(text: object) -> str:
    r"""One line without what would control a terminal, or could not be written to it.

    Control characters, line breaks, marks that turn the direction of writing, and bytes that are
    no UTF-8 become escapes as Python has them: `\x1b`, `\n`, `\u202e`, `\xff`.
    """
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(
        letter
        if letter.isprintable() or unicodedata.category(letter) in _SHOWN
        else _escape(letter)
        for letter in shown
    )


def printable_lines(text: object) -> str:
    """The same of a text whose line breaks are our own."""
    return "\n".join(map(printable, str(text).split("\n")))


def shortened(text: str, longest: int = 2000) -> str:
    """A text without its middle where it is longer: a message quotes what a stranger wrote."""
    left_out = len(text) - longest
    if left_out <= 0:
        return text
    return f"{text[: longest // 2]} … ({left_out:,} letters) … {text[-(longest // 2) :]}"


def _escape(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return letter.encode("unicode_escape", "backslashreplace").decode()


def csv_cell(text: object) -> str:
    """A name as a cell of a CSV file: printable, and no formula.

    A quote stands in front of what a spreadsheet would take for a formula, and of what has quotes
    and would be one behind them; so leaving out the first quote in front of `=`, `+`, `-` or `@`
    gives the name back.
    """
    shown = printable(text)
    return f"'{shown}" if _FORMULA.match(shown) else shown


def is_plain_cell(text: str) -> bool:
    """Whether a cell of a CSV file can hold a name as it is, so that it comes back exactly."""
    return csv_cell(text) == text and text == text.strip()


def csv_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of the same keys as CSV: texts as `csv_cell` has them, floats with six digits."""

    def cell(value: Any) -> Any:
        if isinstance(value, float):
            return f"{value:.6f}"
        return csv_cell(value) if isinstance(value, str) else value

    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


@contextlib.contextmanager
def any_letters() -> Iterator[None]:
    """In it matplotlib takes letters that its own font lacks from others of the machine.

    Where there is none with them they are boxes, and matplotlib's warning of each is left out: the
    tables beside the pictures have all names.
    """
    import matplotlib
    from matplotlib import font_manager

    there = {font.name for font in font_manager.fontManager.ttflist}
    fonts = [*matplotlib.rcParams["font.family"], *(name for name in _FONTS if name in there)]
    with matplotlib.rc_context({"font.family": fonts}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ ")
        yield


def to_bytes(name: str) -> bytes:
    """A name as TensorFlow holds it: UTF-8, and the bytes that are none as they were."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair, as JSON can hold it
        return name.encode("utf-8", "surrogatepass")


def from_bytes(name: bytes) -> str:
    """The name that `to_bytes` made bytes of."""
    return name.decode("utf-8", "surrogateescape")
