"""The residual network of many a tutorial in PyTorch, line by line beside the same in Keras.

Task: show that both are one network. The 18 layers of BasicBlock of He et al. 2015 (Deep Residual
Learning, table 1) and 50 layers that normalize before they convolve (He et al. 2016, Identity
Mappings, figure 4) are written out in PyTorch, and the layers of the Keras blocks named beside
them; weights are carried over and back; logits, gradients and steps of training are compared.

    pip install -e '.[cpu,digits,plot,torch]'
    python examples/pytorch_beside.py --output=beside   # a minute on two cores; --quick: 18 layers

Expected, in float64, where rounding hides no mistake: logits, the gradient of every variable
and the losses of five steps agree to 1e-8. `result.json` has the figures, `losses.png` the curves.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("JAX_ENABLE_X64", "1")

import keras
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_sample_images
from torch import nn

import keras_resnet
from keras_resnet import blocks

keras.config.set_floatx("float64")
torch.set_default_dtype(torch.float64)

CLASSES, SIZE, BATCH, STEPS, RATE = 10, 32, 16, 5, 0.02


# ------------------------------------------------------------------------------------------- data
def read_crops(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Which part of scikit-learn's two photos is it? float64[n, 32, 32, 3] in -1..1, int64[n]."""
    photos, rng = np.stack(load_sample_images().images) / 127.5 - 1, np.random.default_rng(0)
    labels, rows = rng.integers(0, CLASSES, count), rng.integers(0, 427 - SIZE, count)
    columns = labels % 5 * 128 + rng.integers(0, 128 - SIZE, count)
    crops = [photos[label // 5, row : row + SIZE, column : column + SIZE]
             for label, row, column in zip(labels, rows, columns, strict=True)]  # fmt: skip
    return np.stack(crops), labels


# -------------------------------------------------------------- model: PyTorch, and Keras beside it
class BasicBlock(nn.Module):  # keras_resnet.blocks.basic_block(x, planes, stride, name="b")
    expansion = 1

    def __init__(self, inplanes, planes, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = None
        if stride != 1 or inplanes != planes:  # shortcut="B", the default
            projection = nn.Conv2d(inplanes, planes, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(planes))

    def forward(self, x):  # the layers of the Keras block:
        residual = x if self.downsample is None else self.downsample(x)  # b_shortcut_conv, _norm
        out = self.conv1(x)  # b_conv1, its border by b_conv1_pad where it strides
        out = torch.relu(self.bn1(out))  # b_norm1, b_act1
        out = self.conv2(out)  # b_conv2
        out = self.bn2(out)  # b_norm2
        return torch.relu(out + residual)  # b_add, b_out


class PreactBottleneck(nn.Module):  # keras_resnet.blocks.preact_bottleneck_block
    expansion = 4

    def __init__(self, inplanes, planes, stride=1):
        super().__init__()
        self.bn0 = nn.BatchNorm2d(inplanes)
        self.conv1 = nn.Conv2d(inplanes, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.downsample = None
        if stride != 1 or inplanes != 4 * planes:
            self.downsample = nn.Conv2d(inplanes, 4 * planes, 1, stride, bias=False)

    def forward(self, x):
        out = torch.relu(self.bn0(x))  # b_preact_norm, b_preact_act
        residual = x if self.downsample is None else self.downsample(out)  # b_shortcut_conv
        out = self.conv1(out)  # b_conv1
        out = self.conv2(torch.relu(self.bn1(out)))  # b_norm1, b_act1, b_conv2
        out = self.conv3(torch.relu(self.bn2(out)))  # b_norm2, b_act2, b_conv3
        return out + residual  # b_out, and nothing after it: the identity reaches every block


class ResNet(nn.Module):
    def __init__(self, block, layers, num_classes=CLASSES):
        super().__init__()
        self.preactivated = block is PreactBottleneck
        self.inplanes = 64
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.layer1 = self._make_layer(block, 64, layers[0])
        self.layer2 = self._make_layer(block, 128, layers[1], stride=2)
        self.layer3 = self._make_layer(block, 256, layers[2], stride=2)
        self.layer4 = self._make_layer(block, 512, layers[3], stride=2)
        self.bn1 = nn.BatchNorm2d(self.inplanes if self.preactivated else 64)
        self.fc = nn.Linear(512 * block.expansion, num_classes)

    def _make_layer(self, block, planes, blocks, stride=1):
        inputs, self.inplanes = self.inplanes, planes * block.expansion
        rest = [block(self.inplanes, planes) for _ in range(blocks - 1)]
        return nn.Sequential(block(inputs, planes, stride), *rest)

    def forward(self, x):
        x = self.conv1(x)
        if not self.preactivated:
            x = torch.relu(self.bn1(x))
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.maxpool(x)))))
        if self.preactivated:
            x = torch.relu(self.bn1(x))
        return self.fc(x.mean((2, 3)))


def resnet(block, layers) -> keras.Model:
    """The same in Keras; keras_resnet.ResNet18 is this with one of its tables' lines."""
    x = inputs = keras.Input((SIZE, SIZE, 3))
    if block is blocks.basic_block:
        x = blocks.conv_norm_act(x, 64, 7, 2, name="stem")
    else:
        x = keras.layers.ZeroPadding2D(3)(x)
        x = keras.layers.Conv2D(64, 7, 2, use_bias=False, name="stem_conv")(x)
    # Keras' own padding would shift the windows by a pixel; zeros could win over negative values.
    x = keras_resnet.layers.PaddedMaxPool(zero_pad=False)(x)
    for stage, (filters, count) in enumerate(zip((64, 128, 256, 512), layers, strict=True), 1):
        for number in range(1, count + 1):
            stride = 2 if stage > 1 and number == 1 else 1
            x = block(x, filters, stride, name=f"stage{stage}_block{number}")
    if block is not blocks.basic_block:
        x = blocks.norm_act(x, name="final")
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="predictions")(x))


NETWORKS = (
    ("18 layers, BasicBlock", BasicBlock, blocks.basic_block, (2, 2, 2, 2)),
    ("50 layers, pre-activation", PreactBottleneck, blocks.preact_bottleneck_block, (3, 4, 6, 3)),
)


# ---------------------------------------------------------------------- weights, there and back
def layer_of(name: str, preactivated: bool) -> str:
    """The Keras layer of a PyTorch module: "stage2_block1_conv1" of "layer2.0.conv1"."""
    bn1 = "final_norm" if preactivated else "stem_norm"
    top = {"conv1": "stem_conv", "bn1": bn1, "fc": "predictions"}
    if name in top:
        return top[name]
    stage, block, part, *more = name.removeprefix("layer").split(".")
    if part == "downsample":
        part = "shortcut_norm" if more == ["1"] else "shortcut_conv"
    part = part.replace("bn0", "preact_norm").replace("bn", "norm")
    return f"stage{stage}_block{int(block) + 1}_{part}"


def arrays(module: nn.Module, gradients: bool = False) -> list[torch.Tensor]:
    """A module's parameters, or their gradients, in the order and layout of the Keras layer."""
    weight, *more = [one.grad if gradients else one for one in module.parameters()]
    if isinstance(module, nn.BatchNorm2d):
        return [weight, *more, *([] if gradients else [module.running_mean, module.running_var])]
    return [weight.permute(2, 3, 1, 0) if weight.ndim == 4 else weight.T, *more]  # OIHW -> HWIO


def pairs(network: ResNet, model: keras.Model):
    """Every PyTorch module that has parameters, with its Keras layer."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
            yield module, model.get_layer(layer_of(name, network.preactivated))


@torch.no_grad()
def to_keras(network: ResNet, model: keras.Model) -> None:
    for module, layer in pairs(network, model):
        layer.set_weights([array.numpy() for array in arrays(module)])


@torch.no_grad()
def to_pytorch(model: keras.Model, network: ResNet) -> None:
    for module, layer in pairs(network, model):
        for array, value in zip(arrays(module), layer.get_weights(), strict=True):
            array.copy_(torch.from_numpy(np.array(value)))


# ------------------------------------------------------------------------ training and evaluation
def logits(network, images: np.ndarray) -> np.ndarray:
    if isinstance(network, keras.Model):
        return network.predict_on_batch(images)
    with torch.no_grad():
        return network.eval()(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()


def steps_of_pytorch(network: ResNet, batches, rate: float) -> list[float]:
    """The losses of steps of plain gradient descent."""
    optimizer, losses = torch.optim.SGD(network.train().parameters(), rate), []
    for images, labels in batches:
        answers = network(torch.from_numpy(images).permute(0, 3, 1, 2))
        loss = nn.functional.cross_entropy(answers, torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def steps_of_keras(model: keras.Model, batches, rate: float) -> list[float]:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate), loss, jit_compile=False)
    losses = []
    for images, labels in batches:
        model.reset_metrics()
        losses.append(float(model.train_on_batch(images, labels)))
    return losses


def worst(found, expected) -> float:
    """The largest difference, relative to the largest expected value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def difference_of_gradients(network: ResNet, model: keras.Model, batch) -> float:
    """The worst of all variables; a step of a known rate is the gradient, on every backend."""
    rate, before = 1024.0, model.get_weights()
    old = {layer: layer.get_weights() for _, layer in pairs(network, model)}
    steps_of_keras(model, [batch], rate)
    new = {layer: layer.get_weights() for layer in old}
    model.set_weights(before)
    steps_of_pytorch(network, [batch], 0.0)
    differences = []
    for module, layer in pairs(network, model):
        gradients = [gradient.numpy() for gradient in arrays(module, gradients=True)]
        steps = [(one - other) / rate for one, other in zip(old[layer], new[layer], strict=True)]
        differences += map(worst, steps, gradients)
    return max(differences)


def compare(network: ResNet, model: keras.Model) -> dict:
    """Gives both networks the same weights, and measures how far they differ."""
    images, labels = read_crops(BATCH * (STEPS + 1))
    batches = list(zip(np.split(images, STEPS + 1), np.split(labels, STEPS + 1), strict=True))
    held_out = batches.pop()[0]
    to_keras(network, model)
    found = {"logits": worst(logits(model, held_out), logits(network, held_out)),
             "gradients": difference_of_gradients(network, model, batches[0])}  # fmt: skip
    to_pytorch(model, network)
    curves = {"Keras": steps_of_keras(model, batches, RATE),
              "PyTorch": steps_of_pytorch(network, batches, RATE)}  # fmt: skip
    found["losses"] = worst(*map(np.array, curves.values()))
    to_pytorch(model, network)
    found["logits, carried back"] = worst(logits(network, held_out), logits(model, held_out))
    return {**found, "curves": curves}


# ---------------------------------------------------------------------------------------- picture
def draw(results: dict[str, dict], file: Path) -> None:
    figure, axes = plt.subplots(1, len(results), layout="constrained", squeeze=False)
    for axis, (name, found) in zip(axes[0], results.items(), strict=True):
        for (label, losses), style in zip(found["curves"].items(), ("o", "-"), strict=True):
            axis.plot(range(1, len(losses) + 1), losses, style, label=label)
        axis.set(title=name, xlabel="step", ylabel="cross-entropy")
        axis.legend()
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for figures and picture")
    parser.add_argument("--quick", action="store_true", help="the smaller network alone")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    results = {name: compare(ResNet(theirs, layers), resnet(ours, layers))
               for name, theirs, ours, layers in NETWORKS[: 1 if options.quick else 2]}  # fmt: skip
    for name, found in results.items():
        print(name)
        print({what: f"{value:.0e}" for what, value in found.items() if what != "curves"})
    draw(results, options.output / "losses.png")
    # A state_dict that PyTorch wrote, read by keras_resnet without any of the code above.
    network, (images, _) = ResNet(BasicBlock, (2, 2, 2, 2)), read_crops(BATCH)
    file, shape = options.output / "basic.pth", (SIZE, SIZE, 3)
    torch.save(network.state_dict(), file)
    model = keras_resnet.ResNet18(
        weights=file, classes=CLASSES, input_shape=shape, classifier_activation=None
    )
    results["from a file"] = worst(logits(model, images), logits(network, images))
    print(f"keras_resnet.ResNet18(weights='{file}')", results["from a file"])
    (options.output / "result.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
