"""What mypy and pyright find in a user's code: names, arguments, results, and mistakes in them."""

import inspect
import json
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

import keras_resnet
from keras_resnet.architectures import variants
from keras_resnet.architectures.row import CHANGEABLE, Architecture

ROOT = Path(keras_resnet.__file__).parent.parent
CODE = """\
import keras_resnet
from keras_resnet import CifarResNet20, create_model

good = keras_resnet.ResNet50(classes=3, norm_layer="group", depths=(1, 1, 1, 1))
reveal_type(good)
number: str = keras_resnet.ResNet50.image_size
keras_resnet.ResNet50(clases=3)
CifarResNet20(residual=3)
create_model("ResNet50", clases=3)
keras_resnet.ResNet51
keras_resnet.training, keras_resnet.export, keras_resnet.input_pipeline
"""
# Line of `CODE` -> what is said about it; nothing about the others.
FINDINGS = {5: "ResNet", 6: "int", 7: "clases", 8: "residual", 9: "clases", 10: "ResNet51"}


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    path = tmp_path_factory.mktemp("user") / "code.py"
    path.write_text(CODE)
    return path


def check(messages: dict[int, str]) -> None:
    assert sorted(messages) == sorted(FINDINGS)
    for line, quoted in FINDINGS.items():
        assert quoted in messages[line], line


def test_mypy(code):
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--ignore-missing-imports", "--output=json", code.name]
    done = subprocess.run(
        [*command, f"--cache-dir={code.parent}/cache"],
        cwd=code.parent,
        env={"MYPYPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    messages = {
        finding["line"]: finding["message"]
        for finding in found
        if finding["file"] == code.name
        and (finding["severity"] == "error" or finding["message"].startswith("Revealed"))
    }
    check(messages)
    assert 'did you mean "classes"' in messages[7]


def test_pyright(code):
    pyright = shutil.which("pyright")
    if pyright is None:
        pytest.skip("pyright is not installed")
    settings = {"extraPaths": [str(ROOT)], "reportUnusedExpression": False}
    (code.parent / "pyrightconfig.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [pyright, "--outputjson", f"--pythonpath={sys.executable}", code.name],
        cwd=code.parent,
        capture_output=True,
        text=True,
        timeout=300,
    )
    found = json.loads(done.stdout)["generalDiagnostics"]
    check({finding["range"]["start"]["line"] + 1: finding["message"] for finding in found})


def test_every_argument_is_spelled_out_and_described():
    build = inspect.signature(keras_resnet.ResNet50).parameters
    create = inspect.signature(keras_resnet.create_model).parameters
    assert set(build) - {"name"} == set(create) - {"name", "model_name"}
    assert set(build) >= CHANGEABLE
    for name in set(build) - {"name"}:
        assert build[name].default == create[name].default, name
        assert build[name].annotation == create[name].annotation, name
        assert build[name].annotation is not inspect.Parameter.empty, name
        assert f"\n    {name}: " in keras_resnet.ResNet50.__doc__, name
    assert keras_resnet.ResNet50D.__doc__.startswith(
        "ResNet50D: He et al. 2019, section 4.2; layer by layer timm resnet50d.\n"
    )


def test_the_public_names_are_the_literal_ones():
    rows = [name for name, value in vars(variants).items() if isinstance(value, Architecture)]
    assert sorted(variants.__all__) == sorted(rows)
    assert set(variants.__all__) < set(keras_resnet.__all__)
    source = Path(variants.__file__).read_text()
    for name in rows:
        assert f"\n{name} = " in source
        assert getattr(keras_resnet, name).name == name
    others = {name for name in dir(keras_resnet) if not name.startswith("_")}
    others -= set(keras_resnet.__all__)
    assert {type(getattr(keras_resnet, name)) for name in others} <= {types.ModuleType}
    assert {getattr(keras_resnet, name).__name__ for name in others} == {
        f"keras_resnet.{name}" for name in others
    }
