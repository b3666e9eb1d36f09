"""Twenty steps of a tiny network on digits, the same on every set of devices.

Run as a program it is one worker of several: `python training_runs.py '{"optimizer": …}'` with
TF_CONFIG set prints what `run` returns as JSON.
"""

import json
import sys

import keras
import numpy as np

STEPS, BATCH = 20, 32


def tiny_config(**groups):
    """A config of 20 steps; `groups` are the keys to change, nested ones as dicts."""
    from keras_resnet.config import check, default_config, merge

    config = merge(
        default_config(),
        {
            "batch_size": BATCH,
            "epochs": 1,
            "log_every_steps": 1,
            "model": {"depths": (1, 1, 1), "widths": (16, 16, 16), "synchronized_norm": True},
            "data": {"name": "digits", "image_size": 8, "augment": {"crop_padding": 1}},
            "optimizer": {"learning_rate": 0.2},
            "schedule": {"warmup_epochs": 0.1},
        },
        "tests",
    )
    return check(merge(config, groups, "tests"))


def run(config, strategy):
    """Trains and evaluates; returns losses, evaluation, confusion matrix and weight sums."""
    from keras_resnet import input_pipeline
    from keras_resnet.training.tensorflow.trainer import Trainer

    source = input_pipeline.open_source("tfds", name="digits", path="", split="train")
    held_out = input_pipeline.open_source("tfds", name="digits", path="", split="test")
    trainer = Trainer(config, strategy, source.class_names, STEPS * BATCH)
    assert trainer.total_steps == STEPS
    losses = [means["loss"] for _, means in trainer.train(source, 0, [])]
    evaluation = trainer.evaluate(held_out)
    with trainer.averaged_weights():
        weights = [keras.ops.convert_to_numpy(value) for value in trainer.model.get_weights()]
    return {
        "losses": losses,
        "evaluation": evaluation,
        "confusion": trainer.confusion_matrix().tolist(),
        "norms": [float(np.linalg.norm(weight)) for weight in weights],
    }


def main(groups: str, connect_timeout: str = "60") -> None:
    """One worker: prints a line of JSON."""
    from keras_resnet.training.tensorflow.strategy import make_strategy

    strategy = make_strategy("multi_worker", connect_timeout=float(connect_timeout))
    print("result " + json.dumps(run(tiny_config(**json.loads(groups)), strategy)))


if __name__ == "__main__":
    main(*sys.argv[1:])
