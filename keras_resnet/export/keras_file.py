"""Folded Keras models in a `.keras` file, with their preprocessing and class names."""

from keras_resnet.errors import UserError
from keras_resnet.export.calibrating import calibrate_head
from keras_resnet.export.formats import Job, Run
from keras_resnet.export.signatures import logits_caller, make_network
from keras_resnet.models.classifiers import is_multilabel
from keras_resnet.models.folding import inference_copy
from keras_resnet.models.loading import load_model


def write(job: Job) -> Run:
    """Writes a `.keras` file for inference and returns what runs it after it was loaded again.

    Raises:
        UserError: it is to say unknown, which a Keras model cannot; or there is no calibration.
    """
    if job.unknown is not None:
        raise UserError(
            "a .keras file gives probabilities alone; leave out --unknown here, and give it to "
            "`keras-resnet predict`, or export another format"
        )
    copy = inference_copy(job.model, fold=job.fold)
    if job.tta is not None:
        copy.tta = job.tta
    if job.calibrated and getattr(copy, "tta", "none") == "flip_probabilities":
        raise UserError(
            "tta='flip_probabilities': a .keras file cannot take the mean before the temperature; "
            "leave out --calibrated here, and give it to `keras-resnet predict`"
        )
    if job.class_names is not None:
        copy.class_names = job.class_names
    if job.calibrated:
        head = copy.get_layer(job.model.layers[-1].name)
        copy.calibration = calibrate_head(head, job.model, is_multilabel(head, job.model.name))
    copy.save(job.path)
    return logits_caller(make_network(load_model(job.path), fold=False))
