"""`keras-resnet compare`: runs side by side, made by hand here, so that their figures are known."""

import csv
import io
import json
import statistics
import subprocess
import sys

import numpy as np
import pytest

from keras_resnet import commands, training
from keras_resnet import config as configs
from keras_resnet.errors import UserError
from keras_resnet.training.comparison import RunRecord, compare_records
from keras_resnet.training.comparison.records import read_run
from keras_resnet.training.workdir import WorkDir

EPOCHS, BATCH, TRAIN = 2, 10, 100


def write_run(path, values=(0.5, 0.75), *, metric="top1", classes=("a", "b"), log=True, **changes):
    """A work directory whose evaluations are `values`; fewer than EPOCHS: not finished."""
    delta = {key.replace("__", "."): value for key, value in changes.items()}
    delta = {"epochs": EPOCHS, "batch_size": BATCH, **delta}
    config = configs.merge(configs.default_config(), delta, "test")
    path.mkdir(parents=True)
    workdir = WorkDir(path)
    workdir.lock.touch()
    workdir.config.write_text(configs.to_json(config))
    dataset = {"classes": list(classes), "train_examples": TRAIN, "eval_examples": 20}
    workdir.dataset.write_text(json.dumps(dataset))
    if log:
        workdir.log.write_text(
            "2026-01-31 12:00:00 model      CifarResNet20, 1,234 trainable parameters\n"
        )
    per_epoch = TRAIN // BATCH
    row = {}
    for epoch, value in enumerate(values, start=1):
        step = epoch * per_epoch
        for part, right, examples in ((0.5, 0.2, 50), (1.0, 0.6, 50)):
            workdir.append_metrics(
                {
                    "kind": "train",
                    "step": int(step - per_epoch * (1 - part)),
                    "epoch": epoch - 1 + part,
                    "loss": 2.0 * part,
                    "top1": right,
                    "learning_rate": 0.1,
                    "images_per_second": 100.0,
                    "examples": examples,
                }
            )
        row = {metric: value, "loss": 1 - value, "examples": 20}
        workdir.append_metrics({"kind": "eval", "step": step, "epoch": float(epoch), **row})
    if len(values) >= EPOCHS:
        result = {"top1": 0.0, "top5": 1.0, **row, "step": len(values) * per_epoch}
        workdir.result.write_text(json.dumps(result))
    return path


@pytest.fixture
def seeds(tmp_path):
    """Two networks: three seeds of one, two of the other."""
    for seed, last in enumerate((0.7, 0.8, 0.84)):
        write_run(tmp_path / f"plain20-{seed}", (0.5, last), seed=seed, model__residual=False)
    for seed, last in enumerate((0.9, 0.91)):
        write_run(tmp_path / f"resnet20-{seed}", (0.95, last), seed=seed)
    return tmp_path


def test_seeds_are_one_group_with_the_mean_and_deviation_of_the_standard_library(seeds):
    found = training.compare(seeds)
    assert [group.name for group in found.groups] == ["plain20", "resnet20"]
    assert [len(group.runs) for group in found.groups] == [3, 2]
    assert found.differences == {"model.residual": [False, None]}
    spread = found.groups[0].spread(lambda run: run.value)
    assert spread.mean == pytest.approx(statistics.mean((0.7, 0.8, 0.84)))
    assert spread.deviation == pytest.approx(statistics.stdev((0.7, 0.8, 0.84)))
    assert found.groups[1].spread(lambda run: run.best[0]).mean == pytest.approx(0.95)
    assert found.notes == ()
    table = found.table()
    assert "0.7800 ± 0.0721" in table
    assert "0.9500 ± 0.0000  1.0 ± 0.0" in table
    assert "1,234" in table


def test_curves_are_means_over_seeds_and_examples(seeds):
    group = training.compare(seeds / "plain20-*").groups[0]
    curve = group.curve("eval", "top1")
    np.testing.assert_allclose(curve[:, 0], [1, 2])
    np.testing.assert_allclose(curve[1, 1:], [0.78, statistics.stdev((0.7, 0.8, 0.84)), 3])
    # Halves of an epoch with 0.2 and 0.6 right.
    np.testing.assert_allclose(group.curve("train", "top1")[:, 1], [0.4, 0.4])
    np.testing.assert_allclose(group.curve("train", "loss")[:, 1], [1.5, 1.5])


def test_csv_has_a_line_for_each_run_and_json_the_curves(seeds):
    found = training.compare(seeds)
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert [row["run"] for row in rows][:3] == ["plain20-0", "plain20-1", "plain20-2"]
    assert [float(row["value"]) for row in rows] == [0.7, 0.8, 0.84, 0.9, 0.91]
    assert [row["config.model.residual"] for row in rows] == ["False"] * 3 + [""] * 2
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert values["groups"][1]["value"]["n"] == 2
    assert values["runs"][0]["curves"]["eval_top1"] == [0.5, 0.7]
    assert values["runs"][0]["images_per_second"] == pytest.approx(100)


def test_unfinished_runs_are_shown_as_far_as_they_are(tmp_path):
    write_run(tmp_path / "a-0", (0.5, 0.7))
    write_run(tmp_path / "a-1", (0.4,), seed=1)
    write_run(tmp_path / "a-2", (), seed=2)
    # Its result is from before it was given more epochs.
    write_run(tmp_path / "a-3", (0.5, 0.6), seed=3, epochs=4)
    found = training.compare(tmp_path)
    assert [[run.name for run in group.runs] for group in found.groups] == [
        ["a-0"],
        ["a-1", "a-2"],
        ["a-3"],
    ]
    assert found.groups[1].spread(lambda run: run.value).n == 1
    assert "a-1: unfinished, at epoch 1 of 2" in found.notes
    assert "a-2: was not evaluated yet" in found.notes
    assert "a-3: unfinished, at epoch 2 of 4" in found.notes
    assert "0.4000 (n=1)" in found.table()
    assert "0–1 of 2" in found.table()


def test_early_stopping_is_an_end(tmp_path):
    write_run(tmp_path / "a", (0.5, 0.4), epochs=9, early_stopping__patience=1)
    run = training.compare(tmp_path).runs[0]
    assert (run.finished, run.state) == (True, "stopped early, at epoch 2 of 9")


def test_training_after_the_last_evaluation_is_on_the_curve(tmp_path):
    path = write_run(tmp_path / "a", (0.5,))
    row = {"kind": "train", "step": 15, "epoch": 1.5, "loss": 0.3, "top1": 0.9, "examples": 50}
    WorkDir(path).append_metrics(row)
    group = training.compare(path).groups[0]
    np.testing.assert_allclose(group.curve("train", "top1")[:, :2], [(1, 0.4), (1.5, 0.9)])
    np.testing.assert_allclose(group.curve("eval", "top1")[:, :2], [(1, 0.5)])


def test_other_data_and_other_metrics_are_said(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", classes=("x", "y", "z", "w"))
    write_run(tmp_path / "c", metric="mean_average_precision", loss__name="binary")
    found = training.compare(tmp_path)
    assert len(found.groups) == 3
    notes = "\n".join(found.notes)
    assert "do not compare" in notes
    assert "b: 4 classes (x, y, z, …), 100 images to train on, 20 held out" in notes
    assert "different figures: mean_average_precision, top1" in notes
    assert found.groups[2].runs[0].value == 0.75


def test_one_run_and_a_run_given_twice(tmp_path):
    path = write_run(tmp_path / "a")
    (tmp_path / "link").symlink_to(path)
    found = training.compare(path, tmp_path / "link", f"{tmp_path}/*")
    assert len(found.runs) == 1
    assert found.notes == ("this is one run; give more to compare it with",)


def test_repeats_of_one_seed_are_said(tmp_path):
    write_run(tmp_path / "first")
    write_run(tmp_path / "second")
    found = training.compare(tmp_path)
    assert found.groups[0].name == "first …"
    assert found.notes == ("first, second: have the same seed, 0, and count as several",)


def test_what_is_no_run_is_left_out_and_said(tmp_path):
    write_run(tmp_path / "runs" / "a")
    (tmp_path / "other" / "empty").mkdir(parents=True)
    damaged = write_run(tmp_path / "runs" / "b")
    (damaged / "config.json").write_text("{")
    found = training.compare(tmp_path / "runs", tmp_path / "other")
    assert [run.name for run in found.runs] == ["a"]
    assert any("other: is left out; it has no config.json" in note for note in found.notes)
    assert any("config.json is not JSON" in note for note in found.notes)
    with pytest.raises(UserError, match=r"(?s)no run to compare.*other: is left out"):
        training.compare(tmp_path / "other")
    with pytest.raises(UserError, match="missing: no such folder"):
        training.compare(tmp_path / "missing")
    with pytest.raises(UserError, match="nothing has such a name"):
        training.compare(f"{tmp_path}/none*")


HOSTILE = (None, -1, "\x1b[31mx", {"a": 1}, float("nan"), float("inf"), 10**400, 1e308)


@pytest.mark.filterwarnings("error")
@pytest.mark.ci
def test_what_a_disk_damaged_is_left_out(tmp_path):
    """Each value of each small file, in turn: figures that are none, or too large to be one."""
    workdir = WorkDir(write_run(tmp_path / "bad", seed=0))
    for path in (workdir.config, workdir.dataset, workdir.result, workdir.metrics):
        whole = path.read_text()
        first, *others = whole.splitlines() if path == workdir.metrics else [whole]
        values = (0, [], 10**400) if path == workdir.config else HOSTILE
        for key in json.loads(first):
            for value in values:
                damaged = {**json.loads(first), key: value}
                path.write_text("\n".join([json.dumps(damaged), *others]))
                try:
                    found = compare_records([read_run(workdir, "bad")])
                except UserError:
                    assert path == workdir.config
                    continue
                assert found.runs[0].best == (0.75, 2.0)
                assert "\x1b" not in found.table() + found.to_csv()
        path.write_text(whole)
    workdir.config.write_text('{"seed": ' + "1" * 5000 + "}")  # more digits than Python reads
    with pytest.raises(UserError, match="is not JSON"):
        workdir.read_config()
    workdir.dataset.unlink()
    workdir.dataset.symlink_to(workdir.dataset.name)
    assert workdir.find_dataset() is None


def test_folders_of_one_name_are_told_apart_by_their_paths(tmp_path):
    for network, residual in (("plain", False), ("residual", True)):
        for seed in range(2):
            write_run(tmp_path / network / str(seed), seed=seed, model__residual=residual)
    found = training.compare(tmp_path / "plain", tmp_path / "residual")
    assert [group.name for group in found.groups] == ["plain", "residual"]
    assert found.runs[0].name == "plain/0"


def test_a_folder_whose_name_is_a_pattern(tmp_path):
    path = write_run(tmp_path / "[a] \x1b[31m")
    found = training.compare(path)
    assert len(found.runs) == 1
    assert "\x1b" not in found.table() + found.to_csv()


def test_records_from_elsewhere_need_no_work_directory():
    config = {"seed": 0, "epochs": 3}
    curves = {("eval", "top1"): np.asarray([0.1, np.nan, 0.3])}
    runs = [
        RunRecord(f"net-{seed}", "", config | {"seed": seed}, "top1", np.arange(3.0), curves, 3)
        for seed in range(2)
    ]
    group = compare_records(runs).groups[0]
    assert group.curve("eval", "top1").tolist() == [[0, 0.1, 0, 2], [2, 0.3, 0, 2]]
    assert group.curve("train", "top1").shape == (0, 4)
    assert runs[0].best == (0.3, 2.0)


@pytest.mark.parametrize("panels", [None, "model.residual"])
@pytest.mark.parametrize("measure", ["metric", "error"])
def test_the_picture_has_the_figures(seeds, panels, measure, monkeypatch):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    figures = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **kw: figures.append(self) or save(self, *args, **kw)
    )
    training.compare(seeds).draw(seeds / "c.png", measure, panels)
    assert (seeds / "c.png").read_bytes().startswith(b"\x89PNG")
    left, right = figures[0].axes
    held_out = left.containers[0]
    expected = np.asarray([0.5, 0.78])
    ends = 100 * (1 - expected) if measure == "error" else expected
    np.testing.assert_allclose(held_out.lines[0].get_ydata(), ends)
    low, high = held_out.lines[2][0].get_segments()[1][:, 1]
    deviation = statistics.stdev((0.7, 0.8, 0.84)) * (100 if measure == "error" else 1)
    assert high - low == pytest.approx(2 * deviation)
    if panels:
        titles = [axes.get_title() for axes in (left, right)]
        assert titles == ["model.residual=False", "model.residual=none"]
    else:
        assert right.get_ylabel() == "loss"


def test_many_groups_and_long_runs_can_be_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(0)
    runs = []
    for network in range(9):
        for seed in range(2):
            values = {(kind, key): rng.random(40) + 1e-3 for kind in ("train", "eval")
                      for key in ("top1", "loss")}  # fmt: skip
            config = {"seed": seed, "epochs": 40, "model.name": f"$net_{network}"}
            name = f"$net_{network}-{seed}"
            runs.append(RunRecord(name, "", config, "top1", np.arange(40.0), values, 40))
    compare_records(runs).draw(tmp_path / "many.png")
    compare_records(runs).draw(tmp_path / "panels.png", panels="model.name")
    assert (tmp_path / "many.png").stat().st_size > 10_000


def test_the_command_prints_and_writes(seeds, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    output = tmp_path / "out"
    assert commands.main(["compare", str(seeds), f"--output={output}"]) == 0
    assert sorted(path.name for path in output.iterdir()) == [
        "comparison.csv",
        "comparison.json",
        "comparison.png",
    ]
    assert "0.7800 ± 0.0721" in capsys.readouterr().out
    assert commands.main(["compare", str(seeds), "--format=csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert commands.main(["compare", str(seeds), "--format=json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["runs"]) == 5


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "RUN is missing"),
        (["{0}", "--panels=model.residal"], 2, "Did you mean 'model.residual'"),
        (["{0}", "--output={0}/plain20-0/.lock"], 1, "is a file; name a folder"),
        (["{0}", "--output={0}/no/c.png"], 1, "there is no folder"),
        (["{0}", "--output=c.jpg"], 2, "not .jpg"),
        (["{0}/plain20-3"], 1, "plain20-3: no such folder"),
    ],
)
def test_what_cannot_be_used_ends_in_one_line(seeds, arguments, code, message, capsys):
    arguments = [argument.format(seeds) for argument in arguments]
    assert commands.main(["compare", *arguments]) == code
    assert message in capsys.readouterr().err


def test_without_matplotlib_the_table_comes_and_a_line_says_what_is_missing(seeds):
    """And neither TensorFlow nor Keras is loaded."""
    program = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import keras_resnet_cli; keras_resnet_cli.defer_loading()\n"
        "from keras_resnet.commands import main\n"
        f"code = main(['compare', {str(seeds)!r}, '--output={seeds}/c.png'])\n"
        "print(code, sorted({'tensorflow', 'keras'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "0.7800 ± 0.0721" in done.stdout
    assert "c.png needs matplotlib: pip install 'keras-resnet-tpu[plot]'" in done.stdout
    assert done.stdout.endswith("0 []\n"), done.stderr
    assert not (seeds / "c.png").exists()
