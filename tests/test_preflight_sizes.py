"""Preflight of a run whose images change their size, without the TPU compiler."""

import dataclasses
import json
import math

import pytest
from test_preflight import GIB, lowered
from test_preflight_calibration import IMAGES, program, report

from keras_resnet.commands import main
from keras_resnet.commands import preflight as command
from keras_resnet.config import training_image_sizes
from keras_resnet.preflight import cost
from keras_resnet.preflight.by_size import ReportBySize, compile_each
from keras_resnet.preflight.compiler import Compiled
from keras_resnet.preflight.describe import describe_sizes
from keras_resnet.training import load_config

CONFIG = load_config("resnet50_fast16", {"batch_size": 1024})


@pytest.mark.parametrize(
    ("name", "share"), [("resnet50_fast16", 12 / 16), ("resnet50_fast32", 25 / 32)]
)
def test_steps_of_each_size(name, share):
    run = cost.planned_run(load_config(name))
    assert run is not None
    total = run.epochs * IMAGES // 4096
    assert run.steps == total
    small = math.ceil(share * total)
    assert dict(run.steps_by_size) == {160: small, 192: total - small}


def test_a_size_that_comes_twice_counts_once():
    run = cost.planned_run(load_config("resnet50_fast16", {"data.image_size": "96@0.25,64@0.5,96"}))
    assert list(run.steps_by_size) == [96, 64]
    assert run.steps_by_size[64] == pytest.approx(run.steps / 4, abs=1)


def _by_size(topology, run, milliseconds, clock):
    reports = {}
    for size, duration in milliseconds.items():
        made = report(topology, round(duration * 1e-3 * clock))
        reports[size] = dataclasses.replace(made, image_size=size)
    return ReportBySize(reports, training_image_sizes(CONFIG).shares(), run)


def test_the_run_is_the_sum_over_its_sizes():
    run = cost.planned_run(CONFIG, price=1.2)
    made = _by_size("v5e:2x4", run, {192: 60.0, 160: 40.0}, 1.5e9)
    figures = made.figures()
    small, large = figures["sizes"]
    assert (small["image_size"], small["share"]) == (160, 0.75)
    assert (large["image_size"], large["share"]) == (192, 0.25)
    # 128 images on each of 8 chips; the sum over them is by formula.
    reduce = small["all_reduce_seconds_by_formula"]
    minutes = [
        row["steps"] * (seconds + reduce) / 60 for row, seconds in ((small, 0.04), (large, 0.06))
    ]
    assert [row["minutes"] for row in figures["sizes"]] == pytest.approx(minutes)
    assert figures["run"]["minutes"] == pytest.approx(sum(minutes))
    assert figures["run"]["chip_hours"] == pytest.approx(sum(minutes) / 60 * 8)
    assert figures["run"]["usd"] == pytest.approx(sum(minutes) / 60 * 8 * 1.2)
    assert figures["image_size"] == 192
    assert figures["step_seconds"] == large["step_seconds"]
    text = describe_sizes(figures)
    rate = f"{small['images_per_second']:,.0f}"
    assert f"160 px  40.0 ms a step (by the compiler), {rate} images/s for the slice" in text
    assert f"{sum(minutes):,.0f} minutes" in text
    assert "(training alone; estimate, uncalibrated)" in text
    json.dumps(figures)


def test_the_error_of_the_calibration_stands_beside_the_minutes():
    run = cost.planned_run(CONFIG)
    # As in test_preflight_calibration: 2 GB and 1 TFLOP, of which the compiler says 7 ms.
    made = _by_size("v4:2x2x2", run, {192: 7.0, 160: 6.5}, 1.05e9)
    assert "estimate, off by 5% at most where checked)" in describe_sizes(made.figures())
    # A step that the correction does not fit leaves the compiler's time in the sum.
    made = _by_size("v4:2x2x2", run, {192: 7.0, 160: 1.0}, 1.05e9)
    assert [row["calibrated"] for row in made.figures()["sizes"]] == [False, True]
    assert "estimate, uncalibrated)" in describe_sizes(made.figures())


def test_without_the_number_of_examples_there_are_shares():
    figures = _by_size("v5e:2x4", None, {192: 60.0, 160: 40.0}, 1.5e9).figures()
    assert figures["run"] is None
    assert [(row["steps"], row["minutes"]) for row in figures["sizes"]] == [(None, None)] * 2
    assert "25% of the run; " in describe_sizes(figures)
    json.dumps(figures)


def test_a_largest_size_that_does_not_fit_ends_it():
    made = report("v5e:2x4", 10**7, hbm_needed_bytes=17 * GIB)
    largest = dataclasses.replace(made, image_size=192)
    shares = training_image_sizes(CONFIG).shares()
    made = compile_each(largest, shares, lambda size: pytest.fail("compiled"), None)
    assert made.exit_code == 3
    text = describe_sizes(made.figures())
    assert "192 px  does NOT fit" in text
    assert "160 px: not compiled" in text


@pytest.fixture
def compiled(monkeypatch):
    """The command with a compiler of ours: cycles go with the pixels; what it compiled."""
    found = []
    memory = {}

    def compile_it(config, batch):
        size = config.data.image_size
        found.append((size, batch))
        needed = memory.get((size, batch), GIB)
        step = Compiled(
            text=program(1000 * size**2), flops=1e12, bytes_accessed=3e9, hbm_needed_bytes=needed
        )
        return lowered(batch), step

    def lower(config, *, batch, classes):
        step, lower.compiled = compile_it(config, batch)
        return step

    monkeypatch.setattr(command, "lower_train_step", lower)
    monkeypatch.setattr(command, "compile_step", lambda hlo, chip, flags: lower.compiled)
    monkeypatch.setattr(
        command, "compile_slice", lambda config, slice_, *, batch, **_: compile_it(config, batch)
    )
    monkeypatch.setattr(command, "_require_compiler", lambda: None)
    compile_it.found, compile_it.memory = found, memory
    return compile_it


FAST = ["preflight", "--config=resnet50_fast16", "--topology=v5e:2x4"]


@pytest.mark.parametrize("engine", ["tensorflow", "jax"])
def test_the_command_compiles_the_largest_size_first(engine, compiled, tmp_path, capsys):
    path = tmp_path / "figures.json"
    options = [f"--config.engine={engine}", "--price=1.2", f"--json={path}"]
    assert main([*FAST, *options]) == 0
    assert compiled.found == [(192, 512), (160, 512)]
    figures = json.loads(path.read_text())
    seconds = sum(4096 * row["steps"] / row["images_per_second"] for row in figures["sizes"])
    assert figures["run"]["usd"] == pytest.approx(seconds / 3600 * 8 * 1.2)
    out = capsys.readouterr().out
    assert "512 images per replica of 192 px" in out
    assert f"16 epochs of {IMAGES:,} images, 5,004 steps" in out
    assert out.count("\nrun ") == 1


def test_search_and_tune_take_the_largest_size(compiled, tmp_path, capsys):
    compiled.memory[192, 512] = 20 * GIB
    assert main([*FAST, "--config.engine=jax", "--search"]) == 3
    assert {size for size, _ in compiled.found} == {192}
    assert "160 px: not compiled" in capsys.readouterr().out
    del compiled.memory[192, 512], compiled.found[:]
    assert main([*FAST, "--config.engine=jax", "--tune"]) == 0
    assert compiled.found[:2] == [(192, 512), (160, 512)]
    assert {size for size, _ in compiled.found[2:]} == {192}


def test_one_size_is_compiled_once(compiled, tmp_path, capsys):
    path = tmp_path / "figures.json"
    options = ["--config.engine=jax", "--config.data.image_size=160", f"--json={path}"]
    assert main([*FAST, *options]) == 0
    assert compiled.found == [(160, 512)]
    figures = json.loads(path.read_text())
    assert figures["image_size"] == 160
    assert figures["run"]["steps"] == 5004
    assert "sizes" not in figures
    assert "by size of the images" not in capsys.readouterr().out


def test_a_run_too_short_for_its_sizes_is_refused(compiled, capsys):
    options = ["--config.batch_size=1200000", "--config.accumulate_steps=3", "--config.epochs=1"]
    assert main([*FAST, *options, "--config.engine=jax"]) == 2
    assert "never reaches its end" in capsys.readouterr().err
    assert not compiled.found
