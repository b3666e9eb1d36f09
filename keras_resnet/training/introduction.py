"""What the hosts of one run have to have in common: the config, the code, the data."""

import functools
import hashlib
import itertools
from importlib import metadata
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from keras_resnet.config.schema import KEYS, flatten
from keras_resnet.errors import UserError
from keras_resnet.input_pipeline import Source
from keras_resnet.training.engine import Engine

_PACKAGES = ("keras", "numpy", "tensorflow", "tensorflow-cpu", "jax")
# Of each split, enough to see that the order of the examples and what is in them are the same.
_EXAMPLES = 4


def introduction_of(config: ConfigDict) -> dict[str, Any]:
    """Returns by name what must be the same on every host before a run begins.

    The keys of the config, but for those that are each host's own affair (`Key.per_host`), the
    versions of the libraries, and the code of this package.
    """
    introduction = {
        f"config.{name}": value
        for name, value in flatten(config.to_dict())
        if not KEYS[name].per_host
    }
    for package in _PACKAGES:
        try:
            introduction[f"the version of {package}"] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    introduction["the code of keras_resnet"] = _code()
    return introduction


@functools.cache
def _code() -> str:
    """A hash of the package's Python files and of their names."""
    folder = Path(__file__).parents[1]
    # In a checkout the pipeline is a link, which `rglob` does not follow.
    paths = {*folder.rglob("*.py"), *(folder / "input_pipeline").rglob("*.py")}
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(f"{path.relative_to(folder).as_posix()}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def check_same_data(engine: Engine, *sources: Source | None) -> None:
    """Raises UserError, on every host, unless all of them see the same data set.

    Compared are the classes, the numbers of examples and the first few encoded images.
    """
    if not engine.several_hosts:
        return
    digest = hashlib.sha256()
    opened = [source for source in sources if source is not None]
    for source in opened:
        digest.update(repr((source.num_examples, source.class_names)).encode())
        if not source.is_synthetic:
            for _, read in itertools.islice(source.records(), _EXAMPLES):
                digest.update(read())
    if others := engine.hosts_that_differ(digest.digest()):
        raise UserError(
            f"this host does not see the data of {', '.join(others)}: here it is "
            f"{'; '.join(source.description for source in opened)}. Point config.data.path at the "
            "same files on every host"
        )
