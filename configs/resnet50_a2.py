"""ResNet-50, "ResNet strikes back" A2: Wightman et al. 2021, table 2.

    keras-resnet train --config=resnet50_a2 --workdir=runs/resnet50_a2

Four GPUs of 512 images each (V100, half precision: --config.precision=mixed_bfloat16). The
threshold of the targets and the three copies of an image are those of timm's training arguments.

Expected top-1: 79.8 % (from the source).
"""

from ml_collections import ConfigDict

BASE = "resnet50_imagenet"


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "batch_size": 2048,
            "epochs": 300,
            "model": {"drop_path_rate": 0.05},
            "data": {
                "crop_ratio": 0.95,
                "interpolation": "bicubic",
                "augment": {
                    "policy": "rand-m7-mstd0.5-inc1",
                    "mixup": 0.1,
                    "cutmix": 1.0,
                    "repeats": 3,
                },
            },
            "optimizer": {
                "name": "lamb",
                "learning_rate": 5e-3,
                "scale_with_batch": False,
                "epsilon": 1e-6,
                "weight_decay": 0.02,
            },
            "schedule": {"name": "cosine", "boundaries": (), "warmup_epochs": 5.0},
            "loss": {"name": "binary", "target_threshold": 0.2},
        }
    )
