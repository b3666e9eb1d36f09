"""usage: keras-resnet finetune --data=PHOTOS --weights=FILE --workdir=DIR [--config.key=value ...]

Trains a network on photos, beginning with trained weights: the classifier alone first, then all
layers, those nearer to the pixels at smaller rates. It is `keras-resnet train` with --data and
--weights, whose help says what it chooses and what it leaves in DIR. The weights are a file of any
usual library, hf://OWNER/REPOSITORY, or the work directory of a finished run. The same command
again resumes; so does --workdir alone."""

from absl import flags as absl_flags

from keras_resnet.commands import train
from keras_resnet.commands.options import refuse_arguments
from keras_resnet.config import overrides
from keras_resnet.errors import UsageError

SUMMARY = "Train on photos from trained weights; the same command again resumes."
_EXAMPLE = (
    "keras-resnet finetune --data=photos --weights=hf://timm/resnet50.a1_in1k --workdir=runs/photos"
)


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines --data, --weights, what goes with them, and the overrides."""
    train.define_data_flags(flags)
    overrides.define(flags)


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Trains; returns 0."""
    refuse_arguments(arguments, _EXAMPLE)
    for name in ("workdir",) if train.is_begun(flags) else ("data", "weights", "workdir"):
        if not flags[name].value:
            raise UsageError(f"--{name} is missing; for example: {_EXAMPLE}")
    return train.train_on_data(flags)
