"""What is installed here: the version, and whether the files of this package are its own.

The package imports this first, before anything that another project's files may stand in for.
"""

from pathlib import Path

VERSION = "0.1.0"

_FOLDER = Path(__file__).parent


def find_damage(folder: Path = _FOLDER) -> str:
    """Returns what is wrong with the files of this package and what to do, "" if they are whole.

    PyPI's project `keras-resnet` (Broad Institute, 2019) installs a package `keras_resnet` too.
    Whichever of the two comes last overwrites modules of the other, its folder `backend` hides
    `backend.py`, and whichever is uninstalled takes modules of the other along.

    Args:
        folder: of the package.
    """
    try:
        overwritten = "installation.find_damage" not in (folder / "__init__.py").read_text()
    except FileNotFoundError:
        overwritten = True
    if overwritten or (folder / "backend" / "__init__.py").exists():
        return (
            f"{folder} holds files of PyPI's other project keras-resnet, or misses those that it "
            "took along, as both projects install a package keras_resnet: run "
            "`pip uninstall keras-resnet`, then install keras-resnet-tpu again, with pip's options "
            "`--force-reinstall --no-deps`"
        )
    if not (folder / "input_pipeline" / "__init__.py").exists():
        return (
            f"{folder / 'input_pipeline'} is missing: in the sources it is a symbolic link, which "
            "ZIP archives and some file systems lose. Install from a wheel or with "
            "`pip install git+URL`, or make a checkout with `git clone`"
        )
    return ""
