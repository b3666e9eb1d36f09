"""Networks that PyTorch and transformers have trained keep their accuracy through the shell alone.

What their libraries make of each image is compared image by image. Needs torch, and transformers
for its half; the files of the two libraries are made here.
"""

import json

import numpy as np
import pytest
from input_helpers import encode, smooth_image
from PIL import Image
from sklearn.datasets import load_digits

import keras_resnet
from keras_resnet.commands import main

torch = pytest.importorskip("torch")
functional = torch.nn.functional

pytestmark = pytest.mark.slow
torch.set_num_threads(1)  # small networks: several threads only wait for each other
MEAN, STD = np.array([0.485, 0.456, 0.406], "f"), np.array([0.229, 0.224, 0.225], "f")
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """The digits in color and enlarged to 32 pixels, as JPEG: photos/{train,test}/NAME/N.jpg."""
    folder = tmp_path_factory.mktemp("photos")
    bunch = load_digits()
    rng = np.random.default_rng(0)
    for number, (pixels, label) in enumerate(zip(bunch.images, bunch.target, strict=True)):
        color = rng.uniform(0.3, 1, 3)
        image = Image.fromarray((pixels[..., None] * color * 255 / 16).astype(np.uint8))
        image = image.resize((32, 32), Image.Resampling.BICUBIC)
        place = folder / ("test" if number % 3 == 0 else "train") / NAMES[label]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.jpg").write_bytes(encode(image, "JPEG"))
    return folder


def read(folder, classes):
    """Images uint8[n, 32, 32, 3], labels and paths, as PIL reads them."""
    files = sorted(folder.rglob("*.jpg"))
    images = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    return images, np.array([classes.index(file.parent.name) for file in files]), files


def normalized(images):
    return torch.from_numpy(((images.astype("f") / 255 - MEAN) / STD).transpose(0, 3, 1, 2).copy())


def train(network, forward, inputs, labels, steps):
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)
    network.train()
    for _ in range(steps):
        chosen = torch.randint(len(inputs), (64,))
        loss = functional.cross_entropy(forward(inputs[chosen]), torch.from_numpy(labels)[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()


def answers(forward, inputs):
    with torch.no_grad():
        return np.concatenate([forward(part).numpy() for part in inputs.split(50)])


class Block(torch.nn.Module):
    """The block of the CIFAR networks that PyTorch's users know best: option A, centered."""

    def __init__(self, before, filters, stride):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(before, filters, 3, stride, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(filters)
        self.conv2 = torch.nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(filters)
        self.shortcut = torch.nn.Sequential()
        self.padding = (filters - before) // 2

    def forward(self, x):
        shortcut = x
        if self.padding:
            sides = (0, 0, 0, 0, self.padding, self.padding)
            shortcut = functional.pad(x[:, :, ::2, ::2], sides)
        x = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(x)) + shortcut)


class CifarNet(torch.nn.Module):
    """6n+2 layers, with the head called `linear`."""

    def __init__(self, blocks=1):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(16)
        before = 16
        for number, filters in enumerate((16, 32, 64), start=1):
            stage = []
            for place in range(blocks):
                stage.append(Block(before, filters, 2 if filters > 16 and place == 0 else 1))
                before = filters
            setattr(self, f"layer{number}", torch.nn.Sequential(*stage))
        self.linear = torch.nn.Linear(64, 10)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def convert(capsys, *arguments):
    assert main(["convert", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def evaluate(capsys, model, photos):
    capsys.readouterr()
    assert main(["evaluate", f"--model={model}", f"--data={photos}", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def assert_same_accuracy(found, logits, labels, classes):
    """The command's figures are those of the library's logits, to the image."""
    right = logits.argmax(1) == labels
    assert found["examples"] == len(labels)
    assert found["top1"] == right.mean() > 0.8  # trained, indeed
    best = np.argsort(-logits, axis=1)[:, :5]
    assert found["top5"] == (best == labels[:, None]).any(1).mean()
    correct = {row["class"]: row["correct"] for row in found["classes"]}
    assert correct == {
        name: int(right[labels == label].sum()) for label, name in enumerate(classes)
    }


def test_a_cifar_file_of_pytorch(photos, tmp_path, capsys):
    classes = sorted(NAMES)
    network = CifarNet()
    images, labels, _ = read(photos / "train", classes)
    train(network, network, normalized(images), labels, steps=150)
    images, labels, _ = read(photos / "test", classes)
    logits = answers(network, normalized(images))
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, "best_prec1": 0.9}, tmp_path / "resnet8.th")
    (tmp_path / "classes.txt").write_text("\n".join(classes))
    said = convert(
        capsys, "--model=CifarResNet20", "--depths=1,1,1", f"--weights={tmp_path}/resnet8.th",
        f"--output={tmp_path}/model.keras", f"--class_names={tmp_path}/classes.txt",
        "--mean=0.485,0.456,0.406", "--std=0.229,0.224,0.225",
    )  # fmt: skip
    assert "shortcut='A-centered'" in said
    found = evaluate(capsys, tmp_path / "model.keras", photos)
    assert_same_accuracy(found, logits, labels, classes)


def assert_same_pixels(found, expected, preprocessing):
    """Within one gray level, where a sum is rounded the other way.

    Args:
        found: float32[n, size, size, 3], normalized.
        expected: the same as PyTorch has it, [n, 3, size, size].
        preprocessing: of the model.
    """
    scale = 255 * np.array(preprocessing.std, "float32")
    levels = np.abs(found - expected.numpy().transpose(0, 2, 3, 1)) * scale
    assert levels.max() < 1.01
    if preprocessing.interpolation == "bicubic":  # "bilinear" is not rounded between its passes
        assert (levels > 0.01).mean() < 1e-3


@pytest.mark.filterwarnings("ignore")
def test_a_folder_of_transformers(photos, tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic",
        id2label=dict(enumerate(NAMES)), label2id={name: n for n, name in enumerate(NAMES)},
    )  # fmt: skip
    network = transformers.ResNetForImageClassification(config)
    processor = transformers.ConvNextImageProcessor(
        size={"shortest_edge": 48}, crop_pct=0.875, resample=3
    )

    def prepared(images):
        given = [Image.fromarray(image) for image in images]
        return processor(images=given, return_tensors="pt")["pixel_values"]

    images, labels, _ = read(photos / "train", NAMES)
    train(network, lambda x: network(x).logits, prepared(images), labels, steps=300)
    images, labels, files = read(photos / "test", NAMES)
    inputs = prepared(images)
    logits = answers(lambda x: network(x).logits, inputs)
    network.save_pretrained(tmp_path / "folder")
    processor.save_pretrained(tmp_path / "folder")
    convert(capsys, f"--weights={tmp_path}/folder", f"--output={tmp_path}/model.keras")
    for model in (tmp_path / "model.keras", tmp_path / "folder"):
        assert_same_accuracy(evaluate(capsys, model, photos), logits, labels, NAMES)
    loaded = keras_resnet.create_model(weights=tmp_path / "folder", classifier_activation=None)
    pixels = keras_resnet.preprocess(loaded, files)
    assert_same_pixels(pixels, inputs, loaded.preprocessing)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "settings",
    [
        {"size": {"shortest_edge": 96}, "crop_pct": 0.875, "resample": 3},
        {"size": {"shortest_edge": 100}, "crop_pct": 0.9, "resample": 2},
        {"size": {"shortest_edge": 384}, "crop_pct": 0.875, "resample": 3},
    ],
)
@pytest.mark.parametrize(
    "architecture",
    [
        {"layer_type": "basic", "depths": [1, 2]},
        {"layer_type": "bottleneck", "depths": [2, 1], "downsample_in_bottleneck": True},
    ],
)
def test_pixels_and_logits_of_transformers(tmp_path, settings, architecture):
    """Of photographs of any shape, with random weights: the same pixels and logits."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    config = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[32, 64], num_labels=7, **architecture
    )
    network = transformers.ResNetForImageClassification(config).eval()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 1.5)
    processor = transformers.ConvNextImageProcessor(**settings)
    network.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    photos = [
        np.asarray(smooth_image(*shape, seed=number))
        for number, shape in enumerate([(120, 161), (333, 200), (90, 90), (401, 603)])
    ]
    inputs = processor(images=[Image.fromarray(x) for x in photos], return_tensors="pt")
    loaded = keras_resnet.create_model(weights=tmp_path, classifier_activation=None)
    pixels = keras_resnet.preprocess(loaded, photos)
    assert_same_pixels(pixels, inputs["pixel_values"], loaded.preprocessing)
    with torch.no_grad():
        logits = network(inputs["pixel_values"]).logits.numpy()
    found = loaded.predict(inputs["pixel_values"].numpy().transpose(0, 2, 3, 1), verbose=0)
    assert np.abs(found - logits).max() < 1e-5 * np.abs(logits).max()
