"""usage: keras-resnet preflight --config=NAME_OR_PATH --topology=v5e:2x4
                         [--json=FILE] [--plot=FILE.png] [--search] [--tune]
                         [--input=FILE] [--price=USD] [--examples=N] [--config.key=value ...]

Compiles the training step of a config with the real TPU compiler, without a TPU, and says whether
it compiles and fits, and how fast the compiler thinks it will be. Topologies are slices of v2, v3,
v4, v5e, v5p, v6e and tpu7x. A large network takes some minutes. Needs the extra `preflight`. With
--config.engine=jax it is the program of the whole slice, sums over its chips included; else that of
one chip, and the sums by formula. With a schedule of image sizes the step of each is compiled, and
the run's minutes and money are the sum; --search, --tune and --plot take the largest size.

exit codes: 0 it fits, 3 it does not fit, 4 it does not compile"""

import functools
import importlib.util
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags as absl_flags
from ml_collections import ConfigDict

from keras_resnet.architectures import get_architecture
from keras_resnet.backend import engine_name
from keras_resnet.commands.options import (
    check_folder_of,
    define_strings,
    require_config,
    write_json,
)
from keras_resnet.commands.startup import start_tensorflow
from keras_resnet.config import (
    overrides,
    training_image_size,
    training_image_sizes,
    with_training_image_size,
)
from keras_resnet.errors import UsageError, UserError
from keras_resnet.preflight.by_size import compile_each
from keras_resnet.preflight.compiler import NO_COMPILER, compile_step
from keras_resnet.preflight.cost import Run, planned_run
from keras_resnet.preflight.describe import describe, describe_sizes
from keras_resnet.preflight.jax_step import compile_slice
from keras_resnet.preflight.lowering import lower_train_step
from keras_resnet.preflight.plot import draw
from keras_resnet.preflight.report import (
    DOES_NOT_COMPILE,
    DOES_NOT_FIT,
    FITS,
    Report,
)
from keras_resnet.preflight.search import largest_batch
from keras_resnet.preflight.topologies import Topology, parse_topology
from keras_resnet.preflight.tune import describe as describe_trial
from keras_resnet.preflight.tune import tune

SUMMARY = "Compile the training step for a Cloud TPU, without one: fits? how fast?"
_EXAMPLE = "keras-resnet preflight --config=resnet50_imagenet_tpu --topology=v5e:2x4"


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines --config, --topology, what to do with the result, and the overrides."""
    overrides.define_config(flags)
    define_strings(
        flags,
        topology="The TPU slice: its generation and its sides in chips, as in v5e:2x4 or v4:2x2x1.",
        json="File to write the figures to, as JSON.",
        plot="Picture to write, a .png, of where the cycles go.",
        input="What `keras-resnet benchmark input --json` wrote on a host, to compare with.",
    )
    absl_flags.DEFINE_boolean(
        "search",
        False,
        "Find the largest batch that fits, if that of the config does not.",
        flag_values=flags,
    )
    absl_flags.DEFINE_boolean(
        "tune",
        False,
        "Try flags of the compiler and sizes of the batch, which takes about an hour.",
        flag_values=flags,
    )
    absl_flags.DEFINE_float(
        "price",
        None,
        "US dollars for a chip and hour: what the whole run costs is printed.",
        flag_values=flags,
    )
    absl_flags.DEFINE_integer(
        "examples",
        None,
        "Number of training images, for the length of the run; without it that of the data set, "
        "where its name tells it.",
        lower_bound=1,
        flag_values=flags,
    )
    absl_flags.DEFINE_integer(
        "classes",
        None,
        "Number of classes of the network; without it that of the architecture.",
        lower_bound=2,
        flag_values=flags,
    )


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Compiles, prints, writes; returns 0, 3 or 4."""
    require_config(flags, arguments, _EXAMPLE)
    if not flags.topology:
        raise UsageError(f"--topology is missing; for example: {_EXAMPLE}")
    topology = parse_topology(flags.topology)
    resolved = overrides.resolve(flags)
    check_folder_of(flags, "json", "plot")
    measured = _measured_input(flags.input)
    batch = topology.images_per_replica(resolved.batch_size, resolved.accumulate_steps)
    planned = planned_run(resolved, flags.examples, _price(flags.price))
    _require_compiler()
    if engine_name(resolved.engine) != "jax":
        start_tensorflow()

    shares = training_image_sizes(resolved).shares()
    one_size = len(shares) == 1
    compile_at = functools.partial(
        _preflight, resolved, topology, flags.classes, planned if one_size else None
    )
    step = functools.partial(compile_at, training_image_size(resolved))
    report = step(batch, resolved.libtpu_init_args)
    print(describe(report, measured), flush=True)
    figures, exit_code = report.figures(), report.exit_code
    if not one_size:
        by_size = compile_each(
            report, shares, lambda size: compile_at(size, batch, resolved.libtpu_init_args), planned
        )
        figures, exit_code = by_size.figures(), by_size.exit_code
        print(f"\n{describe_sizes(figures)}")
    if flags.search and report.exit_code == DOES_NOT_FIT:
        figures["largest_batch_per_replica"] = _search(report, step, resolved)
    if flags.tune and report.exit_code != DOES_NOT_COMPILE:
        figures["tuned"] = _tune(batch, step)
    write_json(flags.json, figures)
    if flags.plot and report.exit_code == FITS:
        name = f"{resolved.model.name}, {batch} images on one core or chip of {topology.chip.name}"
        draw(report, Path(flags.plot), name)
    return exit_code


def _require_compiler() -> None:
    if any(importlib.util.find_spec(name) is None for name in ("jax", "libtpu")):
        raise UserError(NO_COMPILER)


def _price(price: float | None) -> float | None:
    if price is not None and not 0 < price < math.inf:
        raise UsageError(
            f"--price={price:g} is not a price: say US dollars for a chip and hour, more than 0, "
            "as in --price=1.2"
        )
    return price


def _measured_input(path: str | None) -> float | None:
    """Images/s of the last stage, the whole pipeline, in a result of `benchmark input`."""
    if path is None:
        return None
    try:
        return float(json.loads(Path(path).read_text())["stages"][-1]["images_per_second"])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(
            f"--input={path} is not a result of keras-resnet benchmark input ({error})"
        ) from error


def _preflight(
    config: ConfigDict,
    topology: Topology,
    classes: int | None,
    run: Run | None,
    image_size: int,
    batch: int,
    libtpu_flags: str,
) -> Report:
    """Lowers and compiles; returns a Report."""
    config = with_training_image_size(config, image_size)
    classes = classes or get_architecture(config.model.name).classes
    if engine_name(config.engine) == "jax":
        step, compiled = compile_slice(
            config, topology, batch=batch, classes=classes, flags=libtpu_flags
        )
        return Report(topology, step, compiled, engine="jax", image_size=image_size, run=run)
    lowered = lower_train_step(config, batch=batch, classes=classes)
    compiled = compile_step(lowered.hlo, topology.chip, libtpu_flags)
    parts = config.accumulate_steps
    return Report(topology, lowered, compiled, parts=parts, image_size=image_size, run=run)


def _search(report: Report, step: Callable[[int, str], Report], config: ConfigDict) -> int:
    largest, tried = largest_batch(lambda batch: step(batch, config.libtpu_init_args), report)
    sizes = ", ".join(f"{entry.lowered.batch}" for entry in tried)
    print(f"largest batch per replica that fits: {largest or 'none'} (tried {sizes})")
    return largest


def _tune(batch: int, step: Callable[[int, str], Report]) -> list[dict[str, Any]]:
    rows = []
    for trial in tune(lambda option, size: step(size, option), (batch, 2 * batch, batch // 2)):
        print(describe_trial(trial), flush=True)
        rows.append(
            {
                "libtpu_init_args": trial.flags,
                "batch_per_replica": trial.batch,
                "estimated_cycles": trial.report.figures()["estimated_cycles"],
                "images_per_second_per_chip": trial.images_per_second,
            }
        )
    best = max(rows, key=lambda row: row["images_per_second_per_chip"])
    print(
        f"best: --config.libtpu_init_args={best['libtpu_init_args']!r} with "
        f"{best['batch_per_replica']} images per replica"
    )
    return rows
