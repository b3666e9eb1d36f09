"""Two steps of every bundled config on noise, with all its keys but those that make it large."""

import keras
import numpy as np

from keras_resnet import config as configs
from keras_resnet.commands.benchmark.step_timing import bare_engine, fixed_batches


def reduced(name):
    """Returns a bundled config with one block a stage, few channels and small images."""
    config = configs.load_config(name)
    if config.model.name.startswith(("Cifar", "Wide")):
        config.model.depths, config.model.widths = (1, 1, 1), (16, 16, 16)
    else:
        config.model.depths, config.model.widths = (1, 1, 1, 1), (8, 8, 8, 8)
        with config.ignore_type():  # of a schedule, which is a text
            config.data.image_size = 64
        config.data.train_image_size = 32 if config.data.train_image_size else 0
    config.batch_size = 8 * config.data.augment.repeats
    config.log_gradient_norms = "on"
    return configs.check(config)


def two_steps_of_each_config(devices=None):
    """Yields the name of each bundled config and the losses of two steps."""
    for name in sorted(configs.bundled_configs()):
        config = reduced(name)
        engine = bare_engine(config, devices)
        sums = engine.train(fixed_batches(engine), 2)
        yield name, (sums[:, 0] / sums[:, 3]).astype(float).tolist()
        assert all(np.isfinite(norm) for norm in engine.gradient_norms().values())
        keras.backend.clear_session()
