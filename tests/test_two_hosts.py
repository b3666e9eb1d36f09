"""Two processes that train together over loopback: what one of them writes and calls, and mAP."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from run_helpers import start
from test_training_equality import free_ports

import keras_resnet
from keras_resnet.training.workdir import WorkDir

pytestmark = pytest.mark.ci

CLASSES = ["blue", "green", "red"]
# Which of the hosts is told of the run, and which of them writes the report and the result.
WITNESS = """
import os, sys
sys.path.insert(0, {folder!r})
host, move = {host}, os.replace
def replace(source, target, **options):
    if os.path.basename(target) in ("report.html", "result.json", "classes.csv", "model.keras"):
        with open(os.path.join({folder!r}, "written.csv"), "a") as file:
            print(host, os.path.basename(target), sep=",", file=file)
    return move(source, target, **options)
os.replace = replace
"""
TRACKER = """
import os
from keras_resnet.training.callbacks import Callback

class Tracker(Callback):
    def started(self, run):
        self.write("started")
    def trained(self, row):
        self.write("trained")
    def evaluated(self, row):
        self.write("evaluated")
    def finished(self, result):
        self.write("finished")
    def write(self, what):
        with open(os.path.join(os.path.dirname(__file__), "told.csv"), "a") as file:
            print(os.getpid(), what, sep=",", file=file)
"""
CHANGES = {
    "batch_size": 24,
    "epochs": 2,
    "deterministic": False,
    "report": True,
    "model__synchronized_norm": True,
    "model__drop_path_rate": 0.0,
    "model__dropout_rate": 0.0,
    "data__source": "image_folder",
    "data__multi_label": True,
    "data__image_size": 16,
    # 31 and 29: the last batch of each is part full.
    "data__train_split": "train[:60]",
    "data__eval_split": "train[60:91]",
    "data__test_split": "train[91:120]",
    "loss__name": "binary",
    "checkpoint__model": "newest",
    "training__callbacks": "tracker:Tracker",
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """120 images in which any of three colors may be."""
    folder = tmp_path_factory.mktemp("colors")
    random = np.random.default_rng(0)
    rows = ["path,label"]
    for number in range(120):
        pixels = random.integers(0, 80, (16, 16, 3), "uint8")
        there = random.uniform(size=3) < 0.4
        for channel in np.flatnonzero(there):
            top, left = random.integers(0, 8, 2)
            pixels[top : top + 8, left : left + 8, channel] += 150
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
        labels = [CLASSES[2 - channel] for channel in np.flatnonzero(there)]
        rows.append(f"{number:03}.png,{'|'.join(labels)}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder / "labels.csv"


def _train(folder, table, hosts):
    """Trains in so many processes; returns their ids and outputs."""
    folder.mkdir()
    (folder / "tracker.py").write_text(TRACKER)
    addresses = [f"127.0.0.1:{port}" for port in free_ports(hosts)]
    processes = []
    for index in range(hosts):
        prelude = WITNESS.format(folder=str(folder), host=index)
        if hosts > 1:
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            prelude += f"os.environ['TF_CONFIG'] = {json.dumps(task)!r}"
        strategy = "multi_worker" if hosts > 1 else "cpu"
        changes = {**CHANGES, "data__path": table, "strategy": strategy}
        processes.append(start(folder / "run", prelude, **changes))
    outputs = [process.communicate(timeout=900)[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output
    return [process.pid for process in processes], outputs


def _rows(file):
    with file.open(newline="") as opened:
        return [tuple(row) for row in csv.reader(opened)]


def test_two_hosts_train_as_one_process_and_one_of_them_writes(table, tmp_path):
    pids, outputs = _train(tmp_path / "two", table, 2)
    told = _rows(tmp_path / "two" / "told.csv")
    assert {pid for pid, _ in told} == {str(pids[0])}
    events = [what for _, what in told]
    assert (events[0], events[-1], events.count("evaluated")) == ("started", "finished", 2)
    written = _rows(tmp_path / "two" / "written.csv")
    names = ["classes.csv", "model.keras", "report.html", "result.json"]
    assert sorted(name for host, name in written if host == "0") == names
    assert "report.html" in outputs[0]
    assert "report.html" not in outputs[1]
    _train(tmp_path / "one", table, 1)
    two, one = (WorkDir(tmp_path / name / "run") for name in ("two", "one"))
    result, alone = two.read_result(), one.read_result()
    assert (result["examples"], result["test_examples"]) == (31, 29)
    # By one process, of the weights that two have made: each image counts once.
    for split, name in (("train[60:91]", "map"), ("train[91:120]", "test_map")):
        judged = keras_resnet.evaluate(two.model, table, split=split)
        assert judged.map == pytest.approx(result[name], abs=1e-6)
    # Those that one has made differ by rounding.
    for name in ("map", "test_map", "loss", "test_loss"):
        assert result[name] == pytest.approx(alone[name], rel=2e-3, abs=2e-3), name
    assert result.keys() == alone.keys()
    page, page_alone = (folder.report.read_text() for folder in (two, one))
    assert "mean of the average precisions" in page
    assert page.count("<section") == page_alone.count("<section")
