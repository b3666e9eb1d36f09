"""The JAX engine against the TensorFlow engine: of the same weights and images the same numbers.

Each program of JAX is a process of its own, where Keras runs on JAX; this one stays on TensorFlow.
float32 on CPU, 20 steps; relative 1e-5 is the bound for losses.
"""

import functools
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from jax_runs import read_state, write_state
from run_helpers import TINY
from run_helpers import start as start_here
from test_distillation import taught, write_teacher
from test_training_equality import VARIANTS as TWO_VARIANTS
from test_training_equality import assert_same, free_ports
from test_training_fused_step import fused_config, of_any_seed
from test_training_fused_step import plain as plain_step
from training_runs import STEPS, first_state, run, tiny_config

from keras_resnet import config as configs
from keras_resnet.training.tensorflow.strategy import make_strategy

if importlib.util.find_spec("jax") is None:
    pytest.skip("JAX is not installed: pip install -e '.[jax]'", allow_module_level=True)

TESTS = Path(__file__).parent
ENVIRONMENT = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(TESTS.parent)}
VARIANTS = {
    **TWO_VARIANTS,
    "lamb": {
        "optimizer": {"name": "lamb", "learning_rate": 0.01, "layer_decay": 0.7},
        "ema": {"decay": 0.9, "warmup": True},
        "loss": {"name": "binary", "sum_classes": True, "target_threshold": 0.2},
        "data": {"augment": {"cutmix": 1.0}},
        "model": {"synchronized_norm": False},
    },
    "adamw": {
        "optimizer": {"name": "adamw", "learning_rate": 1e-3},  # so that rounding stays rounding
        "loss": {"class_weights": tuple(1.0 + 0.1 * number for number in range(10))},
        "schedule": {"name": "plateau"},
        "model": {"rematerialize": True, "synchronized_norm": False},
    },
    "nadam": {
        "optimizer": {"name": "Nadam", "learning_rate": 1e-3, "arguments": ("beta_2=0.99",)},
        "accumulate_steps": 2,
        "evaluation": {"tta": "flip_probabilities"},
    },
}


def program(*arguments, **options):
    """Runs jax_runs.py; returns what its lines of results hold."""
    done = subprocess.run(
        [sys.executable, TESTS / "jax_runs.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=900,
        **options,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return results_in(done.stdout)


def results_in(text):
    lines = [line for line in text.splitlines() if line.startswith("result ")]
    return [json.loads(line.removeprefix("result ")) for line in lines]


@functools.cache
def on_tensorflow(variant):
    """The state before the first step, and what became of it."""
    config = tiny_config(**VARIANTS[variant])
    return first_state(config, make_strategy("cpu")), run(config, make_strategy("cpu"))


@pytest.mark.ci
@pytest.mark.parametrize("variant", VARIANTS)
def test_it_trains_what_tensorflow_trains(variant, tmp_path):
    """On one device, two and four; batch norm of each device's own part on one only."""
    state, expected = on_tensorflow(variant)
    write_state(tmp_path / "state.npz", state)
    groups = VARIANTS[variant]
    counts = (1, 2, 4) if groups.get("model", {}).get("synchronized_norm", True) else (1,)
    results = program("equal", tmp_path / "state.npz", json.dumps(groups), 0, *counts)
    assert len(results) == len(counts)
    for found in results:
        assert_same(found, expected)


@pytest.mark.ci
def test_it_learns_from_a_teacher_what_tensorflow_learns(tmp_path):
    """On one device and two: other sizes, another order of classes, mixed images, two parts."""
    groups = taught(write_teacher(tmp_path / "teacher.keras"))
    config = tiny_config(**groups)
    write_state(tmp_path / "state.npz", first_state(config, make_strategy("cpu")))
    expected = run(config, make_strategy("cpu"))
    results = program("equal", tmp_path / "state.npz", json.dumps(groups), 0, 1, 2)
    assert len(results) == 2
    for found in results:
        assert_same(found, expected)


@pytest.mark.ci
def test_optimizers_of_keras_are_those_of_keras():
    done = subprocess.run(
        [sys.executable, TESTS / "jax_optimizers.py"],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = dict(results_in(done.stdout))
    assert {"Adafactor", "Lion", "Nadam", "RMSprop"} < set(found)
    assert max(found.values()) < 1e-6, found


@pytest.mark.ci
def test_the_leaner_step_trains_what_tensorflows_plain_one_trains(tmp_path):
    """On one device, two and four, normalized together."""

    def check(seed):
        config = tiny_config(**fused_config("everything", "never", seed))
        write_state(tmp_path / "state.npz", first_state(config, make_strategy("cpu")))
        groups = json.dumps(fused_config("everything", "always", seed))
        results = program("equal", tmp_path / "state.npz", groups, 0, 1, 2, 4)
        assert len(results) == 3
        for found in results:
            assert_same(found, plain_step("everything", seed))

    of_any_seed(check)


@pytest.mark.ci
@pytest.mark.parametrize("part_bytes", [1, 40, 100, 1 << 20])
def test_sums_in_parts_are_sums(part_bytes):
    """Of one replica a row: shapes that are cut, put together, or neither; two types."""
    import jax

    from keras_resnet.training.jax.sums import sum_in_parts

    shapes = [(3, 3, 4), (5,), (), (2, 1), (7,), (1, 1, 40), (6,)]
    random = np.random.default_rng(0)
    arrays = [random.integers(0, 99, (4, *shape)).astype("float32") for shape in shapes]
    arrays[4] = arrays[4].astype("float16")
    summed = jax.vmap(lambda *each: sum_in_parts(each, "data", part_bytes), axis_name="data")
    found = summed(*arrays)
    for one, array in zip(found, arrays, strict=True):
        assert one.dtype == array.dtype
        np.testing.assert_array_equal(one, np.broadcast_to(array.sum(0), array.shape))


@pytest.mark.ci
def test_two_processes_train_what_one_trains(tmp_path):
    state, expected = on_tensorflow("everything")
    write_state(tmp_path / "state.npz", state)
    address = f"127.0.0.1:{free_ports(1)[0]}"
    arguments = ["worker", tmp_path / "state.npz", json.dumps(VARIANTS["everything"]), address, 2]
    workers = [
        subprocess.Popen(
            [sys.executable, TESTS / "jax_runs.py", *map(str, arguments), str(index)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        for index in range(2)
    ]
    try:
        outputs = [worker.communicate(timeout=600) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    (first,), (second,) = (results_in(out) for out, _ in outputs)
    assert first == second
    assert_same(first, expected)


@pytest.mark.ci
def test_a_run_goes_on_with_the_other_engine(tmp_path):
    """Ten steps on one and ten on the other end where twenty on one do, either way round."""
    groups = VARIANTS["everything"]
    config, (state, expected) = tiny_config(**groups), on_tensorflow("everything")
    halfway = first_state(config, make_strategy("cpu"), STEPS // 2)
    write_state(tmp_path / "half.npz", halfway)
    (found,) = program("equal", tmp_path / "half.npz", json.dumps(groups), STEPS // 2, 1)
    assert found["evaluation"]["loss"] == pytest.approx(expected["evaluation"]["loss"], rel=1e-4)
    program("state", tmp_path / "jax.npz", json.dumps(groups), STEPS // 2)
    theirs = read_state(tmp_path / "jax.npz")
    assert theirs.keys() == halfway.keys() == state.keys()
    # Its seed gave it other weights, so it goes on by itself as well.
    (stayed,) = program("equal", tmp_path / "jax.npz", json.dumps(groups), STEPS // 2, 1)
    back = run(config, make_strategy("cpu"), theirs, STEPS // 2, STEPS)
    np.testing.assert_allclose(back["losses"], stayed["losses"], rtol=1e-4)
    assert back["evaluation"]["loss"] == pytest.approx(stayed["evaluation"]["loss"], rel=1e-4)


@pytest.mark.ci
def test_every_bundled_config_trains():
    results = dict(program("configs"))
    assert sorted(results) == sorted(configs.bundled_configs())
    for name, losses in results.items():
        assert len(losses) == 2, name
        assert np.isfinite(losses).all(), name


# ---- Runs ----------------------------------------------------------------------------------------


def start(workdir, **changes):
    """Starts `keras-resnet train` with engine=jax as a process."""
    delta = {**TINY, "engine": "jax", "strategy": "auto"}
    delta |= {key.replace("__", "."): value for key, value in changes.items()}
    arguments = [f"--config.{key}={value}" for key, value in delta.items()]
    command = [sys.executable, "-m", "keras_resnet_cli", "train", "--config=smoke"]
    return subprocess.Popen(
        [*command, f"--workdir={workdir}", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**ENVIRONMENT, "KERAS_BACKEND": ""},  # the command chooses
    )


def weights_of(workdir):
    import keras

    return keras.saving.load_model(workdir / "model.keras").get_weights()


@pytest.mark.ci
@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.parametrize("size", [8, "8@0.3,12@0.6,16", "taught"])
def test_killed_at_random_moments_it_ends_the_same(size, kills, tmp_path):
    changes = {"checkpoint__every_epochs": 1, "data__image_size": size}
    if size == "taught":
        file = write_teacher(tmp_path / "teacher.keras")
        changes |= {"data__image_size": 8, "distill__teacher": file}
    process = start(tmp_path / "whole", **changes)
    begun = time.monotonic()
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    seconds = time.monotonic() - begun
    random = np.random.default_rng(kills)
    for _ in range(kills):
        process = start(tmp_path / "killed", **changes)
        time.sleep(random.uniform(0.4, 1.0) * seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    output, _ = start(tmp_path / "killed", **changes).communicate(timeout=600)
    assert "Done" in output, output
    for ours, theirs in zip(
        weights_of(tmp_path / "killed"), weights_of(tmp_path / "whole"), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    whole, killed = (
        json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "killed")
    )
    assert {key: value for key, value in whole.items() if key != "train_images_per_second"} == {
        key: value for key, value in killed.items() if key != "train_images_per_second"
    }


@pytest.mark.ci
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 65, "devices": 2}, "does not divide by 2 replicas"),
        ({"xla": "off"}, "engine=jax compiles every step; take xla=auto"),
        (
            {"distributed__coordinator": "here", "distributed__num_processes": 2},
            "config.distributed.coordinator='here' is no host:port",
        ),
        (
            {
                "distributed__coordinator": "127.0.0.1:1",
                "distributed__num_processes": 2,
                "distributed__process_id": 1,
                "connect_timeout": 3,
            },
            "no answer from process 0 at 127.0.0.1:1 within config.connect_timeout=3 s",
        ),
        (
            {
                "distributed__coordinator": "127.0.0.1:9999",
                "distributed__num_processes": 2,
                "distributed__process_id": 2,
            },
            "config.distributed.num_processes=2 and config.distributed.process_id=2",
        ),
    ],
)
def test_what_cannot_be_is_one_line(changes, said, tmp_path):
    output, _ = start(tmp_path / "run", **changes).communicate(timeout=120)
    lines = [line for line in output.splitlines() if line.startswith("keras-resnet train: ")]
    assert len(lines) == 1, output
    assert said in lines[0]
    assert "Traceback" not in output


@pytest.mark.ci
@pytest.mark.parametrize(
    ("hosts", "said"),
    [
        ("localhost", "this machine has a TPU (1 chip of v6e), but JAX has started on the proc"),
        # One of two hosts of a slice trains with the other, never alone.
        ("resnet-train-0-0.resnet,resnet-train-0-1.resnet", "JAX finds no TPU here, only cpu"),
    ],
)
def test_a_tpu_is_not_passed_over(hosts, said, tmp_path, monkeypatch):
    chip = tmp_path / "root/sys/bus/pci/devices/0000:00:05.0"
    chip.mkdir(parents=True)
    (chip / "vendor").write_text("0x1ae0\n")
    (chip / "device").write_text("0x006f\n")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", hosts)
    process = start_here(
        tmp_path / "run",
        f"from pathlib import Path\nfrom keras_resnet import tpu_chips\n"
        f"tpu_chips._ROOT = Path({str(tmp_path / 'root')!r})",
        engine="jax",
        strategy="auto",
    )
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert said in output
    assert not any((tmp_path / "run").glob("*"))


@pytest.mark.ci
def test_processes_with_different_configs_do_not_begin(tmp_path):
    address = f"127.0.0.1:{free_ports(1)[0]}"
    options = {"distributed__coordinator": address, "distributed__num_processes": 2}
    processes = [
        start(tmp_path / "run", **options, distributed__process_id=index, batch_size=size)
        for index, size in enumerate((32, 64))
    ]
    for process in processes:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 1, output
        assert "config.batch_size is 32 here and 64 there" in output
        assert "process 0 (here) and process 1 (there)" in output


@pytest.mark.ci
@pytest.mark.parametrize("killed", [0, 1])
def test_a_lost_process_ends_the_others_in_a_line(killed, tmp_path):
    address = f"127.0.0.1:{free_ports(1)[0]}"
    options = {"distributed__coordinator": address, "distributed__num_processes": 2}
    processes = [
        start(tmp_path / "run", **options, distributed__process_id=index, epochs=5000)
        for index in range(2)
    ]
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (metrics.exists() and '"eval"' in metrics.read_text()):
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes)
        time.sleep(0.5)
    processes[killed].kill()
    output, _ = processes[1 - killed].communicate(timeout=60)
    processes[killed].communicate()
    assert processes[1 - killed].returncode == 75, output
    assert "is lost" in output
    assert "start the same command in every process again" in output
    assert "Check failure stack trace" not in output


# ---- What runs on TensorFlow alone ---------------------------------------------------------------


@pytest.mark.ci
def test_serving_says_in_a_line_that_it_runs_on_tensorflow(tmp_path):
    """From Python, where Keras has started on JAX; the command line starts it on TensorFlow."""
    done = subprocess.run(
        [sys.executable, "-c", SERVING, tmp_path / "model.keras"],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    errors = json.loads(done.stdout.splitlines()[-1])
    assert len(errors) == 3
    for error in errors:
        assert error.startswith("KERAS_BACKEND=jax: this runs on TensorFlow"), error


SERVING = """
import json, sys
import keras_resnet
from keras_resnet.errors import UserError
from keras_resnet.export import export_file, export_saved_model, load_predictor

path, errors = sys.argv[1], []
model = keras_resnet.create_model("CifarResNet20", classes=3, input_shape=(8, 8, 3))
model.save(path)
for serve in (
    lambda: load_predictor(path),
    lambda: export_saved_model(model, path + ".served"),
    lambda: export_file(model, path + ".tflite", format="tflite"),
):
    try:
        serve()
    except UserError as error:
        errors.append(str(error))
print(json.dumps(errors))
"""


@pytest.mark.ci
def test_an_older_run_that_jax_refuses_stays_tensorflows(tmp_path):
    """What 0.1.0 began is refused before config.json says jax, which every command would follow."""
    with tarfile.open(TESTS / "compatibility" / "v0.1.0.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    workdir = tmp_path / "finished"
    before = (workdir / "config.json").read_bytes()
    command = [sys.executable, "-m", "keras_resnet_cli"]
    refused = subprocess.run(
        [*command, "train", f"--workdir={workdir}", "--config.engine=jax"],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=300,
    )
    assert refused.returncode == 1
    assert "go on with --config.engine=tensorflow until the next checkpoint" in refused.stderr
    assert (workdir / "config.json").read_bytes() == before
