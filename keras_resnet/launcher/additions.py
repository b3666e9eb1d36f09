"""What the launcher adds to the training command and to the VM, where the user has not said it."""

from __future__ import annotations


class Refused(Exception):
    """The command line cannot work; the message says why."""


def value_of(arguments: list[str], option: str) -> str:
    """Returns the last value of an option of the training command, as absl reads it."""
    found = ""
    for index, word in enumerate(arguments):
        if word.startswith(f"{option}="):
            found = word.partition("=")[2]
        elif word == option and index + 1 < len(arguments):
            found = arguments[index + 1]
    return found


def choose_engine(given: str, arguments: list[str]) -> str:
    """Returns the engine that --engine or the training command asks for, or nothing."""
    asked = value_of(arguments, "--config.engine")
    if asked not in ("", "auto", "tensorflow", "jax"):
        raise Refused(f"--config.engine={asked}: tensorflow or jax")
    asked = "" if asked == "auto" else asked
    if given and asked and given != asked:
        raise Refused(
            f"--engine={given} installs what --config.engine={asked} cannot train with; "
            "leave one of them out"
        )
    return given or asked


def additions(given: dict, arguments: list[str], engine: str) -> list[str]:
    """Returns what the training command lacks: its engine, its work directory."""
    added = []
    if engine == "jax" and value_of(arguments, "--config.engine") != "jax":
        added.append("--config.engine=jax")
    workdir = value_of(arguments, "--workdir")
    if not workdir and given["bucket"]:
        workdir = f"{given['bucket'].rstrip('/')}/{given['name']}"
        added.append(f"--workdir={workdir}")
    if not workdir.startswith("gs://"):
        raise Refused(
            f"--workdir={workdir} would be deleted with the TPU; give --bucket=gs://BUCKET"
        )
    return added


def for_self_delete(given: dict) -> dict:
    """Returns the scopes and metadata that a VM needs to delete itself."""
    if not given["self-delete"]:
        return {}
    scopes = given["scopes"] or "cloud-platform"
    if "cloud-platform" not in scopes:
        raise Refused(
            f"--self-delete --scopes={scopes}: to delete itself the VM needs the scope "
            "cloud-platform; add it"
        )
    if given["metadata"].startswith("^") or "startup-script" in given["metadata"]:
        raise Refused(
            f"--self-delete --metadata={given['metadata']}: the VM deletes itself by a startup "
            "script; give plain KEY=VALUE pairs with commas between them, without startup-script"
        )
    kind = "queuedResources" if given["queued"] else "nodes"
    own = f"keras-resnet-self-delete={kind}/{given['self-delete']}"
    return {"scopes": scopes, "metadata": ",".join(filter(None, [given["metadata"], own]))}
