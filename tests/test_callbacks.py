"""Callbacks: what they are told, what they may raise, who imports them, the docs' trackers."""

import asyncio
import inspect
import itertools
import json
import os
import re
import signal
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from run_helpers import tiny_config

from keras_resnet import commands, training
from keras_resnet import config as configs
from keras_resnet.errors import Interrupted, UsageError
from keras_resnet.training import callbacks as callback_module
from keras_resnet.training import preparation, run
from keras_resnet.training.callbacks import Callbacks, RunInfo, load, name_given, scalars
from keras_resnet.training.events import TensorBoard
from keras_resnet.training.say import Say
from keras_resnet.training.workdir import WorkDir

INFO = RunInfo("0123456789abcdef", "runs/a", {"seed": 0}, 0, 100, ("a", "b"))


class Recorder:
    """Remembers every call; with `failing` it raises in that method."""

    def __init__(self, failing="", error=RuntimeError):
        self.calls, self.failing, self.error = [], failing, error

    def __getattr__(self, method):
        if method not in callback_module._METHODS:
            raise AttributeError(method)

        def remember(*arguments):
            self.calls.append((method, *arguments))
            if method == self.failing:
                raise self.error("first line\nsecond line")

        return remember

    def of(self, method):
        return [call[1] for call in self.calls if call[0] == method]


class Lines(list):
    """A voice that only remembers."""

    __call__ = list.append


def row(kind, step, loss=0.5):
    return {"kind": kind, "step": step, "epoch": step / 10, "loss": loss, "examples": 10}


def test_a_failing_callback_is_named_and_left_out_after_three_failures_in_a_row():
    said, bad, good = Lines(), Recorder("trained"), Recorder()
    told = Callbacks(said)
    told.start([("bad", bad), ("good", good)], INFO)
    for step in range(1, 3):
        told.record(row("train", step))
    told.record(row("eval", 2))  # a call that went well begins the count again
    for step in range(3, 8):
        told.record(row("train", step))
    told.finished({"top1": 1.0})
    assert [entry["step"] for entry in bad.of("trained")] == [1, 2, 3, 4, 5]
    assert [entry["step"] for entry in good.of("trained")] == [1, 2, 3, 4, 5, 6, 7]
    assert (bad.of("finished"), good.of("finished")) == ([], [{"top1": 1.0}])
    assert said[0] == (
        "warning: callback bad failed in trained (RuntimeError: first line); it and the run go on"
    )
    assert len(said) == 5
    assert said[-1].endswith("it is left out until the run resumes, and the run goes on")


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    "error", [ValueError, SystemExit, GeneratorExit, asyncio.CancelledError, Unspeakable]
)
def test_one_that_fails_at_the_start_is_left_out_at_once(error):
    said, bad = Lines(), Recorder("started", error)
    told = Callbacks(said)
    told.start([("bad", bad)], INFO)
    told.record(row("train", 1))
    assert [call[0] for call in bad.calls] == ["started"]
    assert len(said) == 1


def test_a_callback_that_goes_elsewhere_takes_nobody_with_it(tmp_path, monkeypatch):
    class Wanderer:
        def trained(self, row):
            os.chdir("/")

    monkeypatch.chdir(tmp_path)
    told = Callbacks(Lines())
    told.start([("wanderer", Wanderer())], INFO)
    told.record(row("train", 1))
    assert Path.cwd() == tmp_path


def test_a_second_ctrl_c_in_a_callback_ends_the_run():
    told = Callbacks(Lines())
    told.start([("slow", Recorder("trained", KeyboardInterrupt))], INFO)
    with pytest.raises(KeyboardInterrupt):
        told.record(row("train", 1))


def test_a_callback_gets_copies():
    class Vandal:
        def started(self, run):
            run.config.clear()

        def trained(self, row):
            row.clear()

    original, other = row("train", 1), Recorder()
    told = Callbacks(Lines())
    told.start([("vandal", Vandal()), ("other", other)], INFO)
    told.record(original)
    assert INFO.config == {"seed": 0}
    assert original == row("train", 1)
    assert other.calls == [("started", INFO), ("trained", original)]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Interrupted("stopped by a signal", code=143), ("stopped by a signal", signal.SIGTERM)),
        (UsageError("bad\nworse"), ("bad", None)),
        (KeyboardInterrupt(), ("no message", None)),
    ],
)
def test_an_end_by_an_exception_is_told_once(error, expected):
    def end(finished):
        recorder = Recorder()
        with Callbacks(Lines()) as told:
            told.start([("recorder", recorder)], INFO)
            calls.append(recorder.calls)
            if finished:
                told.finished({})
            raise error

    calls = []
    for finished in (False, True):
        with pytest.raises(type(error)):
            end(finished)
    assert [call[1:] for call in calls] == [[("stopped", *expected)], [("finished", {})]]


def test_what_is_no_callback_is_refused_or_left_out(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"Recorder is a class; give an object: Recorder\(\)"):
        name_given([Recorder])
    with pytest.raises(UsageError, match="int has no method of a callback: started, trained"):
        name_given([3])
    (tmp_path / "own_tracker.py").write_text(
        "class Group:\n    class Tracker:\n        def trained(self, row): pass\n"
        "def nothing(): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    said = Lines()
    names = ("own_tracker:Group.Tracker", "own_tracker:nothing", "own_tracker:x", "not_there.x:y")
    assert [name for name, _ in load(names, said)] == ["own_tracker:Group.Tracker"]
    assert "own_tracker:nothing cannot be made (TypeError: NoneType has no method" in said[0]
    assert "(AttributeError: module 'own_tracker' has no attribute 'x')" in said[1]
    assert "No module named 'not_there') (PYTHONPATH=. finds modules" in said[2]


def test_only_the_first_host_has_callbacks(tmp_path):
    recorder = Recorder()
    config = tiny_config(training__callbacks=("not_there:x",))
    for is_chief in (False, True):
        made = SimpleNamespace(
            engine=SimpleNamespace(is_chief=is_chief, model=None),
            config=config,
            outputs=WorkDir(tmp_path),
            say=Lines(),
            callbacks=Callbacks(Lines()),
            progress=SimpleNamespace(step=7),
            timeline=SimpleNamespace(total_steps=9),
            train_source=SimpleNamespace(class_names=["a"]),
        )
        preparation._start_callbacks(made, [("recorder", recorder)])
        assert len(recorder.calls) == is_chief
        assert len(made.say) == 2 * is_chief  # what cannot be made, and who follows
    (info,) = recorder.of("started")
    assert (info.step, info.total_steps, info.class_names) == (7, 9, ("a",))
    assert info.config["training.callbacks"] == ("not_there:x",)
    assert info.id == WorkDir(tmp_path).keep_id()


def test_the_id_of_a_run_stays_and_a_damaged_one_is_drawn_again(tmp_path):
    workdir = WorkDir(tmp_path)
    first = workdir.keep_id()
    assert re.fullmatch("[0-9a-f]{16}", first)
    assert workdir.keep_id() == first
    workdir.id.write_text("\x00")
    assert workdir.keep_id() not in (first, "\x00")


# ---- The key -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", ()),
        ("()", ()),
        ("a:B", ("a:B",)),
        ("a.b:C, d:e.f", ("a.b:C", "d:e.f")),
        ("('a:B',)", ("a:B",)),
    ],
)
def test_the_key_takes_names(text, value):
    key = configs.KEYS["training.callbacks"]
    assert key.parse(text) == value
    assert key.accept(list(value), "test") == value


def test_names_of_another_form_are_refused(capsys):
    key = configs.KEYS["training.callbacks"]
    with pytest.raises(UsageError, match="is not a list of texts"):
        key.parse("(1, 2)")
    with pytest.raises(UsageError, match="takes texts, for example"):
        key.accept([1], "test")
    for name in ("tracker", "tracker.py", "a:", ":b", "a b:c", "a:b()"):
        with pytest.raises(UsageError, match=r"must be package\.module:factory"):
            tiny_config(training__callbacks=(name,))
    assert commands.main(["config", "--config.training.callbacks=a:B", "training"]) == 0
    assert "* training.callbacks = ('a:B',)" in capsys.readouterr().out


# ---- Whole runs ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run, what its callback was told, and what the run said of a failing one."""
    folder, recorder = tmp_path_factory.mktemp("run"), Recorder()
    config = tiny_config(deterministic=False, epochs=1)
    bad = Recorder("evaluated")
    result = training.train(config, folder, callbacks=[bad, recorder])
    return WorkDir(folder), config, result, recorder


@pytest.mark.ci
def test_a_run_tells_what_it_writes(trained):
    workdir, config, result, recorder = trained
    assert recorder.calls[0][0] == "started"
    (info,) = recorder.of("started")
    assert (info.step, info.total_steps, info.id) == (0, 22, workdir.keep_id())
    assert info.config["epochs"] == config.epochs
    rows = workdir.read_metrics()
    assert [entry for _, entry in recorder.calls[1:-1]] == rows
    assert {entry["kind"] for entry in recorder.of("trained")} == {"train"}
    assert recorder.calls[-1] == ("finished", result)
    log = workdir.log.read_text()
    assert "callbacks  Recorder, Recorder\n" in log
    assert log.count("warning: callback Recorder failed in evaluated") == 1


@pytest.mark.ci
def test_tensorboard_has_the_tags_and_points_of_the_rows(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    workdir = trained[0]
    (file,) = workdir.tensorboard.iterdir()
    found = EventAccumulator(str(file), size_guidance={"tensors": 0})
    found.Reload()
    points = {
        (tag, event.step): float(make_ndarray(event.tensor_proto))
        for tag in found.Tags()["tensors"]
        for event in found.Tensors(tag)
        if "gradient_norms" not in tag
    }
    rows = workdir.read_metrics()
    expected = {
        (f"{entry['kind']}/{key}", entry["step"]): entry[key]
        for entry in rows
        for key in (
            ("epoch", "loss", "top1", "learning_rate", "images_per_second", "image_size")
            if entry["kind"] == "train"
            else ("epoch", "loss", "top1", "top5")
        )
    }
    assert points == pytest.approx(expected, rel=1e-6)


@pytest.mark.ci
def test_a_finished_run_that_is_started_again_tells_its_step(trained):
    workdir, config, result, recorder = trained
    again = Recorder()
    training.train(config, workdir.path, callbacks=[again])
    assert [call[0] for call in again.calls] == ["started", "finished"]
    assert again.of("started")[0].step == 22
    assert again.of("started")[0].id == recorder.of("started")[0].id
    assert again.of("finished")[0]["top1"] == result["top1"]


@pytest.mark.ci
def test_reading_a_config_imports_no_callback(trained, tmp_path, monkeypatch, capsys):
    """Of a config.json from elsewhere: only training runs the code that it names."""
    workdir = trained[0]
    (tmp_path / "poison.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
        "class Tracker:\n    def trained(self, row): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    text = workdir.config.read_text()
    values = json.loads(text)
    values["training"]["callbacks"] = ["poison:Tracker"]
    workdir.config.write_text(json.dumps(values))
    image = tmp_path / "image.png"
    PIL = pytest.importorskip("PIL.Image")
    PIL.new("RGB", (8, 8)).save(image)
    at = f"--workdir={workdir.path}"
    for arguments in (
        ["evaluate", at],
        ["predict", at, str(image)],
        ["export", at, f"--output={tmp_path / 'model.tflite'}", "--format=tflite"],
        ["compare", str(workdir.path)],
    ):
        assert commands.main(arguments) == 0, capsys.readouterr().err
        assert not (tmp_path / "ran").exists()
        assert "poison" not in sys.modules
    assert commands.main(["train", at]) == 0
    assert (tmp_path / "ran").exists()
    assert "callbacks  poison:Tracker" in capsys.readouterr().out
    workdir.config.write_text(text)


@pytest.mark.ci
def test_a_signal_is_told_and_the_resumed_run_says_where_it_goes_on(tmp_path):
    class Terminator(Recorder):
        def trained(self, row):
            if row["step"] >= 25:
                os.kill(os.getpid(), signal.SIGTERM)

    config = tiny_config(deterministic=False, epochs=2)
    first, second = Terminator(), Recorder()
    with pytest.raises(Interrupted):
        run.train(config, tmp_path, Say(), [first])
    (stopped,) = [call for call in first.calls if call[0] == "stopped"]
    assert stopped[2] == signal.SIGTERM
    run.train(config, tmp_path, Say(), [second])
    (info,) = second.of("started")
    rows = WorkDir(tmp_path).read_metrics()
    assert 25 <= info.step < 44
    assert info.id == first.of("started")[0].id
    assert min(entry["step"] for entry in second.of("trained")) > info.step
    assert first.of("evaluated") + second.of("evaluated") == [
        entry for entry in rows if entry["kind"] == "eval"
    ]


def test_tensorboard_of_a_run_that_rolls_back(tmp_path):
    board, told = TensorBoard(tmp_path), Callbacks(Lines())
    told.start([("TensorBoard", board)], INFO)
    for step in (1, 2, 3):
        told.record(row("train", step, loss=step))
    told.record({"kind": "rollback", "step": 1, "failed_step": 3, "learning_rate": 0.1})
    told.record(row("train", 2, loss=20))
    told.finished({})
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0})
    found.Reload()
    assert [event.step for event in found.Tensors("train/loss")] == [1, 2]
    assert {"rollback/failed_step", "rollback/learning_rate"} < {*found.Tags()["tensors"]}


def test_scalars_leave_out_what_is_no_figure():
    values = {**row("train", 3), "top1": None, "compiles": True}
    assert scalars(values) == {"train/epoch": 0.3, "train/loss": 0.5}


# ---- The trackers of the docs --------------------------------------------------------------------


def docs_tracker(module, monkeypatch, fake):
    """The class that docs/training.md shows for a package, on a stand-in of that package."""
    docs = (Path(__file__).parent.parent / "docs" / "training.md").read_text()
    (code,) = re.findall(rf"```python\n(import {module}\n.*?)```", docs, re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 18
    monkeypatch.setitem(sys.modules, module, fake)
    space: dict = {}
    exec(compile(code, "docs/training.md", "exec"), space)
    (made,) = [
        value
        for value in space.values()
        if isinstance(value, type) and issubclass(value, training.Callback)
        and value is not training.Callback
    ]  # fmt: skip
    return made


def checked(signature, function):
    """`function`, callable only as `signature`, the parameters of the real one, allows."""
    shape = eval(f"lambda {signature}: None")

    def call(*arguments, **keywords):
        inspect.signature(shape).bind(*arguments, **keywords)
        return function(*arguments, **keywords)

    return call


class FakeWandB(ModuleType):
    """Weights & Biases 0.31: a run that is resumed leaves out steps below its last."""

    INIT = (
        "entity=None, project=None, dir=None, id=None, name=None, notes=None, tags=None, "
        "config=None, config_exclude_keys=None, config_include_keys=None, allow_val_change=None, "
        "group=None, job_type=None, mode=None, force=None, reinit=None, resume=None, "
        "resume_from=None, fork_from=None, save_code=None, tensorboard=None, "
        "sync_tensorboard=None, monitor_gym=None, settings=None, anonymous=None"
    )

    def __init__(self):
        super().__init__("wandb")
        self.runs, self.init = {}, checked(self.INIT, self._init)

    def _init(self, *, project, id, resume, config):
        assert resume == "allow"
        assert not set(id) & set("/\\#?%:")
        old = self.runs.get(id)
        found = self.runs[id] = SimpleNamespace(
            points=old.points if old else {},
            summary=old.summary if old else {},
            first=max(old.points, default=-1) + 1 if old else 0,
            exit_code=None,
            config=config,
        )
        found.log = checked(
            "data, step=None, commit=None",
            lambda data, step: (
                found.points.setdefault(step, []).append(data) if step >= found.first else None
            ),
        )
        found.finish = checked(
            "exit_code=None", lambda exit_code=0: setattr(found, "exit_code", exit_code)
        )
        return found


class FakeMLflow(ModuleType):
    """MLflow 3.17: keeps every point that it is given; parameters cannot change."""

    SIGNATURES = {  # noqa: RUF012
        "start_run": "run_id=None, experiment_id=None, run_name=None, nested=False, "
        "parent_run_id=None, tags=None, description=None, log_system_metrics=None",
        "search_runs": "experiment_ids=None, filter_string='', run_view_type=1, "
        "max_results=100000, order_by=None, output_format='pandas', "
        "search_all_experiments=False, experiment_names=None",
        "log_metrics": "metrics, step=None, synchronous=None, run_id=None, timestamp=None, "
        "model_id=None, dataset=None",
        "log_params": "params, synchronous=None, run_id=None",
        "end_run": "status='FINISHED'",
    }

    def __init__(self):
        super().__init__("mlflow")
        self.runs, self.active = {}, None
        for name, signature in self.SIGNATURES.items():
            setattr(self, name, checked(signature, getattr(self, f"_{name}")))
        history = checked("run_id, key", self._history)
        self.MlflowClient = lambda: SimpleNamespace(get_metric_history=history)

    def _start_run(self, run_id=None, tags=None):
        assert self.active is None, "MLflow has one active run"
        run_id = run_id or f"run {len(self.runs)}"
        self.active = self.runs.setdefault(
            run_id, SimpleNamespace(points=[], params=None, info=SimpleNamespace(run_id=run_id))
        )
        self.active.tags, self.active.status = tags, "RUNNING"
        return self.active

    def _search_runs(self, filter_string, output_format):
        assert output_format == "list"
        (wanted,) = re.fullmatch(r"tags\.run = '(\w+)'", filter_string).groups()
        return [found for found in self.runs.values() if found.tags["run"] == wanted]

    def _log_metrics(self, metrics, step):
        self.active.points += [(key, step, value) for key, value in metrics.items()]

    def _log_params(self, params):
        assert self.active.params in (None, params)
        self.active.params = params

    def _end_run(self, status="FINISHED"):
        assert status in ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")
        self.active.status, self.active = status, None

    def _history(self, run_id, key):
        return [
            SimpleNamespace(step=step)
            for name, step, _ in self.runs[run_id].points
            if name == key
        ]  # fmt: skip


def follow(tracker, processes):
    """Tells a new tracker of each process what a run tells: (first step, last, end)."""
    said = Lines()
    for first, last, end in processes:
        told = Callbacks(said)
        told.start([("tracker", tracker())], RunInfo(INFO.id, "", {"epochs": last}, first, 20, ()))
        for step in range(first + 1, last + 1):
            told.record(row("train", step, loss=float(step)))
            if step % 5 == 0:
                told.record({**row("eval", step, loss=float(step)), "top1": None})
        if end == "finished":
            told.finished({"top1": 0.9})
        elif end is not None:
            told.__exit__(type(end), end, None)
    assert not said


PROCESSES = (
    (0, 8, None),  # a SIGKILL
    (5, 12, Interrupted("stopped", code=143)),
    (12, 13, UsageError("no space")),
    (10, 20, "finished"),
)


def test_weights_and_biases_of_the_docs_has_each_point_once(monkeypatch):
    fake = FakeWandB()
    tracker = docs_tracker("wandb", monkeypatch, fake)
    ends = []
    for count in range(1, len(PROCESSES) + 1):
        fake.runs.clear()
        follow(tracker, PROCESSES[:count])
        ends.append(fake.runs[INFO.id].exit_code)
    (found,) = fake.runs.values()
    assert sorted(found.points) == list(range(1, 21))
    keys = [(step, key) for step, rows in found.points.items() for row in rows for key in row]
    assert len(keys) == len(set(keys))
    assert {"train/loss": 8.0, "train/epoch": 0.8} in found.points[8]
    assert ends == [None, 143, 1, 0]
    assert found.summary == {"top1": 0.9}


def test_mlflow_of_the_docs_has_each_point_once(monkeypatch):
    fake = FakeMLflow()
    tracker = docs_tracker("mlflow", monkeypatch, fake)
    ends = []
    for (_, _, end), processes in zip(
        PROCESSES, itertools.accumulate([[process] for process in PROCESSES]), strict=True
    ):
        fake.runs.clear()
        fake.active = None
        for process in processes:
            follow(tracker, [process])
            if process[2] is None:
                fake.active = None  # a killed process leaves nothing active in the next one
        ends.append(fake.runs["run 0"].status)
        assert end is None or fake.active is None
    (found,) = fake.runs.values()
    points = [(key, step) for key, step, _ in found.points]
    assert len(points) == len(set(points))
    assert {step for key, step in points if key == "train/loss"} == set(range(1, 21))
    assert {step for key, step in points if key == "eval/loss"} == {5, 10, 15, 20}
    assert ends == ["RUNNING", "KILLED", "FAILED", "FINISHED"]
    assert found.params == {"epochs": 8}
