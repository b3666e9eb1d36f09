"""`keras-resnet benchmark input`: the figures fit together; no timing is asserted."""

import json
import math

import pytest
from input_helpers import write_images

from keras_resnet.commands import main
from keras_resnet.commands.benchmark.input import as_json, report
from keras_resnet.input_pipeline import DataError, open_source
from keras_resnet.input_pipeline.measuring import Measurement, Stage, _stages, measure_stages


@pytest.fixture
def arguments(tmp_path):
    write_images(tmp_path / "data" / "train", {"ant": 6, "bee": 6})
    data = {"source": "image_folder", "path": tmp_path / "data", "image_size": 8}
    overrides = [f"--config.data.{key}={value}" for key, value in data.items()]
    return ["benchmark", "input", "--config=smoke", "--config.batch_size=4", *overrides,
            "--seconds=0.05", "--rounds=2"]  # fmt: skip


@pytest.mark.ci
def test_prints_and_writes_every_stage(arguments, tmp_path, capsys):
    output = tmp_path / "figures.json"
    arguments += [f"--json={output}", "--target=500", "--config.data.augment.flip=true"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    figures = json.loads(output.read_text())
    assert [stage["name"] for stage in figures["stages"]] == ["read", "decode", "augment", "batch"]
    sizes = [file.stat().st_size for file in (tmp_path / "data").rglob("*.png")]
    assert min(sizes) <= figures["bytes_per_image"] <= max(sizes)
    last = figures["stages"][-1]
    assert last["cpu_seconds"] == pytest.approx(
        sum(stage["own_cpu_seconds"] for stage in figures["stages"])
    )
    assert figures["cores_for_target"] == math.ceil(500 * last["cpu_seconds"])
    assert f"{figures['bottleneck']} holds it back" in printed
    assert "500 images/s take" in printed


def test_limits_cores_and_bottleneck_by_hand():
    rates = {"read": [900, 1000, 1300], "decode": [300, 200, 250], "batch": [220, 230, 240]}
    costs = {"read": [0.001] * 3, "decode": [0.007, 0.009, 0.008], "batch": [0.0075] * 3}
    stages = tuple(_stages(rates, costs, cores=2))
    assert [stage.limit for stage in stages] == pytest.approx([1000, 2 / 0.007, math.inf])
    assert [stage.own_cpu_seconds for stage in stages] == pytest.approx([0.001, 0.007, 0])
    measured = Measurement(stages, cores=2, bytes_per_image=5e4)
    assert measured.bottleneck.name == "decode"
    assert measured.cores_for(1000) == 8
    assert report(measured, 1000)[-1] == "  1,000 images/s take 8 such cores and read 50.0 MB/s"
    assert as_json(measured, 1000)["stages"][2]["limit"] is None
    slow_disk = Stage("read", 100, 90, 110, 0.001, 0.001, 100)
    assert Measurement((slow_disk, *stages[1:]), 2, 1).bottleneck is slow_disk


def test_synthetic_data_has_nothing_to_measure():
    source = open_source("synthetic", name="digits", split="train")
    with pytest.raises(DataError, match="there is nothing to measure"):
        measure_stages(source, batch_size=4, seed=0, image_size=8, augment={})


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["benchmark", "inputs"],
            2,
            "'inputs' is not a subject of benchmark. Did you mean 'input'?",
        ),
        (["benchmark", "input"], 2, "--config is missing"),
        (["benchmark", "input", "--config=smoke", "--json=no/such/f.json"], 1, "no folder no/such"),
        (["benchmark", "input", "--config=smoke", "--rounds=0"], 2, "rounds"),
    ],
)
def test_errors(arguments, code, message, capsys):
    assert main(arguments) == code
    assert message in capsys.readouterr().err


def test_help(capsys):
    assert main(["benchmark", "input", "--help"]) == 0
    assert "--target" in capsys.readouterr().out
    assert main(["benchmark"]) == 2
    assert "input       the input pipeline" in capsys.readouterr().out
