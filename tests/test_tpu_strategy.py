"""strategy=tpu on a machine without one: what is refused, and how it reads."""

import pytest

from keras_resnet.config import load_config
from keras_resnet.errors import UserError
from keras_resnet.training import run
from keras_resnet.training.tensorflow.strategy import check_pod, make_strategy


def config(**changes):
    made = load_config("smoke")
    made.data.update(path="gs://bucket/tfds", cache="none")
    for key, value in changes.items():
        made[key] = value
    return made


def test_a_pod_needs_everything_in_buckets(monkeypatch):
    monkeypatch.setenv("TPU_NAME", "my-pod")
    check_pod(config(), "gs://bucket/run")
    with pytest.raises(UserError, match=r"'my-pod' is a pod: --workdir='runs/x' must be in gs://"):
        check_pod(config(), "runs/x")
    local = config()
    local.data.path = "/data"
    with pytest.raises(UserError, match=r"config.data.path='/data' must be in gs://"):
        check_pod(local, "gs://bucket/run")


@pytest.mark.parametrize(
    ("key", "value", "needed"),
    [
        ("cache", "auto", "none"),
        ("cache", "memory", "none"),
        ("cache", "file", "none"),
        ("on_error", "skip", "stop"),
    ],
)
def test_a_pod_has_no_python_of_ours_beside_its_data(key, value, needed, monkeypatch):
    made = config()
    made.data[key] = value
    check_pod(made, "runs/x")
    monkeypatch.setenv("TPU_NAME", "my-pod")
    with pytest.raises(UserError, match=rf"config.data.{key}='{value}' must be '{needed}'"):
        check_pod(made, "gs://bucket/run")
    with pytest.raises(UserError, match="is a pod"):
        run.train(made, "gs://bucket/run")
    made.data.source = "synthetic"  # is made where it is used
    check_pod(made, "gs://bucket/run")


@pytest.mark.parametrize("name", ["", "local", None])
def test_one_host_may_have_local_paths(monkeypatch, name):
    if name is None:
        monkeypatch.delenv("TPU_NAME", raising=False)
    else:
        monkeypatch.setenv("TPU_NAME", name)
    check_pod(config(), "runs/x")


def test_the_name_of_a_pod_is_nothing_to_other_strategies(monkeypatch):
    monkeypatch.setenv("TPU_NAME", "my-pod")
    check_pod(config(strategy="cpu"), "runs/x")


def test_without_a_tpu_one_line_says_what_to_do(monkeypatch):
    monkeypatch.setenv("TPU_NAME", "local")
    with pytest.raises(UserError, match=r"no TPU at TPU_NAME='local'.*keras-resnet-tpu\[tpu\]"):
        make_strategy("tpu")
