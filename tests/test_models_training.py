"""Blocks and models in `compile` and `fit`; recomputed blocks train as kept ones do."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from model_helpers import images, randomize, run, small

from keras_resnet import blocks
from keras_resnet.models import create_model


def trained(model, inputs, targets, loss, epochs):
    model.compile(keras.optimizers.Adam(0.01), loss)
    history = model.fit(inputs, targets, batch_size=16, epochs=epochs, verbose=0)
    return history.history["loss"]


def test_audio_like_classifier_of_blocks():
    """Two tones in noise, 1-D: a stem and two blocks in a functional model of one's own."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    labels = np.arange(64) % 2
    time = np.arange(128)
    waves = np.sin(time * np.where(labels == 0, 0.2, 0.7)[:, None] + rng.uniform(0, 6, (64, 1)))
    sounds = (waves + 0.3 * rng.normal(size=waves.shape))[..., None].astype("float32")

    inputs = keras.Input((128, 1))
    x = blocks.stem(inputs, 8)
    x = blocks.basic_block(x, 8, name="block1")
    x = blocks.bottleneck_block(x, 4, stride=2, se_ratio=0.25, name="block2")
    outputs = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling1D()(x))
    model = keras.Model(inputs, outputs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    losses = trained(model, sounds, labels, loss, epochs=12)
    assert losses[-1] < 0.2 * losses[0]
    assert (run(model, sounds).argmax(-1) == labels).mean() > 0.95


def test_u_net_like_decoder_of_blocks():
    """Draw the bright square's mask, 2-D: an encoder of ours, a decoder of blocks."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    masks = np.zeros((32, 16, 16, 1), "float32")
    for mask in masks:
        top, left = rng.integers(0, 10, 2)
        mask[top : top + 6, left : left + 6] = 1
    pictures = masks + 0.3 * rng.normal(size=masks.shape).astype("float32")

    encoder = create_model(
        "CifarResNet20",
        depths=(1, 1),
        widths=(8, 16),
        stem_width=8,
        input_shape=(16, 16, 1),
        include_top=False,
    )
    fine = encoder.get_layer("stage1_block1_out").output
    x = keras.layers.UpSampling2D(2)(encoder.output)
    x = keras.layers.Concatenate()([x, fine])
    x = blocks.preact_basic_block(x, 8, name="decoder1")
    x = blocks.norm_act(x, name="decoder1_end")
    model = keras.Model(encoder.input, keras.layers.Conv2D(1, 1)(x))
    losses = trained(model, pictures, masks, keras.losses.BinaryCrossentropy(from_logits=True), 12)
    assert losses[-1] < 0.3 * losses[0]


CASES = {
    "post-activation": ("CifarResNet20", {"drop_path_rate": 0.5}),
    "pre-activation": ("CifarResNet164V2", {"block_dropout_rate": 0.3, "se_ratio": 0.25}),
    "mixed": ("CifarResNet20", {"dtype": "mixed_bfloat16"}),
}


@pytest.mark.ci
@pytest.mark.parametrize("case", CASES)
def test_rematerialized_training_is_the_same_training(case):
    """Same losses, gradients, random draws and moving statistics, updated once a step."""
    name, kwargs = CASES[case]
    x = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")
    y = np.arange(16) % 5
    results = []
    for rematerialize in (False, True):
        keras.utils.set_random_seed(1)
        model = randomize(small(name, rematerialize=rematerialize, **kwargs))
        model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy")
        history = model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        results.append((history.history["loss"], model.get_weights()))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-4)
    for kept, recomputed in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_allclose(recomputed, kept, rtol=2e-3, atol=2e-4)


def test_rematerialized_models_have_the_same_layers_and_inference():
    kept, recomputed = small("ResNet18D"), small("ResNet18D", rematerialize=True)
    assert [la.name for la in kept.layers[1:]] == [la.name for la in recomputed.layers[1:]]
    randomize(kept)
    recomputed.set_weights(kept.get_weights())
    x = images(kept)
    np.testing.assert_array_equal(run(recomputed, x), run(kept, x))
    recomputed.rematerialize = False
    assert recomputed.get_config()["rematerialize"] is False


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.distribute")
@pytest.mark.ci
def test_rematerialize_under_a_strategy():
    import tensorflow as tf
    from conftest import mirrored_strategy

    mirrored = mirrored_strategy(2)

    def weights_after_a_step(rematerialize):
        with mirrored.scope():
            model = small("CifarResNet20", rematerialize=rematerialize)
            optimizer = keras.optimizers.SGD(0.1)
            optimizer.build(model.trainable_variables)
        randomize(model)
        x = tf.constant(images(model, batch=8))

        @tf.function
        def step():
            def replica_step():
                with tf.GradientTape() as tape:
                    loss = tf.reduce_mean(model(x, training=True)[:, 0])
                gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
                optimizer.apply(gradients, model.trainable_variables)

            mirrored.run(replica_step)

        step()
        return model.get_weights()

    for kept, recomputed in zip(
        weights_after_a_step(False), weights_after_a_step(True), strict=True
    ):
        np.testing.assert_allclose(recomputed, kept, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["CifarResNet1001V2", "CifarResNet1202"])
def test_a_thousand_layers_take_a_training_step(name):
    model = create_model(name, rematerialize=True)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    assert np.isfinite(model.train_on_batch(images(model), np.arange(2)))


@pytest.mark.ci
def test_the_code_in_the_documentation_runs():
    page = (Path(__file__).parent.parent / "docs/blocks.md").read_text()
    names = {}
    for code in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(code, names)
    assert names["same"].count_params() == names["model"].count_params()
    losses = names["unet"].train_on_batch(np.zeros((2, 32, 32, 3)), np.zeros((2, 32, 32, 1)))
    assert np.isfinite(losses)
    assert list(names["retina"].output) == ["P3", "P4", "P5", "P6", "P7"]
