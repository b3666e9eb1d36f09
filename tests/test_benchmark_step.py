"""keras-resnet benchmark step."""

import json

import keras
import pytest

from keras_resnet.commands import main
from keras_resnet.commands.benchmark import step_timing


def test_figures_of_a_step(tmp_path, capsys):
    path = tmp_path / "step.json"
    arguments = ["benchmark", "step", "--config=smoke", "--steps=2", "--rounds=3"]
    sizes = ["--config.model.depths=(1,1,1)", "--config.model.widths=(16,16,16)"]
    assert main([*arguments, *sizes, "--config.batch_size=8", f"--json={path}"]) == 0
    printed = capsys.readouterr().out
    figures = json.loads(path.read_text())
    assert f"{figures['images_per_second']:,.1f} images/s" in printed
    slowest, fastest = figures["images_per_second_range"]
    assert 0 < slowest <= figures["images_per_second"] <= fastest
    # 8×8 pixels, 16 channels throughout: the stem, two convolutions a block on 64, 16 and 4 pixels,
    # and the classifier; without projections, as channels stay (shortcut A pads none).
    forward = 64 * 27 * 16 + 2 * (64 + 16 + 4) * 144 * 16 + 16 * 10
    expected = 6 * forward * figures["images_per_second"]
    assert figures["model_flops_per_second"] == pytest.approx(expected, rel=1e-9)
    assert figures["peak_memory_bytes"] > 50e6


def test_it_trains_on_the_noise():
    """The step that is timed is the real one: it learns its only batch by heart."""
    from run_helpers import tiny_config

    from keras_resnet.training.tensorflow.strategy import make_strategy

    config = tiny_config(deterministic=False, batch_size=8, model__dropout_rate=0.0)
    engine = step_timing.bare_engine(config, make_strategy("cpu"))
    sums = engine.train(step_timing.fixed_batches(engine), 40)
    assert sums[-1, 0] < 0.5 * sums[0, 0]
    assert keras.ops.convert_to_numpy(engine.optimizer.iterations) == 40


@pytest.mark.parametrize(
    ("arguments", "quoted"),
    [
        (["benchmark", "stp"], "'stp' is not a subject of benchmark. Did you mean 'step'"),
        (["benchmark", "step"], "--config is missing"),
        (["benchmark", "step", "--config=smoke", "--json=no/where.json"], "no folder"),
    ],
)
def test_wrong_use(arguments, quoted, capsys):
    assert main(arguments) in (1, 2)
    assert quoted in capsys.readouterr().err
