"""usage: keras-resnet benchmark step --config=NAME_OR_PATH [--steps=10] [--rounds=5] [--json=FILE]
                         [--config.key=value ...]

Times the compiled training step of a config on one batch of noise that is in memory already, so
without the input pipeline. Prints images/s (median over the rounds, and the slowest and fastest),
the seconds of the first step, which compiles, the most memory it took, and the model FLOP/s: six
times the multiply-adds of the network an image, for the forward and the backward pass."""

import json
from pathlib import Path

from absl import flags as absl_flags

from keras_resnet.commands.startup import start_tensorflow
from keras_resnet.config import overrides
from keras_resnet.errors import UsageError, UserError

SUMMARY = "Measure the training step on data that is in memory."


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines --config, --steps, --rounds, --json and the overrides."""
    overrides.define_config(flags)
    absl_flags.DEFINE_integer("steps", 10, "in a round", lower_bound=1, flag_values=flags)
    absl_flags.DEFINE_integer("rounds", 5, "of which to take the median", 1, flag_values=flags)
    absl_flags.DEFINE_string("json", None, "file to write the figures to", flag_values=flags)


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Measures, prints and returns 0."""
    if arguments or not flags.config:
        raise UsageError(
            "it takes --config=NAME and no other argument; for example: "
            "keras-resnet benchmark step --config=cifar10"
        )
    if flags.json and not Path(flags.json).parent.is_dir():
        raise UserError(f"--json={flags.json}: there is no folder {Path(flags.json).parent}")
    resolved = overrides.resolve(flags)
    start_tensorflow()
    from keras_resnet.commands.step_timing import measure_step

    figures = measure_step(resolved, steps=flags.steps, rounds=flags.rounds)
    for name, value in _lines(figures):
        print(f"{name:<10} {value}")
    if flags.json:
        Path(flags.json).write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def _lines(figures: dict) -> list[tuple[str, str]]:
    slowest, fastest = figures["images_per_second_range"]
    return [
        ("model", f"{figures['model']}, {figures['image_size']} px, batch {figures['batch_size']}"),
        ("device", f"{figures['device']}, {figures['precision']}, xla {figures['xla']}"),
        (
            "speed",
            f"{figures['images_per_second']:,.1f} images/s ({slowest:,.1f} to {fastest:,.1f} in "
            f"{figures['rounds']} rounds of {figures['steps']} steps)",
        ),
        ("first step", f"{figures['first_step_seconds']:.1f} s, with tracing and compilation"),
        ("memory", f"{figures['peak_memory_bytes'] / 2**30:.2f} GiB at most"),
        ("model", f"{figures['model_flops_per_second'] / 1e9:,.1f} GFLOP/s"),
    ]
