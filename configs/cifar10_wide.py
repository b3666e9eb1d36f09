"""Wide ResNet-28-10 on CIFAR-10: Zagoruyko and Komodakis 2016, section 3.

    keras-resnet train --config=cifar10_wide --workdir=runs/wide

One GPU. Expected top-1: 96.00 % (from the source, table 5: error 4.00, median of five runs).
"""

from ml_collections import ConfigDict

BASE = "cifar10"


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "epochs": 200,
            "model": {"name": "WideResNet28_10", "kernel_initializer": "fan_out"},
            "optimizer": {"weight_decay": 5e-4},
            "schedule": {
                "name": "step",
                "warmup_epochs": 0.0,
                "boundaries": (60, 120, 160),
                "factor": 0.2,
            },
        }
    )
