"""ResNet-50 (v1.5) on ImageNet on Cloud TPU: 1,024 images a step on a v5e-8, 90 epochs.

    ./run_tpu.sh launch --name=resnet --zone=us-west4-a --type=v5litepod-8 --spot \\
        --bucket=gs://BUCKET -- train --config=resnet50_imagenet_tpu --config.data.path=gs://BUCKET/tfds

On a TPU VM that is there already:

    keras-resnet train --config=resnet50_imagenet_tpu --workdir=runs/resnet50 \\
        --config.data.path=gs://BUCKET/tfds

Know before renting whether it fits and how fast it will be:

    keras-resnet preflight --config=resnet50_imagenet_tpu --topology=v5e:2x4

The recipe is that of Goyal et al. 2017, sections 2.2 and 5 (linear warm-up for 5 epochs, rate 0.1
for 256 images, scaled with the batch, weight decay 1e-4, gamma of the last normalization from 0),
with a cosine for the steps, Nesterov momentum and label smoothing 0.1 (He et al. 2019, section 5).
Their tables 3 and 6 have 76 to 77 % top-1 for such recipes (from the source); this project has not
trained it.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "precision": "mixed_bfloat16",
            "batch_size": 1024,
            "epochs": 90,
            "libtpu_init_args": "--xla_tpu_scoped_vmem_limit_kib=65536",
            "model": {"name": "ResNet50"},
            "data": {
                "source": "tfds",
                "name": "imagenet2012",
                "eval_split": "validation",
                "cache": "none",  # what auto comes to for ImageNet; on a pod nothing else will do
                "image_size": 224,
                "crop_ratio": 0.875,
                "augment": {"random_resized_crop": True, "flip": True},
            },
            "optimizer": {"learning_rate": 0.4, "weight_decay": 1e-4},
            "schedule": {"warmup_epochs": 5.0},
            "loss": {"label_smoothing": 0.1},
        }
    )
