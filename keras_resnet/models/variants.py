"""A function for each row of the table, with the signature Keras users know."""

import inspect
from collections.abc import Callable

from keras_resnet.architectures import ARCHITECTURES, Architecture
from keras_resnet.models.builder import create_model
from keras_resnet.models.resnet import ResNet

# The order of keras.applications' positional arguments.
POSITIONAL = (
    "include_top",
    "weights",
    "input_tensor",
    "input_shape",
    "pooling",
    "classes",
    "classifier_activation",
)


def _constructor(row: Architecture) -> Callable[..., ResNet]:
    def construct(*args, name=None, **kwargs):
        if len(args) > len(POSITIONAL):
            raise TypeError(
                f"{row.name} takes at most {len(POSITIONAL)} positional arguments "
                f"({', '.join(POSITIONAL)}), received {len(args)}."
            )
        for key, value in zip(POSITIONAL, args, strict=False):
            if key in kwargs:
                raise TypeError(f"{row.name} got {key!r} twice, by position and by name.")
            kwargs[key] = value
        return create_model(row.name, model_name=name, **kwargs)

    construct.__name__ = construct.__qualname__ = row.name
    construct.__module__ = "keras_resnet.models"
    construct.__doc__ = (
        f"{row.name}: {row.source}.\n\n"
        "The arguments are those of keras.applications, with `name` for the model's name, and "
        "those of `keras_resnet.create_model`."
    )
    construct.__signature__ = _signature()
    return construct


def _signature() -> inspect.Signature:
    known = inspect.signature(create_model).parameters
    positional = [
        known[key].replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD) for key in POSITIONAL
    ]
    name = known["model_name"].replace(name="name")
    rest = [p for key, p in known.items() if key not in ("name", "model_name", *POSITIONAL)]
    return inspect.Signature([*positional, name, *rest], return_annotation=ResNet)


VARIANTS: dict[str, Callable[..., ResNet]] = {
    name: _constructor(row) for name, row in ARCHITECTURES.items()
}
