"""Training images whose size changes over the run: schedule, steps, exactness, bad input."""

import json
import signal

import keras
import numpy as np
import pytest
from conftest import mirrored_strategy
from run_helpers import final_weights, kill_at_random_moments, start, tiny_config
from training_runs import built_engine
from training_runs import tiny_config as engine_config

from keras_resnet import config as configs
from keras_resnet import input_pipeline, training
from keras_resnet.commands import main
from keras_resnet.config.image_sizes import image_sizes, parse_image_sizes
from keras_resnet.errors import Interrupted, UsageError
from keras_resnet.input_pipeline import train_batches
from keras_resnet.input_pipeline.sources.noise import Synthetic
from keras_resnet.training import run
from keras_resnet.training.network import build_model
from keras_resnet.training.planning.device import Device
from keras_resnet.training.planning.recipe import Photos, choose
from keras_resnet.training.progress import Timeline
from keras_resnet.training.resumption import describe_resumption
from keras_resnet.training.sizes import compile_sizes, describe_sizes
from keras_resnet.training.tensorflow import TensorFlowEngine
from keras_resnet.training.tensorflow.strategy import make_strategy
from keras_resnet.training.workdir import WorkDir

SCHEDULE = "8@0.25,12@0.5,16"
# One block each of few channels, so that three sizes compile in a moment.
SMALL = {"model__depths": (1,), "model__widths": (16,), "data__image_size": SCHEDULE}


# ---- What a schedule says ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "steps", "expected"),
    [
        ("160", 10, [(0, 10, 160)]),
        ("160@1", 10, [(0, 10, 160)]),
        ("160@0.5,160", 10, [(0, 10, 160)]),
        ("160@0.75,192", 8, [(0, 6, 160), (6, 8, 192)]),
        (" 160 @ .75 , 192 @ 1 ", 8, [(0, 6, 160), (6, 8, 192)]),
        ("160@0.75,192", 10, [(0, 8, 160), (8, 10, 192)]),  # step 7 is at 0.7 of the run
        ("160@0.7,192", 10, [(0, 7, 160), (7, 10, 192)]),  # 0.7 * 10 is above 7 in binary
        ("160@0.001,192", 10, [(0, 1, 160), (1, 10, 192)]),
        ("192@0.5,128@0.6,192", 10, [(0, 5, 192), (5, 6, 128), (6, 10, 192)]),
        ("64@0.5,96@0.51,128", 10, [(0, 5, 64), (5, 6, 96), (6, 10, 128)]),
        ("64@0.5,96@0.51,128", 4, [(0, 2, 64), (2, 3, 96), (3, 4, 128)]),
        ("64@0.5,96@0.55,64", 4, [(0, 2, 64), (2, 3, 96), (3, 4, 64)]),
        ("64@0.2,96@0.3,64", 3, [(0, 3, 64)]),  # no step is between 0.2 and 0.3
        ("192..128@0-1", 8, [(0, 2, 192), (2, 6, 160), (6, 8, 128)]),
        ("8..16:4@0-1", 8, [(0, 2, 8), (2, 6, 12), (6, 8, 16)]),
        ("96@0.25,128..160@0.5-1", 8, [(0, 2, 96), (2, 6, 128), (6, 8, 160)]),
        ("128..160@0-0.5,224", 8, [(0, 2, 128), (2, 4, 160), (4, 8, 224)]),
    ],
)
def test_which_step_has_which_size(text, steps, expected):
    assert [tuple(segment) for segment in parse_image_sizes(text).segments(steps)] == expected


def test_a_ramp_is_ffcvs():
    """FFCV's `get_resolution`: np.interp over the epochs, rounded to a multiple of 32."""
    for first, last, low, high in ((11, 13, 160, 192), (6, 12, 96, 224), (0, 16, 128, 256)):
        schedule = parse_image_sizes(f"{low}..{high}:32@{first / 16}-{last / 16}")
        found = [size for a, b, size in schedule.segments(1600) for _ in range(a, b)]
        line = np.interp(np.arange(1600) / 100, [first, last], [low, high])
        np.testing.assert_array_equal(found, np.floor(line / 32 + 0.5) * 32)


def test_shares_are_those_of_many_steps():
    sizes = parse_image_sizes("64@0.2,96..160@0.3-0.9,64")
    counts = dict.fromkeys(sizes.sizes, 0)
    for first, end, size in sizes.segments(10**6):
        counts[size] += end - first
    assert sum(sizes.shares().values()) == 1
    assert {size: count / 10**6 for size, count in counts.items()} == pytest.approx(
        {size: float(share) for size, share in sizes.shares().items()}, abs=1e-5
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "at character 1 it has its end, where a number of pixels must be"),
        ("big", "at character 1 it has 'b', where a number of pixels must be"),
        ("160@0.75;192", "at character 9 it has ';', where ',' or the end must be"),
        ("160@0.75,", "at character 10 it has its end, where a number of pixels must be"),
        ("160@,192", "at character 5 it has ',', where a share of the run, such as 0.75, must be"),
        ("160@75%,192", "at character 5 it has 75, which is more than 1, the whole run"),
        ("160@1.5,192", "at character 5 it has 1.5, which is more than 1, the whole run"),
        ("160@0,192", "at character 5 it has 0, which is not after 0, where it goes on"),
        ("96@0.5,128@0.4,160", "at character 12 it has 0.4, which is not after 0.5, where it"),
        ("96@0.5,128..160@0.4-1", "at character 17 it has 0.4, which is before 0.5, where it"),
        ("128..160@0.5-0.5", "at character 14 it has 0.5, which is not after 0.5, where it"),
        ("128..160", "at character 9 it has its end, where '@' and the shares of the run"),
        ("128..160@0.5", "at character 13 it has its end, where '-' and the share of the run"),
        ("128..150@0-1", "at character 1 it has 128..150, which is not a number of steps of 32 px"),
        ("128..128@0-1", "at character 1 it has 128..128, which is not a number of steps of 32"),
        ("128..160:0@0-1", "at character 10 it has 0, which is not from 1 to 16,384 px"),
        ("0@0.5,32", "at character 1 it has 0, which is not from 1 to 16,384 px"),
        ("32@0.5,99999", "at character 8 it has 99999, which is not from 1 to 16,384 px"),
        ("160,192", "at character 5 it has a piece that has no steps, as the one before it ends"),
        ("160@0.75,192@0.9", "it never reaches its end: nothing says the size after 0.9 of the"),
        ("128..160@0.5-0.9,", "at character 18 it has its end, where a number of pixels must be"),
    ],
)
def test_what_is_no_schedule_is_one_line(text, said, tmp_path, capsys):
    folder = tmp_path / "run"
    given = f"--config.data.image_size={text}"
    assert main(["train", "--config=smoke", f"--workdir={folder}", given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"config.data.image_size={text!r}: {said}" in line
    assert "such as 160@0.75,192 or 160..192:32@0.6-0.8 (docs/training.md)" in line
    assert not folder.exists()


def test_the_key_takes_a_number_or_a_schedule():
    config = configs.merge(configs.default_config(), {"data": {"image_size": "64"}}, "test")
    assert config.data.image_size == 64
    assert configs.training_image_sizes(config) == image_sizes(64)
    configs.merge(config, {"data.image_size": SCHEDULE, "evaluation.image_size": 20}, "test")
    again = configs.from_json(configs.to_json(configs.check(config)), "config.json")
    assert again.data.image_size == SCHEDULE
    assert configs.training_image_sizes(again).sizes == (8, 12, 16)
    assert configs.preprocessing(again).image_size == 20
    again.evaluation.image_size = 0
    assert configs.preprocessing(again).image_size == 16
    alone = configs.with_training_image_size(again, 8)
    assert (configs.training_image_size(alone), configs.evaluation_image_size(alone)) == (8, 16)
    for value in (1.5, None, ("8", "9"), True):
        with pytest.raises(UsageError, match=r"data\.image_size="):
            configs.merge(config, {"data.image_size": value}, "test")
    for value in (0, -8):
        with pytest.raises(UsageError, match="must be at least 1"):
            configs.check(configs.merge(config, {"data.image_size": value}, "test"))


def test_runs_without_a_schedule_are_as_before():
    """`data.train_image_size` trains at one size and evaluates at another, as it did."""
    config = tiny_config(data__image_size=16, data__train_image_size=12)
    assert configs.training_image_sizes(config).sizes == (12,)
    assert configs.preprocessing(config).image_size == 16
    assert Timeline(config, 640).segments == ((0, 40, 12),)
    record = json.loads(configs.to_json(config))
    del record["evaluation"]
    older = configs.from_json(json.dumps({**record, "config_version": 2}), "config.json")
    assert configs.evaluation_image_size(older) == 16


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"data__train_image_size": 12},
            f"config.data.train_image_size=12 and config.data.image_size={SCHEDULE!r} both say",
        ),
        ({"evaluation__image_size": -1}, "config.evaluation.image_size=-1 must be at least 0"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(changes, said):
    with pytest.raises(UsageError) as caught:
        tiny_config(data__image_size=SCHEDULE, **changes)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"data__image_size": "3@0.5,16"},
            "config.data.image_size='3@0.5,16': images of 3 px are too small for CifarResNet20, "
            "whose strides make one of 4 px; take 4 px or more",
        ),
        (
            {"data__image_size": 16, "data__train_image_size": 2},
            "config.data.image_size=16, config.data.train_image_size=2: images of 2 px are too",
        ),
        (
            {"data__image_size": 16, "evaluation__image_size": 2},
            "config.data.image_size=16, config.evaluation.image_size=2: images of 2 px are too",
        ),
    ],
)
def test_sizes_that_the_strides_cannot_take(changes, said, tmp_path):
    with pytest.raises(UsageError) as caught:
        run.train(tiny_config(**changes), tmp_path / "run")
    assert said in str(caught.value)
    assert not list((tmp_path / "run").iterdir())


def test_a_run_too_short_for_its_last_size(tmp_path):
    config = tiny_config(data__image_size="8@0.99,16", epochs=1)
    with pytest.raises(UsageError) as caught:
        run.train(config, tmp_path / "run")
    assert (
        "config.data.image_size='8@0.99,16': of the 22 steps of this run none is left for 16 px"
        in str(caught.value)
    )
    assert not list((tmp_path / "run").iterdir())


def test_a_plan_for_a_folder_takes_a_schedule():
    photos = Photos(count=2000, validation=200, height=400, width=500, jpegs=1.0)
    device = Device("CPU", 1, 1e11, 2)
    chosen, plain = (
        choose(photos, device, 60, None, {"data.image_size": size, "model.name": "ResNet18"})
        for size in ("96@0.5,128", 128)
    )
    assert chosen.values == {**plain.values, "data.image_size": "96@0.5,128"}


# ---- The steps of a run --------------------------------------------------------------------------


def test_the_loop_stops_at_each_size():
    timeline = Timeline(tiny_config(epochs=4, log_every_steps=100, **SMALL), 1437)
    assert [tuple(segment) for segment in timeline.segments] == [
        (0, 23, 8),
        (23, 45, 12),
        (45, 89, 16),
    ]
    stops, step = [], 1
    while step < timeline.total_steps:
        step = timeline.next_stop(step, start=0)
        stops.append(step)
    assert stops == [22, 23, 44, 45, 67, 89]
    assert [timeline.segment_at(step).image_size for step in (0, 22, 23, 44, 45, 88)] == [
        8,
        8,
        12,
        12,
        16,
        16,
    ]
    assert [step for step in range(90) if timeline.changes_size_at(step)] == [23, 45]
    assert describe_sizes(timeline, 16) == (
        "sizes      8 px until step 23, 12 px until step 45, then 16 px"
    )
    assert describe_sizes(timeline, 20).endswith("then 16 px; evaluated at 20 px")


def test_what_is_compiled_is_what_is_still_to_come():
    frozen = {"model__freeze": "body", "model__unfreeze_epoch": 2}
    timeline = Timeline(tiny_config(epochs=4, **SMALL, **frozen), 1437)
    assert timeline.unfreeze_at == 44
    assert timeline.steps_to_compile(0) == [(8, True), (12, True), (12, False), (16, False)]
    assert timeline.steps_to_compile(43) == [(12, True), (12, False), (16, False)]
    assert timeline.steps_to_compile(44) == [(12, False), (16, False)]
    assert timeline.steps_to_compile(45) == [(16, False)]
    constant = Timeline(tiny_config(epochs=4), 1437)
    assert constant.steps_to_compile(0) == [(8, False)]
    assert describe_sizes(constant, 16) == ""


def test_a_resumption_with_other_epochs_says_what_becomes_of_the_size():
    config = tiny_config(epochs=8, **SMALL)
    lines = list(describe_resumption(config, {"epochs": (4, 8)}, Timeline(config, 1437), 44))
    assert "sizes      in step 44 images have 8 px instead of 12 px" in lines


def _noise():
    names = tuple(str(number) for number in range(10))
    return Synthetic(title="noise", num_examples=640, class_names=names)


def _source():
    """Digits to train on."""
    return input_pipeline.open_source("tfds", name="digits", path="", split="train")


@pytest.mark.parametrize(
    ("replicas", "data"),
    [
        (1, "noise"),
        pytest.param(1, "digits", marks=pytest.mark.ci),
        pytest.param(2, "digits", marks=pytest.mark.ci),
    ],
)
def test_an_engine_steps_through_sizes_and_compiles_none_twice(replicas, data):
    """State put back after compiling, one trace a size, and any place to go on from."""
    source = _source() if data == "digits" else _noise()
    config = engine_config(
        data={"image_size": "8@0.5,12"}, model={"depths": (1,), "widths": (16,)}, ema={"decay": 0.9}
    )
    strategy = mirrored_strategy(replicas) if replicas > 1 else make_strategy("cpu")
    engine = built_engine(config, strategy, source.class_names, 640)
    timeline, lines = Timeline(config, 640), []
    before = engine.state()
    compile_sizes(engine, source, timeline, 0, lines.append)
    after = engine.state()
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)
    assert engine.steps.train_loop.experimental_get_tracing_count() == 2
    assert lines[0] == "compiling  the training step for 8 and 12 px, before any of them is needed"
    assert lines[1].startswith("compiled   8 px in ")

    def trained(*stops):
        """The state after 20 steps, with new batches at every stop."""
        engine.load_state(before)
        for first, end in zip((0, *stops), (*stops, 20), strict=True):
            size = timeline.segment_at(first).image_size
            engine.train(engine.train_batches(source, first, end, size), end - first)
        return engine.state()

    whole, parts = trained(10), trained(7, 10)
    assert engine.steps.train_loop.experimental_get_tracing_count() == 2
    assert any(not np.array_equal(before[name], whole[name]) for name in before)
    for name, value in whole.items():
        np.testing.assert_array_equal(parts[name], value, err_msg=name)


def test_a_run_of_one_size_compiles_as_it_begins():
    engine, config = None, tiny_config(data__image_size="16@0.5,16")
    compile_sizes(engine, None, Timeline(config, 640), 0, pytest.fail)
    config = tiny_config(data__image_size=SCHEDULE)
    compile_sizes(engine, None, Timeline(config, 640), 30, pytest.fail)


@pytest.mark.ci
def test_a_batch_is_that_of_a_run_at_its_size():
    """RandAugment's magnitudes, CutMix's boxes and the crop are those of one size."""
    augment = {"crop_padding": 1, "flip": True, "policy": "rand-m9-mstd0.5", "cutmix": 1.0}
    options = {"batch_size": 32, "seed": 0, "augment": augment}
    source = _source()
    segments = parse_image_sizes("8@0.5,12").segments(4)
    found = [
        batch
        for first, end, size in segments
        for batch in train_batches(
            source, start_step=first, num_steps=end, image_size=size, **options
        )
    ]
    assert [batch["image"].shape[1] for batch in found] == [8, 8, 12, 12]
    for size in (8, 12):
        constant = list(train_batches(source, num_steps=4, image_size=size, **options))
        for ours, theirs in zip(found, constant, strict=True):
            np.testing.assert_array_equal(ours["label"], theirs["label"])
            if ours["image"].shape[1] == size:
                np.testing.assert_array_equal(ours["image"], theirs["image"])
                np.testing.assert_array_equal(ours["mix"], theirs["mix"])


def test_the_trained_network_takes_the_size_of_its_evaluation():
    config = tiny_config(evaluation__image_size=20, **SMALL)
    names = [str(number) for number in range(10)]
    assert build_model(config, names).input_shape == (None, None, None, 3)
    model = build_model(config, names, classifier_activation="softmax")
    assert model.input_shape == (None, 20, 20, 3)
    assert model.preprocessing.image_size == 20
    one = tiny_config(**{**SMALL, "data__image_size": "16@0.5,16"})
    assert build_model(one, names).input_shape == (None, 16, 16, 3)


# ---- Runs ----------------------------------------------------------------------------------------


RUN = {**SMALL, "model__drop_path_rate": 0.0, "ema__decay": 0.9, "evaluation__image_size": 12}
RUN |= {"epochs": 2, "evaluate_every_epochs": 2, "checkpoint__every_epochs": 2}
SIZES = {**dict.fromkeys(range(1, 12), 8), **dict.fromkeys(range(12, 23), 12)}
SIZES |= dict.fromkeys(range(23, 45), 16)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    result = run.train(tiny_config(**RUN), folder)
    return folder, result


def _rows(folder, kind):
    return [row for row in WorkDir(folder).read_metrics() if row["kind"] == kind]


@pytest.mark.ci
def test_metrics_say_the_size_of_each_step(uninterrupted):
    folder, result = uninterrupted
    rows = _rows(folder, "train")
    found, before = {}, 0
    for row in rows:
        found |= dict.fromkeys(range(before + 1, row["step"] + 1), row["image_size"])
        before = row["step"]
    assert found == SIZES
    log = WorkDir(folder).log.read_text()
    assert "sizes      8 px until step 11, 12 px until step 22, then 16 px; evaluated at 12" in log
    assert log.count("compiling  the training step for 8, 12 and 16 px") == 1
    assert keras.saving.load_model(WorkDir(folder).model).preprocessing.image_size == 12
    again = training.evaluate(folder)
    assert {key: again[key] for key in ("top1", "loss")} == pytest.approx(
        {key: result[key] for key in ("top1", "loss")}, rel=1e-6
    )


@pytest.mark.ci
def test_stopped_in_each_size_it_ends_in_the_same_bits(uninterrupted, tmp_path, monkeypatch):
    """Saved in the middle of each size, at a border, and begun again there."""
    train = TensorFlowEngine.train
    for stop in (5, 11, 17, 30):

        def stopping(self, batches, steps, frozen=False, stop=stop):
            if batches.position >= stop:
                signal.raise_signal(signal.SIGTERM)
            return train(self, batches, steps, frozen)

        monkeypatch.setattr(TensorFlowEngine, "train", stopping)
        with pytest.raises(Interrupted):
            run.train(tiny_config(**RUN), tmp_path)
    monkeypatch.undo()
    result = run.train(tiny_config(**RUN), tmp_path)
    whole, expected = uninterrupted
    assert final_weights(tmp_path) == final_weights(whole)
    figures = ("top1", "top5", "loss", "step")
    assert [result[name] for name in figures] == [expected[name] for name in figures]
    lines = WorkDir(tmp_path).log.read_text()
    assert "compiling  the training step for 12 and 16 px" in lines  # what is over is left out


@pytest.mark.ci
def test_one_size_is_a_run_without_a_schedule(tmp_path):
    changes = {**RUN, "evaluation__image_size": 0, "epochs": 1}
    for name, size in (("schedule", "8@0.5,8"), ("number", 8)):
        run.train(tiny_config(**{**changes, "data__image_size": size}), tmp_path / name)
    weights = [final_weights(tmp_path / name) for name in ("schedule", "number")]
    assert weights[0] == weights[1]
    rows = [
        [(row["step"], row["loss"], row["image_size"]) for row in _rows(tmp_path / name, "train")]
        for name in ("schedule", "number")
    ]
    assert rows[0] == rows[1]


@pytest.mark.ci
def test_what_is_frozen_first_is_compiled_at_its_sizes(tmp_path, capsys):
    """Two stages of fine-tuning over three sizes, in parts of a batch and recomputed."""
    config = tiny_config(
        **{**RUN, "ema__decay": 0.0},
        model__freeze="body",
        model__unfreeze_epoch=1,
        model__rematerialize=True,
        accumulate_steps=2,
        data__augment__mixup=0.2,
        deterministic=False,
    )
    run.train(config, tmp_path)
    assert [row["image_size"] for row in _rows(tmp_path, "train")][-1] == 16
    assert "compiled   8 px in " in capsys.readouterr().out


@pytest.mark.slow
def test_ten_kills_at_random_moments(tmp_path):
    """SIGKILL anywhere from the start of TensorFlow to the last file; then to the end."""
    changes = {"data__image_size": SCHEDULE, "evaluation__image_size": 12}
    changes |= {"checkpoint__every_epochs": 1, "epochs": 6}
    output, _ = start(tmp_path / "whole", **changes).communicate()
    assert "Done" in output, output
    folder = tmp_path / "killed"
    kill_at_random_moments(folder, longest=12.0, **changes)
    output, _ = start(folder, **changes).communicate()
    assert "Done" in output, output
    assert final_weights(folder) == final_weights(tmp_path / "whole")
    figures = ("step", "loss", "top1")
    whole, killed = (
        [[row[name] for name in figures] for row in _rows(tmp_path / name, "eval")]
        for name in ("whole", "killed")
    )
    assert whole == killed
