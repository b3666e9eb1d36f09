"""Which files are images, and the image files of a folder. Loads TensorFlow for buckets only."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from keras_resnet.errors import UserError

# .jfif and .jpe are other names of JPEG.
IMAGE_SUFFIXES = (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".webp")
# What systems and their tools leave in folders, in lower case; hidden files are passed over anyway.
_LITTER = {
    name.lower(): name
    for name in (
        *("desktop.ini", "Thumbs.db", "ehthumbs.db", "__MACOSX", "Icon\r"),
        *("@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"),
    )
}
_COUNTED = "links to folders that are counted already"
_NO_FILES = "pipes, sockets and devices"
_HIDDEN = {name.lower(): name for name in (".DS_Store", ".ipynb_checkpoints", ".git")}


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def litter_kind(name: str) -> str | None:
    """What kind of litter a file or folder of this name is, such as "Thumbs.db"; None if none."""
    if not name.startswith("."):
        return _LITTER.get(name.lower())
    return "._*" if name.startswith("._") else _HIDDEN.get(name.lower(), "hidden")


def walk(
    folder: str, passed_over: Counter[str] | None = None
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yields (folder, its folders, its files) like os.walk, of buckets too, without litter.

    Links to folders are followed, but none twice, none back up, and none to what lies below
    `folder` anyway: so this ends, and no file is met twice by way of links.

    In a bucket only what does not look like an image costs a request of its own.

    Args:
        folder: where to start.
        passed_over: counts what is left out, by kind.
    """
    passed_over = Counter() if passed_over is None else passed_over
    if "://" not in folder:
        yield from _walk_local(folder, passed_over)
        return
    folders, files = list_folder(folder, passed_over)
    yield folder, folders, files
    for name in folders:
        yield from walk(f"{folder}/{name}", passed_over)


def list_folder(folder: str, passed_over: Counter[str]) -> tuple[list[str], list[str]]:
    """The names of the folders and of the files right in `folder`, each sorted, without litter.

    Links are what they lead to, but for those that lead to `folder` itself or above it, which are
    left out. `passed_over` counts what is left out, by kind.
    """
    if "://" not in folder:
        names = _visible(os.listdir(folder), passed_over)
        round_about = {name for name in names if _leads_back(folder, name)}
        if round_about:
            passed_over[_COUNTED] += len(round_about)
            names = [name for name in names if name not in round_about]
        is_folder = os.path.isdir
    else:
        import tensorflow as tf

        entries = [name.rstrip("/") for name in tf.io.gfile.listdir(folder)]
        names, is_folder = _visible(entries, passed_over), tf.io.gfile.isdir
    others = [name for name in names if "://" not in folder or not is_image_name(name)]
    folders = [name for name in others if is_folder(f"{folder}/{name}")]
    return folders, [name for name in names if name not in set(folders)]


def _walk_local(top: str, passed_over: Counter[str]) -> Iterator[tuple[str, list[str], list[str]]]:
    followed = [os.path.realpath(top)]
    waiting = [top]
    while waiting:
        parent = waiting.pop()
        folders, files = [], []
        for entry in _entries(parent, passed_over):
            if not entry.is_dir():
                if _can_be_read(entry):
                    files.append(entry.name)
                else:
                    passed_over[_NO_FILES] += 1
            elif not entry.is_symlink():
                folders.append(entry.name)
            else:
                target = os.path.realpath(entry.path)
                if any(_overlap(target, one) for one in followed):
                    passed_over[_COUNTED] += 1
                else:
                    followed.append(target)
                    folders.append(entry.name)
        yield parent, folders, files
        waiting += [os.path.join(parent, name) for name in reversed(folders)]


def _leads_back(folder: str, name: str) -> bool:
    """Whether an entry is a link to the folder that it lies in, or to one above that."""
    place = os.path.join(folder, name)
    if not os.path.islink(place) or not os.path.isdir(place):
        return False
    here, target = os.path.realpath(folder), os.path.realpath(place)
    return os.path.commonpath([here, target]) == target


def _entries(folder: str, passed_over: Counter[str]) -> list[os.DirEntry[str]]:
    """What is in `folder`, sorted, without litter; nothing if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            found = {entry.name: entry for entry in entries}
    except OSError:
        return []
    return [found[name] for name in _visible(found, passed_over)]


def _can_be_read(entry: os.DirEntry[str]) -> bool:
    """Whether opening it comes to an end: no pipe, nor what else is no file.

    A link that leads nowhere is among the files, as an error of its own when it is read. Only links
    cost a request.
    """
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
    except OSError:
        return True


def _overlap(one: str, other: str) -> bool:
    """Whether one of two folders is the other or lies in it."""
    return os.path.commonpath([one, other]) in (one, other)


def list_images(
    paths: str | os.PathLike | Iterable[str | os.PathLike],
    passed_over: Counter[str] | None = None,
    also: tuple[str, ...] = (),
) -> Iterator[Path]:
    """The files among `paths` and every image file in the folders among them, sorted by folder.

    A file that is gone by the time it is read, or a link that leads nowhere, is among them.

    Args:
        paths: one path or several.
        passed_over: counts the files in folders that are left out, by suffix ("" for none), and
            what is no file.
        also: suffixes that are taken beside those of images.

    Raises:
        UserError: a path does not exist; before the first file is given.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    for path in map(Path, given):
        if not os.path.lexists(path):
            raise UserError(f"{path}: no such file or folder")
    for path in map(Path, given):
        if not path.is_dir():
            yield path
            continue
        litter: Counter[str] = Counter()
        for parent, _, files in walk(str(path), litter):
            for name in files:
                if is_image_name(name) or name.lower().endswith(also):
                    yield Path(parent, name)
                elif passed_over is not None:
                    passed_over[Path(name).suffix.lower()] += 1
        if passed_over is not None and _NO_FILES in litter:
            passed_over[_NO_FILES] += litter[_NO_FILES]


def in_words(passed_over: Mapping[str, int]) -> str:
    """Counts of files by suffix, the most frequent first, as "3 .heic, 1 without a suffix"."""
    ordered = sorted(passed_over.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {suffix or 'without a suffix'}" for suffix, count in ordered)


def _visible(names: Iterable[str], passed_over: Counter[str]) -> list[str]:
    kept = []
    for name in names:
        kind = litter_kind(name)
        if kind is None:
            kept.append(name)
        else:
            passed_over[kind] += 1
    return sorted(kept)
