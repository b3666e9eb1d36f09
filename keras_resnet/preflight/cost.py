"""How long the whole run of a config takes on a slice, and what that costs."""

import collections
import dataclasses
from collections.abc import Mapping

from ml_collections import ConfigDict

from keras_resnet.errors import UsageError
from keras_resnet.input_pipeline.sources import splits
from keras_resnet.input_pipeline.sources.synthetic import SHAPES
from keras_resnet.training.progress import Timeline


@dataclasses.dataclass(frozen=True)
class Run:
    """The run of a config.

    Attributes:
        epochs: of the config.
        examples: size of the training split.
        steps_by_size: whole batches in all epochs, by the size of their images, in their order.
        batch_size: images of a step.
        price: US dollars for a chip and hour; None where nobody has said.
    """

    epochs: int
    examples: int
    steps_by_size: Mapping[int, int]
    batch_size: int
    price: float | None = None

    @property
    def steps(self) -> int:
        """Of all sizes together."""
        return sum(self.steps_by_size.values())

    def minutes(self, image_size: int, images_per_second: float) -> float:
        """Returns how long the steps of one size take at a speed of the whole slice."""
        return self.steps_by_size[image_size] * self.batch_size / images_per_second / 60

    def figures(
        self, images_per_second: Mapping[int, float], chips: int
    ) -> dict[str, float | int | None]:
        """Returns minutes, chip-hours and, with a price, US dollars.

        Training alone: start, compilation, evaluations, checkpoints and preemptions come on top.

        Args:
            images_per_second: of the whole slice, for each size of the images.
            chips: of it.
        """
        minutes = sum(self.minutes(size, images_per_second[size]) for size in self.steps_by_size)
        chip_hours = minutes / 60 * chips
        return {
            "epochs": self.epochs,
            "examples": self.examples,
            "steps": self.steps,
            "minutes": minutes,
            "chip_hours": chip_hours,
            "usd_per_chip_hour": self.price,
            "usd": None if self.price is None else chip_hours * self.price,
        }


def train_examples(config: ConfigDict) -> int | None:
    """Returns the size of the training split, or None where the data set's name does not tell it.

    It is known for the data sets of `input_pipeline.sources.synthetic`; a folder is not opened.
    """
    known = config.data.source in ("tfds", "synthetic") and config.data.name in SHAPES
    if not known or (config.data.source == "tfds" and not config.data.name):
        return None
    _, sizes = SHAPES[config.data.name]

    def size(part: str) -> int:
        if part not in sizes:
            raise KeyError(part)
        return sizes[part]

    try:
        return sum(len(positions) for _, positions in splits.select(config.data.train_split, size))
    except KeyError:
        return None


def planned_run(
    config: ConfigDict, examples: int | None = None, price: float | None = None
) -> Run | None:
    """Returns the run of a config, or None if its examples are not known and nobody asks.

    Args:
        config: a checked config; reads `epochs`, `batch_size` and `data`.
        examples: size of the training split, where it was said.
        price: US dollars for a chip and hour.

    Raises:
        UsageError: there is a price, but the number of examples is not known; or the run has not
            one whole step, or none for the last size of its images.
    """
    examples = examples or train_examples(config)
    if examples is None:
        if price is not None:
            raise UsageError(
                f"--price={price:g}: the size of config.data.name={config.data.name!r} from "
                f"config.data.source={config.data.source!r} is not known here; say it with "
                "--examples=NUMBER_OF_TRAINING_IMAGES"
            )
        return None
    steps: collections.Counter[int] = collections.Counter()
    for segment in Timeline(config, examples).segments:
        steps[segment.image_size] += segment.end - segment.first
    return Run(config.epochs, examples, dict(steps), config.batch_size, price)
