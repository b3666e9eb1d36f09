"""The checkout as one archive, and a hash that tells one checkout from another."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
from pathlib import Path

from .additions import Refused

LARGEST = 500 * 2**20  # bytes of a checkout; it is hundred times smaller than that
LEFT_OUT = {".git", ".venv", "__pycache__", "runs", "build", "dist"}  # where there is no git


def list_files(folder: Path) -> list[str]:
    """Returns the files and links of a checkout, without data and runs.

    In a checkout that is what git does not ignore, without repositories inside of it (submodules,
    other clones). keras_resnet/input_pipeline and configs are links to the folders beside
    keras_resnet, and stay links.

    Raises:
        Refused: there is so much that it can only be data.
    """
    names: set[str] = set()
    try:
        command = ["git", "-C", str(folder), "ls-files", "-zco", "--exclude-standard"]
        listed = subprocess.run(command, capture_output=True, check=True).stdout
        names = {os.fsdecode(name) for name in listed.split(b"\0") if name}
    except (OSError, subprocess.CalledProcessError):
        pass  # no git, or no checkout
    found = [name for name in names or _walk(folder) if _can_be_sent(folder / name)]
    sizes = {name: (folder / name).lstat().st_size for name in found}
    if sum(sizes.values()) > LARGEST:
        most = sorted(sizes, key=lambda name: -sizes[name])[:3]
        raise Refused(
            f"the checkout {folder} would be copied to the TPU, and has {len(found):,} files of "
            f"{sum(sizes.values()) / 2**30:.1f} GiB; the largest are {', '.join(most)}: move data "
            "out of it, or name them in .gitignore"
        )
    return sorted(found)


def _can_be_sent(path: Path) -> bool:
    return path.is_symlink() or path.is_file()


def _walk(folder: Path):
    for root, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(root, name))]
        folders[:] = [name for name in folders if name not in LEFT_OUT and name not in links]
        for name in [*links, *files]:
            yield os.path.relpath(os.path.join(root, name), folder)


def digest(folder: Path, names: list[str]) -> str:
    """Returns a hash of names, modes and contents: the same for the same files, whenever packed."""
    hashed = hashlib.sha256()
    for name in names:
        path = folder / name
        content = os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes()
        mode = "link" if path.is_symlink() else "run" if os.access(path, os.X_OK) else "file"
        head = os.fsencode(f"{len(content)} {mode} {name}\0")
        hashed.update(head + content)
    return hashed.hexdigest()[:16]


def write(folder: Path, names: list[str], archive: Path) -> None:
    """Writes the archive, for `tar -xz`."""
    with tarfile.open(archive, "w:gz", compresslevel=6) as tar:
        for name in names:
            tar.add(folder / name, name, recursive=False)
