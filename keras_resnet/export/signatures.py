"""What a server answers: the functions behind the signatures of an exported network."""

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from keras_resnet import input_pipeline
from keras_resnet.backend import require_tensorflow
from keras_resnet.calibration import UNKNOWN, Calibration, Unknown
from keras_resnet.errors import UserError
from keras_resnet.export.calibrating import calibrate_head, usable_calibration
from keras_resnet.export.description import Description
from keras_resnet.flips import beside_its_flip, check_tta, merge
from keras_resnet.input_pipeline.decoding import claimed_pixels
from keras_resnet.models import ResNet
from keras_resnet.models.classifiers import check_classifier, is_multilabel
from keras_resnet.models.folding import inference_copy
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.printing import to_bytes

ON_ERROR = ("fail", "flag")
# Images of a request: of so many pixels (as `decoding.claimed_pixels` counts them), so many are
# decoded at a time. What is decoded at a time takes 0.6 GB for one of the last kind, and less.
PARALLEL_DECODES = ((4 * 2**20, 16), (16 * 2**20, 4), (math.inf, 1))
# Images of a request, more than what `serving_config` lets a server put together.
MAX_BATCH = 64
TOP = 5
UNREADABLE = "image_bytes cannot be decoded"
TOO_MANY = "too many images in one request"


@dataclasses.dataclass(frozen=True)
class Network:
    """A classifier ready to be served.

    Attributes:
        model: images as `normalize` makes them, channels last -> [features, logits], both float32.
        preprocessing: of the model that was exported.
        class_names: one for each logit.
        is_multilabel: probabilities are independent (sigmoid) instead of one of many (softmax): the
            activation of the classifier says so, whatever the network was trained with.
        thresholds: of independent probabilities, above which each class is predicted; () for a half
            everywhere.
        calibration: of the logits, which are divided by the temperature already; None for logits
            as the model has them.
        threshold: the probability below which the answer is unknown; None without such an answer.
        tta: whether it answers with mirror images, one of `flips.TTA`.
        temperature: what the logits are divided by once those of mirror images are merged.
    """

    model: keras.Model
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    is_multilabel: bool
    thresholds: tuple[float, ...] = ()
    calibration: Calibration | None = None
    threshold: float | None = None
    tta: str = "none"
    temperature: float = 1.0

    @property
    def image_shape(self) -> tuple[int | None, ...]:
        """(height, width, 3) of the images, None where open."""
        return tuple(self.model.inputs[0].shape[1:])

    @property
    def description(self) -> Description:
        """What a file in which it is exported says of itself."""
        return Description(
            self.preprocessing,
            self.class_names,
            self.is_multilabel,
            self.thresholds,
            self.calibration,
            self.threshold,
            self.tta,
        )

    def __call__(self, pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """float32 [batch, height, width, 3], RGB values 0..255 -> (features, logits).

        The features are those of the image itself, also where its mirror image has a say in the
        logits.
        """
        images = input_pipeline.normalize(pixels, self.preprocessing)
        if self.tta == "none":
            features, logits = self.model(images, training=False)
            return tf.cast(features, tf.float32), tf.cast(logits, tf.float32)
        features, logits = self.model(beside_its_flip(images), training=False)
        features = tf.reshape(tf.cast(features, tf.float32), [-1, 2, features.shape[-1]])
        logits = merge(logits, self.tta, self.is_multilabel)
        return features[:, 0], logits if self.temperature == 1 else logits / self.temperature

    def probabilities(self, logits: tf.Tensor) -> tf.Tensor:
        """float32 [batch, classes]."""
        return tf.sigmoid(logits) if self.is_multilabel else tf.nn.softmax(logits)

    def pixel_outputs(self, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        """What an export answers to pixels: probabilities, logits and perhaps unknown."""
        probabilities = self.probabilities(logits)
        outputs = {"probabilities": probabilities, "logits": logits}
        if self.threshold is not None:
            outputs["unknown"] = tf.reduce_max(probabilities, axis=-1) < self.threshold
        return outputs


def make_network(
    model: keras.Model,
    *,
    fold: bool = True,
    precision: str = "float32",
    class_names: list[str] | None = None,
    calibrated: bool = False,
    unknown: Unknown | str | float | None = None,
    tta: str | None = None,
) -> Network:
    """Prepares a model of `create_model` for serving; see `inference_copy` for the options.

    Args:
        model: a classifier of 2-D RGB images that carries its preprocessing.
        class_names: instead of the model's own; without either, classes are named by their numbers.
        calibrated: divide the logits by the temperature of the model's calibration.
        unknown: the answer is unknown below this: see `Unknown.parse`. It needs calibrated
            probabilities, and makes them.
        tta: one of `flips.TTA`; None: as the model has it.

    Raises:
        UserError: the model is no such classifier, its activation gives no probabilities, the
            names are not one for each class, or it has no calibration and is asked for it. Or Keras
            runs on another backend than TensorFlow, which serves.
    """
    require_tensorflow()
    asked = calibrated or unknown is not None
    tta = _check_flips(model, tta, asked)
    preprocessing = check_classifier(model, "what is exported")
    copy = inference_copy(model, fold=fold, precision=precision, channels_last=True)
    head = copy.get_layer(model.layers[-1].name)
    multilabel = is_multilabel(head, model.name)
    head.activation = keras.activations.linear
    names = class_names or getattr(model, "class_names", None) or map(str, range(head.units))
    names, calibration, threshold = tuple(names), None, None
    temperature = 1.0
    if asked and tta == "flip_probabilities":  # whose mean is taken before the temperature is
        calibration = usable_calibration(model, multilabel)
        temperature, calibration = calibration.temperature, calibration.applied()
    elif asked:
        calibration = calibrate_head(head, model, multilabel)
    if unknown is not None and calibration is not None:
        threshold = Unknown.parse(unknown).threshold(calibration)
    if len(names) != head.units:
        raise UserError(f"{len(names)} class names for the {head.units} classes of {model.name}")
    return Network(
        model=ResNet(copy.inputs, [head.input, head.output], name=model.name),
        preprocessing=preprocessing,
        class_names=names,
        is_multilabel=multilabel,
        thresholds=tuple(getattr(model, "thresholds", None) or ()) if multilabel else (),
        calibration=calibration,
        threshold=threshold,
        tta=tta,
        temperature=temperature,
    )


def _check_flips(model: keras.Model, asked: str | None, calibrated: bool) -> str:
    """What of `flips.TTA` a model answers with; UserError where it cannot, or its calibration."""
    own = getattr(model, "tta", "none")
    tta = check_tta(own if asked is None else asked, model.inputs[0].shape, model.name)
    if tta == own:
        return tta
    if calibrated:
        raise UserError(
            f"tta={tta!r}: the calibration of {model.name} was fitted with tta={own!r}; leave "
            f"tta out, or fit another: keras-resnet calibrate --tta={tta}"
        )
    if getattr(model, "thresholds", None):
        warnings.warn(
            f"the thresholds of {model.name} were fitted with tta={own!r}, and it answers with "
            f"tta={tta!r}; `keras-resnet calibrate --tta={tta}` fits others",
            stacklevel=3,
        )
    return tta


def decode_batch(
    encoded: tf.Tensor, preprocessing: Preprocessing, has_webp: bool = True
) -> tuple[tf.Tensor, tf.Tensor]:
    """Evaluation preprocessing of a batch of image files, in parallel, inside the graph.

    Args:
        encoded: string [batch].
        has_webp: see `input_pipeline.decoding.decode_window`.

    Returns:
        uint8 [batch, size, size, 3] and bool [batch], false where a file cannot be decoded (its
        pixels are 0).
    """
    size = preprocessing.image_size
    count = tf.size(encoded, tf.int64)

    def measure(index, file):
        return index, file, claimed_pixels(file)

    def decode(index, file, _):
        return index, input_pipeline.evaluation_image(file, preprocessing, has_webp=has_webp)

    files = tf.data.Dataset.from_tensor_slices((tf.range(count), encoded)).map(measure)
    decoded, above = [], -1.0
    for limit, parallel in PARALLEL_DECODES:
        some = files.filter(
            lambda _, __, pixels, low=above, high=limit: (pixels > low) & (pixels <= high)
        )
        decoded.append(some.map(decode, num_parallel_calls=parallel, deterministic=True))
        above = limit
    images = functools.reduce(tf.data.Dataset.concatenate, decoded)
    # One more than there are, so that a batch in which nothing can be decoded is no special case.
    last = tf.data.Dataset.from_tensors((count, tf.zeros([size, size, 3], tf.uint8)))
    rows = images.ignore_errors().concatenate(last).batch(count + 1)
    options = tf.data.Options()
    options.autotune.enabled = False  # it starts anew with every request
    places, pixels = rows.with_options(options).get_single_element()
    # Where all were decoded, in their order, scattering would only copy.
    in_order = tf.range(tf.size(places, tf.int64)) == places
    pixels, valid = tf.cond(
        (tf.size(places, tf.int64) == count + 1) & tf.reduce_all(in_order),
        lambda: (pixels[:-1], tf.ones([count], tf.bool)),
        lambda: _scatter(places[:-1], pixels[:-1], count, size),
    )
    return tf.ensure_shape(pixels, [None, size, size, 3]), valid


def _scatter(places, pixels, count, size):
    shape = tf.stack([count, size, size, 3])
    valid = tf.scatter_nd(places[:, None], tf.ones_like(places, tf.int32), count[None])
    return tf.scatter_nd(places[:, None], pixels, shape), valid > 0


def freeze(network: Network, function: Callable | None = None) -> Callable:
    """The network with its variables as constants: pixels -> (features, logits).

    Another function of pixels in its place is frozen in the same way.

    Constants let oneDNN keep the kernels in the layout it computes in. All signatures call this
    one function, so the weights are stored once.
    """
    spec = tf.TensorSpec([None, *network.image_shape], tf.float32, name="pixels")
    call = network.__call__ if function is None else function
    concrete = tf.function(call, autograph=False).get_concrete_function(spec)
    return convert_variables_to_constants_v2(concrete)


def logits_caller(
    call: "Network | Callable", temperature: float = 1.0
) -> Callable[[np.ndarray], np.ndarray]:
    """Images -> logits as numpy, for `comparison.compare`, of a network or what `freeze` made.

    They are divided by `temperature`, where an export is to have done that.
    """
    run: Callable = call
    if isinstance(call, Network):
        spec = tf.TensorSpec([None, *call.image_shape], tf.float32)
        run = tf.function(call.__call__, input_signature=[spec], autograph=False)

    def logits(images: np.ndarray) -> np.ndarray:
        return run(tf.constant(images, tf.float32))[1].numpy() / temperature

    return logits


def make_signatures(
    network: Network,
    call: Callable,
    *,
    top: int | None = None,
    on_error: str = "fail",
    max_batch: int = MAX_BATCH,
    has_webp: bool = True,
) -> dict[str, tf.types.experimental.PolymorphicFunction]:
    """The signatures by name, each a `tf.function` with a fixed input signature.

    Args:
        call: pixels -> (features, logits): the network, or what `freeze` made of it.
        top: number of classes that `serving_default` returns, at most all; None: 5, or all of a
            network of several labels an image.
        on_error: "fail" refuses a batch with an image that cannot be decoded; "flag" answers for
            the others and says which in an output `valid`.
        max_batch: how many images a request may hold; more are refused with InvalidArgument, before
            they take memory. ResNet-50 needs about 15 MB for each at 224 pixels.
        has_webp: whether WebP files are decoded, which servers before TensorFlow 2.20 cannot.
    """
    names = tf.constant(list(map(to_bytes, network.class_names)))
    if top is None:
        top = len(network.class_names) if network.is_multilabel else TOP
    top = min(top, len(network.class_names))

    def decode(image_bytes):
        pixels, valid = decode_batch(image_bytes, network.preprocessing, has_webp)
        if on_error == "fail":
            limit = network.preprocessing.max_pixels
            pixels = _refuse_unreadable(pixels, valid, limit, has_webp)
        return tf.cast(pixels, tf.float32), valid

    def with_validity(outputs, valid):
        return outputs if on_error == "fail" else {**outputs, "valid": valid}

    def serving_default(image_bytes):
        """The `top` most probable classes of encoded images, the most probable first."""
        pixels, valid = decode(image_bytes)
        _, logits = call(pixels)
        values, ids = tf.math.top_k(network.probabilities(logits), top)
        classes = tf.gather(names, ids)
        if on_error == "flag":
            keep = valid[:, None]
            values, ids = tf.where(keep, values, 0.0), tf.where(keep, ids, -1)
            classes = tf.where(keep, classes, "")
        outputs = {"classes": classes, "class_ids": ids, "probabilities": values}
        if network.threshold is not None:
            outputs["unknown"] = unknown = (values[:, 0] < network.threshold) & valid
            outputs["answers"] = tf.where(unknown, UNKNOWN, classes[:, 0])
        return with_validity(outputs, valid)

    def features(image_bytes):
        """The pooled embedding of encoded images, what the classifier sees."""
        pixels, valid = decode(image_bytes)
        pooled, _ = call(pixels)
        if on_error == "flag":
            pooled = tf.where(valid[:, None], pooled, 0.0)
        return with_validity({"features": pooled}, valid)

    def predict_images(images):
        """All classes for RGB pixels 0..255 of the network's size; normalized inside."""
        _, logits = call(tf.cast(images, tf.float32))
        return network.pixel_outputs(logits)

    encoded = tf.TensorSpec([None], tf.string, name="image_bytes")
    shape = [None, *network.image_shape]
    floats, bytes_ = (tf.TensorSpec(shape, kind, "images") for kind in (tf.float32, tf.uint8))
    return {
        "serving_default": _function(serving_default, encoded, max_batch),
        "predict_images": _function(predict_images, floats, max_batch),
        "predict_images_uint8": _function(predict_images, bytes_, max_batch),
        "features": _function(features, encoded, max_batch),
    }


def _refuse_unreadable(
    pixels: tf.Tensor, valid: tf.Tensor, max_pixels: int, has_webp: bool
) -> tf.Tensor:
    """`pixels`, in a graph that fails with InvalidArgument where an image is not valid."""
    bad = tf.where(~valid)[:, 0]
    kinds = "GIF, BMP or WebP file" if has_webp else "GIF or BMP file (WebP: export --webp)"
    words = (
        f"{UNREADABLE}: no JPEG, PNG, {kinds}, damaged, or more than {max_pixels:,} "
        "pixels (data.max_pixels), of which some kinds of files count each several times. "
        "Positions in the batch:"
    )
    check = tf.raw_ops.Assert(condition=tf.reduce_all(valid), data=[words, bad], summarize=16)
    with tf.control_dependencies([check]):
        return tf.identity(pixels)


def _function(
    function: Callable, spec: tf.TensorSpec, max_batch: int
) -> tf.types.experimental.PolymorphicFunction:
    # The runtime feeds what a request holds, whatever the signature says. A wrong rank ends the
    # process in oneDNN's kernels, and so do activations for which there is no memory. This refuses
    # both as InvalidArgument, naming both shapes or numbers.
    @functools.wraps(function)
    def checked(inputs):
        inputs = tf.ensure_shape(inputs, spec.shape)
        count = tf.shape(inputs)[0]
        few = tf.raw_ops.Assert(
            condition=count <= max_batch,
            data=[
                f"{TOO_MANY}: this export takes up to {max_batch} (--max-batch); received",
                count,
            ],
        )
        with tf.control_dependencies([few]):
            return function(tf.identity(inputs))

    return tf.function(checked, input_signature=[spec], autograph=False)
