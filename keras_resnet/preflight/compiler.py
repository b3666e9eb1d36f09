"""The real TPU compiler (libtpu), without a TPU. Runs in a process of its own.

libtpu and TensorFlow do not share a process well, libtpu reads its flags once, and a compiler that
crashes must not take the caller along. `compile_step` is the caller's side.
"""

import dataclasses
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras_resnet_cli
from keras_resnet.errors import UserError
from keras_resnet.preflight.topologies import Chip, parse_topology

NO_COMPILER = (
    "preflight needs jax and libtpu: pip install 'keras-resnet-tpu[preflight]' "
    "(Linux on x86-64 with Python 3.11 to 3.13)"
)

_NOT_INSTALLED = "not installed"


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler said.

    Attributes:
        error: why it does not compile, "" if it does.
        out_of_memory: the error is that it does not fit into the chip's memory.
        hbm_needed_bytes: memory of arguments, results and everything between; 0 if unknown.
        hbm_limit_bytes: what the compiler may use of the chip's memory; 0 if it did not say.
        temporary_bytes: the part of it that is no argument, result or code: activations and all
            else that lives within a step.
        flops, bytes_accessed: the compiler's own count.
        compile_seconds: what the compilation took.
        text: the optimized program, "" without one.
    """

    error: str = ""
    out_of_memory: bool = False
    hbm_needed_bytes: int = 0
    hbm_limit_bytes: int = 0
    temporary_bytes: int = 0
    flops: float = 0.0
    bytes_accessed: float = 0.0
    compile_seconds: float = 0.0
    text: str = ""


def compile_step(hlo: bytes, chip: Chip, flags: str = "", timeout: float = 3600) -> Compiled:
    """Compiles a serialized HLO module for one core of `chip`.

    Args:
        hlo: HloModuleProto.
        chip: for which.
        flags: LIBTPU_INIT_ARGS.
        timeout: seconds.

    Raises:
        UserError: jax or libtpu are not installed, or the compiler did not end in time.
    """
    with tempfile.TemporaryDirectory() as folder:
        step = Path(folder) / "step"
        step.write_bytes(hlo)
        topology = f"{chip.name}:{chip.smallest}"
        values, text = run_compiler(__name__, (step, topology), chip, chip.smallest, flags, timeout)
    return Compiled(**values, text=text)


def run_compiler(
    module: str,
    arguments: Sequence[object],
    chip: Chip,
    sides: str,
    flags: str,
    timeout: float,
    **variables: str,
) -> tuple[dict[str, Any], str]:
    """Runs `main(arguments)` of a module, with two files to write to, beside libtpu alone.

    Args:
        module: what runs there; it calls `write_results`.
        arguments: of it, before the files.
        chip: for which it compiles.
        sides: of the slice.
        flags: LIBTPU_INIT_ARGS.
        timeout: seconds.
        **variables: of its environment.

    Returns:
        What it wrote: fields of `Compiled`, and the optimized program, "" without one.

    Raises:
        UserError: jax or libtpu are not installed, the compiler did not end in time, or the config
            cannot be used.
    """
    with tempfile.TemporaryDirectory() as folder:
        result, text = (Path(folder) / name for name in ("result", "text"))
        environment = process_variables(chip, sides, flags) | variables
        command = keras_resnet_cli.module_command(module, *arguments, result, text)
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=timeout
            )
        except subprocess.TimeoutExpired as error:
            raise UserError(f"the TPU compiler did not end within {timeout:g} seconds") from error
        if not result.exists():
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            # libtpu ends the process on a flag that it does not know.
            unknown = [line for line in lines if "nknown" in line and "flag" in line]
            reason = (unknown or lines or [f"exit code {done.returncode}"])[-1].strip()
            return {"error": f"the TPU compiler ended: {reason}"}, ""
        values = json.loads(result.read_text())
        if values.get("error") == _NOT_INSTALLED:
            raise UserError(NO_COMPILER)
        if refused := values.get("refused"):
            raise UserError(refused)
        return values, text.read_text() if text.exists() else ""


def process_variables(chip: Chip, sides: str, flags: str) -> dict[str, str]:
    """Returns the environment of a process that compiles for a slice of `chip`."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "TPU_ACCELERATOR_TYPE": chip.accelerator_type(sides),
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        # Its lock (/tmp/libtpu_lockfile) guards a TPU; compilations may run side by side.
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "LIBTPU_INIT_ARGS": flags,
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def write_results(result: str, text: str, compile_it: Callable[[], tuple[dict, str]]) -> None:
    """Writes what `run_compiler` reads; in the process of its own."""
    try:
        import jax  # noqa: F401
        import libtpu  # noqa: F401
    except ImportError:
        values, program = {"error": _NOT_INSTALLED}, ""
    else:
        try:
            values, program = compile_it()
        except UserError as error:
            values, program = {"refused": str(error)}, ""
    if program:
        Path(text).write_text(program)
    Path(result).write_text(json.dumps(values))


def read_error(message: str) -> dict[str, Any]:
    """Returns the fields of `Compiled` that an error of the compiler fills.

    Out of memory reads "Ran out of memory in memory space hbm. Used 22.44G of 15.75G hbm. …", or
    "Ran out of memory on HBM, the total memory required for HLO temporaries (15.87G) exceeds
    available HBM (15.75G). …" where that much was clear early.
    """
    first = next((line for line in message.splitlines() if line.strip()), "unknown error")
    size = r"([\d.]+)([KMGT]?)"
    used = re.search(rf"Used {size} of {size} hbm", message) or re.search(
        rf"\({size}\) exceeds available HBM \({size}\)", message
    )
    if used is None:
        return {"error": first, "out_of_memory": "RESOURCE_EXHAUSTED" in first}
    unit = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
    return {
        "error": first,
        "out_of_memory": True,
        "hbm_needed_bytes": round(float(used[1]) * unit[used[2]]),
        "hbm_limit_bytes": round(float(used[3]) * unit[used[4]]),
    }


def read_costs(memory: Any, costs: Any) -> dict[str, Any]:
    """Returns the fields of `Compiled` that a compiled program says of itself."""
    costs = costs[0] if isinstance(costs, list) else costs
    needed = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes
        - memory.alias_size_in_bytes
    )
    return {
        "hbm_needed_bytes": needed,
        "temporary_bytes": memory.temp_size_in_bytes,
        "flops": costs.get("flops", 0.0),
        "bytes_accessed": costs.get("bytes accessed", 0.0),
    }


def devices_of(topology: str) -> list[Any]:
    """Returns libtpu's devices of a slice, one for each replica. In the process of its own."""
    from jax.experimental import topologies

    config = parse_topology(topology).chip.config
    return topologies.get_topology_desc(
        platform="tpu", topology_name=topology, chip_config_name=config
    ).devices


def _compile(hlo: bytes, topology: str) -> tuple[dict[str, Any], str]:
    """Returns the fields of `Compiled` and the optimized program. In the process of its own."""
    from jaxlib import _jax, xla_client

    device = devices_of(topology)[0]
    module = _without_copies(_jax.mlir.hlo_to_stablehlo(hlo))
    options = xla_client.CompileOptions()
    options.num_replicas = options.num_partitions = 1
    started = time.monotonic()
    try:
        compiled = device.client.compile(module, xla_client.DeviceList((device,)), options)
    except Exception as error:
        return hbm_limit(device) | read_error(str(error)), ""
    values = read_costs(compiled.get_compiled_memory_stats(), compiled.cost_analysis())
    values |= hbm_limit(device) | {"compile_seconds": time.monotonic() - started}
    return values, compiled.hlo_modules()[0].to_string()


def hbm_limit(device: Any) -> dict[str, int]:
    """Returns what the compiler may use of a device's memory, {} if it does not say.

    It says so only where a program does not fit: here one that adds 1 to a terabyte, which is
    refused at once. In the process of its own.
    """
    import jax
    from jax.sharding import SingleDeviceSharding

    shape = (1 << 20, 1 << 18)
    huge = jax.ShapeDtypeStruct(shape, "float32", sharding=SingleDeviceSharding(device))
    try:
        jax.jit(lambda x: x + 1).lower(huge).compile()
    except Exception as error:
        limit = read_error(str(error)).get("hbm_limit_bytes", 0)
        return {"hbm_limit_bytes": limit} if limit else {}
    return {}


def _without_copies(module: bytes) -> Any:
    """The module parsed, without each `mhlo.copy`: an identity, which this route refuses."""
    from jax._src.interpreters import mlir
    from jaxlib.mlir import ir

    copies = []

    def collect(operation):
        if operation.name == "mhlo.copy":
            copies.append(operation)
        return ir.WalkResult.ADVANCE

    with mlir.make_ir_context():
        parsed = ir.Module.parse(module)
        parsed.operation.walk(collect)
        for copy in copies:
            copy.results[0].replace_all_uses_with(copy.operands[0])
            copy.erase()
        return parsed


def main(arguments: list[str]) -> None:
    """Compiles and writes the result; see the module."""
    step, topology, result, text = arguments
    write_results(result, text, lambda: _compile(Path(step).read_bytes(), topology))
