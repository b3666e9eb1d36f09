"""Which images a run trains on, which it chooses by, and which it reports: three kinds apart."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from keras_resnet.errors import UsageError
from keras_resnet.input_pipeline.errors import DataError
from keras_resnet.input_pipeline.layout import Example, Layout
from keras_resnet.input_pipeline.sources import splits as split_syntax

LEAST, MOST = 0.02, 0.8
_KEYS = {
    "train": "data.train_split",
    "validation": "data.eval_split",
    "test": "data.test_split",
}
_NOT_HELD_OUT = "; a class of few images has none to hold out"
_NOT_TRAINED = (
    ", which is trained on: the network will not learn it. Add images of it, or hold out fewer "
    "images with a smaller --split"
)


@dataclasses.dataclass(frozen=True)
class Splits:
    """The splits of a run and their images.

    Attributes:
        names: "train", "validation" and "test" -> the split, as TFDS writes it; "" for no test.
        examples: (path, label) of their images.
        class_names: by label.
        why: how they came about, as a clause.
    """

    names: dict[str, str]
    examples: dict[str, list[Example]]
    class_names: tuple[str, ...]
    why: str

    def config(self) -> dict[str, str]:
        """The keys of a config and their values."""
        return {key: self.names[role] for role, key in _KEYS.items()}

    def counts(self) -> str:
        """How many images there are for what, in words."""
        number = {role: f"{len(examples):,}" for role, examples in self.examples.items()}
        report = f", {number['test']} to report" if self.names["test"] else ""
        train = f"{number['train']} image{'' if number['train'] == '1' else 's'}"
        return f"{train} to train on, {number['validation']} to choose by{report}"

    def warnings(self) -> list[str]:
        """Lines on images that two splits share, and on classes that a split lacks."""
        lines = []
        train = {path for path, _ in self.examples["train"]}
        held_out = [path for role in ("validation", "test") for path, _ in self.examples[role]]
        if both := sum(path in train for path in held_out):
            lines.append(
                f"warning: {both:,} images are trained on and held out as well: the accuracy will "
                f"be too good ({', '.join(f'config.{key}' for key in _KEYS.values())})"
            )
        for role in ("train", "validation", "test"):
            present = {label for _, labels in self.examples[role] for label in _numbers(labels)}
            lacking = [name for i, name in enumerate(self.class_names) if i not in present]
            if lacking and self.names[role]:
                more = f" and {len(lacking) - 5:,} more" if len(lacking) > 5 else ""
                lines.append(
                    f"warning: no image of {', '.join(map(repr, lacking[:5]))}{more} in "
                    f"{self.names[role]}{_NOT_TRAINED if role == 'train' else _NOT_HELD_OUT}"
                )
        return lines


def _numbers(labels: int | tuple[int, ...]) -> tuple[int, ...]:
    return labels if isinstance(labels, tuple) else (labels,)


def choose_splits(layout: Layout, share: float, given: Mapping[str, Any]) -> Splits:
    """Returns the splits of the data, and slices where it has none: fixed and stratified.

    Nothing is chosen by the images that are reported. Where training images and one held-out split
    are all there is, that one is reported, and images to choose by are cut from the training ones.

    Args:
        layout: of the data.
        share: of the training images that are held out where the data has no split for it; half of
            it for each, if it has neither.
        given: keys of the config that are set already.

    Raises:
        UsageError: `share` cannot be used.
        DataError: a split is missing, cannot be told, holds no images or files that are not there,
            or there are fewer than two classes.
    """
    if not LEAST <= share <= MOST:
        raise UsageError(f"--split={share:g} must be at least {LEAST:g} and at most {MOST:g}")
    names, why = _names(layout, share, given)
    names |= {role: given[key] for role, key in _KEYS.items() if key in given}
    examples = {role: _examples(layout, split) if split else [] for role, split in names.items()}
    class_names = layout.class_names()
    if len(class_names) < 2:
        raise DataError(
            f"{layout.path} has one class only, {class_names[0]!r}: there is nothing to tell apart."
            " Put the images of a second class in a folder of their own beside it."
        )
    for role, split in names.items():
        if split and not examples[role]:
            total = sum(map(len, examples.values()))
            raise DataError(
                f"{layout.path} has {total:,} images, of which {split} holds none; add images"
                + _share_that_does(layout, share, given)
            )
    return Splits(names, examples, class_names, why)


def _share_that_does(layout: Layout, share: float, given: Mapping[str, Any]) -> str:
    """What to hold out so that no split is empty, and every class is trained on; "" for nothing."""
    classes = len(layout.class_names())
    for other in sorted({0.1, 0.2, 0.3, 0.4, 0.5, 0.6, MOST}, key=lambda one: abs(one - share)):
        names, _ = _names(layout, other, given)
        names |= {role: given[key] for role, key in _KEYS.items() if key in given}
        examples = [_examples(layout, split) for split in names.values() if split]
        trained = {label for _, labels in examples[0] for label in _numbers(labels)}
        if all(examples) and len(trained) == classes:
            return f", or hold out {other:.0%} of them with --split={other:g}"
    return ""


def _names(layout: Layout, share: float, given: Mapping[str, Any]) -> tuple[dict[str, str], str]:
    roles = {split.role for split in layout.splits}
    if "train" not in roles:
        if _KEYS["train"] in given and _KEYS["validation"] in given:
            return {"test": ""}, "as given"
        there = ", ".join(split.name for split in layout.splits)
        raise DataError(
            f"{layout.path} has no training images: its splits are {there}. Call one of them "
            "train, or give --config.data.train_split=NAME and --config.data.eval_split=NAME"
        )
    held_out = roles & {"validation", "test"}
    if len(held_out) == 2:
        return {"train": "train", "validation": "validation", "test": "test"}, "as they lie"
    percent = round(100 * share)
    kept = 100 - percent
    if held_out:
        cut, end, test = "of the training images are cut off to choose by", "", "test"
    else:
        middle = kept + (percent + 1) // 2
        cut, end, test = (
            "are held out, of every class its share",
            f"{middle}%",
            f"train[{middle}%:]",
        )
    names = {"train": f"train[:{kept}%]", "validation": f"train[{kept}%:{end}]", "test": test}
    return names, f"{percent} % {cut}, --split={share:g}"


def _examples(layout: Layout, split: str) -> list[Example]:
    named: dict[str, list[Example]] = {}

    def size(name: str) -> int:
        named[name] = layout.examples(layout.find(name))
        return len(named[name])

    return [named[name][i] for name, places in split_syntax.select(split, size) for i in places]
