"""Makes elsewhere/: what networks of PyTorch code that is no library give, and transformers'.

And what torchvision's networks give with a window that the library of images does not have: those
of videos, and one with the max pool of networks that came from Caffe.

In an environment of its own (none of this is a dependency of the project), Python 3.11:

    pip install torch==2.13.0 torchvision==0.28.0 numpy==2.4.6 pillow safetensors transformers \
        timm==1.0.31
    python tests/references/make_elsewhere.py
"""

import functools
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
import transformers
from torch import nn
from torch.nn import functional

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from references import generator  # noqa: E402

OUTPUT = HERE / "elsewhere"
TRANSFORMERS = {
    "basic": {"layer_type": "basic", "depths": [1, 2], "hidden_sizes": [16, 32]},
    "bottleneck": {"depths": [2, 1, 1], "hidden_sizes": [32, 64, 96], "num_channels": 1},
    "downsample_in_bottleneck": {
        "depths": [1, 2],
        "hidden_sizes": [32, 64],
        "downsample_in_bottleneck": True,
    },
    "downsample_in_first_stage": {
        "depths": [1, 2],
        "hidden_sizes": [32, 64],
        "downsample_in_first_stage": True,
    },
}
CLIP = (2, 3, 9, 40, 48)
BIT = {
    "bit": {"depths": [1, 2], "hidden_sizes": [128, 256], "embedding_size": 32},
    # Its first block has the shape of its input, and is projected all the same.
    "bit_other": {
        "depths": [2, 1, 1],
        "hidden_sizes": [32, 64, 96],
        "embedding_size": 32,
        "num_groups": 4,
        "num_channels": 1,
        "hidden_act": "silu",
    },
}


class Block(nn.Module):
    """Two convolutions and option A, as PyTorch code for CIFAR writes it."""

    def __init__(self, channels: int, filters: int, stride: int, pooled: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.stride, self.zeros, self.pooled = stride, (filters - channels) // 2, pooled

    def forward(self, x):
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1 and self.pooled:
            x = functional.avg_pool2d(x, 2, 2, ceil_mode=True)
        else:
            x = x[:, :, :: self.stride, :: self.stride]
        x = functional.pad(x, (0, 0, 0, 0, self.zeros, self.zeros))
        return functional.relu(x + y)


class CifarResNet(nn.Module):
    """ResNet-20 of He et al. 2015, section 4.2."""

    def __init__(self, pooled: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for stage, (channels, filters) in enumerate(((16, 16), (16, 32), (32, 64)), start=1):
            blocks = [Block(channels, filters, 1 if stage == 1 else 2, pooled)]
            blocks += [Block(filters, filters, 1, pooled) for _ in range(2)]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def fill(model: nn.Module) -> dict[str, list[int]]:
    """Gives a model the generator's weights; returns names and shapes in the model's order."""
    shapes = {}
    with torch.no_grad():
        for name, value in model.state_dict().items():
            shapes[name] = list(value.shape)
            if not name.endswith("num_batches_tracked"):
                value.copy_(torch.from_numpy(generator.weight(name, tuple(value.shape))))
    return shapes


def images(size: int, channels: int = 3) -> torch.Tensor:
    pixels = generator.images(size)[..., :channels]
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


def google_shapes(depths: tuple[int, ...], channels: tuple[int, ...], stem: int):
    """Names and shapes of Big Transfer's .npz files, as timm's `load_pretrained` reads them."""
    conv, norm = "standardized_conv2d/kernel", "group_norm"
    shapes = {f"resnet/root_block/{conv}": (7, 7, 3, stem)}
    before = stem
    for stage, (depth, after) in enumerate(zip(depths, channels, strict=True), start=1):
        inside = after // 4
        for block in range(1, depth + 1):
            unit = f"resnet/block{stage}/unit{block:02d}"
            kernels = {"a": (1, before, inside), "b": (3, inside, inside), "c": (1, inside, after)}
            for part, (size, inputs, outputs) in kernels.items():
                shapes[f"{unit}/{part}/{conv}"] = (size, size, inputs, outputs)
                shapes |= {f"{unit}/{part}/{norm}/{name}": (inputs,) for name in ("gamma", "beta")}
            if block == 1:
                shapes[f"{unit}/a/proj/{conv}"] = (1, 1, before, after)
            before = after
    shapes |= {f"resnet/{norm}/{name}": (before,) for name in ("gamma", "beta")}
    return shapes | {
        "resnet/head/conv2d/kernel": (1, 1, before, 4),
        "resnet/head/conv2d/bias": (4,),
    }


def google_bit(path: Path) -> dict:
    """The logits of a small network of Big Transfer's, loaded by timm from Google's layout."""
    depths, channels, stem = (1, 2), (128, 256), 32
    shapes = google_shapes(depths, channels, stem)
    np.savez(path, **{name: generator.weight(name, shape) for name, shape in shapes.items()})
    model = timm.models.resnetv2.ResNetV2(
        depths,
        channels,
        num_classes=4,
        stem_chs=stem,
        stem_type="fixed",
        conv_layer=functools.partial(timm.layers.StdConv2d, eps=1e-8),
    ).eval()
    model.load_pretrained(str(path))
    with torch.no_grad():
        logits = {size: model(images(size)).tolist() for size in (64, 61)}
    arrays = {name: list(shape) for name, shape in shapes.items()}
    return {"arrays": arrays, "timm": timm.__version__, "logits": logits}


def main() -> None:
    """Writes one JSON file for each network."""
    OUTPUT.mkdir(exist_ok=True)
    for kind in ("centered", "pooled"):
        model = CifarResNet(kind == "pooled").eval()
        record = {"arrays": fill(model), "torch": torch.__version__.split("+")[0]}
        with torch.no_grad():
            record["logits"] = {size: model(images(size)).tolist() for size in (32, 29)}
        (OUTPUT / f"cifar_{kind}.json").write_text(json.dumps(record) + "\n")
    video = torchvision.models.video.resnet
    model = video.VideoResNet(
        video.BasicBlock, [video.Conv3DSimple] * 4, [1, 1, 1, 1], video.BasicStem, num_classes=7
    ).eval()
    record = {"arrays": fill(model), "torchvision": torchvision.__version__.split("+")[0]}
    with torch.no_grad():
        record["logits"] = {
            "clip": model(torch.from_numpy(generator.uniform("clip", CLIP))).tolist()
        }
    (OUTPUT / "video.json").write_text(json.dumps(record) + "\n")
    model = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], 7).eval()
    model.maxpool = nn.MaxPool2d(3, 2, ceil_mode=True)
    record = {"arrays": fill(model), "torchvision": torchvision.__version__.split("+")[0]}
    with torch.no_grad():
        record["logits"] = {size: model(images(size)).tolist() for size in (64, 97)}
    (OUTPUT / "caffe_pool.json").write_text(json.dumps(record) + "\n")
    labels = {number: f"animal {number}" for number in range(4)}
    for name, arguments in {**TRANSFORMERS, **BIT}.items():
        if name in BIT:
            config = transformers.BitConfig(id2label=labels, **arguments)
            model = transformers.BitForImageClassification(config).eval()
        else:
            config = transformers.ResNetConfig(embedding_size=16, id2label=labels, **arguments)
            model = transformers.ResNetForImageClassification(config).eval()
        record = {"arrays": fill(model), "transformers": transformers.__version__}
        with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
            pixels = images(64, config.num_channels)
            record["logits"] = {64: model(pixel_values=pixels).logits.tolist()}
            config.save_pretrained(folder)
            record["config"] = json.loads((Path(folder) / "config.json").read_text())
        (OUTPUT / f"transformers_{name}.json").write_text(json.dumps(record) + "\n")
    with tempfile.TemporaryDirectory() as folder:
        record = google_bit(Path(folder) / "bit.npz")
    (OUTPUT / "google_bit.json").write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
