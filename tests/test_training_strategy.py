"""Which devices a run gets, and what is said where they are not there."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from test_training_equality import free_ports

from keras_resnet.config import default_config
from keras_resnet.errors import UsageError, UserError
from keras_resnet.training.introduction import introduction_of
from keras_resnet.training.tensorflow import cluster, meeting, strategy


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
        meeting.wait_for_hosts(cluster.Cluster((ours, dead), 0), 0.3, {})


def test_a_taken_port_is_named():
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(UserError, match=f"our own address {address} cannot be taken"):
            meeting.wait_for_hosts(cluster.Cluster((address, "127.0.0.1:1"), 0), 1, {})


def bound(address):
    """A server at the address, as TensorFlow's is once the hosts have met."""
    return socket.create_server(("", int(address.rpartition(":")[2])))


def meet(*introductions, timeout=20):
    """What each of the hosts with these introductions gets to hear; None if all is well."""
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(len(introductions)))
    heard = [None] * len(introductions)

    def host(index):
        try:
            meeting.wait_for_hosts(cluster.Cluster(addresses, index), timeout, introductions[index])
        except UserError as error:
            heard[index] = str(error)

    threads = [threading.Thread(target=host, args=(i,)) for i in range(len(introductions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return addresses, heard


def test_hosts_that_agree_meet():
    config = default_config()
    _, heard = meet(*[introduction_of(config)] * 5)
    assert heard == [None] * 5


def test_every_host_hears_which_one_differs_in_which_key():
    config, other = default_config(), default_config()
    other.optimizer.learning_rate = 0.7
    other.data.path, other.connect_timeout = "/elsewhere", 7.0  # these are a host's own affair
    addresses, heard = meet(
        introduction_of(config), introduction_of(other), introduction_of(config)
    )
    for index, differs in ((0, addresses[1]), (2, addresses[1]), (1, addresses[0])):
        assert f"this host and {differs} do not train the same" in heard[index]
        assert "config.optimizer.learning_rate is 0." in heard[index]
        assert "0.7" in heard[index]
        assert "data.path" not in heard[index]
        assert "connect_timeout is" not in heard[index]


def test_another_code_is_named():
    ours = introduction_of(default_config())
    _, heard = meet(ours, {**ours, "the code of keras_resnet": "0.0.1 0123"})
    assert all("the code of keras_resnet is " in line for line in heard)


@pytest.mark.parametrize("words", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"[]\n", b"x" * 50])
def test_a_stranger_at_the_address_does_not_hold_us(words):
    """Something accepts the call and says nothing, or something else, for ever."""
    (ours,) = (f"127.0.0.1:{port}" for port in free_ports(1))
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        address = f"127.0.0.1:{stranger.getsockname()[1]}"
        held = []

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = stranger.accept()
                    held.append(connection)
                    connection.sendall(words)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        begin = time.monotonic()
        with pytest.raises(UserError, match=f"{address}.*something else than keras-resnet"):
            meeting.wait_for_hosts(cluster.Cluster((ours, address), 0), 0.5, {})
        assert time.monotonic() - begin < 10  # at 0.5 s it hung for ever
        for connection in held:
            connection.close()


def test_strangers_that_call_do_not_disturb():
    """A scanner holds lines open and talks nonsense at our address while the hosts meet."""
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(2))
    first = threading.Thread(
        target=meeting.wait_for_hosts, args=(cluster.Cluster(addresses, 0), 20, {})
    )
    first.start()
    host, port = addresses[0].split(":")
    lines = []
    for words in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff\xfe\n", b"{}\n", b"null\n"):
        with contextlib.suppress(OSError):
            lines.append(socket.create_connection((host, int(port)), 5))
            lines[-1].sendall(words)
    meeting.wait_for_hosts(cluster.Cluster(addresses, 1), 20, {})
    first.join(20)
    assert not first.is_alive()
    for line in lines:
        line.close()


def test_hosts_wait_for_each_other():
    """The second comes later; whoever is through opens TensorFlow's server at the same port."""
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(2))
    through = [threading.Event(), threading.Event()]

    def start(index):
        meeting.wait_for_hosts(cluster.Cluster(addresses, index), 30, {"config.seed": 1})
        with bound(addresses[index]):
            through[index].set()
            through[1 - index].wait(30)

    late = threading.Timer(0.5, start, args=(1,))
    late.start()
    start(0)
    late.join()
    assert all(event.is_set() for event in through)


@pytest.mark.ci
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
