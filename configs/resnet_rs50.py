"""ResNet-RS-50: Bello et al. 2021, by the authors' resnetrs50_i160.yaml (in tensorflow/tpu).

    keras-resnet train --config=resnet_rs50 --workdir=runs/resnet_rs50

On a TPU slice, global batch 4096. The larger ones are overrides: --config.model.name=ResNetRS101
with the image sizes and rates of the paper's appendix.

Expected top-1: 78.8 % at 160 pixels (from the source).
"""

from ml_collections import ConfigDict

BASE = "resnet50_imagenet"


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "batch_size": 4096,
            "epochs": 350,
            "model": {"name": "ResNetRS50", "dropout_rate": 0.25, "drop_path_rate": 0.0},
            "data": {
                "image_size": 160,
                "augment": {"policy": "rand-m10-n2"},
            },
            "optimizer": {"nesterov": False, "weight_decay": 4e-5},
            "schedule": {"name": "cosine", "boundaries": (), "warmup_epochs": 5.0},
            "loss": {"label_smoothing": 0.1},
            "ema": {"decay": 0.9999},
        }
    )
