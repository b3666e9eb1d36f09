"""usage: keras-resnet benchmark input --config=NAME_OR_PATH [--target=IMAGES_PER_SECOND]
                         [--seconds=3] [--rounds=3] [--json=FILE] [--config.key=value ...]

Runs the training pipeline of a config without a model, up to each of its stages in turn: read,
decode (and crop), augment, batch. Prints the images a second, the processor time an image takes,
which stage holds the pipeline back, and how many cores would feed --target images/s."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from absl import flags as absl_flags

from keras_resnet.commands.options import (
    check_folder_of,
    define_strings,
    require_config,
    write_json,
)
from keras_resnet.commands.startup import start_tensorflow
from keras_resnet.config import overrides, source_options, training_image_size
from keras_resnet.printing import printable

if TYPE_CHECKING:
    from keras_resnet.input_pipeline.measuring import Measurement

SUMMARY = "Measure the input pipeline, stage by stage."


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines --config, --target, --seconds, --rounds, --json and the overrides."""
    overrides.define_config(flags)
    absl_flags.DEFINE_float(
        "target",
        1000.0,
        "Images/s that the pipeline should feed; it prints how many cores that takes.",
        lower_bound=0.0,
        flag_values=flags,
    )
    absl_flags.DEFINE_float(
        "seconds",
        3.0,
        "Seconds to measure each stage in each round.",
        lower_bound=0.01,
        flag_values=flags,
    )
    absl_flags.DEFINE_integer(
        "rounds",
        3,
        "Number of rounds; the median is reported.",
        lower_bound=1,
        flag_values=flags,
    )
    define_strings(flags, json="File to write the figures to, as JSON.")


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Measures, prints and returns 0."""
    example = "keras-resnet benchmark input --config=cifar10 --target=5000"
    require_config(flags, arguments, example)
    check_folder_of(flags, "json")
    resolved = overrides.resolve(flags)
    start_tensorflow()
    from keras_resnet import input_pipeline
    from keras_resnet.input_pipeline.measuring import measure_stages

    data, image_size = resolved.data, training_image_size(resolved)
    source = input_pipeline.open_source(split=data.train_split, **source_options(resolved))
    measured = measure_stages(
        source,
        batch_size=resolved.batch_size,
        seed=resolved.seed,
        image_size=image_size,
        augment=data.augment.to_dict(),
        sampler=data.sampler,
        seconds=flags.seconds,
        rounds=flags.rounds,
    )
    print(f"{printable(source.description)}; {image_size} px, batches of {resolved.batch_size}, "
          f"{measured.cores} cores, {flags.rounds} rounds of {flags.seconds:g} s\n")  # fmt: skip
    print("\n".join(report(measured, flags.target)))
    write_json(flags.json, as_json(measured, flags.target))
    return 0


def report(measured: "Measurement", target: float) -> list[str]:
    """Returns the lines that people read."""
    rows = [f"  {'up to':<10}{'images/s':>10}{'spread':>20}{'CPU ms/image':>15}{'of it own':>12}"]
    for stage in measured.stages:
        spread = f"{stage.lowest:,.0f}–{stage.highest:,.0f}"
        rows.append(
            f"  {stage.name:<10}{stage.images_per_second:>10,.0f}{spread:>20}"
            f"{1000 * stage.cpu_seconds:>15.3f}{1000 * stage.own_cpu_seconds:>12.3f}"
        )
    slowest = measured.bottleneck
    megabytes = target * measured.bytes_per_image / 1e6
    return [
        *rows,
        "",
        f"  {slowest.name} holds it back: alone it would let through {slowest.limit:,.0f} images/s",
        f"  {target:,.0f} images/s take {measured.cores_for(target):,} such cores and read "
        f"{megabytes:,.1f} MB/s",
    ]


def as_json(measured: "Measurement", target: float) -> dict[str, Any]:
    """Returns the figures as plain numbers; a stage that costs nothing has the limit None."""
    stages = [
        {key: None if value == math.inf else value for key, value in row.items()}
        for row in map(dataclasses.asdict, measured.stages)
    ]
    return {
        "stages": stages,
        "cores": measured.cores,
        "bytes_per_image": measured.bytes_per_image,
        "bottleneck": measured.bottleneck.name,
        "target_images_per_second": target,
        "cores_for_target": measured.cores_for(target),
    }
