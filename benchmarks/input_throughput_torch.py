"""torchvision's side of input_throughput.py, which runs it in an environment with torchvision.

Reads contestants' names from standard input, a line each, and answers with images/s: PIL decodes
and transforms, a DataLoader with --workers processes batches uint8 images from bytes in memory.
"""

import argparse
import contextlib
import io
import sys
import time
from pathlib import Path

with contextlib.suppress(ImportError):  # for environments whose torch and torchvision do not match
    import tvshim  # noqa: F401
import torch
from PIL import Image
from torchvision import transforms


def make_transforms(size: int) -> dict:
    return {
        "train": transforms.Compose(
            [
                transforms.RandomResizedCrop(size),
                transforms.RandomHorizontalFlip(),
                transforms.PILToTensor(),
            ]
        ),
        "evaluation": transforms.Compose(
            [
                transforms.Resize(round(size / 0.875)),
                transforms.CenterCrop(size),
                transforms.PILToTensor(),
            ]
        ),
    }


class Photos(torch.utils.data.Dataset):
    """The same encoded images over and over."""

    def __init__(self, files: list[bytes], transform):
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return 10_000_000

    def __getitem__(self, index: int):
        image = Image.open(io.BytesIO(self.files[index % len(self.files)])).convert("RGB")
        return self.transform(image)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", required=True)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    files = [path.read_bytes() for path in sorted(Path(options.photos).rglob("*.*"))]
    loaders = {
        name: iter(
            torch.utils.data.DataLoader(
                Photos(files, transform),
                batch_size=options.batch_size,
                num_workers=options.workers,
            )
        )
        for name, transform in make_transforms(options.size).items()
    }
    print("ready", flush=True)
    for line in sys.stdin:
        batches = loaders[line.strip()]
        begin = time.perf_counter()
        while time.perf_counter() - begin < options.seconds / 4:  # what was prefetched
            next(batches)
        count, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < options.seconds:
            count += len(next(batches))
        print(count / (time.perf_counter() - begin), flush=True)


if __name__ == "__main__":
    main()
