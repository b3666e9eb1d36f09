"""How long the whole run of a config takes on a slice, and what that costs."""

import dataclasses

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
        steps: whole batches in all epochs.
        batch_size: images of a step.
        price: US dollars for a chip and hour; None where nobody has said.
    """

    epochs: int
    examples: int
    steps: int
    batch_size: int
    price: float | None = None

    def figures(self, images_per_second: float, chips: int) -> dict[str, float | int | None]:
        """Returns minutes, chip-hours and, with a price, US dollars.

        Training alone: start, compilation, evaluations, checkpoints and preemptions come on top.

        Args:
            images_per_second: of the whole slice.
            chips: of it.
        """
        seconds = self.steps * self.batch_size / images_per_second
        chip_hours = seconds / 3600 * chips
        return {
            "epochs": self.epochs,
            "examples": self.examples,
            "steps": self.steps,
            "minutes": seconds / 60,
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
            one whole step.
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
    steps = Timeline(config, examples).total_steps
    return Run(config.epochs, examples, steps, config.batch_size, price)
