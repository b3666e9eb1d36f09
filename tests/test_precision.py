"""precision=auto: what it comes to on which devices, and that a run keeps it."""

from types import SimpleNamespace

import pytest
import tensorflow as tf
from conftest import mirrored_strategy
from run_helpers import tiny_config

from keras_resnet import backend
from keras_resnet.config import CONFIG_VERSION, default_config, merge, to_json
from keras_resnet.config.records import keep_older_defaults
from keras_resnet.training import run
from keras_resnet.training.tensorflow import hosts, precision
from keras_resnet.training.workdir import WorkDir


@pytest.fixture
def amx(monkeypatch):
    """Says whether the processor has AMX."""

    def has(value):
        monkeypatch.setattr(precision, "cpu_multiplies_bfloat16", lambda: value)

    return has


@pytest.mark.parametrize(
    ("capabilities", "native"),
    [([(8, 0)], True), ([(9, 0), (8, 6)], True), ([(7, 5)], False), ([(9, 0), (7, 0)], False)],
)
def test_gpus_since_ampere_multiply_bfloat16(capabilities, native, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: capabilities)
    details = SimpleNamespace(get_device_details=lambda entry: {"compute_capability": entry})
    monkeypatch.setattr(tf.config, "experimental", details)
    assert precision.multiplies_bfloat16("GPU") is native
    assert precision.multiplies_bfloat16("TPU") is True


def test_gpus_of_which_nothing_is_known_stay_in_float32(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["gpu"])
    details = SimpleNamespace(get_device_details=lambda entry: {})
    monkeypatch.setattr(tf.config, "experimental", details)
    assert precision.multiplies_bfloat16("GPU") is False


@pytest.mark.parametrize(
    ("flags", "native"), [("avx512_bf16 amx_bf16 amx_tile", True), ("avx2 avx512_bf16", False)]
)
def test_processors_with_amx(flags, native, monkeypatch, tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"flags\t: fpu {flags}\n")
    monkeypatch.setattr(backend, "Path", lambda path: cpuinfo)
    assert backend.cpu_multiplies_bfloat16() is native


@pytest.mark.parametrize(("has_amx", "others", "expected"), [
    (True, 1.0, "mixed_bfloat16"), (True, 0.5, "float32"), (False, 0.0, "float32"),
])  # fmt: skip
def test_all_hosts_have_to(has_amx, others, expected, amx, monkeypatch):
    amx(has_amx)
    monkeypatch.setattr(hosts, "mean", lambda strategy, value: others)
    config = tiny_config(precision="auto")
    strategy = mirrored_strategy(1)
    assert precision.resolve_precision(config, strategy).precision == expected
    assert config.precision == "auto"
    for chosen in ("float32", "mixed_bfloat16"):
        config.precision = chosen
        assert precision.resolve_precision(config, strategy) is config


def test_it_is_the_default_and_runs_begun_before_stay_in_float32():
    assert default_config().precision == "auto"
    for version in (1, 2):
        text = to_json(merge(default_config(), {"precision": "float32"}, "here"))
        text = text.replace(f'"config_version": {CONFIG_VERSION}', f'"config_version": {version}')
        assert keep_older_defaults(default_config(), text, "config.json").precision == "float32"


@pytest.mark.ci
def test_a_run_records_it_and_keeps_it_elsewhere(amx, tmp_path, capsys):
    config = tiny_config(precision="auto", epochs=1, deterministic=False)
    amx(True)
    run.train(config, tmp_path)
    assert "precision  mixed_bfloat16, as precision=auto" in capsys.readouterr().out
    assert WorkDir(tmp_path).read_config().precision == "mixed_bfloat16"
    amx(False)
    run.train(config, tmp_path)
    assert "CPU, mixed_bfloat16, xla" in capsys.readouterr().out
    assert config.precision == "auto"
    run.train(config, tmp_path / "other")
    assert WorkDir(tmp_path / "other").read_config().precision == "float32"
