"""The gallery of a finished or running training run, with the data that its config names."""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from keras_resnet.backend import require_tensorflow_installed
from keras_resnet.config import check, merge
from keras_resnet.explain.gallery import NEIGHBORS, Gallery, gallery
from keras_resnet.explain.label_set_gallery import LabelSetGallery
from keras_resnet.input_pipeline.errors import DataError
from keras_resnet.training.say import silence
from keras_resnet.training.workdir import WorkDir


def gallery_of_run(
    workdir: str | os.PathLike,
    photos: str | os.PathLike | Iterable[str | os.PathLike] | None = None,
    *,
    checkpoint: Literal["newest", "best"] | None = None,
    overrides: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = silence,
    **options: Any,
) -> Gallery | LabelSetGallery:
    """What is worth looking at of the network of a run, on its evaluation split or on photos.

    Similar images are looked for in its training split.

    Args:
        workdir: of the run.
        photos: image files and folders, without labels, instead of the evaluation split.
        checkpoint: "newest" or "best"; None: what the run's `checkpoint.model` says.
        overrides: for what has moved since, such as {"data.path": ...}.
        say: told which checkpoint is taken, where the run is not finished.
        **options: as of `gallery`: `layer`, `method`, `mistakes`, `per_class`, `neighbors`,
            `progress`.

    Raises:
        UserError, input_pipeline.DataError: as `gallery`, and there is no trained network or its
            data is not where the config says.
    """
    folder = WorkDir(workdir)
    config = None
    # A model.keras alone, without the rest of its run, knows photos, but no data.
    if photos is None or folder.is_begun() or not folder.model.exists():
        config = check(merge(folder.read_config_for_one(), overrides or {}, where="overrides"))
    require_tensorflow_installed()
    from keras_resnet.training.data import explain_moved, open_source
    from keras_resnet.training.evaluation import load_model_of_workdir

    model = load_model_of_workdir(folder, checkpoint, say)
    data = training = None
    if photos is None and config is not None:
        with explain_moved():
            data = open_source(config, config.data.eval_split)
    if options.get("neighbors", NEIGHBORS) and config is not None:
        try:
            with explain_moved():
                training = open_source(config, config.data.train_split)
        except DataError as error:
            raise DataError(
                f"{error} neighbors=0, or --neighbors=0, does without the training images."
            ) from error
    return gallery(model, photos, data=data, training=training, **options)
