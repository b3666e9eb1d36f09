"""Images that lie in several class folders: one image with several labels.

Two files are one image if one is a link to the other, hard or symbolic, or if they have the same
name below their class folders and the same bytes. A name alone says nothing: cameras number the
photos of every folder from 1. Loads TensorFlow for buckets only.
"""

import dataclasses
import hashlib
import os
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping

from keras_resnet.input_pipeline.errors import DataError
from keras_resnet.input_pipeline.places import in_bucket, read_bytes


@dataclasses.dataclass
class Image:
    """An image and where it lies.

    Attributes:
        name: below its class folder, of the first of its files.
        paths: of all of its files.
        classes: the folders that it is in.
    """

    name: str
    paths: list[str]
    classes: list[str]


def merge(files: Mapping[str, Iterable[tuple[str, str]]]) -> list[Image]:
    """Returns each image once, sorted by its first class and its name.

    Args:
        files: class -> (name below the class folder, path) of its files.

    Raises:
        DataError: a file cannot be read.
    """
    listed = [(name, *file) for name in sorted(files) for file in sorted(files[name])]
    try:
        keys = _keys(listed)
    except OSError as error:
        raise DataError(
            f"{error.filename or 'An image'} cannot be read: {error.strerror or error}."
        ) from error
    found: dict[Hashable, Image] = {}
    for (label, name, path), identities in zip(listed, keys, strict=True):
        same = [found[key] for key in identities if key in found]
        image = same[0] if same else Image(name, [], [])
        for other in same[1:]:  # this file says that two are one
            if other is not image:
                image.paths += other.paths
                image.classes += [one for one in other.classes if one not in image.classes]
                found |= {key: image for key, value in found.items() if value is other}
        image.paths.append(path)
        image.classes += [label] if label not in image.classes else []
        found |= dict.fromkeys(identities, image)
    return list({id(image): image for image in found.values()}.values())


def _keys(listed: list[tuple[str, str, str]]) -> list[list[Hashable]]:
    """What each file has in common with the other files of its image."""
    stats = [None if in_bucket(path) else os.stat(path) for _, _, path in listed]  # follows links
    alike = [
        (name, stat and stat.st_size) for (_, name, _), stat in zip(listed, stats, strict=True)
    ]
    times = Counter(alike)
    keys: list[list[Hashable]] = []
    for (_, name, path), stat, one in zip(listed, stats, alike, strict=True):
        keys.append([path if stat is None else (stat.st_dev, stat.st_ino)])
        if times[one] > 1:
            keys[-1].append((name, hashlib.sha256(read_bytes(path)).digest()))
    return keys
