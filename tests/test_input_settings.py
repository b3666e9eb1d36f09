"""What can be set about the data: a row or a module for each piece, from which all else follows."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from input_helpers import NumberedSource, images_of

from keras_resnet.config import default_config, source_options
from keras_resnet.input_pipeline import DataError, open_source, train_batches
from keras_resnet.input_pipeline.augment import policies
from keras_resnet.input_pipeline.augment.settings import AUGMENTATIONS, Augmentation
from keras_resnet.input_pipeline.settings import Setting, is_count, is_share
from keras_resnet.input_pipeline.sources import SETTINGS, SOURCES, SourceKind

DOCS = Path(__file__).parent.parent / "docs"


def images(**augment):
    batches = train_batches(
        NumberedSource(10), batch_size=5, seed=1, num_steps=2, image_size=8, augment=augment
    )
    return images_of(batches)


def test_they_load_neither_tensorflow_nor_keras():
    """Nor NumPy: a command answers a wrong value before it loads anything."""
    program = f"""
import sys, types
package = types.ModuleType("keras_resnet")  # in place of the whole package
package.__path__ = [{str(DOCS.parent / "keras_resnet")!r}]
sys.modules["keras_resnet"] = package
import keras_resnet.input_pipeline.augment.settings, keras_resnet.input_pipeline.sources
print(sorted({{"tensorflow", "tensorflow_datasets", "keras", "numpy"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_configurations_have_these_keys_and_defaults():
    config = default_config()
    assert config.data.augment.to_dict() == {r.name: r.default for r in AUGMENTATIONS.values()}
    assert source_options(config) == {setting.name: setting.default for setting in SETTINGS}
    assert list(source_options(config)) == [setting.name for setting in SETTINGS]
    for setting in (*SETTINGS, *AUGMENTATIONS.values()):
        setting.check(setting.default)
        assert setting.help[0].isupper()
        assert setting.help.endswith(".")


def test_the_docs_have_them_all():
    text = (DOCS / "augmentation.md").read_text()
    for name in AUGMENTATIONS:
        assert f"\n| `{name}` |" in text
    for name in policies.POLICIES:
        assert f"`{name}`" in text
    text = (DOCS / "data.md").read_text()
    for name in (*SOURCES, *(setting.name for setting in SETTINGS)):
        assert name in text, name


@pytest.mark.ci
def test_a_new_augmentation_is_a_row(monkeypatch):
    row = Augmentation(
        name="inversion",
        default=0.0,
        help="Inverts an image with this probability.",
        accepts=is_share,
        accepted="a probability, 0..1",
        random_count=lambda value: 1,
        of_image=lambda image, share, numbers: tf.where(numbers[0] < share, 255 - image, image),
    )
    monkeypatch.setitem(AUGMENTATIONS, row.name, row)
    plain = images(flip=True, crop_padding=1)
    np.testing.assert_array_equal(images(flip=True, crop_padding=1, inversion=1.0), 255 - plain)
    np.testing.assert_array_equal(images(flip=True, crop_padding=1, inversion=0.0), plain)
    some = images(flip=True, crop_padding=1, inversion=0.5)
    inverted = (some == 255 - plain).all(axis=(1, 2, 3))
    assert 0 < inverted.sum() < 10
    np.testing.assert_array_equal(some[~inverted], plain[~inverted])
    with pytest.raises(DataError, match="inversion is 2; it must be a probability"):
        images(inversion=2)
    with pytest.raises(DataError, match=r"Unknown augmentation 'inversoin'.* Did you mean 'inver"):
        images(inversoin=1.0)


@pytest.mark.ci
def test_a_new_policy_is_a_table(monkeypatch):
    policy = policies.AutoAugment("Invert 1 0 Identity 1 0")
    monkeypatch.setitem(policies.POLICIES, "always-invert", policy)
    np.testing.assert_array_equal(images(policy="always-invert"), 255 - images())


def test_a_new_source_is_a_module_with_its_own_settings(monkeypatch):
    def open_split(*, name, path, split, examples):
        return NumberedSource(examples)

    settings = (
        Setting(
            name="examples", default=3, help="How many.", accepts=is_count, accepted="0 or more"
        ),
    )
    monkeypatch.setitem(SOURCES, "numbers", SourceKind("numbers", "them", open_split, settings))
    assert open_source("numbers", split="train").num_examples == 3
    assert open_source("numbers", split="train", examples=5, label_offset=0).num_examples == 5
    with pytest.raises(DataError, match="label_offset is 1, which the source numbers does not t"):
        open_source("numbers", split="train", label_offset=1)
    with pytest.raises(DataError, match=r"examples is 5, .* image_folder .* it is for numbers"):
        open_source("image_folder", split="train", examples=5)
    with pytest.raises(DataError, match="examples is -1; it must be 0 or more"):
        open_source("numbers", split="train", examples=-1)
    with pytest.raises(DataError, match=r"Unknown option of open_source 'exampels'.* Did you mean"):
        open_source("numbers", split="train", exampels=5)
