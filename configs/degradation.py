"""Why residual networks: plain and residual nets of 20 and 56 layers, some epochs of CIFAR-10 each.

    for seed in 0 1 2; do for depth in 20 56; do
      keras-resnet train --config=degradation --workdir=runs/resnet$depth-$seed \
        --config.seed=$seed --config.model.name=CifarResNet$depth
      keras-resnet train --config=degradation --workdir=runs/plain$depth-$seed \
        --config.seed=$seed --config.model.name=CifarResNet$depth --config.model.residual=false
    done; done
    python benchmarks/degradation.py runs/plain20-* runs/plain56-* runs/resnet20-* runs/resnet56-*

The experiment of He et al. 2015, figure 6, in ten epochs instead of 164. Expected,
from the source: the deeper plain net trains *worse* than the shallow one, the deeper residual one
better.
"""

from ml_collections import ConfigDict

BASE = "cifar10"


def get_config() -> ConfigDict:
    return ConfigDict({"epochs": 10, "model": {"kernel_initializer": "fan_out"}})
