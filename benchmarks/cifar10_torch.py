"""ResNet on CIFAR-10 in PyTorch: the twin of `configs/cifar10.py`, to compare accuracy and speed.

    python benchmarks/cifar10_torch.py --data=FOLDER --epochs=10 --seed=0 --init=ours

`FOLDER` holds train/CLASS/* and test/CLASS/*. The same network (He et al. 2015, section 4.2, with
parameter-free shortcuts), the same recipe: batches of 128 that run across the borders of epochs, a
crop out of 4 pixels of padding and a flip, SGD with Nesterov momentum 0.9, L2 on the kernels only,
one epoch of warm-up and a cosine. `--init=ours` has the initial distributions of this project
(convolutions by fan out, gamma one, the classifier by fan in), `--init=pytorch` those that PyTorch
gives a network by itself. Only the random numbers differ. Needs torch, numpy and Pillow; images are
decoded once and kept in the memory of the device. Prints a line of JSON an epoch: epoch, step, loss
and top1 of training, top1 on all test images, images_per_second (training alone).
"""

import argparse
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
BATCH, PADDING = 128, 4


class Block(nn.Module):
    """Two 3×3 convolutions; the shortcut takes every second pixel and pads channels with zeros."""

    def __init__(self, inputs: int, filters: int, stride: int, residual: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, filters, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(filters)
        self.stride, self.added, self.residual = stride, filters - inputs, residual

    def forward(self, x):
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        if self.residual:
            shortcut = x[:, :, :: self.stride, :: self.stride]
            y = y + F.pad(shortcut, (0, 0, 0, 0, 0, self.added))
        return F.relu(y)


def make_network(depth: int, residual: bool = True, init: str = "ours") -> nn.Module:
    """ResNet-`depth`, 6n + 2 layers, or its plain twin."""
    blocks, inputs = [], 16
    for stage, filters in enumerate((16, 32, 64)):
        for number in range((depth - 2) // 6):
            stride = 2 if stage > 0 and number == 0 else 1
            blocks.append(Block(inputs, filters, stride, residual))
            inputs = filters
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    network = nn.Sequential(*stem, *blocks, *head)
    for module in network.modules() if init == "ours" else ():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):  # its weight is by fan in already
            nn.init.zeros_(module.bias)
    return network.to(memory_format=torch.channels_last)


def read_split(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8[n, 3, 32, 32] and int64[n]: all images of a split, classes in alphabetical order."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    files = [(path, label) for label, folder in enumerate(classes) for path in folder.iterdir()]
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(lambda file: np.asarray(Image.open(file[0]).convert("RGB")), files))
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return pixels, torch.tensor([label for _, label in files])


def normalize(pixels: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(v, device=pixels.device).view(1, 3, 1, 1) for v in (MEAN, STD))
    return ((pixels / 255.0 - mean) / std).contiguous(memory_format=torch.channels_last)


def augment(pixels: torch.Tensor) -> torch.Tensor:
    """A random crop out of zero padding, and a flip of every second image on average."""
    count, _, size, _ = pixels.shape
    padded = F.pad(pixels, (PADDING,) * 4)
    top, left = torch.randint(0, 2 * PADDING + 1, (2, count, 1))
    rows, columns = top + torch.arange(size), left + torch.arange(size)
    columns = torch.where(torch.rand(count, 1) < 0.5, columns.flip(1), columns)
    index = torch.arange(count).view(-1, 1, 1)
    rows, columns = rows.to(pixels.device), columns.to(pixels.device)
    # Advanced indices around a slice put the channels last.
    return padded[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def batches(count: int, steps: int):
    """Indices of each batch: a fresh permutation an epoch, batches across their borders."""
    left = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(left) < BATCH:
            left = torch.cat([left, torch.randperm(count)])
        yield left[:BATCH]
        left = left[BATCH:]


@torch.inference_mode()
def accuracy(network: nn.Module, pixels: torch.Tensor, labels: torch.Tensor) -> float:
    network.eval()
    right = 0
    for part, truth in zip(pixels.split(1000), labels.split(1000), strict=True):
        right += (network(normalize(part)).argmax(1) == truth).sum().item()
    return right / len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=164)
    parser.add_argument("--depth", type=int, default=20, choices=[20, 32, 44, 56, 110])
    parser.add_argument("--plain", action="store_true", help="without shortcuts")
    parser.add_argument("--init", choices=["ours", "pytorch"], default="ours")
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, …")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    device = torch.device(options.device)
    train_pixels, train_labels = (x.to(device) for x in read_split(options.data / "train"))
    test = tuple(x.to(device) for x in read_split(options.data / "test"))
    network = make_network(options.depth, residual=not options.plain, init=options.init).to(device)
    kernels = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim == 1]
    optimizer = torch.optim.SGD(
        [{"params": kernels, "weight_decay": 1e-4}, {"params": others, "weight_decay": 0.0}],
        lr=options.learning_rate,
        momentum=0.9,
        nesterov=True,
    )
    count = len(train_labels)
    steps, warmup = count * options.epochs // BATCH, round(count / BATCH)
    ends = {count * epoch // BATCH: epoch for epoch in range(1, options.epochs + 1)}
    loss_sum, right, images, seconds = 0.0, 0, 0, 0.0
    for step, index in enumerate(batches(count, steps)):
        begin = time.perf_counter()
        network.train()
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        rate = options.learning_rate * cosine * min((step + 1) / warmup, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        logits = network(normalize(augment(train_pixels[index])))
        loss = F.cross_entropy(logits, train_labels[index])
        loss.backward()
        optimizer.step()
        loss_sum, images = loss_sum + loss.item() * len(index), images + len(index)
        right += (logits.argmax(1) == train_labels[index]).sum().item()
        seconds += time.perf_counter() - begin
        if step + 1 in ends:
            row = {
                "epoch": ends[step + 1],
                "step": step + 1,
                "loss": loss_sum / images,
                "train_top1": right / images,
                "top1": accuracy(network, *test),
                "images_per_second": images / seconds,
            }
            print(json.dumps(row), flush=True)
            loss_sum, right, images, seconds = 0.0, 0, 0, 0.0


if __name__ == "__main__":
    main()
