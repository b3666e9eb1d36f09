"""Which devices a run gets, and what is said where they are not there."""

import json
import os
import socket
import subprocess
import sys
import threading

import pytest
from test_training_equality import free_ports

from keras_resnet.errors import UsageError, UserError
from keras_resnet.training.tensorflow import cluster, strategy


def tf_config(workers, index=0, kind="worker", **jobs):
    return json.dumps(
        {"cluster": {"worker": workers, **jobs}, "task": {"type": kind, "index": index}}
    )


@pytest.mark.parametrize(("devices", "replicas"), [(0, 4), (2, 2), (3, 3), (1, 1)])
def test_mirrored_takes_the_devices_asked_for(devices, replicas):
    assert strategy.make_strategy("mirrored", devices).num_replicas_in_sync == replicas


def test_auto_takes_several_devices_where_they_are_asked_for():
    assert strategy.make_strategy("auto", 2).num_replicas_in_sync == 2
    assert strategy.make_strategy("auto").num_replicas_in_sync == 1


def test_devices_that_cannot_be():
    with pytest.raises(UserError, match=r"devices=9: TensorFlow has started with 4 logical CPUs"):
        strategy.make_strategy("mirrored", 9)
    with pytest.raises(UsageError, match=r"devices=2 is for strategy=mirrored; cpu uses one"):
        strategy.make_strategy("cpu", 2)


def test_the_cpu_is_split_in_a_new_process():
    program = (
        "from keras_resnet.training.tensorflow.strategy import describe, make_strategy\n"
        "print(describe(make_strategy('mirrored', 3)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split("\n")[-2] == "MirroredStrategy on 3 × CPU", done.stderr


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "no JSON"),
        ("[]", "TypeError"),
        ('{"cluster": {"worker": ["a:1"]}}', "KeyError 'task'"),
        (tf_config(["a:1", "b:2"], index=2), "this task is worker 2, but the cluster has 2"),
        (tf_config(["a:1"], kind="chief"), "this task is chief 0, but the cluster has 0"),
        (tf_config(["a:1", "b"]), "'b' is no host:port"),
        (tf_config(["a:1", "b:99999"]), "'b:99999' is no host:port"),
        (tf_config(["a:1", "a:1"]), "twice"),
        (tf_config(["a:1"], ps=["b:2"]), "type ps have no place"),
    ],
)
def test_broken_tf_config_is_quoted(monkeypatch, text, reason):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError) as error:
        strategy.make_strategy("multi_worker")
    assert reason in str(error.value)
    assert repr(text) in str(error.value)
    assert "\n" not in str(error.value)


def test_multi_worker_without_a_cluster(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    with pytest.raises(UserError, match="neither TF_CONFIG is set nor did srun"):
        strategy.make_strategy("multi_worker")


def test_chief_comes_first(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_config(["b:2", "c:3"], index=1, chief=["a:1"]))
    assert cluster.resolve() == cluster.Cluster(("a:1", "b:2", "c:3"), 2)


def test_slurm(monkeypatch):
    """Two nodes with two tasks each; this process is the third."""
    for key, value in {
        "SLURM_PROCID": "2",
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_STEP_NODELIST": "node[07-08]",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
        "SLURM_JOB_ID": "20005",
    }.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("TF_CONFIG", "")
    assert cluster.announced()
    found = cluster.resolve()
    assert found == cluster.Cluster(
        ("node07:12005", "node07:12006", "node08:12005", "node08:12006"), 2
    )
    assert cluster.from_tf_config() == found  # TensorFlow reads it from there


def test_dead_hosts_are_named_after_the_time_out():
    ours, dead = (f"127.0.0.1:{port}" for port in free_ports(2))
    with pytest.raises(UserError, match=rf"no answer from {dead} \(.*\) within 0.3 s"):
        cluster.wait_for_hosts(cluster.Cluster((ours, dead), 0), timeout=0.3)


def test_a_taken_port_is_named():
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(UserError, match=f"our own address {address} cannot be taken"):
            cluster.wait_for_hosts(cluster.Cluster((address, "127.0.0.1:1"), 0), timeout=1)


def test_hosts_wait_for_each_other():
    """The second comes later; whoever is through opens TensorFlow's server at the same port."""
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(2))
    through = [threading.Event(), threading.Event()]

    def start(index):
        cluster.wait_for_hosts(cluster.Cluster(addresses, index), timeout=30)
        with cluster._listening(addresses[index]):
            through[index].set()
            through[1 - index].wait(30)

    late = threading.Timer(0.5, start, args=(1,))
    late.start()
    start(0)
    late.join()
    assert all(event.is_set() for event in through)


def test_dead_hosts_from_the_shell(tmp_path):
    """One line and exit code 1, no hang and no stack trace."""
    ours, dead = (f"127.0.0.1:{port}" for port in free_ports(2))
    command = [sys.executable, "-m", "keras_resnet_cli", "train", "--config=smoke"]
    options = ["--config.strategy=multi_worker", "--config.connect_timeout=0.5"]
    done = subprocess.run(
        [*command, f"--workdir={tmp_path / 'w'}", *options],
        env={**os.environ, "TF_CONFIG": tf_config([ours, dead])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert dead in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "w" / "config.json").exists()
