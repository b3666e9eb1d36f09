"""keras-resnet doctor: what it finds on broken and on whole installations."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from keras_resnet.commands import doctor, main
from keras_resnet.commands.doctor.findings import SINGLE_HOST

ROOT = Path(__file__).parent.parent
WHOLE = {
    "versions": {"tensorflow": "2.21.0", "keras": "3.15.1"},
    "variables": {},
    "hardware": {"nvidia": False, "tpu": False},
    "tensorflow": {"devices": [["CPU:0", "CPU"]], "gpus": [], "cuda": None},
}
TPU = {
    "versions": {"tensorflow-tpu": "2.20.0", "keras": "3.15.1", "libtpu": "0.0.14"},
    "variables": dict.fromkeys(("TPU_NAME", *SINGLE_HOST), "x") | {"TPU_NAME": "local"},
    "hardware": {"nvidia": False, "tpu": True},
    "tensorflow": {**WHOLE["tensorflow"], "tpus": 8},
}


JAX = {
    **WHOLE,
    "versions": {**WHOLE["versions"], "jax": "0.10.2"},
    "jax": {"devices": [["0", "CPU", "cpu"]]},
}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch, tmp_path):
    for name in doctor.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))


def problems(base, **changes):
    facts = json.loads(json.dumps(base))
    for key, value in changes.items():
        facts[key] = {**facts[key], **value}
        facts[key] = {name: entry for name, entry in facts[key].items() if entry != "gone"}
    return [f"{problem}: {remedy}" for problem, remedy in doctor.find_problems(facts)]


def test_whole_installations_have_no_problems():
    assert problems(WHOLE) == []
    assert problems(TPU) == []
    # A pod, and a GPU machine.
    single = dict.fromkeys(SINGLE_HOST, "gone")
    assert problems(TPU, variables={**single, "TPU_NAME": "pod"}) == []
    assert problems(WHOLE, hardware={"nvidia": True}, tensorflow={"gpus": ["H100"]}) == []
    # JAX on a TPU, and on a GPU, beside tensorflow-cpu.
    small = {"tensorflow": "gone", "tensorflow-cpu": "2.21.0"}
    on_tpu = {"devices": [["0", "TPU", "TPU v6 lite"]]}
    versions = {**small, "libtpu": "0.0.52"}
    assert problems(JAX, versions=versions, hardware={"tpu": True}, jax=on_tpu) == []
    on_gpu = {"devices": [["0", "GPU", "NVIDIA H100"]]}
    versions = {**small, "jax-cuda12-plugin": "0.10.2"}
    assert problems(JAX, versions=versions, hardware={"nvidia": True}, jax=on_gpu) == []


@pytest.mark.parametrize(
    ("base", "changes", "quoted"),
    [
        (WHOLE, {"versions": {"tensorflow": "gone"}}, "[tpu] for Cloud TPU"),
        (WHOLE, {"versions": {"tensorflow-cpu": "2.21.0"}}, "pip uninstall tensorflow tensorflow-"),
        (WHOLE, {"versions": {"tensorflow": "2.18.0"}}, "2.18.0 is not between 2.19.1 and 2.21"),
        (WHOLE, {"versions": {"tensorflow": "2.22.0"}}, "2.22.0 is not between 2.19.1 and 2.21"),
        (WHOLE, {"versions": {"keras": "3.9.2"}}, "pip install 'keras>=3.10'"),
        (WHOLE, {"versions": {"keras-resnet": "0.2.0"}}, "pip uninstall keras-resnet, then"),
        (WHOLE, {"tensorflow": {"error": "crashed with signal 4"}}, "crashed with signal 4"),
        (
            WHOLE,
            {"tensorflow": {"error": "ImportError: cannot import name 'runtime_version'"}},
            "tensorflow-metadata<1.18",
        ),
        (WHOLE, {"variables": {"TF_USE_LEGACY_KERAS": "1"}}, "Keras 2"),
        (WHOLE, {"variables": {"TF_CONFIG": "{cluster"}}, "TF_CONFIG is no JSON"),
        (WHOLE, {"hardware": {"nvidia": True}}, "TensorFlow does not see it"),
        (
            WHOLE,
            {"hardware": {"nvidia": True}, "variables": {"CUDA_VISIBLE_DEVICES": "-1"}},
            "unset CUDA_VISIBLE_DEVICES",
        ),
        (
            WHOLE,
            {
                "hardware": {"nvidia": True},
                "versions": {"tensorflow": "gone", "tensorflow-cpu": "2.21.0"},
            },
            "keras-resnet-tpu[gpu]",
        ),
        (WHOLE, {"hardware": {"tpu": True}}, "this is a TPU VM: of the flavors"),
        (WHOLE, {"variables": {"TPU_NAME": "local"}}, "TPU_NAME='local' asks for a TPU"),
        (TPU, {"variables": {"PJRT_DEVICE": "gone"}}, "PJRT_DEVICE not set: start with run_tpu.sh"),
        (TPU, {"variables": {"TPU_NAME": "my-pod"}}, "TPU_NAME='my-pod' is a pod"),
        (TPU, {"versions": {"libtpu": "gone"}}, "libtpu is not installed"),
        (TPU, {"tensorflow": {"tpu_error": "TPUs not found"}}, "no TPU at TPU_NAME='local': TPUs"),
        (TPU, {"variables": {"TPU_ACCELERATOR_TYPE": "tpu7x-8"}}, "does not run on TPU7x"),
        (JAX, {"jax": {"error": "The TPU is already in use by process 7"}}, "JAX does not start"),
        (JAX, {"versions": {"jax-cuda12-plugin": "0.10.2"}}, "reads images with tensorflow-cpu"),
        (JAX, {"hardware": {"nvidia": True}, "tensorflow": {"gpus": ["H100"]}}, "[jax-cuda]"),
        (
            TPU,
            {"versions": {"jax": "0.10.2", "libtpu": "0.0.52"}},
            "libtpu 0.0.52 is JAX's; tensorflow-tpu ends",
        ),
    ],
)
def test_each_problem_is_found_once_with_its_remedy(base, changes, quoted):
    (found,) = problems(base, **changes)
    assert quoted in found


def test_another_backend_is_a_problem(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    (found,) = problems(WHOLE, variables={"KERAS_BACKEND": "jax"})
    assert "Keras' backend is 'jax' (KERAS_BACKEND), and JAX is not installed" in found
    assert problems(JAX, variables={"KERAS_BACKEND": "jax"}) == []
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    (found,) = problems(WHOLE, variables={"KERAS_BACKEND": "torch"})
    assert "Keras' backend is 'torch' (KERAS_BACKEND), and training runs on tensorflow or jax" in (
        found
    )


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("import os; os.abort()", "crashed with signal 6"),
        ("import time; time.sleep(60)", "did not start within 0.5 seconds"),
        ("raise ImportError('libcudart.so.12: no such file')", "ImportError: libcudart.so.12"),
        ("raise SystemExit(7)", "ended with exit code 7"),
    ],
)
def test_a_tensorflow_that_fails_is_a_finding(program, error):
    timeout = 0.5 if "sleep" in program else 60
    assert error in doctor.probe(timeout, program)["error"]


def test_the_command_sees_this_machine(capsys, monkeypatch):
    import tensorflow as tf

    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_clustering_debug")
    code = main(["doctor", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert code == (1 if facts["problems"] else 0)
    assert facts["tensorflow"]["version"] == tf.__version__
    assert ["/physical_device:CPU:0", "CPU"] in facts["tensorflow"]["devices"]
    assert facts["variables"]["TF_XLA_FLAGS"] == "--tf_xla_clustering_debug"
    text = doctor.describe(facts)
    for expected in (tf.__version__, "--tf_xla_clustering_debug", sys.executable, "CPU  1"):
        assert expected in text


def test_it_works_without_tensorflow():
    """In a Python that has nothing but absl, which parses the flags."""
    import absl

    packages = Path(absl.__file__).parent.parent
    program = (
        "import sys, pathlib, importlib.machinery, types\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        f"spec = importlib.machinery.PathFinder.find_spec('absl', [{str(packages)!r}])\n"
        "import importlib.util; absl = importlib.util.module_from_spec(spec)\n"
        "sys.modules['absl'] = absl; spec.loader.exec_module(absl)\n"
        "import keras_resnet_cli; keras_resnet_cli.defer_loading()\n"
        "from keras_resnet.commands import main; sys.exit(main(['doctor']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        capture_output=True,
        text=True,
        env={key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ},
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    assert "* TensorFlow is not installed" in done.stdout
    assert "pip install 'keras-resnet-tpu[cpu]'" in done.stdout


def test_flags_that_a_config_recommends(tmp_path, capsys):
    def recommended(*arguments):
        assert main(["libtpu-flags", *arguments]) == 0
        return capsys.readouterr().out

    config = tmp_path / "my config.py"
    config.write_text("def get_config():\n    return {'libtpu_init_args': '--xla_a=1 --xla_b=2'}\n")
    assert recommended("train", f"--config={config}", "--workdir=w") == "--xla_a=1 --xla_b=2\n"
    override = "--config.libtpu_init_args=--xla_c=3"
    assert recommended("train", f"--config={config}", override) == "--xla_c=3\n"
    assert recommended("train", "--config=digits", "--unknown") == "\n"
    assert recommended("evaluate", "--workdir=w") == "\n"
    assert main(["libtpu-flags", "train", "--config=digitz"]) == 2
    assert "Did you mean 'digits'" in capsys.readouterr().err
