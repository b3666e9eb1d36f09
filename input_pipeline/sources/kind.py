"""What a source says about itself. Standard library only."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from keras_resnet.input_pipeline.settings import Setting

if TYPE_CHECKING:
    from keras_resnet.input_pipeline.sources.base import Source


@dataclasses.dataclass(frozen=True)
class SourceKind:
    """A way to get at images.

    Attributes:
        name: as configurations write it.
        help: what it reads, in a few words.
        open_split: from the arguments `name`, `path`, `split` and those of `settings`, all by
            keyword, to one split.
        settings: what it alone takes.
        exif: what data.exif=auto means for it: "apply" for photos as cameras leave them, "ignore"
            for prepared sets, which nobody else turns.
    """

    name: str
    help: str
    open_split: "Callable[..., Source]"
    settings: tuple[Setting, ...] = ()
    exif: str = "ignore"
