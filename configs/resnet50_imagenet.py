"""ResNet-50 on ImageNet in 90 epochs: Goyal et al. 2017, sections 2 and 5.1.

    keras-resnet train --config=resnet50_imagenet --workdir=runs/resnet50

The learning rate follows the batch, 0.1 for each 256 images: --config.batch_size=8192 is the
paper's large one (256 GPUs), the default fits eight accelerators of 16 GB. ImageNet is read from
TFDS (docs/data.md). It computes in bfloat16 on TPU, GPUs since Ampere and
processors with AMX (precision=auto).

Expected top-1: 76.26 % at batch 8192, 76.40 % at 256 (from the source, table 1).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "batch_size": 1024,
            "epochs": 90,
            "model": {"name": "ResNet50"},
            "data": {
                "source": "tfds",
                "name": "imagenet2012",
                "train_split": "train",
                "eval_split": "validation",
                "image_size": 224,
                "crop_ratio": 0.875,
                "augment": {"random_resized_crop": True, "flip": True},
            },
            "optimizer": {
                "learning_rate": 0.1,
                "scale_with_batch": True,
                "momentum": 0.9,
                "nesterov": True,
                "weight_decay": 1e-4,
            },
            "schedule": {"name": "step", "warmup_epochs": 5.0, "boundaries": (30, 60, 80)},
        }
    )
