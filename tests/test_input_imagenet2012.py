"""The real `imagenet2012` builder of TFDS, on hand-made tars with the odd files of ImageNet."""

import io
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from input_helpers import encode, smooth_image
from training_runs import built_engine

from keras_resnet import config as configs
from keras_resnet import input_pipeline
from keras_resnet.training.evaluation import evaluate_source
from keras_resnet.training.metrics import averages
from keras_resnet.training.tensorflow.strategy import make_strategy

CLASSES = ("n01739381", "n02105855", "n01440764")
TRAIN_PER_CLASS = 6
VALIDATION = 7


def photo(seed: int):
    return smooth_image(40 + 3 * seed, 90 - 5 * seed, seed)


def odd_files() -> dict[str, bytes]:
    """What ImageNet holds beside plain JPEGs, under names that the builder mends or lets pass."""
    return {
        "n01739381_1309.JPEG": encode(photo(0).convert("CMYK"), "JPEG"),  # mended by the builder
        "n01739381_1.JPEG": encode(photo(1).convert("CMYK"), "JPEG"),
        "n02105855_2933.JPEG": encode(photo(2), "PNG"),  # mended by the builder
        "n02105855_1.JPEG": encode(photo(3), "PNG"),
        "n01440764_1.JPEG": encode(photo(4).convert("L"), "JPEG"),
    }


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imagenet")
    manual = folder / "downloads" / "manual"
    manual.mkdir(parents=True)
    odd = odd_files()
    with tarfile.open(manual / "ILSVRC2012_img_train.tar", "w") as train:
        for place, name in enumerate(CLASSES):
            files = {file: content for file, content in odd.items() if file.startswith(name)}
            for index in range(TRAIN_PER_CLASS - len(files)):
                files[f"{name}_{100 + index}.JPEG"] = encode(photo(place + index), "JPEG")
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as tar:
                for file, content in files.items():
                    add(tar, file, content)
            add(train, f"{name}.tar", inner.getvalue())
    contents = [encode(photo(seed), "JPEG") for seed in range(VALIDATION - 2)]
    contents += [encode(photo(8).convert("L"), "JPEG"), encode(photo(9), "PNG")]
    with tarfile.open(manual / "ILSVRC2012_img_val.tar", "w") as tar:
        for index, content in enumerate(contents):
            add(tar, f"ILSVRC2012_val_{index + 1:08d}.JPEG", content)
    tfds.disable_progress_bar()
    tfds.builder("imagenet2012", data_dir=str(folder)).download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=str(manual))
    )
    return str(folder)


@pytest.mark.ci
def test_an_epoch_of_training_and_an_exact_evaluation(data_dir):
    config = configs.default_config()
    config.batch_size, config.epochs = 6, 1
    config.data.name, config.data.path, config.data.image_size = "imagenet2012", data_dir, 16
    config.data.augment.random_resized_crop = config.data.augment.flip = True
    config.model.depths = (1, 1, 1)
    config = configs.check(config)
    train = input_pipeline.open_source(split="train", **configs.source_options(config))
    validation = input_pipeline.open_source(split="validation", **configs.source_options(config))
    assert (train.num_examples, len(train.class_names)) == (3 * TRAIN_PER_CLASS, 1000)
    engine = built_engine(config, make_strategy("cpu"), train.class_names, train.num_examples)
    steps = 3 * TRAIN_PER_CLASS // config.batch_size
    sums = engine.train(engine.train_batches(train, 0, steps), steps)
    assert averages(sums)["examples"] == 3 * TRAIN_PER_CLASS
    means = evaluate_source(engine, validation).means
    assert means["examples"] == VALIDATION
    # The loss over all examples at once, computed by hand.
    [batch] = input_pipeline.evaluation_batches(
        validation, batch_size=VALIDATION, preprocessing=configs.preprocessing(config)
    )
    inputs = input_pipeline.normalize(batch["image"], configs.preprocessing(config))
    logits = np.asarray(engine.model(inputs, training=False), np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(VALIDATION), batch["label"]]
    assert means["loss"] == pytest.approx(losses.mean(), rel=1e-5)


def test_odd_files_come_out_as_the_photos_they_were(data_dir):
    preprocessing = {**configs.preprocessing(configs.default_config()), "image_size": 24}
    source = input_pipeline.open_source(
        "tfds", name="imagenet2012", path=data_dir, split="validation"
    )
    [batch] = input_pipeline.evaluation_batches(
        source, batch_size=VALIDATION, preprocessing=preprocessing
    )
    found = np.asarray(batch["image"], int)
    for seed, mode in ((0, "RGB"), (4, "RGB"), (8, "L"), (9, "RGB")):
        whole = encode(photo(seed).convert(mode).convert("RGB"), "PNG")
        expected = np.asarray(input_pipeline.evaluation_image(whole, preprocessing), int)
        difference = np.abs(found - expected).mean(axis=(1, 2, 3))
        assert difference.min() < (1 if mode == "L" else 6), (seed, difference)
    assert find_labels(source) == sorted(
        source.class_names.index(name)
        for name in ("n01751748", "n09193705", "n02105855", "n04263257", "n03125729", "n01735189",
                     "n02346627")
    )  # fmt: skip


def find_labels(source) -> list[int]:
    return sorted(int(label) for _, labels in source.chunks() for label in labels)
