"""usage: keras-resnet benchmark step --config=NAME_OR_PATH [--steps=10] [--rounds=5] [--json=FILE]
                         [--config.key=value ...]

Times the compiled training step of a config on one batch of noise that is in memory already, so
without the input pipeline. Prints the images/s (the median of the rounds, and the slowest and the
fastest), the seconds that the first step takes, which compiles, the most memory that was in use,
and the model FLOP/s: for each image six times the multiply-adds of the network, which is one
forward and one backward pass, and with distill.teacher twice those of the teacher."""

from absl import flags as absl_flags

from keras_resnet.commands.options import (
    check_folder_of,
    define_strings,
    require_config,
    write_json,
)
from keras_resnet.commands.startup import start_engine
from keras_resnet.config import overrides

SUMMARY = "Measure the training step, without the input pipeline."


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines --config, --steps, --rounds, --json and the overrides."""
    overrides.define_config(flags)
    absl_flags.DEFINE_integer(
        "steps", 10, "Number of training steps to time in each round.", 1, flag_values=flags
    )
    absl_flags.DEFINE_integer(
        "rounds", 5, "Number of rounds; the median is reported.", 1, flag_values=flags
    )
    define_strings(flags, json="File to write the figures to, as JSON.")


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Measures, prints and returns 0."""
    require_config(flags, arguments, "keras-resnet benchmark step --config=cifar10")
    check_folder_of(flags, "json")
    resolved = overrides.resolve(flags)
    start_engine(resolved.engine)
    from keras_resnet.commands.benchmark.step_timing import measure_step

    figures = measure_step(resolved, steps=flags.steps, rounds=flags.rounds)
    for name, value in _lines(figures):
        print(f"{name:<10} {value}")
    write_json(flags.json, figures)
    return 0


def _lines(figures: dict) -> list[tuple[str, str]]:
    slowest, fastest = figures["images_per_second_range"]
    return [
        ("model", f"{figures['model']}, {figures['image_size']} px, batch {figures['batch_size']}"),
        ("device", f"{figures['device']}, {figures['precision']}, xla {figures['xla']}"),
        ("step", figures["step"]),
        (
            "speed",
            f"{figures['images_per_second']:,.1f} images/s ({slowest:,.1f} to {fastest:,.1f} in "
            f"{figures['rounds']} rounds of {figures['steps']} steps)",
        ),
        ("first step", f"{figures['first_step_seconds']:.1f} s, with tracing and compilation"),
        ("memory", f"{figures['peak_memory_bytes'] / 2**30:.2f} GiB at most"),
        ("model", f"{figures['model_flops_per_second'] / 1e9:,.1f} GFLOP/s"),
    ]
