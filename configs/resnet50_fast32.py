"""ResNet-50 on ImageNet in 32 epochs: FFCV's recipe (Leclerc et al. 2023).

    keras-resnet train --config=resnet50_fast32 --workdir=runs/resnet50_fast32

Source: github.com/libffcv/ffcv-imagenet, rn50_configs/rn50_32_epochs.yaml: 8 A100, 28.7 minutes.
What differs from it here is in resnet50_fast16. Its ramp from epoch 23 to 27, rounded to 32 pixels
at the beginning of an epoch (and half to even), has 25 epochs at 160 pixels.

Expected top-1: 76.6 % (from the source). Here the network was built, not trained.
"""

from ml_collections import ConfigDict

BASE = "resnet50_fast16"


def get_config() -> ConfigDict:
    return ConfigDict({"epochs": 32, "data": {"image_size": "160@0.78125,192"}})
