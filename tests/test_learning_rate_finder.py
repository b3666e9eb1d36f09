"""The learning rate finder: smoothing, where it stops, what it suggests, and that it only reads."""

import bisect
import csv
import io
import json

import numpy as np
import pytest
from run_helpers import tiny_config

from keras_resnet import training
from keras_resnet.commands import main
from keras_resnet.errors import UsageError
from keras_resnet.training import learning_rate_finder as finder
from keras_resnet.training.workdir import WorkDir


def test_smoothing_is_a_weighted_mean():
    losses = np.random.default_rng(0).uniform(1, 3, 40)
    for count in (1, 2, 17, 40):
        weights = 0.98 ** np.arange(count)[::-1]
        expected = (weights * losses[:count]).sum() / weights.sum()
        assert finder.smooth(losses)[count - 1] == pytest.approx(expected, rel=1e-12)


def _longest_fall(values):
    """Its length, and the first place where one of that length ends: by patience sorting."""
    tails, lengths = [], []
    for value in values:
        place = bisect.bisect_left(tails, -value)
        tails[place : place + 1] = [-value]
        lengths.append(place + 1)
    return max(lengths), lengths.index(max(lengths))


@pytest.mark.parametrize("seed", range(20))
def test_the_cautious_one_is_half_way_down_the_longest_fall(seed):
    values = np.random.default_rng(seed).normal(size=60).cumsum()
    length, end = _longest_fall(values)
    expected = end - length + int(length / 3) + int(length / 6)
    assert finder.middle_of_valley(values) == expected


def test_a_plain_valley_and_none():
    # Flat for 30 steps, 24 steps down, then up: a fall of 25 places that ends at place 53.
    values = (
        [5.0] * 30
        + [5.0 - 0.1 * step for step in range(1, 25)]
        + [4.0 + step for step in range(20)]
    )
    assert finder.middle_of_valley(values) == 53 - 25 + 8 + 4
    assert finder.middle_of_valley(np.arange(30.0)) is None
    assert finder.middle_of_valley([3.0, 2.0, 1.0]) is None


def test_it_stops_where_the_loss_explodes():
    assert finder._stops([2.0] * 30) == 0
    assert finder._stops([2.0] * 5 + [float("nan")] * 3) == 5
    rising = [1.0] * 10 + [1000.0] * 3
    place = next(i for i, value in enumerate(finder.smooth(rising)) if value > 4)
    assert finder._stops(rising) == place + 1


@pytest.mark.ci
def test_the_twin_measures_what_a_run_would_begin_with(monkeypatch):
    config = tiny_config(deterministic=False, optimizer__scale_with_batch=True)
    curve = training.find_learning_rate(config, start=1e-5, end=10.0, steps=40)
    assert len(curve.rates) == len(curve.losses) <= 40
    np.testing.assert_allclose(curve.rates, 1e-5 * 1e6 ** (np.arange(len(curve.rates)) / 39))
    # The first rates change nothing: the loss is that of guessing one of ten.
    assert np.mean(curve.losses[:5]) == pytest.approx(np.log(10), rel=0.2)
    assert min(curve.smoothed) < curve.smoothed[0]
    assert curve.scale == 64 / 256
    place = finder.middle_of_valley(curve.smoothed[4:-5])
    assert curve.cautious == pytest.approx(curve.rates[4 + place] / curve.scale)
    lowest = curve.smoothed.index(min(curve.smoothed[4:-5]))
    assert curve.suggestion == pytest.approx(curve.rates[lowest] / 3 / curve.scale)


@pytest.mark.ci
def test_the_command_leaves_the_work_directory_alone(tmp_path, capsys):
    workdir = WorkDir(tmp_path / "run")
    workdir.path.mkdir()
    workdir.claim(tiny_config(deterministic=False))
    before = workdir.config.read_bytes(), sorted(workdir.path.iterdir())
    files = {name: tmp_path / f"rates.{name}" for name in ("json", "csv")}
    files["plot"] = tmp_path / "rates.png"
    flags = [f"--{name}={path}" for name, path in files.items()]
    assert main(["find-lr", f"--workdir={workdir.path}", "--steps=30", *flags]) == 0
    assert (workdir.config.read_bytes(), sorted(workdir.path.iterdir())) == before
    figures = json.loads(files["json"].read_text())
    rows = list(csv.DictReader(io.StringIO(files["csv"].read_text())))
    assert [float(row["loss"]) for row in rows] == figures["losses"]
    assert files["plot"].read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert f"--config.optimizer.learning_rate={figures['suggestion']:.2g}" in said
    assert f"a cautious one is {figures['cautious']:.2g}; the config has 0.05" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [({"start": 1.0, "end": 0.1}, "must rise"), ({"steps": 5}, "5 steps are too few; take 20")],
)
def test_ranges_that_cannot_be(options, message):
    with pytest.raises(UsageError, match=message):
        training.find_learning_rate(tiny_config(), **options)


def test_both_config_and_workdir(capsys):
    assert main(["find-lr", "--config=digits", "--workdir=x"]) == 2
    assert "--config or --workdir, not both" in capsys.readouterr().err
