"""ResNet-50 on ImageNet in 16 epochs, for the least time: FFCV's recipe (Leclerc et al. 2023).

    keras-resnet train --config=resnet50_fast16 --workdir=runs/resnet50_fast16

Source: github.com/libffcv/ffcv-imagenet, README.md, train_imagenet.py and
rn50_configs/rn50_16_epochs.yaml: 8 A100 with 512 images each, half precision, 14.9 minutes.
Images of 160 pixels for three quarters of the run, then 192; evaluation at 256, with flips (the
README says 224, every file of settings 256). The rate rises on a straight line for 2 epochs and
falls on another to 0. `schedule.power=1` and `decay_after_warmup` are that.

Minutes and money on a TPU, for one compilation of each size and nothing rented:

    keras-resnet preflight --config=resnet50_fast16 --topology=v5e:2x4 --price=1.2

What our keys do not say, or say otherwise:
- Filters: the source blurs (zeros at the border) before each convolution that strides, shortcuts
  included, and leaves the stem alone. `model.antialias=blur`, as timm, convolves without stride
  first, blurs after the activation (mirrored border) and in the stem's pool, and leaves the
  shortcuts: more operations in four places.
- Weight decay: on kernels alone; the source's has biases of the classifier and the normalizations
  of shortcuts as well.
- The rate of step 0 is a step of the ramp, not 1e-4 of the peak; Keras keeps the rate inside the
  momentum, PyTorch outside.
- bfloat16 (or what `precision` comes to) in place of float16 with a scaled loss.
- Photos are read as they are; the source stores them with at most 500 pixels a side, half of them
  as JPEG, and shrinks them by area. It drops the last part of a batch in every epoch, here in the
  run.

Expected top-1: 73.8 % (from the source). Here the network was built, not trained.
"""

from ml_collections import ConfigDict

BASE = "resnet50_imagenet"


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "batch_size": 4096,
            "epochs": 16,
            "model": {"antialias": "blur", "zero_init_last_gamma": False},
            "data": {"image_size": "160@0.75,192"},
            "evaluation": {"image_size": 256, "tta": "flip"},
            "optimizer": {"learning_rate": 1.7, "scale_with_batch": False, "nesterov": False},
            "schedule": {
                "name": "polynomial",
                "power": 1.0,
                "boundaries": (),
                "warmup_epochs": 2.0,
                "decay_after_warmup": True,
            },
            "loss": {"label_smoothing": 0.1},
        }
    )
