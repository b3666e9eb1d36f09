"""The JAX engine's own training step, compiled for a whole slice: sums over its chips included.

In a process of its own, where Keras runs on JAX and nothing of ours loads TensorFlow, it builds
network and optimizer of a config, and lowers and compiles the very program that `train` runs; of
shapes alone, nothing lies on a device. `compile_slice` is the caller's side.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from keras_resnet.config import check, default_config, merge, training_image_size
from keras_resnet.preflight.compiler import (
    Compiled,
    devices_of,
    hbm_limit,
    read_costs,
    read_error,
    run_compiler,
    write_results,
)
from keras_resnet.preflight.lowering import IMAGENET_TRAIN, Lowered
from keras_resnet.preflight.topologies import Topology


def compile_slice(
    config: ConfigDict,
    topology: Topology,
    *,
    batch: int,
    classes: int,
    flags: str = "",
    timeout: float = 3600,
) -> tuple[Lowered, Compiled]:
    """Compiles the step of `config` with engine=jax for all chips of a slice.

    Args:
        config: a checked config; `batch_size` is replaced.
        topology: the slice.
        batch: images per replica (and part of `accumulate_steps`).
        classes: outputs of the network.
        flags: LIBTPU_INIT_ARGS.
        timeout: seconds.

    Returns:
        The step and what became of it; memory, operations and cycles are of one replica.

    Raises:
        UserError: jax or libtpu are not installed, the compiler did not end in time, or the config
            cannot be used.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_text(json.dumps(config.to_dict()))
        arguments = (file, topology.name, batch, classes)
        values, text = run_compiler(
            __name__, arguments, topology.chip, topology.sides, flags, timeout, KERAS_BACKEND="jax"
        )
    batch *= config.accumulate_steps  # all parts are in the program
    step = values.pop("step", None)
    if step is None:  # the compiler has ended before it could say anything
        step = {"model_flops": 0.0, "gradient_bytes": 0, "variable_bytes": 0, "parameters": 0}
        step["layers"] = ()
    lowered = Lowered(hlo=b"", batch=batch, **step | {"layers": tuple(step["layers"])})
    return lowered, Compiled(**values, text=text)


def _compile(config: ConfigDict, topology: str, batch: int, classes: int) -> tuple[dict, str]:
    """Returns the fields of `Compiled` with those of the step, and the optimized program."""
    import numpy as np
    from jax.sharding import Mesh

    from keras_resnet.models.costs import profile
    from keras_resnet.training.jax.mesh import AXIS
    from keras_resnet.training.jax.step import Steps

    devices = devices_of(topology)
    mesh = Mesh(np.array(devices), (AXIS,))
    config.batch_size = batch * config.accumulate_steps * len(devices)
    if config.precision == "auto":
        config.precision = "mixed_bfloat16"  # what it is on every TPU
    steps: Steps = _build(config, mesh, classes)
    costs = profile(steps.model, (training_image_size(config),) * 2 + (3,))
    variables = [*steps.model.variables, *steps.optimizer.variables, *steps.averaged]
    taught = 0
    if steps.teacher:
        variables += steps.teacher.variables
        taught = 2 * steps.teacher.multiply_adds
    values: dict[str, Any] = {
        "step": {
            "model_flops": (6 * costs.multiply_adds + taught) * batch * config.accumulate_steps,
            "gradient_bytes": 4 * costs.parameters,
            "variable_bytes": sum(variable.value.nbytes for variable in variables),
            "optimizer_bytes": sum(variable.value.nbytes for variable in steps.optimizer.variables),
            "parameters": costs.parameters,
            "layers": [layer.name for layer in steps.model.layers],
        }
    }
    values |= hbm_limit(devices[0])
    started = time.monotonic()
    try:
        compiled = steps.lower(_example(config, classes)).compile()
    except Exception as error:
        return values | read_error(str(error)), ""
    values["compile_seconds"] = time.monotonic() - started
    found = read_costs(compiled.memory_analysis(), compiled.cost_analysis())
    try:
        return values | found, compiled.as_text()
    except Exception:  # a libtpu newer than jaxlib has instructions that this cannot write down
        return values | found, ""


def _build(config: ConfigDict, mesh: Any, classes: int) -> Any:
    """Returns the engine's `Steps`, with its variables on this machine."""
    from keras_resnet.training import state
    from keras_resnet.training.distillation import TeacherNetwork
    from keras_resnet.training.finetuning import freeze
    from keras_resnet.training.fit import check_fit, class_weights_of
    from keras_resnet.training.jax.step import Steps
    from keras_resnet.training.network import build_model
    from keras_resnet.training.optimizers import make_optimizer
    from keras_resnet.training.progress import Timeline
    from keras_resnet.training.schedules import make_schedule, plateau_of
    from keras_resnet.training.teachers import read_teacher

    weights = class_weights_of(config, None)
    check_fit(config, mesh.devices.size, classes, True, weights)
    model = build_model(config, [str(index) for index in range(classes)])
    if not config.model.unfreeze_epoch:  # else it is the later stage, the larger one
        freeze(model, config.model.freeze)
    schedule = make_schedule(config, Timeline(config, max(IMAGENET_TRAIN, config.batch_size)))
    optimizer = make_optimizer(config, schedule, model)
    averaged = state.averaged_variables(model) if config.ema.decay else []
    plateau = plateau_of(schedule)
    rate = plateau.variable if plateau else None
    steps = Steps(model, optimizer, mesh, config, averaged, rate, weights)
    if config.distill.teacher:
        steps.teacher = TeacherNetwork(read_teacher(config, classes, bfloat16=True))
    return steps


def _example(config: ConfigDict, classes: int) -> dict[str, Any]:
    """The shapes of a global batch as the input pipeline delivers it."""
    import jax

    parts, size = config.accumulate_steps, training_image_size(config)
    rows = (config.batch_size,) if parts == 1 else (parts, config.batch_size // parts)
    labels = ((*rows, classes), "float32") if config.data.multi_label else (rows, "int32")
    shapes = {"image": ((*rows, size, size, 3), "uint8"), "label": labels}
    if config.data.augment.mixup or config.data.augment.cutmix:
        shapes["mix"] = ((*rows, 6), "float32")
    return {name: jax.ShapeDtypeStruct(*shape) for name, shape in shapes.items()}


def main(arguments: list[str]) -> None:
    """Compiles and writes the result; see the module."""
    file, topology, batch, classes, result, text = arguments
    values = json.loads(Path(file).read_text())
    config = check(merge(default_config(), values, "preflight"))
    write_results(result, text, lambda: _compile(config, topology, int(batch), int(classes)))
