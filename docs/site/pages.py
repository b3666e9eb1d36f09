"""Pages of the site that are made from the code: the config keys, and what each package offers.

A hook of MkDocs (mkdocs.yml). It also writes links to files outside docs/ as plain names.
"""

import importlib
import re
from collections.abc import Iterator
from types import ModuleType

from mkdocs.structure.files import File

import keras_resnet
from keras_resnet.config import KEYS
from keras_resnet.config.key import FREELY, NOTED, Key

PACKAGES = ("blocks", "layers", "weights", "input_pipeline", "training", "export", "explain",
            "reports")  # fmt: skip
_RESUME = {FREELY: "resume: freely", NOTED: "resume: noted"}
_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)]+)\)")

_CONFIG = """\
# Config keys

Every key of a run, with its default. Set one with `--config.KEY=VALUE`, or in a config file;
`keras-resnet config NAME` prints them for a config. A key may change when a run resumes where it
says *resume: freely*, or *noted*, which the history in `config.json` then shows; the others keep
their values.
"""
_PACKAGE = """\
# {name}

{about}
"""
_NETWORKS = """\
## Networks

[All variants](../models.md) are functions of this package and share one signature.

::: keras_resnet.architectures.row.Architecture.__call__
    options:
      heading: ResNet50
      toc_label: ResNet50
      filters: []
      heading_level: 3

## Functions
"""


def on_files(files, config):
    """Adds the pages to those of docs/."""
    pages = {"config": config_page(), "keras_resnet": package_page(keras_resnet)}
    pages |= {name: package_page(importlib.import_module(f"keras_resnet.{name}"))
              for name in PACKAGES}  # fmt: skip
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Names files outside docs/ that pages link to: the site does not have them."""
    return _OUTSIDE.sub(r"\1 (`\2`)", markdown)


def config_page() -> str:
    """A table for each group of keys."""
    groups: dict[str, list[Key]] = {}
    for key in KEYS.values():
        groups.setdefault(key.name.rpartition(".")[0], []).append(key)
    lines = [_CONFIG]
    for group, keys in groups.items():
        lines += [f"\n## {group or 'The run'}\n", "| key | default | |", "|---|---|---|"]
        lines += [_row(key) for key in keys]
    return "\n".join(lines)


def _row(key: Key) -> str:
    facts = [key.accepts(), _RESUME.get(key.resume, "")]
    facts = [f"*{fact}*" for fact in facts if fact]
    cells = [f"`{key.name}`", f"`{key.default!r}`", "<br>".join([_plain(key.help), *facts])]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _plain(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*")


def package_page(package: ModuleType) -> str:
    """What a package offers: its docstring, then each public name with its own."""
    name = package.__name__
    about = (package.__doc__ or "").strip()
    parts = [_PACKAGE.format(name=name, about=about)]
    if package is keras_resnet:
        parts.append(_NETWORKS)
    parts += [f"::: {path}" for path in _paths(package)]
    return "\n\n".join(parts)


def _paths(package: ModuleType) -> Iterator[str]:
    """Where each public function and class of a package is defined."""
    for name in sorted(package.__all__, key=str.lower):
        value = getattr(package, name)
        is_network = name in keras_resnet.architectures.variants.__all__
        origin = getattr(value, "__module__", "") or ""
        if callable(value) and not is_network and origin.startswith("keras_resnet"):
            yield f"{origin}.{value.__qualname__}"
