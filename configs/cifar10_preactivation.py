"""Pre-activation ResNet-110 on CIFAR-10: He et al. 2016, section 4 and appendix.

    keras-resnet train --config=cifar10_preactivation --workdir=runs/preactivation

ResNet-164 and -1001 are --config.model.name=CifarResNet164V2 or CifarResNet1001V2; the latter with
--config.model.rematerialize on one GPU. The paper warms up at a rate of 0.01 for 400 steps, here it
rises over one epoch.

Expected top-1: 93.63 % with 110 layers, 94.54 % with 164, 95.38 % with 1001 (from the source,
tables 2 and 4: medians of five runs).
"""

from ml_collections import ConfigDict

BASE = "cifar10"


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "model": {"name": "CifarResNet110V2", "kernel_initializer": "fan_out"},
            "optimizer": {"nesterov": False},
            "schedule": {"name": "step", "boundaries": (82, 123)},
        }
    )
