"""Residual blocks and stems as functions on Keras tensors, for 1-D, 2-D and 3-D networks."""

from keras_resnet.blocks.common import conv_norm_act, norm_act
from keras_resnet.blocks.postactivation import basic_block, bottleneck_block
from keras_resnet.blocks.preactivation import preact_basic_block, preact_bottleneck_block
from keras_resnet.blocks.stems import STEMS, stem

__all__ = [
    "STEMS",
    "basic_block",
    "bottleneck_block",
    "conv_norm_act",
    "norm_act",
    "preact_basic_block",
    "preact_bottleneck_block",
    "stem",
]
