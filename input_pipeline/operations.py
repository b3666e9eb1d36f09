"""Functions that are a single operation of the graphs that they are called in."""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf


def not_inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as a single operation of a graph, where a graph is built.

    For the rarely taken branch of a condition: the branch not taken is passed over operation by
    operation, and the hundreds of the other formats cost 5 % of decoding a photo (measured). A
    function of a module is also traced once, and TensorFlow rewrites it once, however many graphs
    call it.
    """
    operation = tf.function(function, autograph=False, experimental_attributes={"_noinline": True})

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return (function if tf.executing_eagerly() else operation)(*arguments)

    return call
