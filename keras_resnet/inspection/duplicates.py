"""Images that are the same or nearly the same: a perceptual hash finds them, a comparison checks.

The hash is pHash (Zauner 2010, section 3.2.1): the signs, against their median, of the low
frequencies of a small gray copy. Each image has two, of the whole and of its middle, so that a
copy with a cut border is found as well. Pairs whose hashes are close are compared at several cuts
of either; so the hash may be generous, and it is the comparison that decides.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from keras_resnet.inspection.measuring import Measurements

# Of 64 bits. Of 448 planted copies (docs/inspect.md) 12 finds all, 10 finds 99.1 %, 8 96.7 %.
_MOST_BITS = 12
# The correlation from which on two images are nearly the same. Planted copies have 0.952 and more,
# the most alike of 400,000 pairs of other tiles of the same photos 0.86.
SIMILARITY = 0.95
_FREQUENCIES = 8
_SIDE = 16  # at which two images are compared
# Parts of a side that are compared: all, and what is left by a cut of 5 % on both sides or on one.
_CUTS = ((0.0, 1.0), (0.025, 0.975), (0.0, 0.95), (0.05, 1.0))
# A copy that varies less, in gray levels, is a matter of rounding: of plain images only exact
# copies are found. And images of fewer pixels, as of digits, are all alike.
_LEAST_DEVIATION = 3.0
_LEAST_SIDE = 24
_ROWS = 64  # of hashes against all others at a time, which stays in the processor's cache
_PAIRS = 512


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """Groups of images by position in the measurements; of two or more images each.

    Attributes:
        same: those of the same pixels.
        alike: those that are linked by being the same or nearly the same.
    """

    same: list[list[int]]
    alike: list[list[int]]


def find_duplicates(
    measured: Measurements, near: bool = True, similarity: float = SIMILARITY
) -> Duplicates:
    """Finds exact and near duplicates.

    Args:
        measured: what `measuring.measure` found.
        near: whether near duplicates are looked for: their search compares all hashes with each
            other, 10 s of a processor for 50,000 images, and four times that for twice as many.
        similarity: the correlation from which on two images are nearly the same.
    """
    by_content: dict[tuple, list[int]] = {}
    for place, key in enumerate(
        zip(measured.content.tolist(), *measured.sizes.T.tolist(), strict=True)
    ):
        by_content.setdefault(key, []).append(place)
    same = [group for group in by_content.values() if len(group) > 1]
    first = np.array([group[0] for group in by_content.values()], np.int64)
    links: list[Iterable[tuple[int, int]]] = [itertools.pairwise(group) for group in same]
    if near:
        links.append(_near_pairs(measured, np.sort(first), similarity))
    return Duplicates(same, _joined(itertools.chain.from_iterable(links)))


def _near_pairs(
    measured: Measurements, places: np.ndarray, similarity: float
) -> Iterator[tuple[int, int]]:
    """Pairs of `places`, one of each content, that are nearly the same."""
    deviation = measured.copies[places].std(axis=(1, 2))
    fit = (deviation >= _LEAST_DEVIATION) & (measured.sizes[places].min(axis=1) >= _LEAST_SIDE)
    places = places[fit]
    copies = measured.copies[places]
    for pairs in _candidates(copies):
        one, other = pairs.T
        close = _similarity(copies[one], copies[other]) >= similarity
        yield from zip(places[one[close]].tolist(), places[other[close]].tolist(), strict=True)


def hashes(copies: np.ndarray, cut: tuple[float, float] = (0.0, 1.0)) -> np.ndarray:
    """uint64 [n]: the perceptual hash of gray images [n, s, s], or of a part of them."""
    rows = _cosines(copies.shape[1], *cut)
    bits = np.zeros((len(copies), 64), bool)
    for start in range(0, len(copies), 4096):
        part = copies[start : start + 4096].astype(np.float32)
        frequencies = (rows @ part @ rows.T).reshape(len(part), -1)[:, 1:]  # without the mean
        bits[start : start + 4096, 1:] = frequencies > np.median(frequencies, 1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def _cosines(side: int, begin: float, end: float) -> np.ndarray:
    """float32 [frequencies, side]: cosine transform of a part of a row, integrated over pixels."""
    edges = np.clip((np.linspace(0, 1, side + 1) - begin) / (end - begin), 0, 1)
    frequencies = np.arange(1, _FREQUENCIES)[:, None] * np.pi
    waves = np.sin(frequencies * edges) / frequencies
    return np.diff(np.concatenate([edges[None], waves]), axis=1).astype(np.float32)


def _candidates(copies: np.ndarray) -> Iterator[np.ndarray]:
    """int64 [k, 2]: pairs of numbers of copies whose hashes are close, each pair once."""
    whole, middle = hashes(copies), hashes(copies, _CUTS[1])
    for start in range(0, len(whole), _ROWS):
        own = slice(start, start + _ROWS)
        # Those further on in either role, so that every pair is looked at once.
        close = _differing(whole[own, None] ^ whole[start:]) <= _MOST_BITS
        close |= _differing(whole[own, None] ^ middle[start:]) <= _MOST_BITS
        close |= _differing(middle[own, None] ^ whole[start:]) <= _MOST_BITS
        pairs = np.argwhere(close) + start
        pairs = pairs[pairs[:, 0] < pairs[:, 1]]
        for begin in range(0, len(pairs), _PAIRS):
            yield pairs[begin : begin + _PAIRS]


def _differing(bits: np.ndarray) -> np.ndarray:
    """uint8: how many bits of each uint64 are set."""
    if hasattr(np, "bitwise_count"):  # NumPy 2
        return np.bitwise_count(bits)
    counts = np.array([number.bit_count() for number in range(2**16)], np.uint8)
    return counts[bits.view(np.uint16)].reshape(*bits.shape, 4).sum(axis=-1, dtype=np.uint8)


def _similarity(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """float32 [k]: the highest correlation of two copies [k, s, s], of which either may be cut."""
    ones, others = _cut(one), _cut(other)
    forth = np.einsum("kcp,kp->kc", ones, others[:, 0])
    back = np.einsum("kcp,kp->kc", others, ones[:, 0])
    return np.maximum(forth.max(axis=1), back.max(axis=1))


def _cut(copies: np.ndarray) -> np.ndarray:
    """float32 [k, cuts, pixels]: every cut, shrunk, with mean 0 and length 1."""
    boxes = np.stack([_boxes(copies.shape[1], *cut) for cut in _CUTS])
    part = copies.astype(np.float32)
    cuts = np.einsum("yai,kij,xbj->kyxab", boxes, part, boxes, optimize=True)
    flat = cuts.reshape(len(copies), len(_CUTS) ** 2, _SIDE**2)
    flat = flat - flat.mean(axis=2, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=2, keepdims=True), 1e-6)


def _boxes(side: int, begin: float, end: float) -> np.ndarray:
    """float32 [_SIDE, side]: means over equal parts of what lies between begin and end."""
    edges, pixels = np.linspace(begin, end, _SIDE + 1), np.linspace(0, 1, side + 1)
    low = np.maximum(edges[:-1, None], pixels[None, :-1])
    high = np.minimum(edges[1:, None], pixels[None, 1:])
    return (np.maximum(high - low, 0) * _SIDE / (end - begin)).astype(np.float32)


def _joined(links: Iterable[tuple[int, int]]) -> list[list[int]]:
    """The groups that links make, each sorted, in the order of their first members."""
    leaders: dict[int, int] = {}

    def leader(member: int) -> int:
        leaders.setdefault(member, member)
        while leaders[member] != member:
            leaders[member] = member = leaders[leaders[member]]
        return member

    for one, other in links:
        first, second = sorted((leader(one), leader(other)))
        leaders[second] = first
    groups: dict[int, list[int]] = {}
    for member in sorted(leaders):
        groups.setdefault(leader(member), []).append(member)
    return list(groups.values())
