"""CPU time of each augmentation, on top of random resized crop and flip.

    python benchmarks/augmentation.py --data=FOLDER

FOLDER is an image folder (`FOLDER/CLASS/*.jpg` or `FOLDER/train/CLASS/*.jpg`). Every contestant
runs the real training pipeline with one more augmentation; rounds are interleaved, so that a slow
minute of the machine hits them all. Printed is a Markdown table: CPU milliseconds per image (over
all threads; median of the rounds, in brackets the least and the most), the images a second that
one core would make of it, and the share of the throughput without the augmentation that is left.
mixup and CutMix happen on the device: their row shows what drawing their numbers costs.
"""

import argparse
import os
import platform
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

from keras_resnet import input_pipeline

CONTESTANTS = {
    "crop and flip": {},
    "RandAugment rand-m9-mstd0.5": {"policy": "rand-m9-mstd0.5"},
    "RandAugment, both always applied: rand-m9-mstd0.5-p1": {"policy": "rand-m9-mstd0.5-p1"},
    "AutoAugment auto-imagenet": {"policy": "auto-imagenet"},
    "TrivialAugment": {"policy": "trivial"},
    "color jitter 0.4, 0.4, 0.4, 0": {"color_jitter": (0.4, 0.4, 0.4, 0.0)},
    "color jitter 0.4, 0.4, 0.4, 0.1": {"color_jitter": (0.4, 0.4, 0.4, 0.1)},
    "random erasing 0.25": {"random_erasing": 0.25},
    "mixup 0.1 and CutMix 1": {"mixup": 0.1, "cutmix": 1.0},
}


def main() -> None:
    options = parse_arguments()
    source = input_pipeline.open_source("image_folder", path=options.data, split="train")
    print(f"{source.description}, {options.image_size} px, {options.rounds} rounds of "
          f"{options.images} images. {describe_machine()}\n")  # fmt: skip
    milliseconds = measure(source, options)
    baseline = statistics.median(milliseconds["crop and flip"])
    print("| augmentation | CPU ms per image | images/s per core | throughput left |")
    print("|---|---|---|---|")
    for name, values in milliseconds.items():
        median = statistics.median(values)
        print(
            f"| {name} | {median:.2f} ({min(values):.2f}–{max(values):.2f}) | {1000 / median:.0f} "
            f"| {baseline / median:.0%} |"
        )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="image folder")
    parser.add_argument("--image-size", type=int, default=224, help="pixels")
    parser.add_argument("--images", type=int, default=1000, help="per round")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def describe_machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, TensorFlow {tf.__version__}."


def measure(source, options: argparse.Namespace) -> dict[str, list[float]]:
    """Returns the CPU milliseconds per image of every round, by contestant."""
    batch_size = 50
    warm_up, measured = 2, max(1, options.images // batch_size)
    iterators = {
        name: iter(
            input_pipeline.train_batches(
                source,
                batch_size=batch_size,
                seed=0,
                num_steps=(options.rounds + 1) * (warm_up + measured) + 1000,
                image_size=options.image_size,
                augment={"random_resized_crop": True, "flip": True, **augment},
            )
        )
        for name, augment in CONTESTANTS.items()
    }
    results = {name: [] for name in CONTESTANTS}
    for _ in range(options.rounds):
        for name, iterator in iterators.items():
            for _ in range(warm_up):
                next(iterator)
            begin = time.process_time()
            for _ in range(measured):
                next(iterator)
            seconds = time.process_time() - begin
            results[name].append(seconds / (measured * batch_size) * 1000)
            time.sleep(1)  # what is prefetched must not count for the next contestant
    return results


if __name__ == "__main__":
    main()
