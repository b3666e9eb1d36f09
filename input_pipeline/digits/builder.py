"""The TFDS builder `digits`: 1,797 gray images of 8×8 pixels in 10 classes.

The pictures are bundled with scikit-learn (`sklearn.datasets.load_digits`, the test part of the
UCI set "Optical Recognition of Handwritten Digits", Kaynak 1995), so nothing is downloaded.
Importing this module registers the builder with TFDS.
"""

import contextlib
import io
import os
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from keras_resnet.input_pipeline.errors import DataError


class Digits(tfds.core.GeneratorBasedBuilder):
    """Handwritten digits as PNG files, values 0..16 scaled to 0..255.

    Splits: the images are sorted by class, in scikit-learn's order within a class; of that row
    every fifth, from the first on, is a test image. That gives 1,437 for training and 360 for
    testing, each class 80/20 to within one image.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="scikit-learn's bundled handwritten digits, 8×8 pixels, 10 classes.",
            homepage="https://archive.ics.uci.edu/dataset/80",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        images, labels = load()
        by_class = np.argsort(labels, kind="stable")
        held_out = np.arange(len(by_class)) % 5 == 0
        return {
            "train": self._generate_examples(images, labels, by_class[~held_out]),
            "test": self._generate_examples(images, labels, by_class[held_out]),
        }

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray, chosen: np.ndarray
    ) -> Iterator[tuple[int, dict]]:
        for index in chosen:
            yield int(index), {"image": images[index], "label": int(labels[index])}


def load() -> tuple[np.ndarray, np.ndarray]:
    """The digits in scikit-learn's order: uint8[1797, 8, 8, 1] in 0..255, int64[1797].

    Raises:
        DataError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "The data set 'digits' comes out of scikit-learn, which is not installed: "
            "pip install 'keras-resnet-tpu[digits]'"
        ) from error
    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    return images[..., None], bunch.target


def is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
    """Whether the files of a data set exist; TFDS' own test logs a warning where they do not."""
    return (builder.data_path / "dataset_info.json").exists()


def prepare(data_dir: str | None) -> None:
    """Writes the data set below `data_dir` (None: the default of TFDS).

    TFDS writes into a temporary folder and renames it at the end, so a run that is killed leaves
    nothing half done; of two runs at once the second finds the folder there and uses it.

    Raises:
        DataError: scikit-learn is not installed, or the folder cannot be written.
    """
    load()  # Fails here, with its own message, rather than inside TFDS.
    tfds.disable_progress_bar()
    try:
        builder = Digits(data_dir=data_dir)
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces itself there.
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False)
            )
    except OSError as error:
        if is_prepared(Digits(data_dir=data_dir)):
            return
        place = os.path.expanduser(data_dir or tfds.core.constants.DATA_DIR)
        raise DataError(
            f"Cannot write the data set 'digits' to {place}: {error}. "
            "Name another folder with data.path."
        ) from error
