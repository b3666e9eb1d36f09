"""One device, replicas and worker processes train the same network: losses, weights, metrics.

float32 on CPU, 20 steps with synchronized batch norm. Replicas add up in another order, so that
losses differ by rounding: relative 1e-5 is the bound.
"""

import functools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import mirrored_strategy
from training_runs import run, tiny_config

from keras_resnet.training.tensorflow.strategy import make_strategy

VARIANTS = {
    "sgd": {},
    # Everything that could see its own part only: the norm of the gradient, the parts of the
    # batch, the pairs that are mixed, the averaged weights.
    "everything": {
        "accumulate_steps": 2,
        "optimizer": {"name": "lars", "nesterov": False, "learning_rate": 2.0, "clip_norm": 1.0},
        "ema": {"decay": 0.9},
        "data": {"augment": {"mixup": 0.2, "flip": True}},
        "loss": {"label_smoothing": 0.1},
    },
    "sizes": {
        "accumulate_steps": 2,
        "ema": {"decay": 0.9},
        "data": {"image_size": "8@0.35,12@0.7,16", "augment": {"cutmix": 1.0}},
        "evaluation": {"image_size": 12},
    },
}


@functools.cache
def alone(variant):
    return run(tiny_config(**VARIANTS[variant]), make_strategy("cpu"))


def assert_same(ours, theirs):
    np.testing.assert_allclose(ours["losses"], theirs["losses"], rtol=1e-5)
    np.testing.assert_allclose(ours["of_teacher"], theirs["of_teacher"], rtol=1e-5)
    np.testing.assert_allclose(ours["norms"], theirs["norms"], rtol=1e-4)
    assert ours["gradient_norms"] == pytest.approx(theirs["gradient_norms"], rel=1e-3)
    assert ours["temperature"] == pytest.approx(theirs["temperature"], rel=1e-4)
    assert ours["confusion"] == theirs["confusion"]
    for key in ("examples", "top1", "top5"):
        assert ours["evaluation"][key] == theirs["evaluation"][key]
    assert ours["evaluation"]["loss"] == pytest.approx(theirs["evaluation"]["loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("variant", "replicas"),
    [
        pytest.param("sgd", 4, marks=pytest.mark.slow),
        pytest.param("everything", 2, marks=pytest.mark.ci),
        pytest.param("sgd", 2, marks=pytest.mark.ci),
        pytest.param("sizes", 2, marks=pytest.mark.ci),
        pytest.param("everything", 4, marks=pytest.mark.slow),
    ],
)
def test_replicas_train_what_one_device_trains(variant, replicas):
    assert_same(run(tiny_config(**VARIANTS[variant]), mirrored_strategy(replicas)), alone(variant))


@pytest.mark.slow  # each process traces for itself: minutes on two cores
@pytest.mark.parametrize("variant", VARIANTS)
def test_workers_train_what_one_device_trains(variant):
    results = run_workers(VARIANTS[variant])
    assert results[0] == results[1]
    assert_same(results[0], alone(variant))


def run_workers(groups):
    """Runs two worker processes over loopback; returns what each one printed."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    program = str(Path(__file__).with_name("training_runs.py"))
    workers = [
        subprocess.Popen(
            [sys.executable, program, json.dumps(groups)],
            env={
                **os.environ,
                "TF_CONFIG": json.dumps(
                    {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
                ),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        outputs = [worker.communicate(timeout=600) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    results = []
    for out, err in outputs:
        lines = [line for line in out.splitlines() if line.startswith("result ")]
        assert lines, err[-3000:]
        results.append(json.loads(lines[-1].removeprefix("result ")))
    return results


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
