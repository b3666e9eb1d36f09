"""ResNet-18 on ImageNet in 88 epochs on one accelerator: FFCV's recipe (Leclerc et al. 2023).

    keras-resnet train --config=resnet18_fast88 --workdir=runs/resnet18_fast88

Source: github.com/libffcv/ffcv-imagenet, rn18_configs/rn18_88_epochs.yaml: one A100, 187.3 minutes.
What differs from it here is in resnet50_fast16 and resnet18_fast16; of its 88 epochs 71 are at 160
pixels, as in resnet50_fast88.

Expected top-1: 72.4 % (from the source). Here the network was built, not trained.
"""

from ml_collections import ConfigDict

BASE = "resnet18_fast16"


def get_config() -> ConfigDict:
    return ConfigDict({"epochs": 88, "data": {"image_size": f"160@{71 / 88:.6f},192"}})
