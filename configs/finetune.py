"""Fine-tune a pretrained network on your own photos.

    keras-resnet train --config=finetune --workdir=runs/mine \
        --config.data.path=PHOTOS --config.model.weights=resnet50.safetensors

`keras-resnet finetune --data=PHOTOS --weights=resnet50.safetensors` chooses these keys for the
photos and the machine, trains the classifier first, and keeps test images apart.

PHOTOS holds train/CLASS/* and test/CLASS/*. The weights are a local file of any format in
docs/weights.md, or the work directory of a run; their preprocessing is taken over, and the
classifier is new unless the classes are the same. Batches of less than about 16 images an
accelerator are too small for batch statistics: add --config.model.freeze=norm. A linear probe is
--config.model.freeze=body. Stages nearer to the pixels learn more slowly
(--config.optimizer.layer_decay=1 switches that off).

One GPU, or minutes on a CPU for some hundred photos. The accuracy depends on the photos.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "batch_size": 32,
            "epochs": 10,
            "model": {"name": "ResNet50"},
            "data": {
                "source": "image_folder",
                "image_size": 224,
                "crop_ratio": 0.875,
                "augment": {"random_resized_crop": True, "flip": True},
            },
            "optimizer": {"learning_rate": 0.01, "weight_decay": 1e-4, "layer_decay": 0.5},
            "schedule": {"warmup_epochs": 0.5},
            "loss": {"label_smoothing": 0.1},
        }
    )
