"""Makes tests/compatibility/v0.1.0.tar.xz, with version 0.1.0 of the package and no other.

    cd CHECKOUT_OF_0.1.0 && PYTHON_OF_0.1.0 make_v0_1_0.py v0.1.0.tar.xz

What later versions must go on reading: the work directories of a finished and of a killed run, the
exports of the former, `.keras` files of several variants, and what all of them answered. Made on
9caf05c with TensorFlow 2.21.0 and Keras 3.15.1.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

# Four steps an epoch; random states, averaged weights and two slots per weight in the checkpoint.
COMMON = {
    "epochs": 2,
    "batch_size": 64,
    "deterministic": True,
    "strategy": "cpu",
    "model.depths": (1, 1, 1),
    "model.widths": (4, 8, 8),
    "model.shortcut": "B",
    "model.drop_path_rate": 0.2,
    "data.image_size": 8,
    "data.train_split": "train[:256]",
    "data.eval_split": "test[:128]",
    "data.augment.crop_padding": 1,
    "checkpoint.keep": 1,
}
KILLED = {
    "model.name": "CifarResNet110V2",
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 0.01,
    "ema.decay": 0.9,
    "data.augment.mixup": 0.2,
    "model.dropout_rate": 0.2,
}
# The process dies as by SIGKILL before it moves the index of the second checkpoint into place; so
# at the sixth os.replace, after config.json, dataset.json and data and index of the first.
DIES = """
import os, signal
replace, calls = os.replace, []
def die(*arguments):
    calls.append(arguments)
    if len(calls) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(*arguments)
os.replace = die
"""
SMALL = {"classes": 5, "depths": (1, 1), "widths": (4, 8), "input_shape": (24, 24, 3)}
VARIANTS = {
    "CifarResNet20": {**SMALL, "depths": (1, 1, 1), "widths": (16, 16, 24)},
    "ResNet50": SMALL,
    "ResNet18V2": SMALL,
    "ResNetRS50": SMALL,  # D, squeeze and excitation
    "ResNeXt50_32x4d": {**SMALL, "depths": (1,), "widths": (32,)},
}


def command(*arguments: str, prelude: str = "") -> str:
    """Runs the command line and returns what it prints."""
    program = f"{prelude}\nimport sys\nfrom keras_resnet.commands import main\nsys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )
    if done.returncode != (-signal.SIGKILL if prelude else 0):
        raise SystemExit(f"{' '.join(map(str, arguments))} ended with {done.returncode}")
    return done.stdout


def train(workdir: Path, prelude: str = "", **changes: object) -> None:
    """Runs `train` on the digits."""
    delta = [f"--config.{key}={value}" for key, value in {**COMMON, **changes}.items()]
    command("train", "--config=smoke", f"--workdir={workdir}", *delta, prelude=prelude)


def predictions(*where: str) -> list[list[float]]:
    """Returns the probabilities of the ten classes for each of the images."""
    rows = map(json.loads, command("predict", *where, "--top=10", "--json", "images").splitlines())
    ordered = [sorted(row["predictions"], key=lambda entry: entry["class_id"]) for row in rows]
    return [[entry["probability"] for entry in row] for row in ordered]


def evaluation(workdir: Path) -> dict[str, float]:
    """Returns the metrics of `evaluate`."""
    return json.loads(command("evaluate", f"--workdir={workdir}", "--json"))


def tidy(workdir: Path) -> None:
    """Removes the pictures and event files, which nothing reads, and a half-written checkpoint."""
    shutil.rmtree(workdir / "tensorboard", ignore_errors=True)
    for path in [*workdir.glob("*.png"), *workdir.glob("checkpoints/.*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_images() -> None:
    """Four grayscale images as the digits are, and a larger one in color."""
    rng = np.random.default_rng(0)
    Path("images").mkdir()
    for index, shape in enumerate([(8, 8), (8, 8), (8, 8), (8, 8), (13, 10, 3)]):
        pixels = rng.integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(f"images/{index}.png")


def write_variants() -> dict[str, np.ndarray]:
    """Saves the models with random weights; returns their logits by name, and the inputs."""
    import keras

    import keras_resnet

    rng = np.random.default_rng(1)
    inputs = rng.integers(-32, 32, (3, 24, 24, 3)).astype(np.float32) / 16
    outputs = {"inputs": inputs}
    Path("variants").mkdir()
    for name, options in VARIANTS.items():
        model = keras_resnet.create_model(name, **options)
        for weight in model.weights:
            value = rng.normal(size=weight.shape) / np.sqrt(max(1, np.prod(weight.shape[:-1])))
            value = np.round(value * 64) / 64  # fewer bits, a smaller archive
            variance = weight.path.endswith("moving_variance")
            weight.assign(np.abs(value) + 0.5 if variance else value)
        model.save(f"variants/{name}.keras")
        outputs[name] = keras.ops.convert_to_numpy(model(inputs))
    return outputs


def run_tflite(path: Path) -> dict[str, np.ndarray]:
    """Returns images, float32 [8, 8, 8, 3] of pixels, and their logits."""
    import tensorflow as tf

    images = np.random.default_rng(2).uniform(0, 255, (8, 8, 8, 3)).astype(np.float32)
    run = tf.lite.Interpreter(str(path)).get_signature_runner("serving_default")
    logits = [run(images=image[None])["logits"] for image in images]
    return {"images": images, "logits": np.concatenate(logits)}


def main() -> None:
    """Writes everything into the current folder."""
    write_images()
    np.savez_compressed("variants.npz", **write_variants())
    train(Path("finished"))
    exports = ["--limit=16", "--workdir=finished"]
    command("export", *exports, "--output=saved_model")
    command("export", *exports, "--output=model.tflite", "--format=tflite")
    np.savez_compressed("tflite.npz", **run_tflite(Path("model.tflite")))
    train(Path("killed"), prelude=DIES, **KILLED)
    shutil.copytree("killed", "resumed")
    train(Path("resumed"), **KILLED)
    answers = {
        "finished": {
            "evaluation": evaluation(Path("finished")),
            "predictions": predictions("--workdir=finished"),
            "exported": predictions("--model=saved_model"),
        },
        "killed": {
            "evaluation": evaluation(Path("killed")),
            "predictions": predictions("--workdir=killed"),
        },
        "resumed": {
            "evaluation": evaluation(Path("resumed")),
            "predictions": predictions("--workdir=resumed"),
        },
    }
    Path("answers.json").write_text(json.dumps(answers, indent=1) + "\n")
    shutil.rmtree("resumed")
    tidy(Path("finished"))
    tidy(Path("killed"))


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = os.getcwd()  # of the checkout, for the processes
    sys.path.insert(0, os.getcwd())
    archive = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        main()
        with tarfile.open(archive, "w:xz", preset=9) as tar:
            tar.add(".")
