"""ResNet-20 on scikit-learn's handwritten digits: about a minute on two cores.

    keras-resnet train --config=digits --workdir=runs/digits

Expected top-1 on the 360 held-out digits: 0.99 (see docs/results.md).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "batch_size": 64,
            "epochs": 30,
            "model": {"name": "CifarResNet20"},
            "data": {
                "source": "tfds",
                "name": "digits",
                "image_size": 16,
                "mean": (0.5, 0.5, 0.5),
                "std": (0.25, 0.25, 0.25),
                "augment": {"crop_padding": 2},
            },
            "optimizer": {"learning_rate": 0.1, "weight_decay": 5e-4},
            "schedule": {"warmup_epochs": 2.0},
        }
    )
