"""A report as objects and as a page: its numbers, its names, what it does without."""

import dataclasses
import html.parser
import itertools
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from report_helpers import CURVES, HOSTILE, a_report, some_predictions
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from keras_resnet import reports
from keras_resnet.config import default_config
from keras_resnet.printing import printable
from keras_resnet.reports import charts, selection
from keras_resnet.training.label_sets import LabelSetEvaluation


class Page(html.parser.HTMLParser):
    """The tags of a page, its text, its tables, and what is nested wrongly."""

    EMPTY = frozenset({"meta", "img", "br", "line", "circle", "polyline", "rect"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.tables, self.words = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.EMPTY:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    def attributes(self, tag, name):
        return [found[name] for kind, found in self.tags if kind == tag and name in found]


@pytest.fixture(scope="module")
def report():
    return a_report()


@pytest.fixture(scope="module")
def page(report):
    return Page(reports.make_page(report))


def test_the_page_has_the_scores_of_scikit_learn(report, page):
    predictions = report.predictions
    scores = precision_recall_fscore_support(
        predictions.labels, predictions.classes, labels=range(len(HOSTILE))
    )
    (table,) = [rows for rows in page.tables if rows[0][:2] == ["class", "images"]]
    by_class = {row[0]: row for row in table[1:]}
    for number, name in enumerate(HOSTILE):
        support, *values = by_class[printable(name)][1:5]
        assert int(support) == scores[3][number]
        expected = [scores[which][number] for which in range(3)]
        np.testing.assert_allclose([float(value) for value in values], expected, atol=5e-5)
    means = [float(value) for value in by_class["mean of the classes"][2:5]]
    np.testing.assert_allclose(means, [scores[which].mean() for which in range(3)], atol=5e-5)
    accuracy = float((predictions.labels == predictions.classes).mean())
    assert report.top1 == pytest.approx(accuracy)
    assert f"{accuracy:.2%}" in page.words


def test_the_matrix_counts_and_leads_to_its_images(report, page):
    matrix = next(rows for rows in page.tables if len(rows) == 7 and len(rows[1]) == 7)
    counts = np.array([[int(cell or 0) for cell in row[1:]] for row in matrix[1:]])
    np.testing.assert_array_equal(counts, report.matrix)
    targets = {link[1:] for link in page.attributes("a", "href") if link.startswith("#cell-")}
    assert targets == {f"cell-{label}-{taken}" for label, taken in report.cells}
    assert targets <= set(page.attributes("section", "id"))
    anchors = {one for tag in ("section", "h2", "h3") for one in page.attributes(tag, "id")}
    assert {link[1:] for link in page.attributes("a", "href")} <= anchors


def test_names_are_text_and_nothing_comes_from_elsewhere(report, page):
    made = reports.make_page(report)
    kinds = [tag for tag, _ in page.tags]
    assert kinds.count("script") == 1
    assert kinds.count("style") == kinds.count("title") == 1
    assert all(source.startswith("data:image/jpeg") for source in page.attributes("img", "src"))
    assert not [name for _, found in page.tags for name in found if name.startswith("on")]
    assert all(page.attributes("img", "alt"))
    assert all(page.attributes("svg", "aria-label"))
    assert not {"link", "iframe", "object", "base", "form"} & set(kinds)
    assert "url(" not in made
    assert "@import" not in made
    assert all(target.startswith("#") for target in page.attributes("a", "href"))
    for bad in ("\x1b", "\u202e", "\udcff"):
        assert bad not in made
    assert page.attributes("html", "lang") == ["en"]
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(headings))


def test_settings_that_are_not_the_default_come_first(page):
    config = default_config()
    config.batch_size, config.optimizer.name = 7, "adamw"
    changed, rest = a_report(config=config).settings()
    assert changed == {"batch_size": 7, "optimizer.name": "adamw"}
    assert rest["epochs"] == 90
    assert len(rest) > 50
    assert "All settings are at their defaults." in page.words


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"calibration": None}, "has no calibration.json"),
        ({"calibration": {"bins": 3}}, "calibration.json of this run is damaged"),
        ({"rows": ()}, "metrics.jsonl holds nothing to draw"),
        ({"rows": tuple(CURVES[1::2])}, "has recorded no norms of gradients"),
        ({"matrix": None, "cells": {}, "mistakes": ()}, "Nothing was evaluated."),
        ({"predictions": None, "mistakes": (), "cells": {}}, "There are no images to show."),
        ({"findings": None}, "There are no images to look at."),
        ({"mistakes": ()}, "There are none."),
        ({"result": {}}, "This run is not finished: the network is that of step 60."),
        ({"costs": None}, "Costs and versions"),
    ],
)
def test_what_is_missing_is_said(changes, says):
    text = " ".join(Page(reports.make_page(a_report(images=30, **changes))).words)
    assert says in text


def test_of_few_images_it_says_how_far_the_accuracy_may_be_off():
    report = a_report(images=30)
    right, count = int(report.matrix.trace()), int(report.matrix.sum())
    low, high = binomtest(right, count).proportion_ci(0.95, "wilson")
    text = " ".join(Page(reports.make_page(report)).words)
    assert f"of so few the true share may be {low:.0%} to {high:.0%} (95 %)" in text
    many = dataclasses.replace(report, matrix=report.matrix * 500)
    assert "of so few" not in reports.make_page(many)


def test_a_folder_of_images_has_no_name_of_a_data_set():
    config = default_config()
    config.data.path = "/photos"
    for source, said in (("image_folder", "image_folder /photos"), ("tfds", "tfds digits /photos")):
        config.data.source = source
        assert said in Page(reports.make_page(a_report(config=config))).words


def test_of_several_labels_an_image_there_are_average_precisions_and_no_matrix():
    rng = np.random.default_rng(0)
    labels = rng.random((80, len(HOSTILE))) < 0.4
    scores = np.clip(labels * 0.4 + rng.random(labels.shape) * 0.6, 0, 1).astype("float32")
    sets = LabelSetEvaluation({}, labels, scores, list(HOSTILE))
    thresholds = (0.5, 0.4, 0.5, 0.6, 0.5, 0.7)
    rows = [{**row, "f1": 0.1, "map": 0.2} for row in CURVES]
    nothing = {"matrix": None, "predictions": None, "mistakes": (), "cells": {}, "findings": None}
    report = a_report(label_sets=sets, thresholds=thresholds, rows=tuple(rows), **nothing)
    page = Page(reports.make_page(report))
    (table,) = [rows for rows in page.tables if rows[0][3:4] == ["average precision"]]
    predicted = scores > np.array(thresholds, "float32")
    expected = precision_recall_fscore_support(labels, predicted, zero_division=0)
    precisions = average_precision_score(labels, scores, average=None)
    by_class = {row[0]: row for row in table[1:]}
    for number, name in enumerate(HOSTILE):
        found = [float(value) for value in by_class[printable(name)][2:]]
        of_class = [expected[which][number] for which in range(3)]
        np.testing.assert_allclose(
            found, [thresholds[number], precisions[number], *of_class], atol=5e-5
        )
    assert f"{precisions.mean():.2%}" in page.words
    titles = {"Confusion matrix", "The surest mistakes", "Calibration", "Findings in the data"}
    assert not titles & set(page.words)
    assert "Mean average precision (training, F1)" in page.words


def test_of_many_classes_the_most_frequent_confusions_are_shown():
    names = [f"class {number}" for number in range(200)]
    report = a_report(names, 3000)
    made = reports.make_page(report)
    assert len(made) < 5_000_000
    (table,) = [rows for rows in Page(made).tables if rows[0][:2] == ["label", "taken for"]]
    wrong = report.matrix.copy()
    np.fill_diagonal(wrong, 0)
    label, taken, count, _ = table[1]
    assert int(count) == wrong.max() == wrong[names.index(label), names.index(taken)]
    assert len(table) == 101


def test_cells_show_mistakes_first_and_the_surest():
    predictions = some_predictions(HOSTILE, 2000)
    cells = selection.behind_cells(predictions)
    wrong = [cell for cell in cells if cell[0] != cell[1]]
    assert list(cells)[: len(wrong)] == wrong
    for (label, taken), places in cells.items():
        members = np.flatnonzero((predictions.labels == label) & (predictions.classes == taken))
        sure = predictions.confidence[places]
        if label != taken:
            assert len(places) == min(len(members), 13)  # 400 for 30 cells
            assert sure.tolist() == sorted(predictions.confidence[members])[::-1][: len(places)]
        else:
            assert len(places) == selection.PER_RIGHT_CELL
            assert sure.tolist() == sorted(predictions.confidence[members])[: len(places)]


def test_there_are_never_too_many_images():
    predictions = some_predictions([str(number) for number in range(300)], 9000)
    cells = selection.behind_cells(predictions)
    shown = {True: 0, False: 0}
    for (label, taken), places in cells.items():
        shown[label == taken] += len(places)
    assert shown[False] <= selection.MISTAKES
    assert shown[True] <= selection.RIGHT
    assert selection.largest_cell(5_000_000) * 30 * 5_000_000 < 1e9
    assert selection.largest_cell(3000) == selection.PER_CELL


@pytest.mark.parametrize("low", [0.0, -3.2, 0.41, 12345.0, 1e-9])
@pytest.mark.parametrize("span", [0.0, 1e-6, 0.07, 1.0, 37.0, 1e5])
def test_ticks_are_few_and_around_the_values(low, span):
    ticks = charts.even_ticks(low, low + span)
    steps = np.diff(ticks)
    assert 2 <= len(ticks) <= 9
    assert np.allclose(steps, steps[0], rtol=1e-3)
    tolerance = 1e-6 * max(abs(low), span, 1e-9)
    assert ticks[0] <= low + tolerance
    assert ticks[-1] >= low + span - tolerance
    if low > 0:
        logarithmic = charts.log_ticks(low, low + span)
        assert logarithmic[0] <= low * (1 + 1e-6)
        assert logarithmic[-1] >= (low + span) * (1 - 1e-6)


def test_points_of_a_chart_lie_where_they_should():
    chart = charts.line_chart({"a": [(0, 0), (5, 0.5), (10, 1)]}, title="t", unit="u")
    places = re.search(r'points="([^"]+)"', chart)[1].split()
    (x0, y0), (x1, y1), (x2, y2) = (map(float, place.split(",")) for place in places)
    assert x1 == pytest.approx((x0 + x2) / 2, abs=0.1)
    assert y1 == pytest.approx((y0 + y2) / 2, abs=0.1)
    assert x0 < x2
    assert y0 > y2
    logarithmic = charts.line_chart(
        {"a": [(0, 0.01), (5, 0.1), (10, 1)]}, title="t", unit="u", logarithmic=True
    )
    places = re.search(r'points="([^"]+)"', logarithmic)[1].split()
    heights = [float(place.split(",")[1]) for place in places]
    assert heights[1] == pytest.approx((heights[0] + heights[2]) / 2, abs=0.1)
    assert charts.line_chart({"a": []}, title="t", unit="u") == ""


def test_gradient_norms_are_those_of_the_rows(report, page):
    (table,) = [rows for rows in page.tables if rows[0] == ["block", "first", "last"]]
    assert table[1] == ["stem", "0.02", "0.0025"]
    assert report.gradient_norms()[2][1]["stem"] == pytest.approx(0.02 / 3)
    assert "0.0013 of the largest" in " ".join(page.words)
    damaged = dataclasses.replace(report, rows=({**CURVES[0], "gradient_norms": {"stem": "x"}},))
    assert "no norms" in reports.make_page(damaged)
    odd = {**CURVES[0], "gradient_norms": {"stem": 0.0, "head": math.inf, "new": 1.0}}
    assert "<svg" in reports.make_page(dataclasses.replace(report, rows=(odd, CURVES[0])))


def test_letters_in_cells_can_be_read():
    """Contrast of at least 4.5 (WCAG 2.1, 1.4.3), whatever the share."""
    for right in (True, False):
        for share in np.linspace(0, 1, 101):
            style = reports.classes._shade(float(share), right)
            color = [int(one) for one in re.search(r"rgb\((\d+),(\d+),(\d+)\)", style).groups()]
            light = np.dot([0.2126, 0.7152, 0.0722], [reports.classes._linear(c) for c in color])
            letters = 0.0 if style.endswith("#000") else 1.0
            contrast = (max(light, letters) + 0.05) / (min(light, letters) + 0.05)
            assert contrast >= 4.5


@pytest.mark.ci
def test_the_package_is_imported_without_tensorflow():
    """Of our own modules none imports it; Keras does, where it is the backend."""
    program = (
        "import builtins\n"
        "original, found = builtins.__import__, set()\n"
        "def watch(name, scope=None, *args, **options):\n"
        "    ours = str((scope or {}).get('__name__')).startswith('keras_resnet')\n"
        "    if ours and name.startswith('tensorflow'):\n"
        "        found.add(scope['__name__'])\n"
        "    return original(name, scope, *args, **options)\n"
        "builtins.__import__ = watch\n"
        "import keras_resnet\n"
        "print('imports', sorted(found))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert done.stdout.splitlines()[-1] == "imports []", done.stderr
