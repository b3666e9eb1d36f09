"""ResNet-50, "ResNet strikes back" A1, the long one: Wightman et al. 2021, table 2.

    keras-resnet train --config=resnet50_a1 --workdir=runs/resnet50_a1

Hardware as A2. Expected top-1: 80.4 % (from the source).
"""

from ml_collections import ConfigDict

BASE = "resnet50_a2"


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "epochs": 600,
            "data": {"augment": {"mixup": 0.2}},
            "optimizer": {"weight_decay": 0.01},
            "loss": {"label_smoothing": 0.1},
        }
    )
