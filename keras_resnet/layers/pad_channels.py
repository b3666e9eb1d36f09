"""The parameter-free shortcut of the CIFAR ResNets: subsample, then add zero channels."""

import keras
import numpy as np
from keras import ops

from keras_resnet.axes import PerAxis, frozen, per_axis

PLACEMENTS = ("behind", "centered", "pooled")
STORED_PLACEMENT = "placement"  # the key of an index of PLACEMENTS in files; absent: "behind"


@keras.saving.register_keras_serializable(package="keras_resnet")
class PadChannels(keras.layers.Layer):
    """Subsample space by `stride` and add zero channels until there are `filters`.

    This is shortcut option A of He et al., "Deep Residual Learning for Image Recognition"
    (2015), section 3.3. The paper does not say where the zeros go; the authors' Torch training
    code (facebookarchive/fb.resnet.torch, `models/resnet.lua`, shortcut type "A") concatenates
    them after the input's channels, and so does this layer unless told otherwise. Many PyTorch
    ports put half of the zeros in front. That is as good a network to train, but trained weights
    only work with the placement that they were trained with, and nothing in them tells which.

    With `stride=1` and as many filters as input channels it is the identity.

    Input and output: a float tensor of rank 3, 4 or 5, `(batch, *space, channels)` or, for
    `data_format="channels_first"`, `(batch, channels, *space)`. Each spatial size n becomes
    ceil(n / stride), the size a strided 1×1 convolution gives; the dtype stays.

    Args:
        filters: number of output channels, at least that of the input.
        stride: positive integer, or one for each spatial axis; position 0 is kept.
        placement: "behind" has all zeros after the input's channels; "centered" half of them in
            front (rounded down) and the rest behind; "pooled" as "centered", after the mean over
            windows of `stride` positions instead of one position of each (a window that reaches
            over the border averages what is inside).
        data_format: "channels_last" or "channels_first"; `None` takes
            `keras.config.image_data_format()`.

    Raises:
        ValueError: for a `filters` or `stride` that is no positive integer, an unknown
            `placement`, an input of another rank, or one with an unknown or larger number of
            channels.
    """

    def __init__(
        self,
        filters: int,
        stride: PerAxis = 1,
        data_format: str | None = None,
        placement: str = "behind",
        **kwargs,
    ):
        super().__init__(**kwargs)
        stride = frozen(stride)
        for argument, value in (("filters", filters), *(("stride", s) for s in _numbers(stride))):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"PadChannels needs a positive integer as `{argument}`, received {value!r}."
                )
        data_format = data_format or keras.config.image_data_format()
        if data_format not in ("channels_last", "channels_first"):
            raise ValueError(
                "PadChannels knows the data formats 'channels_last' and 'channels_first', "
                f"received {data_format!r}."
            )
        if placement not in PLACEMENTS:
            raise ValueError(
                f"PadChannels knows the placements {', '.join(map(repr, PLACEMENTS))}, received "
                f"{placement!r}."
            )
        self.filters = filters
        self.stride = stride
        self.data_format = data_format
        self.placement = placement
        self.built = True

    def _channel_axis(self, input_shape) -> int:
        """Axis of the channels in `input_shape`, once the shape is found acceptable."""
        if len(input_shape) not in (3, 4, 5):
            raise ValueError(
                "PadChannels takes inputs of rank 3, 4 or 5 (1, 2 or 3 spatial axes), "
                f"received the shape {tuple(input_shape)}."
            )
        axis = len(input_shape) - 1 if self.data_format == "channels_last" else 1
        if input_shape[axis] is None or input_shape[axis] > self.filters:
            raise ValueError(
                f"PadChannels(filters={self.filters}, data_format={self.data_format!r}) only adds "
                f"channels: it takes 1 to {self.filters} of them on axis {axis}, received the "
                f"shape {tuple(input_shape)}."
            )
        return axis

    def call(self, inputs):
        axis = self._channel_axis(inputs.shape)
        if max(_numbers(self.stride)) > 1:
            inputs = self._subsample(inputs, axis)
        zeros = self.filters - inputs.shape[axis]
        if not zeros:
            return inputs
        before = 0 if self.placement == "behind" else zeros // 2
        sides = (before, zeros - before)
        return ops.pad(inputs, [sides if i == axis else (0, 0) for i in range(len(inputs.shape))])

    def _strides(self, shape, axis: int) -> list[int]:
        """The stride along each axis of an input, its channels at `axis`."""
        strides = list(per_axis(self.stride, len(shape) - 2, "stride"))
        strides.insert(axis - 1, 1)
        return [1, *strides]

    def _subsample(self, inputs, axis: int):
        strides = self._strides(inputs.shape, axis)
        if self.placement == "pooled":
            window = tuple(strides[i] for i in range(1, len(strides)) if i != axis)
            return ops.average_pool(inputs, window, window, "same", self.data_format)
        return inputs[tuple(slice(None, None, s) if s > 1 else slice(None) for s in strides)]

    def compute_output_shape(self, input_shape):
        axis = self._channel_axis(input_shape)
        strides = self._strides(input_shape, axis)
        shape = [
            size if size is None else -(-size // stride)
            for size, stride in zip(input_shape, strides, strict=True)
        ]
        shape[axis] = self.filters
        return tuple(shape)

    # No variable tells the placements apart: files of weights alone say it beside them.

    def save_own_variables(self, store):
        if self.placement != "behind":
            store[STORED_PLACEMENT] = np.array(PLACEMENTS.index(self.placement), "int32")

    def load_own_variables(self, store):
        stored = STORED_PLACEMENT in store.keys()  # noqa: SIM118  has no __contains__
        placement = PLACEMENTS[int(np.array(store[STORED_PLACEMENT]))] if stored else "behind"
        if placement != self.placement:
            raise ValueError(
                f"{self.name!r} places its zeros {self.placement!r}, the file is of one that "
                f"places them {placement!r}."
            )

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "stride": self.stride,
            "data_format": self.data_format,
            "placement": self.placement,
        }


def _numbers(stride) -> tuple:
    return stride if isinstance(stride, tuple) else (stride,)
