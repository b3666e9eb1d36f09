"""What a run writes of its course and its classes: curves.png and classes.csv."""

import csv
import io

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from keras_resnet.training import confusion, curves

ROWS = [
    {"kind": "train", "step": 1, "epoch": 0.5, "loss": 2.0, "top1": 0.2, "learning_rate": 0.1},
    {"kind": "eval", "step": 2, "epoch": 1.0, "loss": 1.5, "top1": 0.5},
    {"kind": "rollback", "step": 2, "failed_step": 3, "learning_rate": 0.05},
    {"kind": "train", "step": 4, "epoch": 2.0, "loss": None, "top1": 0.4, "learning_rate": 0.05},
    {"kind": "eval", "step": 4, "epoch": 2.0, "loss": 1.2, "top1": 0.75},
    {"kind": "eval", "step": 6, "epoch": 3.0, "loss": 1.1, "top1": 0.75},
    {"kind": "eval", "step": 8, "epoch": 4.0, "loss": 1.1},
]


def test_each_class_has_the_scores_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, 300)
    predictions = np.where(rng.random(300) < 0.6, labels, rng.integers(0, 7, 300))
    matrix = np.zeros((8, 8), int)
    np.add.at(matrix, (labels, predictions), 1)
    rows = confusion.class_rows(matrix, [f"class {number}" for number in range(8)])
    scores = precision_recall_fscore_support(
        labels, predictions, labels=range(8), zero_division=np.nan
    )
    for key, expected in zip(("precision", "recall", "f1", "support"), scores, strict=True):
        found = [np.nan if row[key] is None else row[key] for row in rows]
        np.testing.assert_allclose(found, expected, rtol=1e-12, err_msg=key)
    # Of class 6 there are predictions and no examples, of class 7 neither.
    assert [rows[6][key] for key in ("precision", "recall", "f1")] == [0.0, None, 0.0]
    assert [rows[7][key] for key in ("precision", "recall", "f1")] == [None, None, None]
    table = list(csv.DictReader(io.StringIO(confusion.table_text(matrix, list("abcdefgh")))))
    assert float(table[2]["f1"]) == pytest.approx(rows[2]["f1"], abs=1e-6)
    assert table[7]["precision"] == ""


def test_the_first_of_equal_evaluations_is_the_best():
    assert curves.find_best(ROWS) == curves.Best(step=4, epoch=2.0, score=0.75)
    assert curves.find_best(ROWS[:1]) is None


def test_points_leave_out_what_is_missing():
    assert curves.points(ROWS, "train", "loss") == [(0.5, 2.0)]
    assert curves.points(ROWS, "train", "learning_rate") == [(0.5, 0.1), (2.0, 0.05)]
    assert curves.points(ROWS, "eval", "loss")[-1] == (4.0, 1.1)


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], []])
def test_any_rows_can_be_drawn(rows, tmp_path):
    pytest.importorskip("matplotlib")
    assert curves.draw(rows, tmp_path / "curves.png", r"of $\alpha") is None
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
