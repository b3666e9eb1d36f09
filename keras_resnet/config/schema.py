"""Every key of a run's configuration: one row each, from which flags, checks, help and docs follow.

Add a key here. The names of optimizers, losses, schedules, strategies and data sources are those of
the registries in the files that implement them, the augmentations those of their own table.

Adding a key later, or giving the absence of one another meaning, raises CONFIG_VERSION: the row has
that version as `since` and says in `absent` what its absence means in files of each older one, so
that their runs resume, evaluate and export as they were. `meant` does so for single values. Another
default raises it, too, and says in `formerly` what the default was in each older version.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from keras_resnet.architectures import ARCHITECTURES
from keras_resnet.config.image_sizes import ACCEPTED, parse_image_sizes
from keras_resnet.config.keras_optimizers import OptimizerNames
from keras_resnet.config.key import FREELY, NO, NOTED, Key, Range
from keras_resnet.config.registries import Registry
from keras_resnet.flips import TTA
from keras_resnet.input_pipeline.augment.settings import AUGMENTATIONS
from keras_resnet.input_pipeline.settings import SAMPLERS
from keras_resnet.input_pipeline.sources import SETTINGS
from keras_resnet.preprocessing import CHANNEL_ORDERS, INTERPOLATIONS, MAX_PIXELS, RESIZES

# Of config.json. Files that name no version are 1.
CONFIG_VERSION = 3

NOT_NEGATIVE = Range(low=0)
ONE_OR_MORE = Range(low=1)
POSITIVE = Range(low=0, open_low=True)
BELOW_ONE = Range(low=0, high=1, open_high=True)
PART = Range(low=0, high=1, open_low=True)

# Of what `open_source` takes; the images and labels must stay what they are.
_RESUME_SOURCE = {"path": NOTED, "exclude": NOTED, "class_names": NOTED, "on_error": NOTED,
                  "max_broken_share": NOTED, "cache": NOTED, "cache_path": FREELY,
                  "max_pixels": NOTED}  # fmt: skip
# A host may have the data on a disk of its own; what is there is compared.
_PER_HOST_SOURCE = ("path", "exclude", "cache", "cache_path")
# Of the same, what came later: since which version, and what its absence meant in older ones.
_LATER_OF_SOURCE: dict[str, dict[str, Any]] = {
    "exclude": {"since": 3, "absent": {1: "", 2: ""}},
    "exif": {"since": 3, "absent": {1: "ignore", 2: "ignore"}},
    "max_pixels": {"since": 3, "absent": {1: MAX_PIXELS, 2: MAX_PIXELS}},
    "scaled_decoding": {"since": 3, "absent": {1: "never", 2: "never"}},
    "multi_label": {"since": 3, "absent": {1: False, 2: False}},
}

# fmt: off
_ROWS = (
    Key("seed", 0, range=Range(low=0, high=2**32 - 1),  # what NumPy takes
        help="Fixes the initial weights, the order of the examples and the augmentation."),
    Key("deterministic", False, resume=NOTED,
        help="Computes the same bits in every run on the same devices, which is slower."),
    Key("engine", "auto", choices=("auto", "tensorflow", "jax"), resume=NOTED, since=3,
        absent={1: "tensorflow", 2: "tensorflow"},
        help="What computes: tf.distribute or one jitted JAX program; auto: KERAS_BACKEND says."),
    # On another number of replicas batch norm takes its statistics of parts of another size.
    Key("strategy", "auto", resume=NOTED,
        choices=Registry("training.tensorflow.strategy", "STRATEGIES", also=("auto",)),
        help="Which devices train; auto: several hosts if there are, else TPU, GPUs, GPU, CPU."),
    Key("devices", 0, range=Range(low=0, high=4096), resume=NOTED,
        help="How many GPUs mirrored uses, or parts it splits a CPU into; 0 takes all."),
    Key("connect_timeout", 300.0, range=NOT_NEGATIVE, resume=FREELY, per_host=True,
        help="Seconds that multi_worker waits for the other hosts."),
    # Of engine=jax; tf.distribute is told by TF_CONFIG.
    Key("distributed.coordinator", "", resume=FREELY, since=3, absent={1: "", 2: ""},
        help="With engine=jax: host:port of the first process; empty where the cluster knows."),
    Key("distributed.num_processes", 0, range=NOT_NEGATIVE, resume=NOTED, since=3,
        absent={1: 0, 2: 0}, help="With engine=jax: how many processes take part."),
    Key("distributed.process_id", -1, range=Range(low=-1), resume=FREELY, per_host=True, since=3,
        absent={1: -1, 2: -1}, help="With engine=jax: which of them this is, from 0 on."),
    # A run records what auto came to.
    Key("precision", "auto", choices=("auto", "float32", "mixed_bfloat16", "mixed_float16"),
        formerly={1: "float32", 2: "float32"},
        help="Type of the numbers it computes with, the mixed ones with variables in float32; "
        "auto: mixed_bfloat16 where the device multiplies it natively, else float32."),
    Key("xla", "auto", choices=("auto", "on", "off"), resume=NOTED,
        help="Whether XLA compiles the step; auto: on GPU and TPU, where it is faster."),
    Key("fused_step", "auto", choices=("auto", "always", "never"), resume=NOTED, since=3,
        absent={1: "never", 2: "never"},
        help="Whether blocks train by other operations of the same mathematics; auto: in bfloat16 "
        "where that was measured to be faster, always: wherever it can."),
    Key("xla_cache", "", resume=FREELY, per_host=True,
        help="Folder that keeps what XLA compiled for the next start; empty for none."),
    Key("libtpu_init_args", "", resume=NOTED,
        help="Flags of the TPU compiler; run_tpu.sh puts them into LIBTPU_INIT_ARGS."),
    Key("batch_size", 128, range=ONE_OR_MORE,
        help="Images of one training step, over all replicas and hosts."),
    # So that a smaller machine can go on with what a larger one began.
    Key("accumulate_steps", 1, range=ONE_OR_MORE, resume=NOTED,
        help="Computes a batch in so many parts, one after the other, to need less memory."),
    # The timeline lists the evaluations and checkpoints of all epochs.
    # To train on, or to end earlier: the run says what it does to the schedule.
    Key("epochs", 90, range=Range(low=1, high=10**6), resume=NOTED,
        help="How often the run sees every training image; the schedule stretches with it."),
    Key("evaluate_every_epochs", 1, range=ONE_OR_MORE, resume=FREELY,
        help="Epochs from one evaluation to the next."),
    Key("log_every_steps", 50, range=ONE_OR_MORE, resume=FREELY,
        help="Steps from one line of metrics to the next, and at most in one compiled call."),
    Key("log_gradient_norms", "auto", choices=("auto", "on", "off"), resume=FREELY, since=3,
        absent={1: "off", 2: "off"},
        help="Whether lines of metrics have the norm of each block's gradient; auto: on CPUs."),
    Key("on_nonfinite", "stop", choices=("stop", "rollback"), resume=NOTED,
        help="At a NaN or infinity: stop, or go back to a checkpoint and skip that batch."),

    Key("model.name", "CifarResNet20", choices=tuple(ARCHITECTURES),
        help="The network; keras_resnet.list_models() names them all."),
    Key("model.weights", "",
        help="Weights to fine-tune: a file, hf://… or a finished work directory (docs/weights)."),
    Key("model.weights_match", "names", choices=("names", "order"), since=3,
        absent={1: "names", 2: "names"},
        help="How arrays of model.weights find their places: by names, or by order and shape."),
    Key("model.weights_rename", (), texts=True, example=("^net\\.=",), since=3,
        absent={1: (), 2: ()},
        help="REGEX=NEW for names in model.weights, one after the other; an empty NEW leaves out."),
    Key("model.freeze", "", choices=("", "norm", "body"),
        help="What does not train: norm, the batch normalizations; body, all but the classifier."),
    Key("model.unfreeze_epoch", 0, range=NOT_NEGATIVE, since=3, absent={1: 0, 2: 0},
        help="After so many epochs what model.freeze names trains as well; 0: never."),
    Key("model.depths", (), example=(3, 4, 6, 3),
        help="Blocks of each stage; () takes the network's own."),
    Key("model.widths", (), example=(64, 128, 256, 512),
        help="Channels of each stage; () takes the network's own."),
    Key("model.shortcut", None, kind=str, example="B",
        help="Shortcuts A, A-centered, A-pooled, B or D (docs/blocks.md); none: its own."),
    Key("model.residual", None, kind=bool, example=False,
        help="False makes the plain twin, without shortcuts."),
    Key("model.dropout_rate", None, kind=float, example=0.2,
        help="Dropout before the classifier; none takes the network's own."),
    Key("model.drop_path_rate", None, kind=float, example=0.1,
        help="Stochastic depth of the last block, less in earlier ones; none: its own."),
    Key("model.synchronized_norm", False,
        help="Takes batch norm's statistics over the global batch, not each replica's part."),
    Key("model.zero_init_last_gamma", None, kind=bool, example=True, formerly={1: True},
        help="Starts each block as the identity (Goyal et al. 2017); none: the network's own."),
    Key("model.kernel_initializer", None, kind=str, example="fan_in", since=3,
        absent={1: None, 2: None}, choices=Registry("blocks.options", "KERNEL_INITIALIZERS"),
        help="How convolutions start (docs/blocks.md); none takes the network's own, fan_out."),
    Key("model.classifier_initializer", None, kind=str, example="fan_in", since=2,
        absent={1: "normal"}, choices=Registry("models.head", "CLASSIFIER_INITIALIZERS"),
        help="How the classifier starts (docs/blocks.md); none takes the network's own, fan_in."),
    Key("model.padding", None, kind=str, example="same", since=3, absent={1: None, 2: None},
        choices=Registry("blocks.options", "PADDINGS"),
        help="Padding of what has strides: symmetric (PyTorch) or same (Keras); none: its own."),
    Key("model.antialias", None, kind=str, example="blur", since=3, absent={1: None, 2: None},
        choices=Registry("blocks.options", "ANTIALIASES"),
        help="What strides against aliasing: off, blur or average (docs/blocks); none: its own."),
    Key("model.rematerialize", False, resume=NOTED,
        help="Computes activations again in the backward pass: less memory, more time."),

    *(Key(f"data.{row.name}", row.default, help=row.help, choices=row.choices,
          accepted=row.accepted, resume=_RESUME_SOURCE.get(row.name, NO),
          per_host=row.name in _PER_HOST_SOURCE, **_LATER_OF_SOURCE.get(row.name, {}))
      for row in SETTINGS),
    Key("data.train_split", "train",
        help="The images to train on, as TFDS writes splits: train, train[:80%]."),
    Key("data.eval_split", "test",
        help="The images to evaluate on."),
    Key("data.test_split", "", resume=NOTED, since=3, absent={1: "", 2: ""},
        help="The images to evaluate on once, at the end, to choose nothing by; '' for none."),
    Key("data.sampler", "shuffle", choices=SAMPLERS, since=3,
        absent={1: "shuffle", 2: "shuffle"},
        help="shuffle: every image once an epoch; balanced: every class equally often."),
    Key("data.image_size", 32, range=ONE_OR_MORE, reads=parse_image_sizes, accepted=ACCEPTED,
        help="Height and width, in pixels, of what the network sees; a schedule is of the images "
        "it trains on, by shares of the run (docs/training.md)."),
    Key("data.train_image_size", 0, range=NOT_NEGATIVE,
        help="Another size in training; 0 takes data.image_size."),
    Key("evaluation.image_size", 0, range=NOT_NEGATIVE, since=3, absent={1: 0, 2: 0},
        help="Another size in evaluation, predict and exports; 0 takes the last of "
        "data.image_size."),
    Key("data.crop_ratio", 1.0, range=PART,
        help="Evaluation resizes the short side to image_size / crop_ratio, and crops the center."),
    Key("data.interpolation", "bilinear", choices=INTERPOLATIONS,
        meant={1: {"bicubic": "bicubic_float"}},
        help="How evaluation resizes images; bicubic_float is bicubic up to keras-resnet 0.1."),
    Key("data.resize", "round", choices=RESIZES, since=2, absent={1: "round"},
        help="Rule for the resized side: torchvision rounds, timm takes floor (docs/data.md)."),
    Key("data.mean", (0.485, 0.456, 0.406),
        help="Mean of R, G and B in 0..1 to subtract; the default is ImageNet's (torchvision)."),
    Key("data.std", (0.229, 0.224, 0.225),
        help="Standard deviation of R, G and B in 0..1 to divide by."),
    Key("data.channel_order", "rgb",
        choices=CHANNEL_ORDERS,
        help="Order of the channels; weights of keras.applications want bgr."),
    *(Key(f"data.augment.{name}", row.default, help=row.help, accepted=row.accepted)
      for name, row in AUGMENTATIONS.items()),

    Key("optimizer.name", "sgd", choices=OptimizerNames("training.optimizers", "OPTIMIZERS"),
        help="The optimizer: one of ours, or any other of Keras by name (docs/training.md)."),
    Key("optimizer.arguments", (), texts=True, example=("rho=0.95",), since=3,
        absent={1: (), 2: ()},
        help="NAME=VALUE for arguments of an optimizer of Keras, with its own defaults."),
    Key("optimizer.learning_rate", 0.1, range=NOT_NEGATIVE,
        help="The highest learning rate, after the warm-up."),
    Key("optimizer.scale_with_batch", False,
        help="Multiplies the rate by batch_size / 256 (Goyal et al. 2017, section 2.1)."),
    Key("optimizer.momentum", 0.9, range=BELOW_ONE,
        help="Momentum of sgd and lars."),
    Key("optimizer.nesterov", True,
        help="Nesterov momentum in sgd and lars; MLPerf's LARS is without."),
    Key("optimizer.weight_decay", 1e-4, range=NOT_NEGATIVE,
        help="On kernels only: L2 in sgd and lars, in lamb's trust ratio, in others decoupled."),
    Key("optimizer.trust_coefficient", 0.001, range=NOT_NEGATIVE,
        help="Factor of the rate of each layer in lars."),
    Key("optimizer.beta_1", 0.9, range=BELOW_ONE,
        help="Decay of the mean of gradients in adamw and lamb."),
    Key("optimizer.beta_2", 0.999, range=BELOW_ONE,
        help="Decay of the mean of squared gradients in adamw and lamb."),
    Key("optimizer.epsilon", 1e-7, range=POSITIVE,
        help="Added to the divisor in adamw and lamb."),
    Key("optimizer.clip_norm", 0.0, range=NOT_NEGATIVE,
        help="Largest norm of the whole gradient; 0 sets no limit."),
    Key("optimizer.layer_decay", 1.0, range=POSITIVE,
        help="Factor of the rate from each stage to the one below (Howard and Ruder 2018)."),

    Key("schedule.name", "cosine", choices=Registry("training.schedules", "SCHEDULES"),
        help="How the learning rate falls."),
    Key("schedule.warmup_epochs", 0.0, range=NOT_NEGATIVE,
        help="Epochs in which the rate rises from nothing (Goyal et al. 2017, section 2.2)."),
    Key("schedule.decay_after_warmup", False,
        help="Counts the decay from the end of the warm-up (torchvision), not from step 0 (timm)."),
    Key("schedule.end_learning_rate", 0.0, range=NOT_NEGATIVE,
        help="Where cosine and polynomial end, and what plateau does not fall below."),
    Key("schedule.boundaries", (), example=(30, 60, 80),
        help="For step: the epochs after which the rate is multiplied by schedule.factor."),
    Key("schedule.factor", 0.1, range=NOT_NEGATIVE,
        help="For step, exponential and plateau: what the rate is multiplied by."),
    Key("schedule.decay_epochs", 1.0, range=POSITIVE,
        help="For exponential: the epochs in which the rate falls by schedule.factor."),
    Key("schedule.patience", 10, range=ONE_OR_MORE, since=3, absent={1: 10, 2: 10},
        help="For plateau: evaluations without a better top-1 (mAP) after which the rate falls."),
    Key("schedule.power", 2.0, range=POSITIVE,
        help="For polynomial: the exponent."),

    Key("loss.name", "softmax", choices=Registry("training.losses", "LOSSES"),
        help="softmax: one class an image; binary: a yes or no for each (data.multi_label)."),
    Key("loss.label_smoothing", 0.0, range=BELOW_ONE,
        help="Share of the target spread over all classes (Szegedy et al. 2016, section 7)."),
    Key("loss.target_threshold", 0.0, range=BELOW_ONE,
        help="For binary: targets above it become 1, others 0; 0 leaves them as they are."),
    Key("loss.sum_classes", False,
        help="For binary: sums over the classes instead of taking the mean."),
    Key("loss.class_weights", (), example=(1.0, 3.0), words=("balanced",),
        help="A weight for each class; balanced: by its share of the images (docs/training.md)."),

    # Another path of the same teacher: what it is, a hash says.
    Key("distill.teacher", "", resume=NOTED, per_host=True, since=3, absent={1: "", 2: ""},
        help="A trained model whose answers the network learns as well (docs/training.md): a file, "
        "hf://… or a finished work directory; empty for none."),
    # Tian et al. 2020 ("Contrastive representation distillation"), section 4, for CIFAR.
    Key("distill.temperature", 4.0, range=POSITIVE, since=3, absent={1: 4.0, 2: 4.0},
        help="What the logits of both are divided by; more softens the answers."),
    Key("distill.weight", 0.9, range=PART, since=3, absent={1: 0.9, 2: 0.9},
        help="Share of the teacher's answers in the loss, the rest is the labels'; 1: no labels."),

    Key("evaluation.tta", "none", choices=TTA, resume=NOTED, since=3,
        absent={1: "none", 2: "none"},
        help="Whether each image is evaluated with its mirror image as well (docs/training.md): "
        "flip takes the mean of the logits, flip_probabilities that of the probabilities."),

    # To train on, or to end earlier, as with epochs.
    Key("early_stopping.patience", 0, range=NOT_NEGATIVE, resume=NOTED, since=3,
        absent={1: 0, 2: 0},
        help="Ends the run after so many evaluations without a better top-1 or mAP; 0: never."),

    Key("ema.decay", 0.0, range=BELOW_ONE,
        help="Evaluates and saves a moving average of the weights, such as 0.9999; 0: off."),
    Key("ema.warmup", True,
        help="Takes the decay min(ema.decay, (1 + t) / (10 + t)) after step t."),

    Key("checkpoint.every_epochs", 1, range=ONE_OR_MORE, resume=FREELY,
        help="Epochs from one checkpoint to the next."),
    Key("checkpoint.keep", 3, range=ONE_OR_MORE, resume=FREELY,
        help="How many of the newest are kept; the best one is kept as well."),
    Key("checkpoint.model", "newest", choices=("newest", "best"), resume=FREELY, since=3,
        absent={1: "newest", 2: "newest"},
        help="What becomes model.keras: the last step, or the one of the best top-1 or mAP."),
    Key("report", True, resume=FREELY, since=3, absent={1: True, 2: True},
        help="Writes report.html at the end of the run (docs/report.md)."),
    # Code: training alone imports it, on one host.
    Key("training.callbacks", (), texts=True, example=("tracking:WandB",), resume=FREELY, since=3,
        absent={1: (), 2: ()},
        help="Trackers that follow the run, each package.module:factory (docs/training.md)."),
    Key("tensorboard.histograms", False, resume=FREELY,
        help="Writes histograms of all weights at every evaluation."),
    Key("tensorboard.profile_steps", (), example=(10, 15), resume=FREELY,
        help="Traces the steps (first, last + 1), counted from 0; () traces none."),
)
# fmt: on
KEYS: dict[str, Key] = {key.name: key for key in _ROWS}


def default_config() -> ConfigDict:
    """Returns every key there is, with its default and, by that, its type."""
    nested: dict[str, Any] = {}
    for key in KEYS.values():
        *groups, last = key.name.split(".")
        holder = nested
        for group in groups:
            holder = holder.setdefault(group, {})
        holder[last] = placeholder(key.type) if key.default is None else key.default
    return ConfigDict(nested)


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted key, value) for every leaf."""
    for key in config:
        value = config[key]
        if isinstance(value, Mapping | ConfigDict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
