"""Twenty steps of a tiny network on digits, the same on every set of devices.

Run as a program it is one worker of several: `python training_runs.py '{"optimizer": …}'` with
TF_CONFIG set prints what `run` returns as JSON.
"""

import json
import sys

import numpy as np

STEPS, BATCH = 20, 32


def tiny_config(**groups):
    """A config of 20 steps; `groups` are the keys to change, nested ones as dicts."""
    from keras_resnet.config import check, default_config, merge

    config = merge(
        default_config(),
        {
            "precision": "float32",
            "batch_size": BATCH,
            "epochs": 1,
            "log_every_steps": 1,
            "model": {
                "depths": (1, 1, 1),
                "widths": (16, 16, 16),
                "synchronized_norm": True,
                # Starting calmly, so that rounding stays rounding over the steps.
                "zero_init_last_gamma": True,
                "classifier_initializer": "normal",
            },
            "data": {"name": "digits", "image_size": 8, "augment": {"crop_padding": 1}},
            "optimizer": {"learning_rate": 0.2},
            "schedule": {"warmup_epochs": 0.1},
        },
        "tests",
    )
    return check(merge(config, groups, "tests"))


def run(config, strategy):
    """Trains and evaluates; returns losses, evaluation, confusion matrix and norms of weights.

    And the norms of the last step's gradients, and the temperature of the evaluation.
    """
    from keras_resnet import calibration, input_pipeline
    from keras_resnet.training.evaluation import evaluate_source
    from keras_resnet.training.metrics import SUMS

    source = input_pipeline.open_source("tfds", name="digits", path="", split="train")
    held_out = input_pipeline.open_source("tfds", name="digits", path="", split="test")
    engine = built_engine(config, strategy, source.class_names, STEPS * BATCH)
    sums = engine.train(engine.train_batches(source, 0, STEPS), STEPS)
    evaluation = evaluate_source(engine, held_out)
    totals = dict(zip(SUMS, sums.T.astype("float64"), strict=True))
    return {
        "losses": (totals["loss"] / totals["examples"]).tolist(),
        "evaluation": evaluation.means,
        "confusion": evaluation.confusion_matrix().tolist(),
        "gradient_norms": engine.gradient_norms(),
        "temperature": calibration.fit_temperature(evaluation.logits, evaluation.logit_labels),
        "norms": [float(np.linalg.norm(weight)) for weight in engine.inference_weights()],
    }


def built_engine(config, strategy, class_names, train_examples):
    """An engine that can train on so many examples."""
    from keras_resnet.training.progress import Timeline
    from keras_resnet.training.schedules import make_schedule
    from keras_resnet.training.tensorflow import TensorFlowEngine

    engine = TensorFlowEngine(config, strategy)
    engine.build(class_names, make_schedule(config, Timeline(config, train_examples)))
    return engine


def main(groups: str, connect_timeout: str = "60") -> None:
    """One worker: prints a line of JSON."""
    from keras_resnet.training.tensorflow.strategy import make_strategy

    strategy = make_strategy("multi_worker", connect_timeout=float(connect_timeout))
    print("result " + json.dumps(run(tiny_config(**json.loads(groups)), strategy)))


if __name__ == "__main__":
    main(*sys.argv[1:])
