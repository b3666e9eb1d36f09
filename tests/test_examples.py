"""The examples run, in their short form, and reach what their docstrings promise."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
EXAMPLES = sorted((PROJECT / "examples").glob("*.py"))
BANNERS = ("data", "model", "training", "picture")


def run(name: str, output: Path) -> dict:
    """The result.json of an example's short form."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, f"examples/{name}", f"--output={output}", "--quick"]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert list(output.glob("*.png"))
    return json.loads((output / "result.json").read_text())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_a_page_that_is_read_from_top_to_bottom(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    docstring = text.partition('"""')[2].partition('"""')[0]
    for part in ("Task:", f"python examples/{path.name}", "Expected"):
        assert part in docstring
    found = [line for line in text.splitlines() if re.match(r"# -{20,} ", line)]
    places = [next(n for n, line in enumerate(found) if name in line) for name in BANNERS]
    assert places == sorted(places)


@pytest.mark.ci
def test_pytorch_beside(tmp_path):
    pytest.importorskip("torch")
    result = run("pytorch_beside.py", tmp_path)
    found = result["18 layers, BasicBlock"]
    assert found["logits"] < 1e-9
    assert found["gradients"] < 1e-9
    assert found["losses"] < 1e-9
    assert found["logits, carried back"] < 1e-9
    assert result["from a file"] < 1e-9
