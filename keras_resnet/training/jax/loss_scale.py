"""The update in float16, whose loss is scaled so that small gradients do not become 0.

What Keras' `LossScaleOptimizer` does (Micikevicius et al. 2018, section 3.2), as a function of
arrays: its own has branches with side effects, which a traced step cannot have.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def update_scaled(
    optimizer: Any, apply: Callable, state: Any, gradients: list, rate: list
) -> tuple[list, list]:
    """Updates unless a gradient is infinite or NaN, and finds the next scale.

    Args:
        optimizer: a built LossScaleOptimizer.
        apply: (optimizer, its values, weights, gradients, rate) -> weights, values; for the inner
            one.
        state: has `trained` and `optimizer`, the values of `optimizer.variables`.
        gradients: of the scaled loss.
        rate: handed to `apply`.

    Returns:
        Weights and values of `optimizer.variables`.
    """
    values = dict(zip(map(id, optimizer.variables), state.optimizer, strict=True))
    scale, counter = values[id(optimizer.dynamic_scale)], values[id(optimizer.step_counter)]
    inner = optimizer.inner_optimizer
    inner_values = [values[id(variable)] for variable in inner.variables]
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(gradient)) for gradient in gradients]))
    unscaled = [gradient / scale.astype(gradient.dtype) for gradient in gradients]
    trained, after = apply(inner, inner_values, state.trained, unscaled, rate)
    # where(), as the other branch's numbers are no numbers.
    trained, after = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old),
        (trained, after),
        (state.trained, inner_values),
    )
    grows = counter == optimizer.dynamic_growth_steps - 1
    next_scale = jnp.where(finite, jnp.where(grows, scale * 2.0, scale), scale * 0.5)
    next_counter = jnp.where(finite & ~grows, counter + 1, 0)
    values |= dict(zip(map(id, inner.variables), after, strict=True))
    values[id(optimizer.dynamic_scale)] = next_scale
    values[id(optimizer.step_counter)] = next_counter.astype(counter.dtype)
    return trained, [values[id(variable)] for variable in optimizer.variables]
