"""The teacher of a run (`distill.teacher`): read, checked, and the one that the run began with."""

import contextlib
import dataclasses
import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
from ml_collections import ConfigDict

from keras_resnet import storage
from keras_resnet.class_matching import match_classes
from keras_resnet.config import training_image_sizes
from keras_resnet.errors import UserError
from keras_resnet.models import create_model
from keras_resnet.models.classifiers import check_classifier, gives_label_sets
from keras_resnet.models.loading import load_model
from keras_resnet.training.distillation import Teacher
from keras_resnet.training.engine import Engine
from keras_resnet.training.reporting import to_json
from keras_resnet.training.say import silence
from keras_resnet.training.workdir import WorkDir, checkpoint_steps
from keras_resnet.weights.files import are_weights

# Of a teacher's preprocessing, what is done to the crops of the student.
_OF_IMAGES = ("image_size", "mean", "std", "channel_order")
_NAME_THEM = (
    "`keras-resnet convert --weights=WEIGHTS --class_names=FILE --output=TEACHER.keras`, a line "
    "for each"
)


def read_teacher(
    config: ConfigDict,
    classes: Sequence[str] | int,
    bfloat16: bool,
    say: Callable[[str], None] = silence,
) -> Teacher:
    """Reads `distill.teacher`: a file, an address of the hub, or the work directory of a run.

    Args:
        config: a checked config.
        classes: names of the classes of the data; how many where there is no data.
        bfloat16: whether the devices multiply it natively: the teacher then does, too.
        say: told what the person should know of it.

    Raises:
        UserError: it cannot be read, or is no classifier of these classes.
    """
    with _explained(config.distill.teacher, say):
        model, origin = _load(config.distill.teacher)
        preprocessing = check_classifier(model, "a teacher")
        _check_head(model, config)
        places = _places(model, classes, say)
    precision = "bfloat16" if bfloat16 else "float32"
    return Teacher(origin, model, preprocessing, places, _digest(model), precision)


def teach(engine: Engine, classes: Sequence[str] | int) -> None:
    """Lets a built engine learn from the teacher of its config, if that has one.

    For steps that are no run, and so have no work directory.

    Args:
        engine: that is to train.
        classes: as for `read_teacher`.
    """
    if engine.config.distill.teacher:
        engine.teach(read_teacher(engine.config, classes, engine.multiplies_bfloat16()))


@contextlib.contextmanager
def _explained(name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Says of whatever cannot be used, in a line, that it is the teacher."""
    key = f"config.distill.teacher={name!r}"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            yield
        except OSError as error:
            raise UserError(f"{key}: {storage.reason_of(error)}") from error
        except (UserError, ImportError, TypeError, ValueError) as error:
            reason = " ".join(str(error.args[0] if error.args else error).split())
            raise UserError(f"{key}: {reason}") from error
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            say(f"note: {key}: {warning.message}")


def _load(name: str) -> tuple[keras.Model, str]:
    """Returns the model, and where it was read from."""
    if name.startswith("hf://"):
        return _of_weights(name), name
    path = WorkDir(name).path
    if path.is_dir():
        file = WorkDir(name).model
        if not file.exists():
            if not storage.in_bucket(path) and are_weights(path):
                return _of_weights(path), str(path)
            raise UserError(f"no {file.name} in this folder; a run writes it when it is finished")
        path = file
    if not path.exists():
        raise UserError("there is no such file or folder")
    with storage.local_copy(path) as local:
        return (load_model if path.suffix == ".keras" else _of_weights)(local), str(path)


def _of_weights(path: str | Path) -> keras.Model:
    try:
        return create_model(weights=path)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{error.args[0]} `keras-resnet convert` makes a .keras file of weights, and takes "
            "what they do not say: --model=NAME, --shortcut, --mean, --class_names and others"
        ) from error


def _check_head(model: keras.Model, config: ConfigDict) -> None:
    """Raises UserError unless teacher and student answer the same question."""
    theirs, ours = gives_label_sets(model), config.data.multi_label
    if theirs == ours:
        return
    kinds = {False: "one class an image (softmax)", True: "a yes or no for each class (sigmoid)"}
    raise UserError(
        f"it gives {kinds[theirs]}, and with config.data.multi_label={ours} the student gives "
        f"{kinds[ours]}; take a teacher that was trained with config.data.multi_label={ours}"
    )


def _places(
    model: keras.Model, classes: Sequence[str] | int, say: Callable[[str], None]
) -> tuple[int, ...] | None:
    """Returns the place of each class of the data among the teacher's; None: they are the same."""
    own, count = getattr(model, "class_names", None), model.outputs[0].shape[-1]
    numbers = [str(number) for number in range(count)]
    wanted = classes if isinstance(classes, int) else len(classes)
    if count != wanted and (own in (None, numbers) or isinstance(classes, int)):
        raise UserError(
            f"it has {count:,} classes, and the data {wanted:,}, and not both have names by which "
            f"they could be matched; take a teacher of these classes, or name its own: {_NAME_THEM}"
        )
    if isinstance(classes, int):
        return None
    advice = f"Take a teacher of these classes, or give its own other names: {_NAME_THEM}"
    found, notes = match_classes(classes, own or numbers, "the data", advice)
    for note in notes:
        say(f"note: of the teacher: {note}")
    return None if np.array_equal(found, np.arange(count)) else tuple(found.tolist())


def _digest(model: keras.Model) -> str:
    """Returns the SHA-256 of all that the answers depend on, as hexadecimal digits.

    Not of the file: written again, or calibrated, it is the same teacher.
    """
    of_images = {name: model.preprocessing[name] for name in _OF_IMAGES}
    told = {
        "architecture": getattr(model, "architecture", None),
        "layers": [type(layer).__name__ for layer in model.layers],
        "preprocessing": of_images,
        "class_names": getattr(model, "class_names", None),
    }
    digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode())
    for array in model.get_weights():
        digest.update(f"{array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


# ---- The teacher that a run began with -----------------------------------------------------------


def teacher_of_run(
    engine: Engine, workdir: WorkDir, class_names: Sequence[str], say: Callable[[str], None]
) -> Teacher | None:
    """Returns the teacher as the run began with it, in the same precision; None without one.

    Args:
        engine: of the run.
        workdir: of the run, on every host.
        class_names: of the data.
        say: told what the person should know of it.

    Raises:
        UserError: as `read_teacher`; or it is another one than the run began with, or than other
            hosts have.
    """
    if not engine.config.distill.teacher:
        return None
    config, name = engine.config, engine.config.distill.teacher
    try:
        teacher = read_teacher(config, class_names, engine.multiplies_bfloat16(), say)
    except UserError as error:
        if not workdir.is_begun() or workdir.read_config().distill.teacher != name:
            raise
        raise UserError(
            f"{str(error).rstrip('.')}. The run began with it; if it has moved, "
            "--config.distill.teacher=PATH says where it is"
        ) from error
    if engine.several_hosts:
        others = engine.hosts_that_differ(bytes.fromhex(teacher.digest)[:16])
        if others:
            raise UserError(
                f"config.distill.teacher={name!r} is another one here than on "
                f"{', '.join(others)}: its SHA-256 is {teacher.digest[:12]}… here; copy the same "
                "file to every host"
            )
    if not workdir.is_begun():
        return teacher
    before = workdir.read_teacher()
    if before is None:
        say(
            f"warning: {workdir.teacher} is missing or damaged, so whether the teacher is the one "
            "that the run began with is not known"
        )
        return teacher
    if before["sha256"] != teacher.digest:
        raise UserError(
            f"config.distill.teacher={name!r} is not the teacher that the run in {workdir.path} "
            f"began with, {before['teacher']}: its SHA-256 is {teacher.digest[:12]}…, and was "
            f"{before['sha256'][:12]}…. Bring that one back, or take another --workdir"
        )
    return dataclasses.replace(teacher, precision=before["precision"])


def check_still_taught(config: ConfigDict, workdir: WorkDir) -> None:
    """Raises UserError where a run gains or loses its teacher when it resumes."""
    if not workdir.is_begun():
        return
    before, now = workdir.read_config().distill.teacher, config.distill.teacher
    if bool(before) != bool(now):
        began = f"with the teacher {before!r}" if before else "without a teacher"
        raise UserError(
            f"config.distill.teacher={now!r}: the run in {workdir.path} began {began}; take "
            "another --workdir, or give --workdir alone to go on as it began"
        )


def is_probably_through(config: ConfigDict, workdir: WorkDir) -> bool:
    """Whether a run has nothing left to train, so that its teacher need no longer be there."""
    result, steps = workdir.read_result(), checkpoint_steps(workdir.checkpoints)
    if result is None or not steps or not workdir.is_begun() or result["step"] < steps[-1]:
        return False
    before = workdir.read_config()
    return (before.epochs, before.early_stopping) == (config.epochs, config.early_stopping)


def remember_teacher(workdir: WorkDir, teacher: Teacher | None) -> None:
    """Writes teacher.json, if there is a teacher; for who has the work directory `locked`."""
    if teacher is None:
        return
    told = {
        "teacher": teacher.origin,
        "model": teacher.model.name,
        "sha256": teacher.digest,
        "precision": teacher.precision,
    }
    storage.write_text(workdir.teacher, to_json(told))


def describe_teacher(config: ConfigDict, teacher: Teacher | None) -> Iterator[str]:
    """Yields lines on whom the student learns from, if from anybody, and how."""
    if teacher is None:
        return
    options = config.distill
    yield (
        f"teacher    {teacher.origin}, {teacher.model.name} in {teacher.precision}; its answers "
        f"are {options.weight:g} of the loss, at temperature {options.temperature:g}"
    )
    size = teacher.preprocessing.image_size
    if others := [one for one in training_image_sizes(config).sizes if one != size]:
        yield (
            f"teacher    sees the same crops, resized in the step from "
            f"{' and '.join(map(str, others))} px to its {size} px"
        )
