"""What preflight makes of the compiler's figures: rooflines, the correction, memory, money."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from test_preflight import GIB, PROGRAM, lowered

from keras_resnet.commands import main
from keras_resnet.preflight import calibration as calibrations
from keras_resnet.preflight import cost
from keras_resnet.preflight.calibration import calibration, fit, predict
from keras_resnet.preflight.compiler import Compiled
from keras_resnet.preflight.describe import describe
from keras_resnet.preflight.published import PROGRAMS, PUBLISHED, Published
from keras_resnet.preflight.report import Report
from keras_resnet.preflight.roofline import hbm_traffic, roofline
from keras_resnet.preflight.topologies import CHIPS, parse_topology
from keras_resnet.training import load_config

IMAGES = 1_281_167  # ImageNet's training set
FIGURES = [pytest.param(row, id=f"{row.chip}: {row.source}, {row.year}") for row in PUBLISHED]


def program(cycles):
    """A program of one instruction, which reads and writes a gigabyte each."""
    shape = "f32[250000000]{0}"
    return (
        f"ENTRY %main (a: {shape}) -> {shape} {{\n"
        f"  %a = {shape} parameter(0)\n"
        f'  ROOT %r = {shape} negate(%a), backend_config={{"estimated_cycles":"{cycles}"}}\n'
        "}\n"
    )


def report(topology, cycles, flops=1e12, **changes):
    compiled = Compiled(text=program(cycles), flops=flops, bytes_accessed=3e9, **changes)
    return Report(parse_topology(topology), lowered(), compiled)


@pytest.mark.parametrize("row", FIGURES)
def test_each_published_figure_is_predicted_from_the_others(row):
    (checked,) = (entry for entry in calibration(row.chip).checked if entry.published is row)
    for predicted in (checked.predicted, checked.across):
        assert predicted == pytest.approx(row.images_per_second, rel=0.2)
    assert abs(checked.error) <= 0.2


def test_the_fit_is_that_of_numpy_and_takes_both_at_their_peak():
    seconds = np.array([row.step_seconds for row in PUBLISHED])
    limits = [[row.limits.bytes_seconds, row.limits.flops_seconds] for row in PUBLISHED]
    shares = np.array(limits) / seconds[:, None]
    expected, *_ = np.linalg.lstsq(shares, np.ones(len(seconds)))
    assert fit(PUBLISHED) == pytest.approx(tuple(expected))
    assert fit(PUBLISHED) == pytest.approx((1, 1), abs=0.1)


def test_the_fit_finds_the_weights_that_made_the_figures():
    def made(chip, chips):
        row = Published(chip, chips, PUBLISHED[0].batch, 1.0, 2020, "", "", "")
        if chip == "v4":
            row = dataclasses.replace(row, batch=128)
        return dataclasses.replace(row, images_per_second=predict(row, (0.7, 1.9)))

    assert fit([made("v2", 4), made("v3", 16), made("v4", 8)]) == pytest.approx((0.7, 1.9))


def test_figures_are_what_the_sources_say():
    """Four epochs in the median seconds of a block, by the chips that the system file names."""
    speeds = {row.source: row.images_per_second for row in PUBLISHED}
    assert speeds["MLPerf Training 0.6, Google, tpu-v3-128"] == pytest.approx(1954, abs=1)
    assert speeds["MLPerf Training 0.7, Google, tpu-v4-128-TF"] == pytest.approx(3276, abs=1)
    assert speeds["MLPerf Training 0.5, Google, tpuv2-8"] == pytest.approx(4 * IMAGES / 1145.7 / 4)
    assert speeds["flax, ImageNet example, v3-8"] == pytest.approx(2022, abs=1)
    assert all(row.url.startswith("https://github.com/") and row.year >= 2018 for row in PUBLISHED)
    assert {(row.chip, row.batch // CHIPS[row.chip].cores) for row in PUBLISHED} <= set(PROGRAMS)


def test_the_documentation_has_the_table():
    page = (Path(__file__).parents[1] / "docs" / "tpu.md").read_text()
    for chip in ("v2", "v3", "v4"):
        for checked in calibration(chip).checked:
            row = checked.published
            speeds = f"| {row.images_per_second:,.0f} | {checked.predicted:,.0f} ("
            assert f"| {chip} | {row.chips}, {row.batch} {speeds}" in page
            assert f"| {checked.across:,.0f} (" in page
            assert f"[{row.source}]({row.url})" in page


def test_a_calibrated_chip_takes_the_corrected_time():
    # 2 GB at 1,228 GB/s and 1 TFLOP at 275 TFLOP/s; the compiler says 7 ms.
    figures = report("v4:2x2x1", round(7e-3 * 1.05e9)).figures()
    moved, done = 2e9 / 1228e9, 1e12 / 275e12
    assert figures["corrected_seconds"] == pytest.approx(moved + done, rel=0.05)
    assert figures["calibrated"] is True
    assert figures["compiler_seconds"] == pytest.approx(7e-3)
    assert figures["step_seconds"] == figures["corrected_seconds"]
    assert figures["images_per_second_per_chip"] == 128 / figures["step_seconds"]
    assert figures["roofline"]["bound"] == "flops"
    assert figures["roofline"]["bytes_seconds"] == pytest.approx(moved)
    assert figures["roofline"]["step_over_flops"] == pytest.approx(figures["step_seconds"] / done)
    text = describe(report("v4:2x2x1", round(7e-3 * 1.05e9)))
    assert "calibration  calibrated: predicted/published" in text
    assert "5.4 ms corrected" in text
    json.dumps(figures)


@pytest.mark.parametrize("chip", ["v5e", "v5p", "v6e", "tpu7x"])
def test_a_chip_without_published_figures_keeps_the_compilers_time(chip):
    topology = f"{chip}:{CHIPS[chip].smallest}"
    flops, cores = CHIPS[chip].flops, CHIPS[chip].cores
    cycles = round(
        CHIPS[chip].clock * 1.3 * (2e9 / CHIPS[chip].hbm_bandwidth + 1e12 / flops) * cores
    )
    made = report(topology, cycles)
    figures = made.figures()
    assert figures["calibrated"] is figures["calibration"]["calibrated"] is False
    assert figures["step_seconds"] == figures["compiler_seconds"]
    assert figures["corrected_seconds"] == pytest.approx(figures["step_seconds"] / 1.3, rel=0.05)
    assert f"uncalibrated: no published speed of ResNet-50 on {chip}" in describe(made)
    assert "not used below" in describe(made)


def test_a_figure_that_is_missed_marks_the_chip(monkeypatch):
    rows = [
        dataclasses.replace(row, images_per_second=row.images_per_second / 2)
        if row.chip == "v4"
        else row
        for row in PUBLISHED
    ]
    monkeypatch.setattr(calibrations, "PUBLISHED", tuple(rows))
    found = calibrations.calibration.__wrapped__("v4")
    assert found.calibrated is False
    assert found.largest_error > 0.9  # from the other chips it is twice that
    assert found.describe().startswith("uncalibrated: predicted/published")


def test_a_program_that_is_bound_by_something_else_is_not_corrected():
    figures = report("v4:2x2x1", round(70e-3 * 1.05e9)).figures()  # ten times its bytes and FLOPs
    assert figures["corrected_seconds"] is None
    assert figures["calibrated"] is False
    assert figures["step_seconds"] == pytest.approx(70e-3)
    assert "no correction fits this program" in describe(report("v4:2x2x1", round(70e-3 * 1.05e9)))


def test_rooflines():
    # A core of v3 has half of the chip's 900 GB/s and 123 TFLOP/s.
    limits = roofline(CHIPS["v3"], 45e9, 3e12)
    assert (limits.bytes_seconds, limits.flops_seconds) == pytest.approx((0.1, 3 / 61.5))
    assert limits.bound == "bytes"
    assert limits.figures(0.15)["step_over_bytes"] == pytest.approx(1.5)
    assert roofline(CHIPS["v3"], 45e9, 9e12).bound == "flops"
    assert roofline(CHIPS["v3"], 0, 3e12) is roofline(CHIPS["v3"], 45e9, 0) is None


def test_traffic_counts_what_is_in_the_main_memory():
    image, sums = 8 * 4 * 4 * 16 * 2, 16 * 4
    # fusion.1 and fusion.2 read and write images, copy.1 both; the pooling's gradient reads two and
    # writes four; the loop reads and writes 16 numbers five times.
    pooled = 4 * image
    assert hbm_traffic(PROGRAM) == 3 * 2 * image + 2 * image + pooled + 5 * 2 * sums
    text = """ENTRY %main (a: f32[100,4]) -> f32[4] {
  %a = f32[100,4]{1,0} parameter(0)
  %copy-start.1 = (f32[100,4]{1,0:S(1)}, f32[100,4]{1,0}, u32[]{:S(2)}) copy-start(%a)
  %slice-start.1 = ((f32[100,4]{1,0}), f32[1,4]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%a), slice={}
  %copy-done.1 = f32[100,4]{1,0:S(1)} copy-done(%copy-start.1)
  %slice-done.1 = f32[1,4]{1,0:S(1)} slice-done(%slice-start.1)
  ROOT %fusion.1 = f32[4]{0} fusion(%copy-done.1, %slice-done.1), kind=kLoop, calls=%f
}
"""
    # The copy reads 1,600 bytes, the slice 16, and the fusion writes 16: the rest is on the chip.
    assert hbm_traffic(text) == 1600 + 16 + 16


def test_memory_by_what_is_in_it():
    step = lowered(gradient_bytes=100, optimizer_bytes=40, variable_bytes=160)
    compiled = Compiled(hbm_needed_bytes=1000, temporary_bytes=700, hbm_limit_bytes=2000)
    figures = Report(parse_topology("v5e:2x2"), step, compiled).figures()
    assert figures["memory"] == {
        "parameters": 100,
        "optimizer": 40,
        "statistics_and_averages": 20,
        "activations_and_temporaries": 700,
        "other": 140,
    }
    assert sum(figures["memory"].values()) == figures["hbm_needed_bytes"]
    assert (figures["hbm_limit_bytes"], figures["hbm_limit_from"]) == (2000, "compiler")


def test_a_limit_that_the_compiler_has_not_said_is_marked():
    compiled = Compiled(hbm_needed_bytes=GIB, text=PROGRAM, flops=1e12, bytes_accessed=1e9)
    made = Report(parse_topology("v5e:2x2"), lowered(), compiled)
    assert made.figures()["hbm_limit_from"] == "chip"
    marked = "1.00 GiB of 16.00 GiB per replica (the chip's; not the compiler's): fits"
    assert marked in describe(made)
    said = dataclasses.replace(compiled, hbm_limit_bytes=15 * GIB)
    assert "of 15.00 GiB per replica: fits" in describe(dataclasses.replace(made, compiled=said))


def test_what_the_run_costs():
    config = load_config("resnet50_imagenet_tpu")
    run = cost.planned_run(config, price=1.5)
    assert run is not None
    assert (run.examples, run.steps) == (IMAGES, 90 * IMAGES // 1024)
    figures = run.figures(images_per_second={224: 16_000}, chips=8)
    hours = 90 * IMAGES // 1024 * 1024 / 16_000 / 3600
    assert figures["minutes"] == pytest.approx(60 * hours)
    assert figures["chip_hours"] == pytest.approx(8 * hours)
    assert figures["usd"] == pytest.approx(8 * hours * 1.5)
    assert cost.planned_run(config).figures({224: 16_000}, 8)["usd"] is None
    made = dataclasses.replace(report("v5e:2x4", 10**7), run=run)
    shown = made.figures()["run"]
    seconds = run.steps * 1024 / made.figures()["images_per_second"]
    assert shown["usd"] == pytest.approx(seconds / 3600 * 8 * 1.5)
    assert f"{shown['usd']:,.2f} USD at 1.5 per chip-hour" in describe(made)


@pytest.mark.parametrize(
    ("changes", "examples"),
    [
        ({"data.train_split": "train[:80%]"}, round(0.8 * IMAGES)),
        ({"data.name": "cifar10"}, 50_000),
        ({"data.train_split": "training"}, None),
        ({"data.name": "beans"}, None),
        ({"data.name": ""}, None),
        ({"data.source": "image_folder", "data.path": "/nowhere"}, None),
    ],
)
def test_examples_of_a_run(changes, examples):
    config = load_config("resnet50_imagenet_tpu", changes)
    assert cost.train_examples(config) == (examples and pytest.approx(examples, abs=1))
    if examples is None:
        assert cost.planned_run(config) is None
        assert cost.planned_run(config, 9000).examples == 9000
        with pytest.raises(Exception, match="--examples=NUMBER_OF_TRAINING_IMAGES"):
            cost.planned_run(config, price=1.0)


@pytest.mark.parametrize("price", ["0", "-1", "abc", "nan", "inf"])
def test_prices_that_are_none(price, capsys):
    assert main(["preflight", "--config=smoke", "--topology=v5e:2x2", f"--price={price}"]) == 2
    message = capsys.readouterr().err
    assert f"--price={price} is not a " in message
    assert message.count("\n") == 1


def test_the_compilers_own_speed_stays_in_the_table():
    """The figures that were off: v4 as one core of two gave half of it."""
    for chip, speed in (("v2", 1072), ("v3", 1840), ("v4", 2378)):
        cores = CHIPS[chip].cores
        seconds = PROGRAMS[chip, 128].cycles / CHIPS[chip].clock
        assert cores * 128 / seconds == pytest.approx(speed, abs=1)
