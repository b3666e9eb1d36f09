"""The input pipeline beside a bare decoding loop and beside torchvision, on the same bytes.

    python benchmarks/input_throughput.py --photos=FOLDER [--cifar=FOLDER]
        [--torch-python=ENVIRONMENT/bin/python]

--photos is an image folder of JPEGs, --cifar one of 32×32 images; both are held in memory.
--torch-python has torch and torchvision. Contestants take turns, round after round, so that a slow
minute of the machine hits them all. Prints a Markdown table of medians with the least and the most,
then the memory over 20 epochs, then how long a run takes to resume at step 300 of epoch 1.
"""

import argparse
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

from keras_resnet import input_pipeline

BATCH_SIZE = 50
CROP = {"random_resized_crop": True, "flip": True}
PREPROCESSING = {
    "image_size": 224,
    "crop_ratio": 0.875,
    "interpolation": "bilinear",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "channel_order": "rgb",
}


def main() -> None:
    options = parse_arguments()
    print(f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, TensorFlow "
          f"{tf.__version__}, {options.rounds} rounds of {options.seconds:g} s.\n")  # fmt: skip
    photos = open_folder(options.photos)
    contestants = {
        "bare decode_jpeg loop": timed(bare_loop(photos)),
        "training: crop, flip": timed(training(photos, CROP)),
        "training, RandAugment p=0.5": timed(training(photos, {**CROP, "policy": "rand-m9"})),
        "training, RandAugment p=1": timed(training(photos, {**CROP, "policy": "rand-m9-p1"})),
        "evaluation": timed(evaluation(photos)),
    }
    if options.cifar:
        cifar = open_folder(options.cifar)
        augment = {"crop_padding": 4, "flip": True}
        contestants["CIFAR: pad, crop, flip"] = timed(training(cifar, augment, 32, 128))
        contestants["CIFAR: bare decode_jpeg loop"] = timed(bare_loop(cifar))
    if options.torch_python:
        ask = start_torch(options)
        contestants["torchvision training, 2 workers"] = lambda seconds: ask("train")
        contestants["torchvision evaluation, 2 workers"] = lambda seconds: ask("evaluation")
    rates = {name: [] for name in contestants}
    for _ in range(options.rounds):
        for name, run in contestants.items():
            rates[name].append(run(options.seconds))
            time.sleep(0.5)  # what is prefetched must not count for the next contestant
    print("| contestant | images/s | least–most |\n|---|---|---|")
    for name, values in rates.items():
        print(f"| {name} | {statistics.median(values):,.0f} "
              f"| {min(values):,.0f}–{max(values):,.0f} |")  # fmt: skip
    print(f"\nMemory after epoch 2, 5, 10, 15, 20: {memory_over_epochs(photos)} MiB")
    if options.cifar:
        print(f"Resuming at step 300 of epoch 1: {resume(options.cifar):.2f} s to the first batch")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", required=True, help="image folder of JPEGs")
    parser.add_argument("--cifar", help="image folder of 32×32 images")
    parser.add_argument("--torch-python", help="Python with torch and torchvision")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="per contestant and round")
    return parser.parse_args()


def open_folder(path: str) -> input_pipeline.Source:
    return input_pipeline.open_source("image_folder", path=path, split="train", cache="memory")


def bare_loop(source: input_pipeline.Source) -> tf.data.Dataset:
    """Nothing but decode_jpeg; of each image only the size goes on, for they cannot be batched."""
    encoded = tf.concat([strings for strings, _ in source.chunks()], 0)
    decoded = (
        tf.data.Dataset.from_tensor_slices(encoded)
        .repeat()
        .map(
            lambda file: tf.shape(tf.image.decode_jpeg(file, channels=3)),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
    )
    return decoded.batch(BATCH_SIZE).map(lambda shapes: {"label": shapes}).prefetch(2)


def training(source, augment: dict, size: int = 224, batch_size: int = BATCH_SIZE):
    return input_pipeline.train_batches(
        source,
        batch_size=batch_size,
        seed=0,
        num_steps=2**40,
        image_size=size,
        augment=augment,
    )


def evaluation(source) -> tf.data.Dataset:
    batches = input_pipeline.evaluation_batches(
        source, batch_size=BATCH_SIZE, preprocessing=PREPROCESSING
    )
    # One data set after the other would start its threads anew after each 125 photos.
    return batches.repeat()


def timed(batches: tf.data.Dataset) -> Callable[[float], float]:
    """A function that takes batches for some seconds and returns the images a second."""
    iterator = iter(batches)

    def run(seconds: float) -> float:
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds / 4:  # autotuning, and what was prefetched
            next(iterator)
        count, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < seconds:
            count += number_of_images(next(iterator))
        return count / (time.perf_counter() - begin)

    return run


def number_of_images(batch: dict) -> int:
    """Without what fills up a last batch of evaluation."""
    return int(batch["mask"].numpy().sum()) if "mask" in batch else len(batch["label"])


def start_torch(options: argparse.Namespace) -> Callable[[str], float]:
    program = Path(__file__).with_name("input_throughput_torch.py")
    process = subprocess.Popen(
        [options.torch_python, str(program), f"--photos={options.photos}",
         f"--batch-size={BATCH_SIZE}", f"--seconds={options.seconds}"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdout.readline()  # "ready"

    def ask(name: str) -> float:
        process.stdin.write(f"{name}\n")
        process.stdin.flush()
        return float(process.stdout.readline())

    return ask


def memory_over_epochs(source) -> str:
    """Resident MiB after some epochs of training batches, from one iterator."""
    page = os.sysconf("SC_PAGE_SIZE")
    iterator = iter(training(source, CROP))
    seen, found = 0, {}
    for epoch in range(1, 21):
        while seen < epoch * source.num_examples:
            seen += len(next(iterator)["label"])
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        found[epoch] = pages * page // 2**20
    return ", ".join(str(found[epoch]) for epoch in (2, 5, 10, 15, 20))


def resume(path: str) -> float:
    """Seconds from nothing open to the batch 300 steps into epoch 1, files read as they are."""
    begin = time.perf_counter()
    source = input_pipeline.open_source("image_folder", path=path, split="train")
    batches = input_pipeline.train_batches(
        source,
        batch_size=128,
        seed=0,
        num_steps=2**40,
        start_step=source.num_examples // 128 + 300,
        image_size=32,
        augment={"crop_padding": 4, "flip": True},
    )
    next(iter(batches))
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
