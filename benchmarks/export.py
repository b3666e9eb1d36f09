"""An exported ResNet-50 on a CPU, side by side: images per second, or latency under many clients.

    python benchmarks/export.py --other-python=/path/to/python-with-torch-openvino-onnxruntime
    python benchmarks/export.py --clients 1 4 16 --other-python=PYTHON

Contestants, each in a process of its own, in every precision that it has. All have the same network
(`export_network.py`), with statistics as trained networks have them and not the zeros of untrained
ones, which TensorFlow runs otherwise.

- `keras.applications`: `keras.applications.ResNet50` through `model.export()`, `serving_default`;
- `SavedModel, v1`: ours with the very same layers, through `export_saved_model`, `predict_images`;
- `SavedModel`: the same of v1.5, which multiplies 6 % more and is what all others get, too;
- `SavedModel, JPEG`: the same export, `serving_default`, from 500×375 JPEG files;
- `PyTorch`, `ONNX Runtime`, `OpenVINO` and `TFLite` (in this interpreter): where `--other-python`
  names an interpreter that has them (`export_others.py` runs there). All but PyTorch run our
  exports, for which this interpreter needs the extras `onnx` and `openvino-int8`;
  `OpenVINO, ONNX file` is what OpenVINO makes of the ONNX file by itself.

SavedModels run in TensorFlow's C++ loader, without TensorFlow in Python.

Rounds are interleaved: each times every contestant once, beginning with another one. Printed are
medians over rounds and, in brackets, the extremes; ratios are of the same round. Start it on an
idle machine; it says which that was, and what its processor can do. Where others are at work,
`--processor-time` counts the time of the processor instead of the clock's: images per second of all
cores, if nobody else had them. A row whose arithmetic the processor lacks is marked as open: its
figure says nothing of processors that have it.

`--clients` prints, instead, the milliseconds within which the half, 95 % and 99 % of the requests
for one image were answered, with so many clients at once. `--first-request` prints how long the
first request takes after the warm-up records.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from train_step import describe_machine, spread, turns

HERE = Path(__file__).resolve().parent
APPLICATIONS = "keras.applications"
# Precision -> flags of Linux; one of them is what makes it fast.
NEEDS = {
    "float32": ("avx2", "avx512f"),
    "bfloat16": ("avx512_bf16", "amx_bf16"),
    "int8": ("avx_vnni", "avx512_vnni", "amx_int8"),
}
FLAGS = tuple(dict.fromkeys(flag for flags in NEEDS.values() for flag in flags))


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A row of the table.

    Attributes:
        name, precision: of the row.
        file: in the folder of `export_network.py`.
        runs: a signature of a SavedModel, or the name of a library after "in ".
    """

    name: str
    precision: str
    file: str
    runs: str

    def path(self, folder: Path) -> Path:
        """What is run: a file, or the folder of a SavedModel."""
        versions = not Path(self.file).suffix and self.name != APPLICATIONS
        return folder / self.file / "1" if versions else folder / self.file

    def command(self, options, folder: Path, batch: int, clients: int) -> list[str] | None:
        """What starts it; None where the library is not installed."""
        path = str(self.path(folder))
        library = self.runs.removeprefix("in ")
        if library == self.runs:
            jpeg = [str(folder / "photo.jpg")] if self.runs == "serving_default" else []
            return [
                sys.executable,
                str(HERE / "export_worker.py"),
                path,
                self.runs,
                str(batch),
                *jpeg,
            ]
        python = sys.executable if library == "tflite" else options.other_python
        if python is None or not (library == "tflite" or has(python, library)):
            return None
        arguments = [library, self.precision, str(batch), str(clients), path]
        return [python, str(HERE / "export_others.py"), *arguments]


CONTESTANTS = [
    Contestant(APPLICATIONS, "float32", "applications", "serving_default"),
    Contestant("SavedModel, v1", "float32", "v1-float32", "predict_images"),
    *(
        contestant
        for precision in ("float32", "bfloat16")
        for contestant in (
            Contestant("SavedModel", precision, precision, "predict_images"),
            Contestant("SavedModel, JPEG", precision, precision, "serving_default"),
            Contestant("PyTorch", precision, "weights.npz", "in torch"),
            Contestant("OpenVINO", precision, f"{precision}.xml", "in openvino"),
            Contestant("OpenVINO, ONNX file", precision, "float32.onnx", "in openvino"),
        )
    ),
    *(
        contestant
        for precision in ("float32", "int8")
        for contestant in (
            Contestant("ONNX Runtime", precision, f"{precision}.onnx", "in onnxruntime"),
            Contestant("TFLite", precision, f"{precision}.tflite", "in tflite"),
        )
    ),
    Contestant("OpenVINO", "int8", "int8.xml", "in openvino"),
]


def main() -> None:
    options = parse_arguments()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        chosen = choose(options, folder)
        prepare(folder, chosen)
        if options.first_request:
            print_first_requests(folder / "float32" / "1")
            return
        if options.clients:
            print(f"ResNet-50, 224 px, {options.requests} requests of one image.", end=" ")
        else:
            unit = "second of all cores" if options.processor_time else "second"
            print(f"ResNet-50, 224 px, {options.rounds} rounds, images a {unit}.", end=" ")
        print(f"{describe_machine()} {describe_flags()}")
        print(f"TF_ENABLE_ONEDNN_OPTS={os.environ.get('TF_ENABLE_ONEDNN_OPTS', 'unset')}\n")
        if options.clients:
            print_latencies(chosen, folder, options)
        else:
            print_rates(chosen, folder, options)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--precisions", nargs="+", default=list(NEEDS), choices=list(NEEDS))
    parser.add_argument("--names", nargs="+", help="contestants beside keras.applications")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=16, help="images a contestant and round")
    parser.add_argument("--clients", type=int, nargs="+", default=[], help="print latencies")
    parser.add_argument("--requests", type=int, default=200, help="of all clients together")
    parser.add_argument("--processor-time", action="store_true", help="instead of the clock's")
    parser.add_argument("--other-python", help="interpreter with torch, openvino, onnxruntime")
    parser.add_argument("--folder", type=Path, help="keep the exports here, and use them again")
    parser.add_argument("--first-request", action="store_true")
    return parser.parse_args()


def has(python: str, library: str) -> bool:
    program = f"import importlib.util as u; raise SystemExit(u.find_spec({library!r}) is None)"
    return subprocess.run([python, "-c", program], check=False).returncode == 0


def can_export(contestant: Contestant) -> bool:
    """Whether this interpreter has what writes the contestant's file."""
    packages = {".onnx": ["onnxruntime", "tf2onnx"], ".xml": ["openvino", "nncf"]}
    needed = packages.get(Path(contestant.file).suffix, [])
    return all(importlib.util.find_spec(name) for name in needed)


def choose(options, folder: Path) -> list[Contestant]:
    """The contestants whose library is there; says which are left out."""
    chosen = []
    for contestant in CONTESTANTS:
        named = not options.names or contestant.name in (*options.names, APPLICATIONS)
        if contestant.precision not in options.precisions and contestant.name != APPLICATIONS:
            continue
        if not named:
            continue
        there = contestant.path(folder).exists() or can_export(contestant)
        if there and contestant.command(options, folder, 1, 1) is not None:
            chosen.append(contestant)
        else:
            print(f"left out: {contestant.name} in {contestant.precision}, not installed here")
    return chosen


def describe_flags() -> str:
    """What of FLAGS the processor has and lacks."""
    there = processor_flags()
    lacking = [flag for flag in FLAGS if flag not in there]
    has_flags = f"It has {', '.join(flag for flag in FLAGS if flag in there) or 'none of them'}"
    return f"{has_flags}; it lacks {', '.join(lacking) or 'nothing'}."


def processor_flags() -> set[str]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return {flag for line in lines if line.startswith("flags") for flag in line.split()}


def label(contestant: Contestant) -> str:
    needed = NEEDS[contestant.precision]
    lacks = "" if processor_flags() & set(needed) else f" (open: needs {' or '.join(needed)})"
    return f"{contestant.name} | {contestant.precision}{lacks}"


def prepare(folder: Path, contestants: list[Contestant]) -> None:
    """Writes what is missing in the folder, in a process that is gone when timing starts."""
    files = {
        "photo.jpg": folder / "photo.jpg",
        **{one.file: one.path(folder) for one in contestants},
    }
    missing = [name for name, path in files.items() if not path.exists()]
    if missing:
        paths = [str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        command = [sys.executable, str(HERE / "export_network.py"), str(folder), *missing]
        subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)


def print_rates(contestants: list[Contestant], folder: Path, options) -> None:
    heads = [f"batch {n} | times {APPLICATIONS}" for n in options.batches]
    print(f"| | precision | {' | '.join(heads)} |")
    print("|---" * (2 * len(options.batches) + 2) + "|")
    columns = [measure(contestants, folder, batch, options) for batch in options.batches]
    for contestant in contestants:
        print(f"| {label(contestant)} | {' | '.join(cells[contestant] for cells in columns)} |")


def measure(
    contestants: list[Contestant], folder: Path, batch: int, options
) -> dict[Contestant, str]:
    """A cell of the table for every contestant."""
    workers = {one: start(one.command(options, folder, batch, 1)) for one in contestants}
    calls = max(1, options.images // batch)
    cores = len(os.sched_getaffinity(0))
    rates: dict[Contestant, list[float]] = {one: [] for one in workers}
    for worker in workers.values():
        ask(worker, "calls 2")
    for order in turns(workers, options.rounds):
        for one in order:
            clock, processor = ask(workers[one], f"calls {calls}")
            rates[one].append(
                calls * batch / (processor / cores if options.processor_time else clock)
            )
    for worker in workers.values():
        stop(worker)
    base = rates[contestants[0]]
    return {
        one: f"{spread(values)} | {spread([v / b for v, b in zip(values, base, strict=True)])}"
        for one, values in rates.items()
    }


def print_latencies(contestants: list[Contestant], folder: Path, options) -> None:
    """Percentiles of the requests under so many clients; one contestant at work at a time."""
    heads = [f"{n} client{'s' * (n > 1)}: p50 / p95 / p99 ms" for n in options.clients]
    print(f"| | precision | {' | '.join(heads)} |")
    print("|---" * (len(options.clients) + 2) + "|")
    for contestant in contestants:
        cells = []
        for clients in options.clients:
            worker = start(contestant.command(options, folder, 1, clients))
            ask(worker, "calls 2")
            times = sorted(ask(worker, f"clients {clients} {options.requests}"))
            stop(worker)
            shares = (times[min(int(p * len(times)), len(times) - 1)] for p in (0.5, 0.95, 0.99))
            cells.append(" / ".join(f"{value:.0f}" for value in shares))
        print(f"| {label(contestant)} | {' | '.join(cells)} |", flush=True)


def start(command: list[str] | None) -> subprocess.Popen:
    assert command is not None
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(HERE.parent)}
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )


def ask(worker: subprocess.Popen, task: str) -> list[float]:
    """What a contestant answers to a task of `export_worker.py`."""
    answer = ""
    with contextlib.suppress(BrokenPipeError):
        worker.stdin.write(f"{task}\n")
        worker.stdin.flush()
        answer = worker.stdout.readline()
    if not answer:
        raise SystemExit(f"a contestant ended with status {worker.wait()}: {worker.args}")
    return [float(number) for number in answer.split()]


def stop(worker: subprocess.Popen) -> None:
    worker.stdin.close()
    worker.wait()


def print_first_requests(folder: Path) -> None:
    from keras_resnet.export.verify import verify_saved_model

    report, _ = verify_saved_model(folder)
    print(f"{describe_machine()}\n\n| signature | first request | then |\n|---|---|---|")
    for name, first in report["first_ms"].items():
        print(f"| `{name}` | {first:.0f} ms | {report['steady_ms'][name]:.0f} ms |")


if __name__ == "__main__":
    main()
