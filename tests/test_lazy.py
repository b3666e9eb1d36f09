"""Packages whose names are imported on first use show the same names to type checkers."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ["keras_resnet.export", "keras_resnet.input_pipeline"]


@pytest.mark.parametrize("name", PACKAGES)
def test_both_branches_have_the_same_names(name):
    package = importlib.import_module(name)
    tree = ast.parse(Path(package.__file__).read_text())
    checking = next(node for node in tree.body if isinstance(node, ast.If))
    shown = {
        alias.asname: statement.module
        for statement in checking.body
        for alias in statement.names
        if alias.name == alias.asname
    }
    assert sorted(shown) == package.__all__
    for key, module in shown.items():
        assert getattr(package, key) is getattr(importlib.import_module(module), key)
        assert key in dir(package)
    with pytest.raises(AttributeError, match=f"module {name!r} has no attribute 'nothing'"):
        package.nothing  # noqa: B018


@pytest.mark.parametrize(
    "module",
    [
        "keras_resnet.export.formats",
        "keras_resnet.export.labels",
        "keras_resnet.export.verify",
        "keras_resnet.input_pipeline.augment.settings",
        "keras_resnet.input_pipeline.errors",
        "keras_resnet.input_pipeline.image_listing",
        "keras_resnet.input_pipeline.layout_finder",
        "keras_resnet.preprocessing",
    ],
)
def test_light_modules_load_neither_tensorflow_nor_keras(module):
    program = (
        "import keras_resnet_cli; keras_resnet_cli.defer_loading(); import importlib, sys; "
        f"importlib.import_module({module!r}); "
        "print(sorted({'tensorflow', 'keras'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
