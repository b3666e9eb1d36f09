"""A report as one page of HTML: it opens without a network, and says all without its script."""

from collections.abc import Callable

from keras_resnet.pages import document, text
from keras_resnet.reports import classes, course, overview, trust
from keras_resnet.reports.contents import Report
from keras_resnet.reports.style import SCRIPT, STYLE

# Anchor, title, and what makes the section; "" leaves it out.
SECTIONS: tuple[tuple[str, str, Callable[[Report], str]], ...] = (
    ("training", "What was trained", overview.training),
    ("curves", "Curves", course.curves),
    ("confusion", "Confusion matrix", classes.confusion),
    ("classes", "Class by class", classes.scores),
    ("mistakes", "The surest mistakes", trust.mistakes),
    ("calibration", "Calibration", trust.calibration),
    ("findings", "Findings in the data", trust.findings),
    ("gradients", "Gradients", course.gradients),
    ("costs", "Costs and versions", overview.costs),
)


def make_page(report: Report) -> str:
    """The page."""
    made = [(anchor, title, section(report)) for anchor, title, section in SECTIONS]
    made = [(anchor, title, content) for anchor, title, content in made if content]
    links = "".join(f"<a href=#{anchor}>{text(title)}</a>" for anchor, title, _ in made)
    parts = [overview.summary(report), f"<nav aria-label='On this page'>{links}</nav>"]
    for anchor, title, content in made:
        parts.append(
            f"<section aria-labelledby={anchor}><h2 id={anchor}>{text(title)}</h2>{content}"
            "</section>"
        )
    return document(f"Report of {report.name}", "\n".join(parts), STYLE, SCRIPT)
