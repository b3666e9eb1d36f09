"""ResNet-50 with torchvision's second recipe, the one behind its IMAGENET1K_V2 weights.

    keras-resnet train --config=resnet50_torchvision_v2 --workdir=runs/resnet50_v2

Source: Vryniotis 2021, "How to train state-of-the-art models using TorchVision's latest
primitives", and references/classification of torchvision. Eight GPUs of 128 images each. Its EMA
(decay 0.99998, every 32 steps, scaled by the batch) is written here as a decay of every step.

Expected top-1: 80.858 % (from the source).
"""

from ml_collections import ConfigDict

BASE = "resnet50_imagenet"


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "batch_size": 1024,
            "epochs": 600,
            "model": {"zero_init_last_gamma": False},
            "data": {
                "train_image_size": 176,
                "crop_ratio": 224 / 232,
                "augment": {
                    "policy": "trivial",
                    "random_erasing": 0.1,
                    "mixup": 0.2,
                    "cutmix": 1.0,
                    "repeats": 4,
                },
            },
            "optimizer": {
                "learning_rate": 0.5,
                "scale_with_batch": False,
                "nesterov": False,
                "weight_decay": 2e-5,
            },
            "schedule": {"name": "cosine", "boundaries": (), "decay_after_warmup": True},
            "loss": {"label_smoothing": 0.1},
            "ema": {"decay": 0.999966},
        }
    )
