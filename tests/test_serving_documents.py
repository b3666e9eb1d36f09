"""The lines for servers and clients in the documents are run as they stand there."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import tensorflow as tf
from export_helpers import CLASSES, tiny_classifier
from google.protobuf import descriptor
from input_helpers import encode, smooth_image
from tf_serving import docker, process, stubs

from keras_resnet.commands import main
from keras_resnet.export.serving_config import write_serving_config

pytestmark = pytest.mark.ci

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
# A block of lines belongs to a server or a client if one of them has this.
ABOUT = re.compile(r"serving_config/|localhost:850[01]")
# What needs an account, a cluster or a run, which no test has.
ELSEWHERE = re.compile(r"\b(gcloud|kubectl|docker push|keras-resnet)\b")
SERVER = re.compile(r"docker\.sh|docker run")


def blocks(page, language):
    """The fenced blocks of a language that are about servers and clients."""
    found = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)
    return [block for block in found if ABOUT.search(block)]


def lines_of(page):
    joined = "".join(blocks(page, "sh")).replace("\\\n", " ")
    return [line for line in joined.splitlines() if line and not ELSEWHERE.search(line)]


PAGES_WITH_LINES = [page for page in PAGES if lines_of(page)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with all that the lines name; also which ports stand for 8500 and 8501."""
    folder = tmp_path_factory.mktemp("place")
    tiny_classifier().save(folder / "m.keras")
    arguments = [f"--model={folder / 'm.keras'}", f"--output={folder / 'served/flowers'}"]
    assert main(["export", *arguments]) == 0
    shutil.copytree(folder / "served/flowers/1", folder / "served/cifar10/1")
    write_serving_config(folder / "served/cifar10", "cifar10", (2, 15))
    (folder / "PHOTOS").mkdir()
    for number in range(20):
        (folder / "PHOTOS" / f"{number}.jpg").write_bytes(
            encode(smooth_image(40 + number, 50), "JPEG")
        )
    (folder / "rose.jpg").write_bytes(encode(smooth_image(60, 50), "JPEG"))
    (folder / "tulip.png").write_bytes(encode(smooth_image(50, 60), "PNG"))
    ports = {}
    with socket.socket() as first, socket.socket() as second:
        for number, one in (("8500", first), ("8501", second)):
            one.bind(("localhost", 0))
            ports[number] = str(one.getsockname()[1])
    for file in folder.glob("served/*/serving_config/*"):
        file.write_text(elsewhere(file.read_text(), ports))
    return folder, ports


def elsewhere(text, ports):
    """A text with other ports of this machine; those of containers stay."""
    text = text.replace("{8500 if options.grpc else 8501}", "{%8500 if options.grpc else %8501}")
    text = re.sub(r"(localhost:|-p )(850[01])", r"\1%\2", text)
    return re.sub(r"%(850[01])", lambda found: ports[found[1]], text)


class Shell:
    """Runs lines in a folder; one that starts a server ends the one before it."""

    def __init__(self, folder, ports, environment):
        self.folder, self.ports, self.environment = folder, ports, environment
        self.server = None

    def run(self, line):
        line = elsewhere(line, self.ports)
        if SERVER.search(line):
            self.stop()
            command = f"exec env {line.removesuffix('&')}"
            self.server = subprocess.Popen(
                ["bash", "-c", command], cwd=self.folder, env=self.environment
            )
            return self.wait()
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", line],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        assert "error:" not in done.stdout, f"{line}\n{done.stdout}"
        assert '"error": ' not in done.stdout, f"{line}\n{done.stdout}"
        return done.stdout

    def wait(self):
        """Until the server listens and has loaded whatever it is told to."""
        end = time.monotonic() + 300  # with eight seconds of work, on a machine with others
        while time.monotonic() < end:
            assert self.server.poll() is None, "the server ended"
            for name in ("flowers", "cifar10"):
                address = f"http://localhost:{self.ports['8501']}/v1/models/{name}"
                try:
                    with urllib.request.urlopen(address) as answer:
                        if b"AVAILABLE" in answer.read():
                            return ""
                except (urllib.error.URLError, OSError):
                    time.sleep(0.1)
        raise AssertionError("the server did not load its model")

    def stop(self):
        if self.server is not None:
            self.server.kill()
            self.server.wait()


@pytest.fixture
def shell(place, tmp_path):
    folder, ports = place
    environment = {**docker.shims(tmp_path / "bin"), "HOST": "flowers.example.com"}
    shell = Shell(folder, ports, environment)
    yield shell
    shell.stop()


def test_the_pages_with_such_lines_are_known():
    names = {page.name for page in PAGES_WITH_LINES}
    assert names == {"README.md", "serving.md", "platforms.md"}


@pytest.mark.parametrize("page", PAGES_WITH_LINES, ids=lambda page: page.name)
def test_lines_of_documents_run(page, shell):
    printed = [shell.run(line) for line in lines_of(page)]
    text = "\n".join(printed)
    # Every class that is printed is one of the model; some line printed one.
    assert any(f"{name} " in text for name in CLASSES)
    assert len(printed) >= 2


def test_the_lines_answer_what_the_model_does(shell, place):
    """REST in rows and columns, gRPC and the predictor give the same, of 22 images at once."""
    folder, _ = place
    shell.run("served/flowers/serving_config/docker.sh --enable_model_warmup=true")
    images = "rose.jpg tulip.png PHOTOS"
    client = "python served/flowers/serving_config/client.py --json"
    rest, grpc = (shell.run(f"{client} {images} {more}") for more in ("", "--grpc"))
    output = folder / "answers.jsonl"
    model = f"--model={folder / 'served/flowers/1'}"
    paths = [str(folder / name) for name in images.split()]
    assert main(["predict", model, "--json", f"--output={output}", *paths]) == 0
    rows = [[json.loads(line) for line in one.splitlines()] for one in (rest, grpc)]
    rows.append([json.loads(line) for line in output.read_text().splitlines()])
    assert [len(one) for one in rows] == [22, 22, 22]
    for of_rest, of_grpc, expected in zip(*rows, strict=True):
        assert of_rest["image"] == of_grpc["image"] == os.path.relpath(expected["image"], folder)
        for found in (of_rest, of_grpc):
            assert [(one["class"], one["class_id"]) for one in found["predictions"]] == [
                (one["class"], one["class_id"]) for one in expected["predictions"]
            ]
            assert [one["probability"] for one in found["predictions"]] == pytest.approx(
                [one["probability"] for one in expected["predictions"]], rel=1e-3
            )


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder with the package tensorflow-serving-api; 30 kB are downloaded."""
    target = tmp_path_factory.mktemp("published")
    version = ".".join(tf.__version__.split(".")[:2])
    wanted = f"tensorflow-serving-api=={version}.*"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", f"--target={target}", wanted]
    if subprocess.run(pip, check=False, capture_output=True).returncode:
        pytest.skip(f"{wanted} cannot be downloaded")
    return target


def test_the_example_with_the_published_stubs_runs(shell, place, published):
    (example,) = blocks(ROOT / "docs/serving.md", "python")
    shell.run("served/flowers/serving_config/docker.sh")
    done = subprocess.run(
        [sys.executable, "-c", elsewhere(example, place[1])],
        cwd=place[0],
        env={**process.ENVIRONMENT, "PYTHONPATH": str(published)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    names = re.findall(r"b'(\w+)'", done.stdout)
    assert len(names) == len({*names} & {*CLASSES}) == 5


def test_the_stubs_are_the_published_ones(published):
    """Numbers, names and kinds of all fields, and the methods, of those that the package has."""
    program = (
        "import importlib, pkgutil, json, tensorflow_serving.apis as a, "
        "tensorflow_serving.config as c\n"
        "from google.protobuf import descriptor_pool\n"
        "for p in (a, c):\n"
        "    for m in pkgutil.iter_modules(p.__path__):\n"
        "        importlib.import_module(f'{p.__name__}.{m.name}')\n"
        "import sys; pool, found = descriptor_pool.Default(), {}\n"
        "for name in sys.argv[1:]:\n"
        "    try: d = pool.FindMessageTypeByName(name)\n"
        "    except KeyError: continue\n"
        "    found[name] = {f.name: [f.number, f.type, f.message_type and "
        "f.message_type.full_name] for f in d.fields}\n"
        "for n in ('PredictionService', 'ModelService'):\n"
        "    s = pool.FindServiceByName('tensorflow.serving.' + n)\n"
        "    found[n] = {m.name: [m.input_type.full_name, m.output_type.full_name] "
        "for m in s.methods}\n"
        "print(json.dumps(found))\n"
    )
    names = [f"{stubs.PACKAGE}.{name}" for name in stubs.MESSAGES]
    done = subprocess.run(
        [sys.executable, "-c", program, *names],
        env={**process.ENVIRONMENT, "PYTHONPATH": str(published)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    for service, methods in stubs.SERVICES.items():
        for method, kinds in methods.items():
            assert found[service][method] == [f"{stubs.PACKAGE}.{kind}" for kind in kinds]
    compared = {name for name in stubs.MESSAGES if f"{stubs.PACKAGE}.{name}" in found}
    assert compared >= {"ModelSpec", "PredictRequest", "PredictResponse", "ModelServerConfig"}
    for name in compared:
        ours = stubs.message_class(name).DESCRIPTOR
        theirs = found[f"{stubs.PACKAGE}.{name}"]
        for field in ours.fields:
            number, kind, message = theirs[field.name]
            assert (field.number, field.type) == (number, kind), f"{name}.{field.name}"
            if kind == descriptor.FieldDescriptor.TYPE_MESSAGE:
                assert field.message_type.full_name == message
