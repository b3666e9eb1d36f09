"""What `train --data` and `finetune --data` reach beside recipes made by hand, over seeds.

    python benchmarks/own_photos.py digits /tmp/work --seeds=3
    python benchmarks/own_photos.py cifar /tmp/work --images=FOLDER --seeds=3
    python benchmarks/own_photos.py transfer /tmp/work --images=FOLDER --seeds=3

FOLDER holds CIFAR-10 as image files: train/CLASS and test/CLASS. Makes photos of 256 × 256 pixels
of them (`transfer` takes them as they are), trains, evaluates each model on test images that
nothing was chosen on, and prints the mean and the standard deviation over seeds:

- digits: 1,437 handwritten digits of scikit-learn to train on, 360 to test;
- cifar: 5,000 to train on, 2,000 to test;
- transfer: a network trained on 500 images of each of five classes, then the other five classes
  with 50 images each: from its weights, and from random ones.

By hand is `--config=cifar10` with all the training images and as many epochs as take the same time,
with its batches of 128 and with smaller ones. A finished run is not trained again.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

PHOTO = 256
# Smaller batches suit small sets: the rates were tried on other seeds.
BY_HAND = {"cifar10, batches of 128": (128, 0.1), "cifar10, batches of 32": (32, 0.05)}
TRANSFERRED = ("bird", "cat", "deer", "dog", "frog")


def write_photos(images: Iterable[tuple[Path, Image.Image]], size: int = PHOTO) -> None:
    """Writes JPEG files enlarged to `size`, as smoothly as a camera out of focus."""
    for path, image in images:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC).save(path, quality=90)


def make_digits(folder: Path) -> None:
    """scikit-learn's digits, the last fifth to test."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    write_photos(
        (
            folder / ("test" if place < 360 else "train") / str(data.target[n]) / f"{n}.jpg",
            Image.fromarray((data.images[n] * 15.9).astype(np.uint8)),
        )
        for place, n in enumerate(order)
    )


def make_cifar(folder: Path, source: Path, per_class: int, tested: int) -> None:
    """Some images of each class, enlarged."""
    write_photos(
        (folder / split / files.name / file.name, Image.open(file))
        for split, count in (("train", per_class), ("test", tested))
        for files in sorted((source / split).iterdir())
        for file in sorted(files.iterdir())[:count]
    )


def make_transfer(folder: Path, source: Path) -> None:
    """`many`: five classes with 500 images each; `few`: five others with 50."""
    for split, many, few in (("train", 500, 50), ("test", 200, 200)):
        for files in sorted((source / split).iterdir()):
            name, count = ("few", few) if files.name in TRANSFERRED else ("many", many)
            target = folder / name / split / files.name
            target.mkdir(parents=True)
            for file in sorted(files.iterdir())[:count]:
                shutil.copy(file, target)


def run(workdir: Path, *arguments: str) -> dict[str, float]:
    """Trains unless that was done; returns result.json with the seconds of processor time."""
    result, spent = workdir / "result.json", workdir / "processor_seconds"
    if not result.exists():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "keras_resnet_cli", *arguments, f"--workdir={workdir}"]
        workdir.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{workdir}.log", "w") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log, env=dict(os.environ))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.write_text(str(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    return {**json.loads(result.read_text()), "seconds": float(spent.read_text())}


def by_hand(photos: Path, epochs: int, batch_size: int, rate: float, seed: int) -> list[str]:
    """A config written by hand: all the training images, the test images evaluated at the end."""
    return [
        "train",
        "--config=cifar10",
        "--config.data.source=image_folder",
        f"--config.data.path={photos}",
        "--config.data.eval_split=test",
        f"--config.epochs={epochs}",
        f"--config.batch_size={batch_size}",
        f"--config.optimizer.learning_rate={rate}",
        f"--config.seed={seed}",
    ]


def report(name: str, runs: list[dict[str, float]]) -> None:
    """One line: top-1 on the test images, and processor time."""
    top1 = np.array([100 * found.get("test_top1", found["top1"]) for found in runs])
    seconds = np.array([found["seconds"] for found in runs])
    spread = f"± {top1.std(ddof=1):.1f} " if len(top1) > 1 else ""
    each = ", ".join(f"{value:.1f}" for value in top1)
    print(f"{name:28} {top1.mean():5.1f} {spread}% ({each}), {seconds.mean():,.0f} s", flush=True)


def against_recipes(work: Path, photos: Path, minutes: float, seeds: int) -> None:
    """`train --data` and the recipes by hand."""
    planned = [
        run(
            work / f"planned-{seed}",
            "train",
            f"--data={photos}",
            f"--minutes={minutes:g}",
            f"--config.seed={seed}",
        )
        for seed in range(seeds)
    ]
    config = json.loads((work / "planned-0" / "config.json").read_text())
    sizes = json.loads((work / "planned-0" / "dataset.json").read_text())
    every = sum(1 for file in (photos / "train").rglob("*.jpg"))
    epochs = max(1, round(config["epochs"] * sizes["train_examples"] / every))
    report(f"train --data --minutes={minutes:g}", planned)
    for name, (batch_size, rate) in BY_HAND.items():
        report(
            f"{name}, {epochs} epochs",
            [
                run(
                    work / f"hand{batch_size}-{seed}",
                    *by_hand(photos, epochs, batch_size, rate, seed),
                )
                for seed in range(seeds)
            ],
        )


def transfer(work: Path, photos: Path, seeds: int) -> None:
    """From trained and from random weights."""
    trained = work / "trained"
    found = run(trained, "train", f"--data={photos / 'many'}", "--minutes=2")
    report("five classes, to begin with", [found])
    few = f"--data={photos / 'few'}"
    for name, arguments in {
        "from its weights": ("finetune", few, f"--weights={trained}"),
        "from random weights": ("train", few, "--minutes=2"),
    }.items():
        label = name.replace(" ", "-")
        report(
            name,
            [
                run(work / f"{label}-{seed}", *arguments, f"--config.seed={seed}")
                for seed in range(seeds)
            ],
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("digits", "cifar", "transfer"))
    parser.add_argument("work", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=2)
    arguments = parser.parse_args()
    work = arguments.work / arguments.what
    photos = work / "photos"
    if not photos.exists():
        new = work / "photos.new"
        shutil.rmtree(new, ignore_errors=True)
        if arguments.what == "digits":
            make_digits(new)
        elif arguments.what == "cifar":
            make_cifar(new, arguments.images, 500, 200)
        else:
            make_transfer(new, arguments.images)
        new.rename(photos)
    if arguments.what == "transfer":
        transfer(work, photos, arguments.seeds)
    else:
        against_recipes(work, photos, arguments.minutes, arguments.seeds)


if __name__ == "__main__":
    main()
