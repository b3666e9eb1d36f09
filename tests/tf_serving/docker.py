"""Stands in for Docker and for the program in its image `tensorflow/serving`.

usage: docker.py docker build|run …  |  docker.py tensorflow_model_server FLAGS

A container is a folder that stands for its root: what is mounted or copied lies in it. Programs run
outside, so paths in their arguments and in models.config are put below that folder, and ports are
those of the host.
"""

import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from tf_serving import process

STATE = "TEST_DOCKER"  # names the folder of images and containers


def shims(folder: Path) -> dict[str, str]:
    """Writes `docker` and `tensorflow_model_server`; returns the environment that finds them."""
    folder.mkdir()
    for name in ("docker", "tensorflow_model_server"):
        shim = folder / name
        program = f'exec "{sys.executable}" -P "{Path(__file__)}" {name} "$@"\n'
        shim.write_text(f"#!/bin/sh\n{program}")
        shim.chmod(0o755)
    path = os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**process.ENVIRONMENT, "PATH": path, STATE: str(folder)}


def build(arguments: list[str]) -> None:
    """--tag=NAME --file=DOCKERFILE CONTEXT"""
    options = dict(one.removeprefix("--").split("=", 1) for one in arguments[:-1])
    image = Path(os.environ[STATE], "image", options["tag"])
    settings: dict = {"ENV": {}, "ENTRYPOINT": []}
    for line in Path(options["file"]).read_text().splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            assert re.fullmatch(r"tensorflow/serving:\d+\.\d+\.\d+", rest), rest
        elif word == "ENV":
            settings["ENV"] |= dict([rest.split("=", 1)])
        elif word == "COPY":
            source, target = rest.split()
            shutil.copytree(Path(arguments[-1], source), image / target.lstrip("/"))
        elif word == "ENTRYPOINT":
            settings["ENTRYPOINT"] = json.loads(rest)
        else:
            assert word in ("", "#"), line
    (image / "settings.json").write_text(json.dumps(settings))


def run(arguments: list[str]) -> None:
    """--rm, -p, -e, -v, --entrypoint, the image and what follows."""
    environment, ports, mounts, command = {}, {}, {}, []
    rest = list(arguments)
    while rest[0].startswith("-"):
        option = rest.pop(0)
        value = "" if option == "--rm" else rest.pop(0)
        if option == "-p":
            host, container = value.split(":")
            ports[container] = host
        elif option == "-e":
            key, given, text = value.partition("=")
            if given or key in os.environ:
                environment[key] = text if given else os.environ[key]
        elif option == "-v":
            source, target, *mode = value.split(":")
            assert mode in ([], ["ro"]), value
            assert Path(source).is_absolute(), value
            assert Path(source).exists(), f"docker would make an empty folder: {source}"
            mounts[target] = source
        elif option == "--entrypoint":
            command = [value]
        else:
            assert option == "--rm", option
    image = Path(os.environ[STATE], "image", rest[0])
    if image.is_dir():
        settings = json.loads((image / "settings.json").read_text())
        environment = {**settings["ENV"], **environment}
        command, root = command or settings["ENTRYPOINT"], image
    else:
        assert re.fullmatch(r"tensorflow/serving:\d+\.\d+\.\d+", rest[0]), rest[0]
        root = Path(tempfile.mkdtemp(dir=os.environ[STATE]))
    for target, source in mounts.items():
        (root / target.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (root / target.lstrip("/")).symlink_to(source)
    command = [*command, *rest[1:]]
    inside = [str(root) + one if re.match("/(config|models)/", one) else one for one in command]
    kept = {key: os.environ[key] for key in ("PATH", "PYTHONPATH", "TF_CPP_MIN_LOG_LEVEL", STATE)}
    settings = {"TEST_ROOT": str(root), "TEST_PORTS": json.dumps(ports)}
    os.execve(inside[0], inside, {**kept, **environment, **settings})


def model_server(arguments: list[str]) -> None:
    """Starts the test server in the place of `tensorflow_model_server`."""
    flags = dict(one.removeprefix("--").split("=", 1) for one in arguments)
    root, ports = Path(os.environ["TEST_ROOT"]), json.loads(os.environ["TEST_PORTS"])
    for flag in ("port", "rest_api_port"):
        flags[flag] = ports.get(flags[flag], "0")
    config = Path(tempfile.mkdtemp(dir=os.environ[STATE]), "models.config")
    text = Path(flags["model_config_file"]).read_text()
    config.write_text(text.replace('base_path: "/', f'base_path: "{root}/'))
    flags["model_config_file"] = str(config)
    flags.setdefault("enable_model_warmup", "false")  # it takes eight seconds
    command = process.command(*(f"--{key}={value}" for key, value in flags.items()))
    os.execv(command[0], command)


if __name__ == "__main__":
    {"run": run, "build": build}.get(sys.argv[2], lambda _: model_server(sys.argv[2:]))(
        sys.argv[3:]
    )
