"""The configuration of a run: keys and defaults, config files, overrides, config.json."""

from ml_collections import ConfigDict

from keras_resnet.config.checks import check
from keras_resnet.config.loading import (
    bundled_configs,
    check_key,
    configs_folder,
    evaluation_image_size,
    load_config,
    merge,
    preprocessing,
    source_options,
    training_image_size,
    training_image_sizes,
    with_training_image_size,
)
from keras_resnet.config.records import from_json, to_json
from keras_resnet.config.renamings import parse_renamings
from keras_resnet.config.schema import CONFIG_VERSION, KEYS, default_config, flatten

__all__ = [
    "CONFIG_VERSION",
    "KEYS",
    "ConfigDict",
    "bundled_configs",
    "check",
    "check_key",
    "configs_folder",
    "default_config",
    "evaluation_image_size",
    "flatten",
    "from_json",
    "load_config",
    "merge",
    "parse_renamings",
    "preprocessing",
    "source_options",
    "to_json",
    "training_image_size",
    "training_image_sizes",
    "with_training_image_size",
]
