"""ResNet-18 on ImageNet in 16 epochs on one accelerator: FFCV's recipe (Leclerc et al. 2023).

    keras-resnet train --config=resnet18_fast16 --workdir=runs/resnet18_fast16

Source: github.com/libffcv/ffcv-imagenet, rn18_configs/rn18_16_epochs.yaml: one A100 with 1,024
images a step, 35.0 minutes. What differs from it here is in resnet50_fast16; the source's photos
have at most 400 pixels a side here, a tenth of them as JPEG.

Expected top-1: 66.9 % (from the source). Here the network was built, not trained.
"""

from ml_collections import ConfigDict

BASE = "resnet50_fast16"


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "batch_size": 1024,
            "model": {"name": "ResNet18"},
            "optimizer": {"learning_rate": 0.5, "weight_decay": 5e-5},
        }
    )
