"""The real TPU compiler on small networks; the full ResNet-50 by `pytest -m slow`."""

import importlib.util
import json
import subprocess
import sys

import pytest

from keras_resnet.commands import main
from keras_resnet.preflight.compiler import process_variables
from keras_resnet.preflight.published import PROGRAMS
from keras_resnet.preflight.topologies import parse_topology

if not all(importlib.util.find_spec(name) for name in ("jax", "libtpu")):
    pytest.skip(
        "the TPU compiler is not installed: pip install -e '.[preflight]'", allow_module_level=True
    )

TINY = [
    *("--config=smoke", "--config.model.depths=(1,)", "--config.model.widths=(16,)"),
    *("--config.data.image_size=8", "--config.precision=mixed_bfloat16", "--config.ema.decay=0.9"),
    *("--config.loss.label_smoothing=0.1", "--config.batch_size=32"),
]


@pytest.mark.parametrize(
    ("engine", "topology", "hertz", "gibibytes"),
    [
        ("tensorflow", "v5e:2x2", 1.5e9, 15.75),
        ("tensorflow", "v4:2x2x1", 1.05e9, 30.75),
        ("jax", "v5e:2x2", 1.5e9, 15.75),
        ("jax", "v4:2x2x1", 1.05e9, 30.75),
        ("jax", "tpu7x:2x2x1", 2.2e9, 94.74),
    ],
)
def test_small_network(engine, topology, hertz, gibibytes, tmp_path, capfd):
    path = tmp_path / "figures.json"
    options = [f"--config.engine={engine}", f"--topology={topology}", f"--json={path}"]
    replicas = 8 if topology.startswith("tpu7x") else 4
    options += [f"--config.batch_size={8 * replicas}"]
    assert main(["preflight", *TINY, *options]) == 0
    figures = json.loads(path.read_text())
    assert figures["engine"] == engine
    assert figures["compiles"] is figures["fits"] is True
    assert figures["batch_per_replica"] == 8
    assert figures["step_seconds"] == pytest.approx(figures["estimated_cycles"] / hertz)
    # v4 by whole chips: one of its cores by itself has half of the memory.
    assert figures["hbm_limit_bytes"] == pytest.approx(gibibytes * 2**30, rel=1e-3)
    assert figures["hbm_limit_from"] == "compiler"
    assert figures["compile_seconds"] > 0
    assert sum(figures["memory"].values()) == figures["hbm_needed_bytes"]
    assert figures["memory"]["parameters"] == 4 * figures["parameters"]
    # A momentum for each parameter, and what counts the steps and holds the rate.
    assert 0 <= figures["memory"]["optimizer"] - 4 * figures["parameters"] <= 16
    assert figures["memory"]["activations_and_temporaries"] > 0
    # A program that small is bound by neither, and not corrected.
    assert figures["roofline"]["step_over_bytes"] > 10
    assert figures["corrected_seconds"] is None
    # The stem 3x3x3x16, a block of two 3x3x16x16, the classifier 16x10 with bias, three norms.
    convolutions = 3 * 3 * 3 * 16 + 2 * 3 * 3 * 16 * 16
    assert figures["parameters"] == convolutions + 16 * 10 + 10 + 3 * 2 * 16
    # Forward and backward pass, 8 images: 8x8 pixels times taps, and the classifier.
    multiply_adds = 8 * 8 * convolutions + 16 * 10
    assert figures["model_flops"] == 3 * 2 * 8 * multiply_adds
    # The compiler counts the same multiplications, less those of the first layer's input gradient,
    # plus everything else.
    assert 0.5 < figures["flops"] / figures["model_flops"] < 3
    # All variables are arguments of the program.
    assert figures["hbm_needed_bytes"] > figures["variable_bytes"] > 3 * 4 * figures["parameters"]
    if engine == "jax":
        # Gradients, moving statistics (16 channels, three norms) and four counts, all in float32.
        sums = figures["parameters"] + 2 * 3 * 16 + 4
        assert figures["all_reduce_bytes"] == 4 * sums
        assert figures["all_reduces"] >= 1
    else:
        assert figures["all_reduce_bytes"] == 4 * figures["parameters"]
    layers = {entry["layer"] for entry in figures["instructions"]}
    assert any(layer.startswith("stage1_block1_") for layer in layers), layers


@pytest.mark.ci  # seconds each
@pytest.mark.parametrize("engine", ["tensorflow", "jax"])
def test_every_size_of_a_schedule_is_compiled(engine, tmp_path, capfd):
    path = tmp_path / "figures.json"
    options = [f"--config.engine={engine}", "--topology=v5e:2x2", f"--json={path}"]
    options += ["--config.data.image_size=8@0.75,16", "--config.epochs=2"]
    assert main(["preflight", *TINY, *options, "--examples=320", "--price=1.5"]) == 0
    figures = json.loads(path.read_text())
    small, large = figures["sizes"]
    assert [small["image_size"], large["image_size"]] == [8, 16]
    assert (small["steps"], large["steps"]) == (15, 5)
    # The convolutions have four times the pixels, the classifier of 160 the same.
    classifier = 3 * 2 * 8 * 160
    assert large["model_flops"] - classifier == 4 * (small["model_flops"] - classifier)
    assert large["flops"] > 2 * small["flops"]
    assert large["parameters"] == small["parameters"]
    seconds = sum(32 * row["steps"] / row["images_per_second"] for row in (small, large))
    assert figures["run"]["minutes"] == pytest.approx(seconds / 60)
    assert figures["run"]["usd"] == pytest.approx(seconds / 3600 * 4 * 1.5)
    assert figures["image_size"] == 16
    assert "20 steps" in capfd.readouterr().out


# Another loss, optimizer and average each; the network itself is ResNet-50's in all of them.
IMAGENET = ["imagenet", "imagenet_tpu", "torchvision_v2", "a1", "a2", "a3", "lars"]
IMAGENET += ["fast16", "mild"]


@pytest.mark.slow  # a minute or two each
@pytest.mark.parametrize("config", [*(f"resnet50_{name}" for name in IMAGENET), "resnet_rs50"])
def test_imagenet_configs_compile_with_one_block_a_stage(config, tmp_path):
    small = ["--config.model.depths=(1,1,1,1)", "--config.data.image_size=96"]
    small += ["--config.data.train_image_size=64"]
    options = ["--config.batch_size=64", "--config.libtpu_init_args=", "--topology=v5e:1x1"]
    assert main(["preflight", f"--config={config}", *small, *options]) == 0


@pytest.mark.ci  # seconds each
@pytest.mark.parametrize(
    ("topology", "gibibytes", "cores"),
    [
        ("v2:2x2", 7.48, 2),
        ("v3:2x2", 15.48, 2),
        ("v4:2x2x1", 30.75, 1),
        ("v5e:2x2", 15.75, 1),
        ("v5p:2x2x1", 95.73, 1),
        ("v6e:2x2", 31.24, 1),
        ("tpu7x:2x2x1", 94.74, 2),
    ],
)
def test_devices_and_their_memory(topology, gibibytes, cores):
    """A device is a replica; the compiler says how much of its memory a program may use."""
    chip = parse_topology(topology).chip
    code = (
        "from keras_resnet.preflight.compiler import devices_of, hbm_limit;"
        f"found = devices_of({topology!r});"
        "print(len(found), hbm_limit(found[0])['hbm_limit_bytes'])"
    )
    variables = process_variables(chip, chip.smallest, "")
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True
    )
    devices, limit = map(int, done.stdout.split())
    assert devices == 4 * cores == parse_topology(topology).replicas
    assert limit / 2**30 == pytest.approx(gibibytes, abs=0.01)


@pytest.mark.slow  # minutes
def test_the_table_of_published_speeds_has_what_the_compiler_says(tmp_path):
    path = tmp_path / "figures.json"
    options = ["--config.engine=jax", "--config.fused_step=never", "--config.libtpu_init_args="]
    options += ["--topology=v4:2x2x1", "--config.batch_size=512", f"--json={path}"]
    assert main(["preflight", "--config=resnet50_imagenet_tpu", *options]) == 0
    figures, program = json.loads(path.read_text()), PROGRAMS["v4", 128]
    assert figures["estimated_cycles"] == pytest.approx(program.cycles, rel=0.01)
    assert figures["roofline"]["hbm_bytes"] == pytest.approx(program.hbm_bytes, rel=0.01)
    assert figures["flops"] == pytest.approx(program.flops, rel=0.01)
    assert figures["calibrated"] is True
    assert figures["images_per_second"] / 4 == pytest.approx(3400, rel=0.05)


@pytest.mark.slow  # minutes each
@pytest.mark.parametrize(
    ("batch", "code"),
    [(128, 0), (256, 0), (512, 0), (1024, 3)],
    ids=["fits", "fits too", "just fits", "too large"],
)
def test_resnet50_on_a_chip_of_v5e(batch, code, tmp_path):
    path = tmp_path / "figures.json"
    # The flag that the config recommends takes three times as long to compile.
    flags = [] if batch == 128 else ["--config.libtpu_init_args="]
    options = [f"--config.batch_size={batch}", "--topology=v5e:1x1", f"--json={path}", *flags]
    assert main(["preflight", "--config=resnet50_imagenet_tpu", *options]) == code
    figures = json.loads(path.read_text())
    assert (figures["compiles"], figures["reason"]) == (
        (True, "") if code == 0 else (False, "memory")
    )
    # The compiler's own verdict, from its error message.
    assert ("hbm" in figures["error"].lower()) == (code == 3)
    if batch == 128:
        assert figures["estimated_cycles"] <= 104e6
