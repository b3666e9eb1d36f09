"""The JAX engine: one jitted step over a mesh of all devices of all processes."""

from typing import TYPE_CHECKING

from keras_resnet.lazy import lazy_names

if TYPE_CHECKING:
    from keras_resnet.training.jax.engine import JaxEngine as JaxEngine
else:
    # Preflight compiles the step where TensorFlow, which reads images, must not be loaded.
    __getattr__, __dir__, __all__ = lazy_names(__name__, {"engine": ["JaxEngine"]})
