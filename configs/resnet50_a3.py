"""ResNet-50, "ResNet strikes back" A3, the cheap one: Wightman et al. 2021, table 2.

    keras-resnet train --config=resnet50_a3 --workdir=runs/resnet50_a3

Trains at 160 pixels and evaluates at 224. Hardware as A2.

Expected top-1: 78.1 % (from the source).
"""

from ml_collections import ConfigDict

BASE = "resnet50_a2"


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "epochs": 100,
            "model": {"drop_path_rate": 0.0},
            "data": {
                "train_image_size": 160,
                "augment": {"policy": "rand-m6-mstd0.5-inc1", "repeats": 1},
            },
            "optimizer": {"learning_rate": 8e-3},
        }
    )
