"""A run that is told of other processes in a way its engine passes by does not train alone."""

import json

import pytest

from keras_resnet import config as configs
from keras_resnet.errors import UsageError, UserError
from keras_resnet.training import cohort
from keras_resnet.training.tensorflow import cluster
from keras_resnet.training.tensorflow.strategy import check_told_as_tensorflow_is

VARIABLES = (
    *("TF_CONFIG", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    *("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"),
)
TF_CONFIG = json.dumps(
    {"cluster": {"chief": ["a:1"], "worker": ["b:2"]}, "task": {"type": "worker", "index": 0}}
)


@pytest.fixture(autouse=True)
def nothing_is_said(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def told(strategy="auto", **values):
    config = configs.load_config("smoke")
    config.strategy = strategy
    config.distributed.update(values)
    return config


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, ""),
        ({"num_processes": 1}, ""),
        ({"num_processes": 1, "process_id": 0}, ""),
        ({"process_id": 1}, "config.distributed.process_id=1"),
        ({"process_id": 0}, "config.distributed.process_id=0"),
        ({"coordinator": "a:1"}, "config.distributed.coordinator='a:1'"),
        ({"num_processes": 2}, "config.distributed.num_processes=2"),
    ],
)
def test_each_key_says_that_there_are_others(values, said, tmp_path, monkeypatch):
    config = told(**values)
    assert cohort.told_to_jax(config) == said
    if not said:
        check_told_as_tensorflow_is(config, tmp_path)
        return
    with pytest.raises(UsageError, match=r"set config.engine=jax, or TF_CONFIG") as caught:
        check_told_as_tensorflow_is(config, tmp_path)
    assert str(caught.value).startswith(said)
    monkeypatch.setenv("TF_CONFIG", TF_CONFIG)  # told in its own way as well
    check_told_as_tensorflow_is(config, tmp_path)


def test_what_jax_began_in_processes_may_go_on_on_tensorflow(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    check_told_as_tensorflow_is(told(num_processes=2), tmp_path)


def test_jax_passes_over_nothing_that_names_others(monkeypatch):
    pytest.importorskip("jax")
    from keras_resnet.training.jax import processes

    processes.check_told_as_jax_is(told())
    with pytest.raises(UsageError, match=r"num_processes=2: config.strategy='cpu' trains in this"):
        processes.check_told_as_jax_is(told("cpu", num_processes=2))
    assert processes.announced(told(process_id=1))
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    assert processes.announced(told())
    monkeypatch.delenv("JAX_NUM_PROCESSES")
    monkeypatch.setenv("TF_CONFIG", TF_CONFIG)
    with pytest.raises(UsageError, match="TF_CONFIG names 2 hosts, but engine=jax does not read"):
        processes.check_told_as_jax_is(told())
    processes.check_told_as_jax_is(told(coordinator="a:1"))
    processes.check_told_as_jax_is(told("cpu"))


def test_variables_of_a_cluster_that_are_no_numbers(monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "two")
    with pytest.raises(UserError, match="SLURM_STEP_NUM_TASKS='two' is no whole number"):
        cluster.announced()
    assert cohort.number_of("SLURM_JOB_ID_THAT_IS_NOT", 7) == 7


@pytest.mark.parametrize(
    ("text", "hosts"),
    [("", 0), ("{", 0), ("[]", 0), ('{"cluster": {"worker": 1}}', 0), (TF_CONFIG, 2)],
)
def test_hosts_of_tf_config(text, hosts, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    assert cohort.hosts_of_tf_config() == hosts


def test_a_run_of_several_is_evaluated_by_one(tmp_path):
    from keras_resnet.training.workdir import WorkDir

    config = told(coordinator="a:1", num_processes=2, process_id=0)
    (tmp_path / "config.json").write_text(configs.to_json(config))
    workdir = WorkDir(tmp_path)
    assert cohort.told_to_jax(workdir.read_config())
    assert not cohort.told_to_jax(workdir.read_config_for_one())
