"""How an image becomes the input of a network: one value that travels with weights and models.

Standard library only: the pipeline, the models, the weights and the configs all use it.
"""

import dataclasses
import math
import operator
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

from keras_resnet.errors import UserError, nearest

# "bicubic_float" is the bicubic filter of version 1, which rounded to 8 bits only at the very end.
INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "bicubic_float")
RESIZES = ("round", "floor", "shortest_edge", "plain")
CHANNEL_ORDERS = ("rgb", "bgr")
EXIF = ("apply", "ignore")
SCALED_DECODING = ("auto", "never")
# 268 million: a phone's 200 megapixels, and what a process can take (see docs/data.md).
MAX_PIXELS = 2**28


class PreprocessingError(UserError, ValueError):
    """A description of preprocessing that cannot be used; the message quotes the value."""


class NewerVersionError(PreprocessingError):
    """The description was written by a newer version of this package."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Preprocessing(Mapping[str, Any]):
    """What evaluation, prediction and exports do to an image before the network sees it.

    It is also a read-only mapping of its fields, with lists for tuples:
    `model.preprocessing["mean"]`, `{**model.preprocessing, "image_size": 256}`.

    Attributes:
        image_size: height and width in pixels of what the network sees.
        crop_ratio: the share of the resized image that is kept: its short side becomes
            `image_size / crop_ratio` pixels, and the center is cropped. Above 0, up to 1.
        interpolation: one of INTERPOLATIONS. "bilinear" and "bicubic" are PIL's, which antialias;
            "nearest" is PIL's too; "bicubic_float" is what version 1 called "bicubic": it leaves
            out that PIL rounds and clips to 8 bits after each of its two passes.
        mean: of pixels scaled to 0..1, one number for each channel in `channel_order`.
        std: the same for the standard deviation, above 0.
        channel_order: one of CHANNEL_ORDERS.
        resize: one of RESIZES, the rule of a library for what is no whole number of pixels:
            "round": the short side is rounded (to the nearest even one where it is halfway), and so
            is the corner of the crop. This is torchvision's: a side given as an integer is
            `crop_ratio = image_size / side`.
            "floor": the short side is rounded down, the corner as above (timm).
            "shortest_edge": both are rounded down (transformers).
            "plain": both sides become `image_size / crop_ratio`, rounded down, whatever their ratio
            was, and the center is cropped (timm's "squash"; with a crop_ratio of 1 nothing is
            cropped: keras.applications, and transformers from 384 pixels on).
        exif: one of EXIF: whether a photo is turned as its EXIF orientation says, before anything
            else. A model carries what it was trained with; where nobody trained, "apply".
        max_pixels: how many pixels an image may claim to have, else it is refused; kinds of files
            that take much memory or time count each pixel several times (docs/data.md).
        scaled_decoding: one of SCALED_DECODING: whether a JPEG is decoded at the smallest of a
            whole, a half, a quarter and an eighth of its sides that still leaves twice the sides
            that it is resized to ("auto"): several times as fast for the photos of a phone, whose
            gray levels change by less than one on average. "never" is what other libraries do.

    Raises:
        PreprocessingError: a value cannot be used.
    """

    image_size: int
    crop_ratio: float
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: str
    resize: str = "round"
    exif: str = "apply"
    max_pixels: int = MAX_PIXELS
    scaled_decoding: str = "never"

    # What `to_dict` writes. Files without a version are of version 1.
    VERSION: ClassVar[int] = 3
    # For each field that came after version 1: what a file that lacks it means. Add the field
    # above, a row here, and 1 to VERSION; files of earlier versions then keep their meaning.
    MEANING_OF_ABSENCE: ClassVar[Mapping[str, Any]] = {
        "resize": "round",
        "exif": "ignore",
        "max_pixels": MAX_PIXELS,
        "scaled_decoding": "never",
    }
    # Version -> field -> what a value that means something else today is called today.
    MEANING_OF_VALUES: ClassVar[Mapping[int, Mapping[str, Mapping[Any, Any]]]] = {
        1: {"interpolation": {"bicubic": "bicubic_float"}}
    }

    def __post_init__(self) -> None:
        for name in ("image_size", "max_pixels"):
            object.__setattr__(self, name, _whole_number(name, getattr(self, name)))
            if getattr(self, name) <= 0:
                raise PreprocessingError(
                    f"{name} is {getattr(self, name)!r}; it must be a positive integer."
                )
        object.__setattr__(self, "crop_ratio", _number("crop_ratio", self.crop_ratio))
        if not 0 < self.crop_ratio <= 1:
            raise PreprocessingError(
                f"crop_ratio is {self.crop_ratio!r}; it must be above 0, up to 1."
            )
        _check_choice("interpolation", self.interpolation, INTERPOLATIONS)
        _check_choice("channel_order", self.channel_order, CHANNEL_ORDERS)
        _check_choice("resize", self.resize, RESIZES)
        _check_choice("exif", self.exif, EXIF)
        _check_choice("scaled_decoding", self.scaled_decoding, SCALED_DECODING)
        given = {"mean": self.mean, "std": self.std}
        for name, values in given.items():
            object.__setattr__(self, name, _numbers(name, values))
        if len(self.mean) != len(self.std):
            raise PreprocessingError(
                f"mean is {given['mean']!r}; it must hold one number per channel, as many as std "
                f"({given['std']!r})."
            )
        if not min(self.std) > 0:
            raise PreprocessingError(f"std is {given['std']!r}; every value must be above 0.")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Makes it of a mapping: another `Preprocessing`, what `to_dict` gave, or a dict by hand.

        A dict without `version` is one by hand: its values mean what they mean today.

        Raises:
            NewerVersionError: `values` are of a version that this package does not know.
            PreprocessingError: `values` are no mapping, a key is missing or unknown, or a value
                cannot be used.
        """
        if isinstance(values, cls):
            return values
        if not isinstance(values, Mapping):
            raise PreprocessingError(
                f"The preprocessing is {values!r}; it must be a Preprocessing or a dict with the "
                f"keys {', '.join(cls.names())}."
            )
        values = dict(values)
        version = values.pop("version", cls.VERSION)
        if type(version) is not int or not 1 <= version <= cls.VERSION:
            raise NewerVersionError(
                f"the preprocessing is of version {version!r}, this keras_resnet knows versions up "
                f"to {cls.VERSION}; install a newer one to use the file"
            )
        for key, meanings in cls.MEANING_OF_VALUES.get(version, {}).items():
            given = values.get(key)
            if isinstance(given, str):
                values[key] = meanings.get(given, given)
        values = {**cls.MEANING_OF_ABSENCE, **values}
        known = cls.names()
        for key in values:
            if key not in known:
                raise PreprocessingError(
                    f"Unknown preprocessing key {key!r}; known are {', '.join(known)}"
                    f"{nearest(key, known)}"
                )
        if missing := [key for key in known if key not in values]:
            raise PreprocessingError(f"The preprocessing lacks {', '.join(missing)}; got {values}.")
        return cls(**values)

    @classmethod
    def from_metadata(cls, values: Mapping[str, Any] | None, origin: str) -> Self | None:
        """As `from_dict`, of the metadata of a model; None where there is none.

        Metadata without a `version` are of version 1, which stored whatever the model was given.
        What is no preprocessing is left out, with a warning, so that the weights can be had all the
        same.

        Args:
            values: what the metadata hold.
            origin: the file or the model, for the warning.

        Raises:
            NewerVersionError: `values` are of a version that this package does not know.
        """
        if values is None or isinstance(values, cls):
            return values
        try:
            return cls.from_dict(
                {"version": 1, **values} if isinstance(values, Mapping) else values
            )
        except NewerVersionError:
            raise
        except PreprocessingError as error:
            warnings.warn(f"{origin} comes without preprocessing: {error}", stacklevel=2)
            return None

    @classmethod
    def from_fields_of(cls, owner: object) -> Self:
        """Makes it of an object that has attributes of these names among others.

        What has a default may be missing.

        Raises:
            PreprocessingError: a value cannot be used.
        """
        return cls(**{name: getattr(owner, name) for name in cls.names() if hasattr(owner, name)})

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of the fields."""
        return tuple(field.name for field in dataclasses.fields(cls))

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold and `from_dict` takes: the fields, and a `version`."""
        return {"version": self.VERSION, **self}

    def replace(self, **changes: Any) -> Self:
        """A copy with other values for some fields."""
        return dataclasses.replace(self, **changes)

    def __getitem__(self, key: str) -> Any:
        if key not in self.names():
            raise KeyError(key)
        value = getattr(self, key)
        return list(value) if isinstance(value, tuple) else value

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __eq__(self, other: object) -> bool:
        """Equality of the fields, also with a mapping that holds the same, as lists or tuples.

        Fields that the mapping lacks mean what their absence does in `from_dict`.
        """
        if not isinstance(other, Mapping):
            return NotImplemented
        given = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in other.items()
            if key != "version"
        }
        return dict(self) == {**self.MEANING_OF_ABSENCE, **given}

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in self.names()))


def _check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        meant = nearest(str(value), choices)
        raise PreprocessingError(f"Unknown {name} {value!r}; known are {', '.join(choices)}{meant}")


def _whole_number(name: str, value: Any) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)  # numpy's integers too
    except TypeError as error:
        raise PreprocessingError(f"{name} is {value!r}; it must be a positive integer.") from error


def _number(name: str, value: Any) -> float:
    try:
        if isinstance(value, str) or not math.isfinite(value):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise PreprocessingError(f"{name} is {value!r}; it must be a number.") from error


def _numbers(name: str, values: Any) -> tuple[float, ...]:
    try:
        numbers = tuple(_number(name, value) for value in values)
    except (TypeError, PreprocessingError) as error:
        raise PreprocessingError(
            f"{name} is {values!r}; it must hold one number per channel."
        ) from error
    if not numbers:
        raise PreprocessingError(f"{name} is {values!r}; it must hold one number per channel.")
    return numbers
