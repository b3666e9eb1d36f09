"""usage: keras-resnet doctor [--json]

Says which versions are installed, which devices TensorFlow and JAX see and which variables are set,
what is wrong with them and what to do. Paste it into a bug report. Exit code 0: nothing is wrong,
1: something is."""

import json
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from typing import Any

from absl import flags as absl_flags

from keras_resnet.commands.doctor.findings import find_problems
from keras_resnet.commands.doctor.probes import (
    FLAVORS,
    JAX_PROBE,
    VARIABLES,
    installed_versions,
    probe,
)
from keras_resnet.commands.options import define_json_switch
from keras_resnet.errors import UsageError
from keras_resnet.tpu_chips import chips_here

SUMMARY = "Say what is installed, which devices are seen, and what is wrong."


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines --json."""
    define_json_switch(flags)


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Examines and prints; returns 0, or 1 if there are problems."""
    if arguments:
        raise UsageError(f"unexpected argument {arguments[0]!r}; doctor takes only --json")
    facts = examine()
    print(json.dumps(facts, indent=2) if flags.json else describe(facts))
    return 1 if facts["problems"] else 0


def examine(timeout: float = 180) -> dict[str, Any]:
    """Returns everything that is known about this machine and installation.

    Each library is imported in a process of its own, so that an installation that crashes or hangs
    is a finding and no crash of ours.

    Keys: `system`, `versions`, `variables` (mappings of names to strings), `hardware` (what the
    machine has, whether or not TensorFlow sees it), `tensorflow` and `jax` (what each sees, or
    `error`; {} without JAX) and `problems`, a list of {"problem": ..., "remedy": ...}.

    Args:
        timeout: seconds that each may take to start.
    """
    facts: dict[str, Any] = {
        "system": {
            "python": f"{platform.python_version()} ({sys.executable})",
            "platform": platform.platform(),
            "cpus": str(os.cpu_count()),
            "memory": _memory(),
        },
        "versions": installed_versions(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "hardware": {
            "nvidia": bool(
                os.path.exists("/proc/driver/nvidia/version") or shutil.which("nvidia-smi")
            ),
            "tpu": bool(chips_here()) or "TPU_ACCELERATOR_TYPE" in os.environ,
        },
    }
    flavors = [name for name in FLAVORS if name in facts["versions"]]
    facts["tensorflow"] = probe(timeout) if flavors else {"error": "not installed"}
    facts["jax"] = probe(timeout, JAX_PROBE) if "jax" in facts["versions"] else {}
    facts["problems"] = [
        {"problem": problem, "remedy": remedy} for problem, remedy in find_problems(facts)
    ]
    return facts


def _memory() -> str:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return "unknown"
    return f"{size / 2**30:.1f} GiB"


def _devices_of_jax(seen: Mapping[str, Any]) -> dict[str, str]:
    if "error" in seen:
        return {"JAX": seen["error"]}
    kinds = [f"{platform} ({kind})" for _, platform, kind in seen["devices"]]
    return {kind: str(kinds.count(kind)) for kind in dict.fromkeys(kinds)}


def describe(facts: Mapping[str, Any]) -> str:
    """Returns the facts of `examine` as text to read and to paste into a bug report."""
    seen = facts["tensorflow"]
    if "error" in seen:
        devices = {"TensorFlow": seen["error"]}
    else:
        kinds = [kind for _, kind in seen["devices"]]
        devices = {kind: str(kinds.count(kind)) for kind in dict.fromkeys(kinds)}
        if seen["gpus"]:
            devices["GPU"] += f" ({', '.join(seen['gpus'])}; built for CUDA {seen['cuda']})"
        if "tpus" in seen or "tpu_error" in seen:
            devices["TPU"] = seen.get("tpu_error") or f"{seen['tpus']} cores"
    sections = {
        "system": facts["system"],
        "versions": facts["versions"] or {"none": "is known"},
        "variables": facts["variables"] or {"none": "of those that matter is set"},
        "devices TensorFlow sees": devices,
    }
    if facts.get("jax"):
        sections["devices JAX sees"] = _devices_of_jax(facts["jax"])
    lines = []
    for title, rows in sections.items():
        width = max(len(name) for name in rows)
        lines += [title, *(f"  {name:<{width}}  {value}" for name, value in rows.items())]
    lines.append("problems" if facts["problems"] else "problems: none found")
    for entry in facts["problems"]:
        lines += [f"  * {entry['problem']}", f"    what to do: {entry['remedy']}"]
    return "\n".join(lines)
