"""Every key of a run's configuration, with its default and, by that, its type."""

from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def default_config() -> ConfigDict:
    """Returns every key there is, with its default and, by that, its type."""
    return ConfigDict(
        {
            "seed": 0,  # fixes initial weights, order of the examples and augmentation
            "deterministic": False,  # same bits on every run on the same devices; slower
            # auto: several hosts (TF_CONFIG, Slurm), else TPU, several GPUs, one GPU, the CPU.
            "strategy": "auto",
            "devices": 0,  # GPUs of mirrored, or parts of the CPU without GPUs; 0: all there are
            "connect_timeout": 300.0,  # seconds that multi_worker waits for the other hosts
            # mixed_bfloat16, mixed_float16: float32 variables, 16 bit arithmetic; the latter on one
            # replica only.
            "precision": "float32",
            "xla": "auto",  # auto: on for GPU, the strategy's own on TPU, off on CPU (slower)
            "xla_cache": "",  # folder that keeps what XLA compiled for the next start; "": none
            # Flags of the TPU compiler: run_tpu.sh puts them into LIBTPU_INIT_ARGS, preflight too.
            "libtpu_init_args": "",
            "batch_size": 128,  # global: over all replicas and hosts
            "accumulate_steps": 1,  # parts of a batch computed one by one, for less memory
            "epochs": 90,
            "evaluate_every_epochs": 1,
            "log_every_steps": 50,  # also the most steps per call of the compiled loop
            # A loss or weight that is NaN or infinite: stop, or rollback to the last checkpoint and
            # go on after the batch where it happened.
            "on_nonfinite": "stop",
            "model": {
                "name": "CifarResNet20",  # keras_resnet.list_models() names them all
                # To fine-tune: a file of weights (docs/weights.md), or the work directory of a run.
                # Their preprocessing replaces data.mean, std, channel_order, interpolation and
                # crop_ratio; the classifier is new unless the classes are the same.
                "weights": "",
                "freeze": "",  # norm: all batch normalizations; body: all but the classifier
                # The next six are the variant's own unless set.
                "depths": (),  # blocks per stage
                "widths": (),  # channels per stage
                "shortcut": placeholder(str),  # A, B or D
                "residual": placeholder(bool),  # False: the plain twin, without shortcuts
                "dropout_rate": placeholder(float),
                "drop_path_rate": placeholder(float),  # stochastic depth of the last block
                # Batch norm over the global batch instead of each replica's part.
                "synchronized_norm": False,
                "zero_init_last_gamma": True,  # Goyal et al. 2017, section 5.1
                "rematerialize": False,  # less memory, more time
            },
            "data": {
                "source": "tfds",  # tfds, image_folder, tfrecord, synthetic (docs/data.md)
                "name": "digits",  # data set in TFDS, or whose sizes synthetic imitates
                "path": "",  # data_dir of TFDS ("" is its own default), or the folder of the data
                "label_offset": 0,  # tfrecord: the stored label that is class 0
                "class_names": "",  # tfrecord: text file, one name a line; "" numbers the classes
                # Where encoded images are kept: none, memory, file (packed, on a local disk), or
                # auto: memory for record formats up to 1 GiB.
                "cache": "auto",
                "cache_path": "",  # folder for cache=file
                "on_error": "stop",  # at a broken image, or skip it and go on
                "max_broken_share": 0.01,  # of a split, above which on_error=skip stops as well
                "train_split": "train",
                "eval_split": "test",
                "image_size": 32,  # pixels, height and width of what the model sees
                "train_image_size": 0,  # another size in training; 0: the same
                # Evaluation resizes the short side to image_size / crop_ratio and crops the center.
                "crop_ratio": 1.0,
                "interpolation": "bilinear",  # or bicubic
                # Of RGB values scaled to 0..1. The default is ImageNet's (torchvision's constants).
                "mean": (0.485, 0.456, 0.406),
                "std": (0.229, 0.224, 0.225),
                "channel_order": "rgb",  # or bgr, as weights of keras.applications want it
                # docs/augmentation.md has the meaning, source and cost of each.
                "augment": {
                    "crop_padding": 0,  # pixels of zeros on each side before a random crop
                    "flip": False,  # horizontally, every second image on average
                    "random_resized_crop": False,  # Inception crop: 8-100 % of the area
                    # rand-m9-mstd0.5 (RandAugment, as timm writes it; also n, p, inc),
                    # auto-imagenet, auto-cifar10 (AutoAugment) or trivial (TrivialAugment).
                    "policy": "",
                    "color_jitter": (),  # or (brightness, contrast, saturation, hue); torchvision
                    "random_erasing": 0.0,  # probability; Zhong et al. 2020, noise as in timm
                    "mixup": 0.0,  # alpha of the beta distribution; Zhang et al. 2018
                    "cutmix": 0.0,  # alpha; Yun et al. 2019. With mixup: each batch takes one
                    "mix_probability": 1.0,  # of a batch, to be mixed at all
                    "repeats": 1,  # copies of an example in a batch; Hoffer et al. 2020
                },
            },
            "optimizer": {
                "name": "sgd",  # sgd, lars, adamw, lamb
                "learning_rate": 0.1,  # the peak, after warm-up
                "scale_with_batch": False,  # times batch_size / 256; Goyal et al. 2017, section 2.1
                "momentum": 0.9,  # sgd and lars
                "nesterov": True,  # sgd and lars; MLPerf's LARS is without
                # On convolution and dense kernels only: L2 of sgd and lars, decoupled in adamw.
                "weight_decay": 1e-4,
                "trust_coefficient": 0.001,  # lars
                "beta_1": 0.9,  # adamw and lamb
                "beta_2": 0.999,
                "epsilon": 1e-7,
                "clip_norm": 0.0,  # largest norm of the whole gradient; 0: no limit
                # Factor of the learning rate from each stage to the one below it, from the
                # classifier down; below 1 for fine-tuning. Howard and Ruder 2018, section 3.2.
                "layer_decay": 1.0,
            },
            "schedule": {
                "name": "cosine",  # cosine, step, polynomial, exponential
                "warmup_epochs": 0.0,  # linear, Goyal et al. 2017, section 2.2
                # False: the decay counts from step 0 (timm); True: from the end of the warm-up
                # (torchvision, MLPerf).
                "decay_after_warmup": False,
                "end_learning_rate": 0.0,  # cosine and polynomial
                "boundaries": (),  # step: epochs after which the rate is multiplied by factor
                "factor": 0.1,  # step and exponential
                "decay_epochs": 1.0,  # exponential: epochs in which the rate falls by factor
                "power": 2.0,  # polynomial
            },
            "loss": {
                "name": "softmax",  # or binary: a yes or no for each class; Wightman et al. 2021
                "label_smoothing": 0.0,  # Szegedy et al. 2016, section 7
                "target_threshold": 0.0,  # binary: targets above it become 1, others 0; 0: as is
                "sum_classes": False,  # binary: sum over the classes instead of the mean
                "class_weights": (),  # one number for each class, or () for none
            },
            "ema": {  # moving average of the weights, which is then evaluated and saved
                "decay": 0.0,  # per step, for example 0.9999; 0: off
                "warmup": True,  # decay min(decay, (1 + t) / (10 + t)) after step t
            },
            "checkpoint": {
                "every_epochs": 1,
                "keep": 3,  # the newest; the one with the best evaluation is kept as well
            },
            "tensorboard": {
                "histograms": False,  # of all weights, at every evaluation
                "profile_steps": (),  # (first, last + 1): trace these steps, counted from 0
            },
        }
    )


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted key, value) for every leaf."""
    for key in config:
        value = config[key]
        if isinstance(value, Mapping | ConfigDict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
