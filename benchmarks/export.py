"""Images per second of an exported ResNet-50, side by side, and what decoding costs.

    python benchmarks/export.py --other-python=/path/to/python-with-torch-openvino-onnxruntime

Contestants, each in a process of its own. The SavedModels run in TensorFlow's C++ loader, without
TensorFlow in Python. Weights are random.

- `keras.applications`: `keras.applications.ResNet50` through `model.export()`, `serving_default`;
- `ResNet50V1`: ours with the very same layers, through `export_saved_model`, `predict_images`;
- `ResNet50`: the same of v1.5, which multiplies 6 % more and is what PyTorch and ONNX get, too;
- `ResNet50, JPEG`: the same export, `serving_default`, from 500×375 JPEG files;
- `PyTorch`, `OpenVINO`, `ONNX Runtime`: if `--other-python` names an interpreter that has them
  (`export_others.py` runs there). The last two read the ONNX file that `keras-resnet export` makes,
  for which this interpreter needs the extra `onnx`.

Rounds are interleaved: each times every contestant once, beginning with another one. Printed are
medians over rounds and, in brackets, the extremes; ratios are of the same round. Start it on an
idle machine; it says which that was. `--first-request` prints, instead, how long the first request
takes after the warm-up records.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from train_step import describe_machine, spread, turns

HERE = Path(__file__).resolve().parent
OURS = ("ResNet50V1", "ResNet50")
JPEG = "ResNet50, JPEG"
APPLICATIONS = "keras.applications"
OTHERS = {"PyTorch": "torch", "OpenVINO": "openvino", "ONNX Runtime": "onnxruntime"}

_WORKER = """
import sys
import keras_resnet_cli

keras_resnet_cli.defer_loading()
import io, json, time
import numpy as np
from keras_resnet.export.c_api import Session
folder, signature, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
session = Session(folder)
((name, info),) = session.signatures[signature]["inputs"].items()
if info["dtype"] == "string":
    values = np.empty(batch, object)
    values[:] = [open(sys.argv[4], "rb").read()] * batch
else:
    values = np.random.default_rng(0).uniform(0, 255, (batch, 224, 224, 3)).astype("float32")
for line in sys.stdin:
    start = time.perf_counter()
    for _ in range(int(line)):
        session.run(signature, {name: values})
    print(time.perf_counter() - start, flush=True)
"""


def main() -> None:
    options = parse_arguments()
    with tempfile.TemporaryDirectory() as scratch:
        files = prepare(options, Path(scratch))
        if options.first_request:
            print_first_requests(files["ResNet50"])
            return
        print(
            f"ResNet-50, 224 px, {options.rounds} rounds, images/s. {describe_machine()} "
            f"TF_ENABLE_ONEDNN_OPTS={os.environ.get('TF_ENABLE_ONEDNN_OPTS', 'unset')}\n"
        )
        heads = [f"batch {n} | times {APPLICATIONS}" for n in options.batches]
        print(f"| {options.precision} | {' | '.join(heads)} |")
        print("|---" * (2 * len(options.batches) + 1) + "|")
        columns = [measure(files, batch, options) for batch in options.batches]
        for name in columns[0]:
            print(f"| {name} | {' | '.join(column[name] for column in columns)} |")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=16, help="images a contestant and round")
    parser.add_argument("--other-python", help="interpreter with torch, openvino, onnxruntime")
    parser.add_argument("--folder", type=Path, help="keep the exports here, and use them again")
    parser.add_argument("--first-request", action="store_true")
    return parser.parse_args()


def prepare(options, scratch: Path) -> dict[str, Path]:
    """Exports what is missing in the folder, in a process that is gone when timing starts."""
    folder = options.folder or scratch
    files = {
        **{name: folder / f"{name}-{options.precision}" / "1" for name in OURS},
        APPLICATIONS: folder / "applications",
        "onnx": folder / "resnet50.onnx",
        "jpeg": folder / "photo.jpg",
    }
    missing = [name for name, path in files.items() if not path.exists()]
    if not options.other_python:
        missing = [name for name in missing if name != "onnx"]
    if missing:
        order = json.dumps([missing, {k: str(v) for k, v in files.items()}, options.precision])
        program = (
            f"import json; from export import write_files; write_files(*json.loads({order!r}))"
        )
        run_python([sys.executable, "-c", program])
    return files


def write_files(missing: list[str], files: dict[str, str], precision: str) -> None:
    import keras
    import tensorflow as tf

    import keras_resnet
    from keras_resnet.export import export_file, export_saved_model, sample_images

    keras.utils.set_random_seed(0)
    Path(files["jpeg"]).parent.mkdir(parents=True, exist_ok=True)
    if "jpeg" in missing:
        photo = sample_images.smooth_images(1, 500)[0][:375]
        Path(files["jpeg"]).write_bytes(tf.io.encode_jpeg(photo, quality=90).numpy())
    if APPLICATIONS in missing:
        keras.applications.ResNet50(weights=None).export(files[APPLICATIONS], verbose=False)
    for name in set(OURS) & set(missing):
        model = keras_resnet.create_model(name, zero_init_last_gamma=False)
        samples = sample_images.drawn(model.preprocessing, 2)
        export_saved_model(model, Path(files[name]).parent, precision=precision, samples=samples)
    if "onnx" in missing:
        model = keras_resnet.create_model("ResNet50", zero_init_last_gamma=False)
        samples = sample_images.drawn(model.preprocessing, 2)
        export_file(model, files["onnx"], format="onnx", samples=samples)


def run_python(command: list[str], **options) -> None:
    paths = [str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL, **options)


def measure(files: dict[str, Path], batch: int, options) -> dict[str, str]:
    """A cell of the table for every contestant."""
    commands = {
        APPLICATIONS: saved_model(files[APPLICATIONS], "serving_default", batch),
        **{name: saved_model(files[name], "predict_images", batch) for name in OURS},
        JPEG: saved_model(files["ResNet50"], "serving_default", batch, files["jpeg"]),
    }
    if options.other_python:
        script = str(HERE / "export_others.py")
        for name, library in OTHERS.items():
            if options.precision != "float32" and library == "onnxruntime":
                continue  # it has no bfloat16 on CPU
            arguments = [library, options.precision, str(batch), str(files["onnx"])]
            commands[name] = [options.other_python, script, *arguments]
    workers = {name: start(command) for name, command in commands.items()}
    calls = max(1, options.images // batch)
    rates = {name: [] for name in workers}
    for worker in workers.values():
        ask(worker, 2)
    for order in turns(workers, options.rounds):
        for name in order:
            rates[name].append(calls * batch / ask(workers[name], calls))
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    cells = {}
    for name, values in rates.items():
        ratios = [its / base for its, base in zip(values, rates[APPLICATIONS], strict=True)]
        cells[name] = f"{spread(values)} | {spread(ratios)}"
    return cells


def saved_model(*arguments) -> list[str]:
    return [sys.executable, "-c", _WORKER, *map(str, arguments)]


def start(command: list[str]) -> subprocess.Popen:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(HERE.parent)}
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )


def ask(worker: subprocess.Popen, calls: int) -> float:
    """Seconds that `calls` requests take."""
    worker.stdin.write(f"{calls}\n")
    worker.stdin.flush()
    answer = worker.stdout.readline()
    if not answer:
        raise SystemExit(f"a contestant ended with status {worker.wait()}: {worker.args[:3]}")
    return float(answer)


def print_first_requests(folder: Path) -> None:
    from keras_resnet.export.verify import verify_saved_model

    report, _ = verify_saved_model(folder)
    print(f"{describe_machine()}\n\n| signature | first request | then |\n|---|---|---|")
    for name, first in report["first_ms"].items():
        print(f"| `{name}` | {first:.0f} ms | {report['steady_ms'][name]:.0f} ms |")


if __name__ == "__main__":
    main()
