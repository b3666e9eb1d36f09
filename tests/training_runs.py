"""Twenty steps of a tiny network on digits, the same on every set of devices.

Run as a program it is one worker of several: `python training_runs.py '{"optimizer": …}'` with
TF_CONFIG set prints what `run` returns as JSON. jax_runs.py is the same on the other engine.
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


def run(config, devices, state=None, first=0, end=STEPS):
    """Trains and evaluates; returns losses, evaluation, confusion matrix and norms of weights.

    And the norms of the last step's gradients, and the temperature of the evaluation.

    Args:
        config: of `tiny_config`.
        devices: a strategy, or a mesh of JAX.
        state: to begin with, instead of random weights.
        first, end: the steps to train.
    """
    from keras_resnet import calibration, input_pipeline
    from keras_resnet.training.evaluation import evaluate_source
    from keras_resnet.training.progress import Timeline

    source = input_pipeline.open_source("tfds", name="digits", path="", split="train")
    held_out = input_pipeline.open_source("tfds", name="digits", path="", split="test")
    engine = built_engine(config, devices, source.class_names, STEPS * BATCH)
    if state is not None:
        engine.load_state(state)
    parts = []
    for begin, stop, size in Timeline(config, STEPS * BATCH).segments:
        if (begin := max(begin, first)) < (stop := min(stop, end)):
            batches = engine.train_batches(source, begin, stop, size)
            parts.append(engine.train(batches, stop - begin))
    sums = np.concatenate(parts)
    evaluation = evaluate_source(engine, held_out)
    totals = dict(zip(engine.steps.sums, sums.T.astype("float64"), strict=True))
    return {
        "losses": (totals["loss"] / totals["examples"]).tolist(),
        "of_teacher": totals.get("distillation_loss", np.zeros(0)).tolist(),
        "evaluation": evaluation.means,
        "confusion": evaluation.confusion_matrix().tolist(),
        "gradient_norms": engine.gradient_norms(),
        "temperature": calibration.fit_temperature(evaluation.logits, evaluation.logit_labels),
        "norms": [float(np.linalg.norm(weight)) for weight in engine.inference_weights()],
    }


def first_state(config, devices, steps=0):
    """The state after so many steps of a run of `config`."""
    from keras_resnet import input_pipeline

    source = input_pipeline.open_source("tfds", name="digits", path="", split="train")
    engine = built_engine(config, devices, source.class_names, STEPS * BATCH)
    if steps:
        engine.train(engine.train_batches(source, 0, STEPS), steps)
    return engine.state()


def built_engine(config, devices, class_names, train_examples):
    """An engine that can train on so many examples, of the backend that Keras runs on."""
    from keras_resnet.training.engine import find_engine
    from keras_resnet.training.progress import Timeline
    from keras_resnet.training.schedules import make_schedule
    from keras_resnet.training.teachers import read_teacher

    engine = find_engine(config)(config, devices)
    engine.build(class_names, make_schedule(config, Timeline(config, train_examples)))
    if config.distill.teacher:
        engine.teach(read_teacher(config, class_names, bfloat16=False))
    return engine


def main(groups: str, connect_timeout: str = "60") -> None:
    """One worker: prints a line of JSON."""
    from keras_resnet.training.tensorflow.strategy import make_strategy

    strategy = make_strategy("multi_worker", connect_timeout=float(connect_timeout))
    print("result " + json.dumps(run(tiny_config(**json.loads(groups)), strategy)))


if __name__ == "__main__":
    main(*sys.argv[1:])
