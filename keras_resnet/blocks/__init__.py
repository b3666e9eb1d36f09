"""Residual blocks and stems as functions on Keras tensors, for 1-D, 2-D and 3-D networks."""

from keras_resnet.blocks.common import conv_norm_act, norm_act
from keras_resnet.blocks.normalization import NORM_LAYERS
from keras_resnet.blocks.residual import (
    BLOCKS,
    PREACT_BLOCKS,
    basic_block,
    bottleneck_block,
    preact_basic_block,
    preact_bottleneck_block,
)
from keras_resnet.blocks.stems import STEMS, stem

__all__ = [
    "BLOCKS",
    "NORM_LAYERS",
    "PREACT_BLOCKS",
    "STEMS",
    "basic_block",
    "bottleneck_block",
    "conv_norm_act",
    "norm_act",
    "preact_basic_block",
    "preact_bottleneck_block",
    "stem",
]
