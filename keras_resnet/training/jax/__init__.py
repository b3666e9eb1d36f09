"""The JAX engine: one jitted step over a mesh of all devices of all processes."""

from keras_resnet.training.jax.engine import JaxEngine

__all__ = ["JaxEngine"]
