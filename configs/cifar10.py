"""ResNet-20 on CIFAR-10: the recipe of He et al. 2015, section 4.2, with a cosine for the steps.

    keras-resnet train --config=cifar10 --workdir=runs/cifar10

From an image folder with train/CLASS/* and test/CLASS/* instead of TFDS:

    keras-resnet train --config=cifar10 --workdir=runs/cifar10 \
        --config.data.source=image_folder --config.data.path=FOLDER

The paper reports 91.25 % top-1 for 64,000 steps of 128 images, about 164 epochs (from the source).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "precision": "float32",  # as the figures of docs/results.md were measured
            "batch_size": 128,
            "epochs": 164,
            # PyTorch's start: 0.6 points more after 8 epochs than He et al. 2015 (docs/results.md).
            "model": {"name": "CifarResNet20", "kernel_initializer": "fan_in"},
            "data": {
                "source": "tfds",
                "name": "cifar10",
                "image_size": 32,
                "mean": (0.4914, 0.4822, 0.4465),
                "std": (0.2470, 0.2435, 0.2616),
                "augment": {"crop_padding": 4, "flip": True},
            },
            "optimizer": {"learning_rate": 0.1, "weight_decay": 1e-4},
            "schedule": {"warmup_epochs": 1.0},
        }
    )
