"""Keras layers of the residual-network family, serialized under the package `keras_resnet`."""

from keras_resnet.layers.batch_normalization import BatchNormalization
from keras_resnet.layers.blur_pool import BlurPool
from keras_resnet.layers.group_normalization import GroupNormalization
from keras_resnet.layers.moving_statistics import (
    average_moving_statistics,
    defer_moving_statistics,
)
from keras_resnet.layers.normalize_images import NormalizeImages
from keras_resnet.layers.pad_channels import PadChannels
from keras_resnet.layers.padded_max_pool import (
    PaddedMaxPool,
    compiled_for_tpu,
    is_compiled_for_tpu,
)
from keras_resnet.layers.replicas import current_replica_axis, replica_axis
from keras_resnet.layers.standardized_conv import (
    StandardizedConv1D,
    StandardizedConv2D,
    StandardizedConv3D,
)
from keras_resnet.layers.stochastic_depth import StochasticDepth
from keras_resnet.layers.subsampling_conv import SubsamplingConv1D, SubsamplingConv2D

__all__ = [
    "BatchNormalization",
    "BlurPool",
    "GroupNormalization",
    "NormalizeImages",
    "PadChannels",
    "PaddedMaxPool",
    "StandardizedConv1D",
    "StandardizedConv2D",
    "StandardizedConv3D",
    "StochasticDepth",
    "SubsamplingConv1D",
    "SubsamplingConv2D",
    "average_moving_statistics",
    "compiled_for_tpu",
    "current_replica_axis",
    "defer_moving_statistics",
    "is_compiled_for_tpu",
    "replica_axis",
]
