"""The command line: dispatch, exit codes, one-line errors, packaging."""

import importlib
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from keras_resnet.commands import COMMANDS, main

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_line_and_its_help(name, capsys):
    assert main(["--help"]) == 0
    command = importlib.import_module(COMMANDS[name])
    assert f"{name:<15}{command.SUMMARY}" in capsys.readouterr().out
    assert main([name, "--help"]) == 0
    assert f"usage: keras-resnet {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "quoted"),
    [
        (["trian"], 2, "'trian' is not a command. Did you mean 'train'"),
        (["train"], 2, "--config is missing"),
        (["train", "--config=digits"], 2, "--workdir is missing"),
        (["train", "--config=digitz", "--workdir=w"], 2, "Did you mean 'digits'"),
        (["train", "--conf=digits", "--workdir=w"], 2, "conf"),
        (["train", "digits", "--workdir=w"], 2, "'digits'"),
        (["train", "--config=digits", "--workdir=w", "--config.epochs=ten"], 2, "ten"),
        (["train", "--config=digits", "--workdir=w", "--config.epoch=3"], 2, "'epochs'"),
        (
            ["train", "--config=digits", "--workdir=w", "--config.model.name=ResNet20"],
            2,
            "ResNet20",
        ),
        (["train", "--workdr=w"], 2, "there is no flag --workdr. Did you mean '--workdir'?"),
        (["train", "--xyz"], 2, "there is no flag --xyz. --help lists the flags."),
        (["train", "--lr=3"], 2, "--lr. Did you mean '--config.optimizer.learning_rate'?"),
        (["train", "--epochs=3"], 2, "--epochs. Did you mean '--config.epochs'?"),
        (["predict", "--lr=3"], 2, "there is no flag --lr. --help lists the flags."),
        (["predict", "--top=a: b"], 2, "--top=a: b is not a positive integer"),
        (["predict", "--json=maybe"], 2, "--json=maybe is not true or false"),
        (["preflight", "--classes=1"], 2, "--classes=1 is not an integer >= 2"),
        (
            ["export", "--format=tflit"],
            2,
            "is not one of saved_model, keras, tflite, onnx, openvino. Did you mean 'tflite'?",
        ),
        (["evaluate", "--config.lr=3"], 2, "there is no key 'lr'. Did you mean 'optimizer.learn"),
        (["predict", "--config.lr=3"], 2, "there is no flag --config.lr"),
        (["evaluate"], 2, "--workdir=DIR"),
        (["evaluate", "--workdir=nowhere"], 1, "no such folder"),
        (["predict", "--workdir=w"], 2, "image file"),
        (["predict", "--workdir=nowhere", "x.png"], 1, "nowhere"),
        (["predict", "--workdir=nowhere", "x.png", "--top=0"], 2, "--top"),
    ],
)
def test_wrong_use_is_one_line_and_writes_nothing(
    arguments, code, quoted, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    message = capsys.readouterr().err
    assert quoted in message
    assert message.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_work_directory_alone_resumes_with_its_config(tmp_path, monkeypatch, capsys):
    from keras_resnet import config as configs
    from keras_resnet.training import run
    from keras_resnet.training.workdir import WorkDir

    began = configs.merge(configs.load_config("digits"), {"epochs": 3, "seed": 7}, "test")
    WorkDir(tmp_path).claim(began)
    trained = []
    monkeypatch.setattr(run, "train", lambda config, workdir, _: trained.append((config, workdir)))
    assert main(["train", f"--workdir={tmp_path}"]) == 0
    assert main(["train", f"--workdir={tmp_path}", "--config.log_every_steps=9"]) == 0
    assert [path for _, path in trained] == [str(tmp_path)] * 2
    assert trained[0][0] == began
    assert trained[1][0] == configs.merge(began, {"log_every_steps": 9}, "test")
    assert main(["train", f"--workdir={tmp_path}", "digits"]) == 2
    assert "unexpected argument 'digits'" in capsys.readouterr().err
    assert main(["train", f"--workdir={tmp_path / 'new'}"]) == 2
    assert "--config is missing" in capsys.readouterr().err
    assert len(trained) == 2


def test_no_command_shows_the_help_and_fails(capsys):
    assert main([]) == 2
    assert "usage:" in capsys.readouterr().out


def _python(*arguments, **environment):
    """Runs Python from an empty folder in an environment where TensorFlow cannot be found."""
    hide = (
        "import sys, importlib.abc\n"
        "class Hide(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name.split('.')[0] == 'tensorflow': raise ModuleNotFoundError(name)\n"
        "import importlib.util; find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: (\n"
        "    None if name == 'tensorflow' else find(name, *rest))\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    program, *rest = arguments
    command = [sys.executable, "-c", hide + program, *rest]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_import_without_tensorflow_names_the_extra():
    done = _python("import keras_resnet", KERAS_BACKEND="tensorflow")
    assert done.returncode == 1
    assert "ImportError" in done.stderr.splitlines()[-1]
    assert "pip install 'keras-resnet-tpu[cpu]'" in done.stderr.splitlines()[-1]


def test_training_without_tensorflow_names_the_extra(tmp_path):
    program = "from keras_resnet_cli import main; sys.exit(main())"
    workdir = tmp_path / "w"
    done = _python(
        program, "train", "--config=digits", f"--workdir={workdir}", KERAS_BACKEND="tensorflow"
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "[cpu]" in done.stderr
    assert not workdir.exists()


def test_python_m_is_the_same_command(tmp_path):
    """`python -m keras_resnet` as well, which tests/test_import.py runs."""
    for command in ([sys.executable, "-m", "keras_resnet_cli"], [_script()]):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, env=environment
        )
        assert done.stdout == "keras-resnet 0.1.0\n", done.stderr


def _script() -> str:
    path = Path(sysconfig.get_path("scripts")) / "keras-resnet"
    if not path.exists():
        pytest.skip("the project is not installed, only on the path")
    return str(path)


def test_wheel_works_without_the_checkout(tmp_path):
    """A wheel holds every module and the bundled configs, and runs from a folder of its own."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    source = tmp_path / "source"
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if files.returncode:
        pytest.skip("not in a git checkout")
    for name in files.stdout.decode().splitlines():
        if (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name, follow_symlinks=False)
    build = ["wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={tmp_path}", str(source)]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = tmp_path.glob("keras_resnet_tpu-*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / "keras_resnet").rglob("*.py"):
        assert f"keras_resnet/{path.relative_to(ROOT / 'keras_resnet')}" in packed
    for path in (ROOT / "input_pipeline").rglob("*.py"):  # through its link
        assert f"keras_resnet/{path.relative_to(ROOT)}" in packed
    assert {"keras_resnet/py.typed", "keras_resnet/input_pipeline/py.typed"} <= packed
    for path in (ROOT / "keras_resnet/export/serving_files").iterdir():
        assert f"keras_resnet/export/serving_files/{path.name}" in packed
    for path in (ROOT / "configs").glob("*.py"):
        assert f"keras_resnet/configs/{path.name}" in packed
    # Nothing at the top level that a user's own file may be called as well.
    top = {name.split("/")[0] for name in packed if ".dist-info/" not in name}
    assert top == {"keras_resnet", "keras_resnet_cli.py"}

    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    program = (
        "import keras_resnet_cli; keras_resnet_cli.defer_loading(); "
        "import keras_resnet.config as c; assert 'site' in c.__file__, c.__file__; "
        "print(sorted(c.bundled_configs()))"
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert (
        done.stdout == f"{sorted(path.stem for path in (ROOT / 'configs').glob('[a-z]*.py'))}\n"
    ), done.stderr


def test_dependencies_point_one_way():
    pytest.importorskip("importlinter")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
