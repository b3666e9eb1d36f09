"""Folded Keras models in a `.keras` file, with their preprocessing and class names."""

from keras_resnet.export.folding import inference_copy
from keras_resnet.export.formats import Job, Run
from keras_resnet.export.signatures import logits_caller, make_network
from keras_resnet.models.loading import load_model


def write(job: Job) -> Run:
    """Writes a `.keras` file for inference and returns what runs it after it was loaded again."""
    copy = inference_copy(job.model, fold=job.fold)
    if job.class_names is not None:
        copy.class_names = job.class_names
    copy.save(job.path)
    return logits_caller(make_network(load_model(job.path), fold=False))
