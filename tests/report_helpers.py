"""A report without a run: of random predictions for images of one color, under hostile names."""

import io

import numpy as np

from keras_resnet.config import default_config
from keras_resnet.explain.gallery import Shot
from keras_resnet.explain.predictions import Predictions
from keras_resnet.models.costs import Profile
from keras_resnet.reports import Findings, Report, Suspect, Thumbnail
from keras_resnet.reports.selection import behind_cells
from keras_resnet.training.metrics import confusion_matrix

HOSTILE = (
    "<script>alert(1)</script>",
    "'\"><img src=x onerror=alert(2)>",
    "\u202etxt.exe\x1b[31m",
    "a\udcffb",
    "-->]]></style></title>",
    "plain",
)
CURVES = [
    row
    for epoch in range(1, 9)
    for row in (
        {
            "kind": "train",
            "step": 10 * epoch,
            "epoch": float(epoch),
            "loss": 2.0 / epoch,
            "top1": 1 - 0.8 / epoch,
            "learning_rate": 0.1 * (9 - epoch),
            "images_per_second": 500.0,
            "examples": 1000,
            "gradient_norms": {
                "stem": 0.02 / epoch,
                "stage1_block1": 0.05,
                "stage2_block1": 0.1,
                "head": 2.0,
            },
        },
        {
            "kind": "eval",
            "step": 10 * epoch,
            "epoch": float(epoch),
            "loss": 2.2 / epoch,
            "top1": 0.9 - (epoch - 6) ** 2 / 100,
        },
    )
]


def a_jpeg(seed=0, side=16):
    """A JPEG file of random pixels."""
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def some_predictions(classes, images, seed=0):
    """Random probabilities that mostly favor the label."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(classes), images)
    logits = rng.normal(size=(images, len(classes)))
    logits[np.arange(images), labels] += 1.5
    powers = np.exp(logits)
    paths = tuple(f"folder/{classes[label]}/{place}.jpg" for place, label in enumerate(labels))
    return Predictions(
        source=f"photos test: {images} images",
        class_names=tuple(classes),
        paths=paths,
        labels=labels.astype("int32"),
        probabilities=(powers / powers.sum(axis=1, keepdims=True)).astype("float32"),
        problems={},
    )


def a_report(classes=HOSTILE, images=300, **changes):
    """A report with something in every section."""
    predictions = some_predictions(classes, images)
    pairs = np.stack([predictions.labels, predictions.classes], axis=1)
    cells = {
        cell: tuple(
            Thumbnail(i, predictions.paths[i], float(predictions.confidence[i]), a_jpeg(i))
            for i in places
        )
        for cell, places in behind_cells(predictions).items()
    }
    some = next(iter(cells.values()))[0]
    shot = Shot(
        path=some.path,
        label=0,
        prediction=1,
        probabilities=predictions.probabilities[some.place],
        photo=np.full((32, 32, 3), 90, np.uint8),
        heat_of_prediction=np.ones((4, 4), "float32"),
        heat_of_label=np.ones((4, 4), "float32"),
        neighbors=(),
    )
    bins = [
        {"from": 0.5, "to": 0.6, "count": 40, "confidence": 0.55, "accuracy": 0.4},
        {"from": 0.9, "to": 1.0, "count": 260, "confidence": 0.97, "accuracy": 0.93},
    ]
    values = {
        "name": "run <b>",
        "config": default_config(),
        "history": ({"time": "2026", "changed": {"epochs": [2, 3]}},),
        "dataset": {"train_examples": 1000, "eval_examples": images},
        "result": {"step": 80, "model_step": 60, "train_images_per_second": 512.0},
        "rows": tuple(CURVES),
        "step": 60,
        "split": "test",
        "source": predictions.source,
        "class_names": tuple(classes),
        "matrix": confusion_matrix(pairs, len(classes)),
        "label_sets": None,
        "thresholds": None,
        "predictions": predictions,
        "mistakes": (shot,),
        "cells": cells,
        "findings": Findings(
            suspects=(Suspect(some.path, 0, 1, 0.9, some),),
            suspected=3,
            noise=0.05,
            copies=(("test/<i>.jpg", "train/x.jpg"),),
            copied=2,
            notes=(),
        ),
        "calibration": {
            "split": "val",
            "images": 300,
            "temperature": 1.5,
            "ece": 0.05,
            "ece_calibrated": 0.01,
            "bins": bins,
            "bins_calibrated": bins,
            "thresholds": [{"coverage": 0.9, "threshold": 0.7, "accuracy": 0.99}],
        },
        "costs": Profile(1234, 5, 678910, (32, 32, 3)),
        "versions": {"keras": "3"},
        "notes": ("A note.",),
    }
    return Report(**{**values, **changes})
