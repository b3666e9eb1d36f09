"""The model class: a functional Keras model that carries its preprocessing and class names."""

import contextlib
import copy
import os
import sys
import types
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

import keras

from keras_resnet import fused
from keras_resnet.calibration import Calibration, CalibrationError
from keras_resnet.errors import UserError
from keras_resnet.flips import check_tta
from keras_resnet.layers import keras_internals
from keras_resnet.models import rematerialization as remat
from keras_resnet.models.weight_files import describing
from keras_resnet.preprocessing import Preprocessing


@keras.saving.register_keras_serializable(package="keras_resnet")
class ResNet(keras.Model):
    """A functional Keras model that knows how its input is prepared and what its classes are.

    Made by `keras_resnet.create_model`; everything that works on a functional model works on it
    (`get_layer(name).output`, `clone_model`, saving, quantization).

    Args:
        inputs: Keras tensor(s), as for `keras.Model`.
        outputs: Keras tensor(s), as for `keras.Model`.
        name: name of the model.
        **kwargs: `preprocessing` (a `Preprocessing`, a dict of its fields, or None); `class_names`
            (list of str or None); `thresholds` (list of float or None); `rematerialize` (bool):
            recompute each residual block in the backward pass instead of keeping its activations;
            `architecture` (what `keras_resnet.architectures.description.describe` gives, or None):
            which network of the table it is; `calibration` (a `Calibration`, what its `to_dict`
            gives, or None); `tta` (see the property); and `trainable`, as for `keras.Model`.
    """

    # Replaced as a whole, never changed in place.
    _metadata: Mapping[str, Any] = types.MappingProxyType({})

    def __init__(self, *args: Any, **kwargs: Any):
        # The one signature that Keras 3.10 to 3.15 all take for a functional model's: they compare
        # it with that of their own class, which is hidden by a decorator up to 3.14.
        inputs, outputs, name, kwargs = _bind(*args, **kwargs)
        metadata = _metadata_of(outputs)
        preprocessing = kwargs.pop("preprocessing", metadata.get("preprocessing"))
        class_names = kwargs.pop("class_names", metadata.get("class_names"))
        thresholds = kwargs.pop("thresholds", metadata.get("thresholds"))
        rematerialize = kwargs.pop("rematerialize", metadata.get("rematerialize", False))
        architecture = kwargs.pop("architecture", metadata.get("architecture"))
        calibration = kwargs.pop("calibration", metadata.get("calibration"))
        tta = kwargs.pop("tta", metadata.get("tta", "none"))
        with _deep_recursion():
            super().__init__(inputs, outputs, name=name, **kwargs)
        self.preprocessing = preprocessing
        self.class_names = class_names
        self.thresholds = thresholds
        self.rematerialize = rematerialize
        self._set_metadata("architecture", architecture)
        self.calibration = calibration
        self.tta = tta

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How an image becomes an input, None if unknown. A dict can be set, too.

        Raises:
            PreprocessingError: when it is set to something that cannot be used.
        """
        return self._metadata.get("preprocessing")

    @preprocessing.setter
    def preprocessing(self, value: Mapping[str, Any] | None) -> None:
        self._set_metadata(
            "preprocessing", None if value is None else Preprocessing.from_dict(value)
        )

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes, in the order of the outputs; None if unknown.

        Raises:
            ValueError: when it is set to other than one name for each output of the classifier.
        """
        return copy.copy(self._metadata.get("class_names"))

    @class_names.setter
    def class_names(self, value: Sequence[Any] | None) -> None:
        if not isinstance(value, (Iterable, types.NoneType)) or isinstance(
            value, (str, bytes, Mapping, Set)
        ):
            raise ValueError(f"`class_names` is a list of names, received {value!r}.")
        names = None if value is None else [str(name) for name in value]
        outputs = self._classes()
        if names is not None and outputs not in (None, len(names)):
            raise ValueError(
                f"`class_names` needs {outputs} names, one for each output of {self.name!r}; "
                f"received {len(names)}: {', '.join(names[:5])}{', ...' if names[5:] else ''}."
            )
        self._set_metadata("class_names", names)

    @property
    def thresholds(self) -> list[float] | None:
        """Of several labels an image, the probability above which each class is predicted.

        One for each output, None for a half everywhere. They say something of a classifier whose
        activation is sigmoid only.

        Raises:
            ValueError: when it is set to other than one number in 0..1 for each output.
        """
        return copy.copy(self._metadata.get("thresholds"))

    @thresholds.setter
    def thresholds(self, value: Sequence[float] | None) -> None:
        numbers = None if value is None else [float(number) for number in value]
        outputs = self._classes()
        if numbers is not None and outputs not in (None, len(numbers)):
            raise ValueError(
                f"`thresholds` needs {outputs} numbers, one for each output of {self.name!r}; "
                f"received {len(numbers)}."
            )
        if numbers is not None and not all(0 <= number <= 1 for number in numbers):
            raise ValueError(f"`thresholds` are in 0..1; received {numbers!r}.")
        if numbers is not None or "thresholds" in self._metadata:
            self._set_metadata("thresholds", numbers)

    def _classes(self) -> int | None:
        """Outputs of the classifier; None where the model does not end in one."""
        outputs = keras.tree.flatten(self.outputs)
        if len(outputs) != 1 or self.layers[-1].name != "predictions":
            return None
        return outputs[0].shape[-1]

    @property
    def rematerialize(self) -> bool:
        """Whether training recomputes each block instead of keeping its activations."""
        return self._metadata.get("rematerialize", False)

    @rematerialize.setter
    def rematerialize(self, value: bool) -> None:
        self._set_metadata("rematerialize", bool(value))

    @property
    def training_form(self) -> fused.Form | None:
        """How the training call runs (`keras_resnet.fused`); None as the graph says.

        A way to run, which is set by what trains: it is no part of the configuration, is not saved,
        and copies do not have it.
        """
        return fused.form_now(self, self.__dict__.get("_training_form"))

    @training_form.setter
    def training_form(self, form: fused.Form | None) -> None:
        object.__setattr__(self, "_training_form", form)

    @property
    def architecture(self) -> dict[str, Any] | None:
        """The table's name of the network, and what differs from that row; None if unknown."""
        return copy.deepcopy(self._metadata.get("architecture"))

    @property
    def calibration(self) -> Calibration | None:
        """What divides the logits to give probabilities that can be believed; None if unknown.

        It belongs to the weights that it was fitted with: training on, or other weights, make it
        worthless. What `Calibration.to_dict` gives can be set, too.

        Raises:
            CalibrationError: when it is set to something that cannot be used.
        """
        return self._metadata.get("calibration")

    @calibration.setter
    def calibration(self, value: Calibration | Mapping[str, Any] | None) -> None:
        if not (value is None or isinstance(value, Calibration)):
            value = Calibration.from_dict(value)
        self._set_metadata("calibration", value)

    @property
    def tta(self) -> str:
        """Whether predictions, evaluations and exports answer with mirror images (`flips.TTA`).

        "none", or "flip" and "flip_probabilities" for the mean of both logits or probabilities.
        What calls the model gets the answer to the image alone. Calibration and thresholds belong
        to answers of this kind.

        Raises:
            UserError: when it is set to something else, or the model is 1-D.
        """
        return self._metadata.get("tta", "none")

    @tta.setter
    def tta(self, value: str) -> None:
        check_tta(value, tuple(keras.tree.flatten(self.inputs)[0].shape), self.name)
        if value != "none" or "tta" in self._metadata:
            self._set_metadata("tta", value)

    def _set_metadata(self, key: str, value: Any) -> None:
        # Out of Keras' attribute tracking, which would wrap dicts and lists of its own.
        object.__setattr__(self, "_metadata", {**self._metadata, key: value})

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), **copy.deepcopy(dict(self._metadata))}
        if self.preprocessing is not None:
            config["preprocessing"] = self.preprocessing.to_dict()
        # Not even a null where there is none, which older versions of this package do not know.
        calibration = config.pop("calibration", None)
        if config.get("tta") == "none":
            del config["tta"]
        return config if calibration is None else {**config, "calibration": calibration.to_dict()}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "ResNet":
        preprocessing = Preprocessing.from_metadata(
            config.get("preprocessing"), origin=f"The model {config.get('name')!r}"
        )
        names, calibration = config.get("class_names"), config.get("calibration")
        config = {**config, "preprocessing": preprocessing, "class_names": None}
        config.pop("calibration", None)
        tta = config.pop("tta", "none")
        model = super().from_config(config, custom_objects)
        try:
            model.class_names = names
        except ValueError as error:  # older versions stored any
            warnings.warn(f"{model.name} comes without class names: {error}", stacklevel=2)
        try:
            model.calibration = calibration
        except CalibrationError as error:
            warnings.warn(f"{model.name} comes without calibration: {error}", stacklevel=2)
        try:
            model.tta = tta
        except UserError as error:
            warnings.warn(f"{model.name} comes without test-time flips: {error}", stacklevel=2)
        return model

    def save_weights(self, filepath: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """As `keras.Model` does; a `.weights.h5` file says which network it is of as well."""
        with describing(filepath, self.get_config()):
            super().save_weights(filepath, *args, **kwargs)

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None, **kwargs: Any
    ) -> Any:
        form = self.training_form
        if not training or not (self.rematerialize or form):
            return super().call(inputs, training=training, mask=mask, **kwargs)
        tensors = keras_internals.standardized_inputs(self, inputs)
        values = dict(zip(map(id, self.inputs), tensors, strict=True))
        nodes: list[Any] = list(keras_internals.nodes_in_running_order(self))
        if form is not None:
            nodes = fused.fused_nodes(nodes, self.outputs, form)
        if self.rematerialize:
            remat.run_segments(remat.plan_segments(nodes, self.outputs), values, training)
        else:
            fused.run_nodes(nodes, values, training)
        outputs = [values[id(tensor)] for tensor in self.outputs]
        return keras.tree.pack_sequence_as(self.output, outputs)

    def _run_through_graph(self, inputs, *args, **kwargs):  # one of OVERRIDDEN_BY_MODELS
        outputs = super()._run_through_graph(inputs, *args, **kwargs)
        for tensor in keras.tree.flatten(outputs):
            if keras.backend.is_keras_tensor(tensor):
                # `keras.models.clone_model` makes the copy from tensors alone.
                tensor._keras_resnet_metadata = self._metadata
        return outputs


# Keras' old format, of files that end in .h5, keeps a class by its bare name.
keras.saving.get_custom_objects().setdefault("ResNet", ResNet)


def _bind(inputs, outputs, name=None, **kwargs):
    return inputs, outputs, name, kwargs


@contextlib.contextmanager
def _deep_recursion(limit: int = 20_000) -> Iterator[None]:
    """Keras walks a new graph recursively, one call a layer: 1001 layers need thousands."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, limit))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def _metadata_of(outputs) -> Mapping[str, Any]:
    for tensor in keras.tree.flatten(outputs):
        if hasattr(tensor, "_keras_resnet_metadata"):
            return tensor._keras_resnet_metadata
    return {}
