"""Each optimizer of Keras against Keras' own on the JAX backend, as a program.

A line of JSON for each: its name, and how far its weights are from those of Keras' own.
"""

import json
import os

import numpy as np

STEPS = 5
ARGUMENTS = {"Muon": {"adam_weight_decay": 0.05}}


def network():
    import keras

    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((2, 2, 3))
    x = keras.layers.Conv2D(3, 1, name="stem_conv")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(4, name="predictions")(x))


def trained(optimizer, variables):
    """The values of `variables` after STEPS with random gradients."""
    values, slots = (
        [variable.value for variable in group] for group in (variables, optimizer.variables)
    )
    random = np.random.default_rng(0)
    for _ in range(STEPS):
        gradients = [random.normal(size=value.shape).astype("float32") for value in values]
        values, slots = optimizer.stateless_apply(slots, gradients, values)
    return values


def main():
    import keras

    from keras_resnet.config import default_config
    from keras_resnet.config.keras_optimizers import keras_optimizers
    from keras_resnet.training import optimizers

    for name in keras_optimizers():
        config = default_config()
        config.optimizer.update({"name": name, "weight_decay": 0.05})
        model = network()
        optimizer = optimizers.make_optimizer(config, 0.1, model)
        ours = trained(optimizer, model.trainable_variables)
        arguments = ARGUMENTS.get(name, {})
        theirs = getattr(keras.optimizers, name)(0.1, weight_decay=0.05, **arguments)
        variables = network().trainable_variables
        theirs.exclude_from_weight_decay([v for v in variables if v.name != "kernel"])
        theirs.build(variables)
        wanted = trained(theirs, variables)
        far = max(float(np.abs(a - b).max()) for a, b in zip(ours, wanted, strict=True))
        print("result " + json.dumps([name, far]), flush=True)


if __name__ == "__main__":
    os.environ["KERAS_BACKEND"] = "jax"
    main()
