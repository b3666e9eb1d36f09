"""Heat maps: which parts of an image speak for a class.

A network that ends in global average pooling and a classifier says it in one forward pass: the
score of class c is the mean over all places of F · W_c, plus a bias, where F is the last feature
map and W_c the classifier's weights of c (class activation maps: Zhou et al. 2016, section 2). The
gradient of that score by F is W_c over the number of places, so Grad-CAM (Selvaraju et al. 2017,
section 3) of the last feature map is relu(F · W_c) over that number: the same picture.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np

from keras_resnet.errors import UserError, did_you_mean, nearest
from keras_resnet.explain import occlusion
from keras_resnet.explain.anatomy import Anatomy, dissect
from keras_resnet.explain.photos import prepared_array, read_batches
from keras_resnet.explain.running import Answer, Runner

METHODS = ("gradcam", "occlusion")
BATCH = 32
_LISTED = 10  # classes in a message

# Numbers or names of classes; None takes the most probable class of each image, "all" all.
Classes = int | str | Sequence[int | str] | np.ndarray | None


@dataclasses.dataclass(frozen=True)
class HeatMaps:
    """Heat maps of some images for some classes each.

    Attributes:
        signed: float32 [images, classes, *cells]: positive where a cell speaks for the class and
            negative where it speaks against it. "gradcam": the sum over channels of the feature
            map times the sum over cells of the score's gradient; for the last feature map of a
            network that ends in average pooling and a classifier, its mean over the cells plus the
            classifier's bias is the score. "occlusion": how far the score falls where it is gray.
        classes: int32 [images, classes], which classes.
        scores: float32 [images, classes], of those, before softmax or sigmoid.
        photos: uint8 [images, size, size, 3], what the network saw, on which the cells lie evenly;
            None for inputs that are no photos.
        layer: the name of the layer whose output is the feature map; "" of occlusion.
    """

    signed: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    photos: np.ndarray | None
    layer: str

    @property
    def values(self) -> np.ndarray:
        """`signed` where it is positive, else 0: what is shown."""
        return np.maximum(self.signed, 0)

    def __len__(self) -> int:
        return len(self.signed)


def heatmaps(
    model: keras.Model,
    images_or_paths: Any,
    classes: Classes = None,
    layer: str | None = None,
    method: Literal["gradcam", "occlusion"] = "gradcam",
    *,
    prepared: bool | None = None,
    batch_size: int = BATCH,
    cells: int = occlusion.CELLS,
) -> HeatMaps:
    """Which parts of each image speak for a class, on any of Keras' backends.

        maps = keras_resnet.explain.heatmaps(model, ["cat.jpg"], ["cat", "dog"])
        keras_resnet.explain.overlay(maps.photos[0], maps.values[0, 0])

    Args:
        model: a classifier: a network of this package, 1-D, 2-D or 3-D, or any functional or
            sequential model of one input and one output, whatever its head.
        images_or_paths: what `keras_resnet.preprocess` takes: paths of image files, arrays of RGB
            pixels of 0 to 255. With `prepared`, an array of what the model takes, [n, ...].
        classes: a number or a name for all images, several of them, an int array [images, k] of
            those of each image, "all", or None for the most probable one of each.
        layer: name of a layer with a feature map, such as "stage3_block2_out"; by default the last
            feature map, for which networks with a plain head need no gradient.
        method: "gradcam", or "occlusion" (Zeiler and Fergus 2014, section 4.2): a gray window
            moves over the image, which asks nothing of the model's inside.
        prepared: whether the images are what the model takes; by default if it has no
            `preprocessing`.
        batch_size: images at a time; it does not change the result.
        cells: of "occlusion", along the longest axis; the window covers two along each.

    Raises:
        UserError: a class, a layer or a method that there is not, an image that cannot be read, or
            a model whose inside cannot be followed; says what would be accepted.
        ValueError: an array holds no RGB pixels.
    """
    _check(method, layer)
    anatomy = dissect(model)
    units = _units(anatomy, model)
    cut = _cut(anatomy, layer) if method == "gradcam" else None
    runner = Runner(model, anatomy, cut)
    chosen = _Choice(classes, units, getattr(model, "class_names", None))
    parts: list[HeatMaps] = []
    done = 0
    for inputs, photos in _batches(model, images_or_paths, prepared, batch_size):
        answer = runner(inputs)
        picked = chosen.of(answer.scores, done)
        if method == "occlusion":
            fill = None if photos is None else 0.0
            signed = occlusion.maps(runner, inputs, picked, answer.scores, cells, fill)
        else:
            signed = _gradcam(runner, inputs, answer, picked)
        scores = np.take_along_axis(answer.scores, picked, axis=1)
        parts.append(HeatMaps(signed, picked, scores, photos, _name(anatomy, cut)))
        done += len(inputs)
    if not parts:
        raise UserError("there are no images to explain")
    chosen.check_rows(done)
    return _joined(parts)


def _name(anatomy: Anatomy, cut: int | None) -> str:
    return "" if cut is None else anatomy.steps[cut].layer.name


def _check(method: str, layer: str | None) -> None:
    if method not in METHODS:
        raise UserError(
            f"method is {method!r}; it is one of {', '.join(METHODS)}{nearest(method, METHODS)}"
        )
    if method == "occlusion" and layer is not None:
        raise UserError(f"layer is {layer!r}, but occlusion looks into no layer; leave it out")


def _cut(anatomy: Anatomy, layer: str | None) -> int:
    return anatomy.last_feature_map() if layer is None else anatomy.find_layer(layer)


def _units(anatomy: Anatomy, model: keras.Model) -> int:
    shape = anatomy.steps[anatomy.scores].output.shape
    if len(shape) != 2 or shape[1] is None:
        raise UserError(
            f"{model.name} returns {tuple(shape)}; heat maps are of a classifier, which returns "
            "(images, classes): a network of create_model with include_top=True"
        )
    return shape[1]


class _Choice:
    """The classes of each image, from what the caller asked for."""

    def __init__(self, classes: Classes, units: int, names: Sequence[str] | None):
        self.units, self.names = units, list(names or [])
        self.fixed: np.ndarray | None = None
        self.per_image = isinstance(classes, np.ndarray) and classes.ndim == 2
        if classes is None:
            return
        if isinstance(classes, str) and classes == "all" and "all" not in self.names:
            self.fixed = np.arange(units, dtype="int32")[None]
        elif self.per_image:
            rows = np.asarray(classes).tolist()
            self.fixed = np.array([[self._number(c) for c in row] for row in rows], "int32")
        else:
            alone = isinstance(classes, (int, str, np.integer))
            several = [classes] if alone else list(classes)  # type: ignore[arg-type]
            self.fixed = np.array([[self._number(one) for one in several]], "int32")
        if not self.fixed.size:
            raise UserError("classes is empty; leave it out for the most probable class")

    def of(self, scores: np.ndarray, start: int) -> np.ndarray:
        if self.fixed is None:
            return scores.argmax(axis=1)[:, None].astype("int32")
        if self.per_image:
            rows = self.fixed[start : start + len(scores)]
            if len(rows) < len(scores):
                raise UserError(f"classes has {len(self.fixed)} rows; it needs one for each image")
            return rows
        return np.repeat(self.fixed, len(scores), axis=0)

    def check_rows(self, images: int) -> None:
        if self.per_image and self.fixed is not None and len(self.fixed) != images:
            raise UserError(f"classes has {len(self.fixed)} rows for {images} images")

    def _known(self, one: str) -> str:
        if not self.names:
            return f" It names no classes: take numbers, 0 to {self.units - 1}."
        more = ", ..." if len(self.names) > _LISTED else ""
        listed = f" Its classes are {', '.join(map(repr, self.names[:_LISTED]))}{more}."
        return did_you_mean(one, self.names) or listed

    def _number(self, one: Any) -> int:
        if isinstance(one, str):
            if one not in self.names:
                raise UserError(f"there is no class {one!r} in the model.{self._known(one)}")
            return self.names.index(one)
        if isinstance(one, (bool, np.bool_)) or not isinstance(one, (int, np.integer)):
            raise UserError(f"a class is a number or a name; received {one!r}")
        if not 0 <= one < self.units:
            raise UserError(f"there is no class {one}; the model has 0 to {self.units - 1}")
        return int(one)


def _batches(model: keras.Model, images: Any, prepared: bool | None, batch_size: int):
    """Yields (inputs, photos or None)."""
    if prepared is None:
        prepared = getattr(model, "preprocessing", None) is None
    if not prepared:
        for batch in read_batches(images, model, batch_size):
            if batch.problems:
                raise UserError("; ".join(map(" ".join, batch.problems.items())))
            yield batch.inputs, batch.pixels
        return
    inputs = prepared_array(model, images)
    for start in range(0, len(inputs), batch_size):
        yield inputs[start : start + batch_size], None


def _gradcam(runner: Runner, inputs, answer: Answer, picked: np.ndarray) -> np.ndarray:
    features = answer.features
    channels_first = runner.anatomy.channels_first
    places = tuple(range(2, features.ndim) if channels_first else range(1, features.ndim - 1))
    weights_of = functools.partial(_gradient_weights, runner, inputs, features, places)
    classifier = runner.anatomy.classifier
    if classifier and runner.anatomy.pool and runner.cut == runner.anatomy.features:
        # The gradient of a mean, and of a maximum, summed over the places, is the kernel itself.
        kernel = keras.ops.convert_to_numpy(classifier.kernel).astype("float32")
        weights_of = kernel.T.__getitem__
    channels_last = np.moveaxis(features, 1, -1) if channels_first else features
    maps = [np.einsum("n...c,nc->n...", channels_last, weights_of(column)) for column in picked.T]
    return np.stack(maps, axis=1)


def _gradient_weights(runner: Runner, inputs, features, places, column) -> np.ndarray:
    return runner.gradient(inputs, features, column).sum(axis=places)


def _joined(parts: list[HeatMaps]) -> HeatMaps:
    photos = None
    if parts[0].photos is not None:
        photos = np.concatenate([part.photos for part in parts if part.photos is not None])
    return HeatMaps(
        signed=np.concatenate([part.signed for part in parts]),
        classes=np.concatenate([part.classes for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        photos=photos,
        layer=parts[0].layer,
    )
