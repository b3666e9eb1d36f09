"""Seconds of training on the digits, to see that everything runs; the accuracy means nothing.

keras-resnet train --config=smoke --workdir=runs/smoke
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "precision": "float32",  # the same numbers everywhere
            "batch_size": 128,
            "epochs": 2,
            "model": {"name": "CifarResNet20", "depths": (1, 1, 1)},
            "data": {"name": "digits", "image_size": 8},
            "optimizer": {"learning_rate": 0.05},
        }
    )
