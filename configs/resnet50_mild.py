"""ResNet-50 on ImageNet, MosaicML's mild recipe, for runs of up to 60 epochs (Leavitt et al. 2022).

    keras-resnet train --config=resnet50_mild --workdir=runs/resnet50_mild

Source: github.com/mosaicml/examples, blogs/resnet/recipes/resnet50_mild.yaml with its
scale_schedule_ratio of 0.36 (32 of 90 epochs), and databricks.com/blog/mosaic-resnet-deep-dive:
batches of 2,048 on 8 A100, half precision. Composer's tutorial "Train ResNet-50 on AWS" has 76.6 %
in 27 minutes for this ratio, the recipes' README 76.19 % for 0.32 (28 epochs), the deep dive 75 to
78.1 % in fewer than 60 epochs. For another length set `epochs`; the warm-up stays 8.

Its weight decay is decoupled, 5e-4 at the peak rate; as L2 with momentum that is 1/32768:
5e-4 = 1/32768 * 2.048 / (1 - 0.875).

What our keys do not say, or say otherwise:
- Sizes: from 88 to 176 pixels between 40 and 80 % of the run in steps of 22, which are 5 programs
  to compile; the source's are of 4, `--config.data.image_size=88..176:4@0.4-0.8`, 23 programs. It
  crops at 176 and shrinks that, here the crop is taken at the size.
- Filters: the source blurs before each convolution that strides (shortcuts too; 16 channels or
  more) and inside the stem's pool; `model.antialias=blur`, as timm, after it, and no shortcuts.
- Starts: of gamma (uniform from 0 to 1), convolutions (He et al. 2015 by fan in) and the
  classifier's bias (the logarithm of 1/1000, so that the sum of 1,000 losses starts small). Here
  gamma starts at 1, convolutions by fan out, biases at 0: the first losses are about 693, and
  whether the rate suits them was not tried.
- Weight decay is on kernels alone, in the source on every parameter. Its average of the weights is
  taken every 20 steps with the same half-life of 100 steps.
- Keras keeps the rate inside the momentum, PyTorch outside. bfloat16 in place of float16.

Expected top-1: 76.6 % (from the source). Here the network was built, not trained.
"""

from ml_collections import ConfigDict

BASE = "resnet50_imagenet"


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "batch_size": 2048,
            "epochs": 32,
            "model": {"antialias": "blur", "zero_init_last_gamma": False},
            "data": {"image_size": "88..176:22@0.4-0.8", "crop_ratio": 224 / 232},
            "evaluation": {"image_size": 224},
            "optimizer": {
                "learning_rate": 2.048,
                "scale_with_batch": False,
                "momentum": 0.875,
                "nesterov": False,
                "weight_decay": 1 / 32768,
            },
            "schedule": {
                "name": "cosine",
                "boundaries": (),
                "warmup_epochs": 8.0,
                "decay_after_warmup": True,
            },
            "loss": {"name": "binary", "sum_classes": True, "label_smoothing": 0.08},
            "ema": {"decay": 0.5**0.01, "warmup": False},
        }
    )
