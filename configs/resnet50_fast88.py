"""ResNet-50 on ImageNet in 88 epochs, small images first: FFCV's recipe (Leclerc et al. 2023).

    keras-resnet train --config=resnet50_fast88 --workdir=runs/resnet50_fast88

Source: github.com/libffcv/ffcv-imagenet, rn50_configs/rn50_88_epochs.yaml: 8 A100, 77.2 minutes.
What differs from it here is in resnet50_fast16. Its ramp from epoch 65 to 76, rounded to 32 pixels
at the beginning of an epoch, has 71 epochs at 160 pixels.

Expected top-1: 78.4 % (from the source). Here the network was built, not trained.
"""

from ml_collections import ConfigDict

BASE = "resnet50_fast16"


def get_config() -> ConfigDict:
    return ConfigDict({"epochs": 88, "data": {"image_size": f"160@{71 / 88:.6f},192"}})
