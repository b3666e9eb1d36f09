"""Mixing, repeats, and whole batches as a function of (seed, step)."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import mirrored_strategy
from input_helpers import NumberedSource, images_of, labels_of
from scipy import stats

from keras_resnet.config import default_config
from keras_resnet.input_pipeline import DataError, train_batches
from keras_resnet.input_pipeline.augment.mixing import mix_numbers
from keras_resnet.training.metrics import averages
from keras_resnet.training.mixing import major_labels, mix_images, mix_targets, neighbors
from keras_resnet.training.tensorflow.step import Steps
from keras_resnet.training.tensorflow.strategy import make_strategy

EVERYTHING = {
    "random_resized_crop": True,
    "flip": True,
    "policy": "rand-m9-mstd0.5-n1-p1",
    "color_jitter": (0.4, 0.4, 0.4, 0.1),
    "random_erasing": 0.5,
    "mixup": 0.3,
    "cutmix": 1.0,
    "repeats": 2,
}


def batches(source, **changes):
    arguments = {"batch_size": 8, "seed": 3, "num_steps": 6, "image_size": 12}
    return train_batches(source, **{**arguments, "augment": EVERYTHING, **changes})


@pytest.fixture(scope="module")
def source():
    return NumberedSource(21, size=16)


@pytest.fixture(scope="module")
def whole(source):
    """The batches of a run that is not interrupted, on one host. Building takes seconds."""
    return list(batches(source).as_numpy_iterator())


@pytest.mark.ci
def test_batches_do_not_depend_on_threads_and_resuming(source, whole):
    assert len({batch["image"].tobytes() for batch in whole}) == 6
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    resumed = batches(source, start_step=2).with_options(options).as_numpy_iterator()
    for batch, expected in zip(resumed, whole[2:], strict=True):
        assert batch["mix"].shape == (8, 6)
        for key in expected:
            np.testing.assert_array_equal(batch[key], expected[key])


@pytest.mark.ci
def test_batches_do_not_depend_on_hosts(source, whole):
    hosts = [
        list(batches(source, shard_index=host, num_shards=2).as_numpy_iterator())
        for host in range(2)
    ]
    for step, batch in enumerate(whole):
        for key, expected in batch.items():
            union = np.concatenate([host[step][key] for host in hosts])
            np.testing.assert_array_equal(union, expected)


def test_batches_depend_on_the_seed(source, whole):
    other = next(batches(source, seed=4).as_numpy_iterator())
    assert (other["image"] != whole[0]["image"]).any()
    assert (other["mix"] != whole[0]["mix"]).any()


def test_one_augmentation_leaves_the_numbers_of_the_others():
    source = NumberedSource(10)
    plain = images_of(batches(source, augment={"flip": True}))
    mixed = images_of(batches(source, augment={"flip": True, "mixup": 1.0}))
    np.testing.assert_array_equal(plain, mixed)  # mixing happens later


@pytest.mark.parametrize("repeats", [2, 3])
def test_repeats_see_every_example_that_often(repeats):
    """In `repeats` epochs of num_examples images each example comes `repeats` times."""
    size, batch_size = 30, 6
    source = NumberedSource(size)
    steps = repeats * size // batch_size
    augment = {"repeats": repeats, "crop_padding": 3}
    dataset = batches(source, batch_size=batch_size, num_steps=2 * steps, augment=augment)
    elements = list(dataset.as_numpy_iterator())
    labels = np.stack([element["label"] for element in elements])
    for run in (labels[:steps], labels[steps:]):
        np.testing.assert_array_equal(np.bincount(run.ravel(), minlength=size), repeats)
    distinct = batch_size // repeats
    for copy in range(repeats):
        part = labels[:, copy * distinct : (copy + 1) * distinct]
        np.testing.assert_array_equal(part, labels[:, :distinct])
    differ = [(element["image"][0] != element["image"][distinct]).any() for element in elements]
    assert np.mean(differ) > 0.8  # 48 of 49 expected


def test_wrong_batch_sizes():
    source = NumberedSource(12)
    with pytest.raises(
        DataError, match=r"with repeats=3 on 2 hosts it must be a multiple of 6.*12"
    ):
        batches(source, batch_size=8, num_shards=2, augment={"repeats": 3})
    with pytest.raises(DataError, match=r"pairs of images, but 3 of a batch .* even, such as 4"):
        batches(source, batch_size=6, num_shards=2, augment={"mixup": 0.2})


def numbers(augment, count, image_size=20):
    augment = {"mix_probability": 1.0, **augment}
    draw = tf.function(
        lambda steps: tf.map_fn(
            lambda step: mix_numbers(augment, seed=1, step=step, image_size=image_size),
            steps,
            fn_output_signature=tf.float32,
        )
    )
    return draw(tf.range(count)).numpy()


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0, 4.0])
def test_mixup_weights_are_beta_distributed(alpha):
    drawn = numbers({"mixup": alpha}, 2000)
    assert np.isfinite(drawn).all()
    np.testing.assert_array_equal(drawn[:, 0], drawn[:, 1])
    np.testing.assert_array_equal(drawn[:, 2:], 0)
    if alpha == 0.01:  # nearly all are 0 or 1 in float32
        assert np.mean(drawn[:, 0] > 0.5) == pytest.approx(0.5, abs=0.05)
    else:
        assert stats.kstest(drawn[:, 0], stats.beta(alpha, alpha).cdf).pvalue > 0.001


def test_cutmix_boxes_are_timms():
    size = 20
    drawn = numbers({"cutmix": 1.0}, 2000, size)
    weight, share, top, left, bottom, right = drawn.T
    np.testing.assert_array_equal(weight, 1)
    np.testing.assert_allclose(share, 1 - (bottom - top) * (right - left) / size**2, atol=1e-6)
    np.testing.assert_array_equal(drawn[:, 2:], drawn[:, 2:].astype(int))
    assert drawn[:, 2:].min() == 0
    assert drawn[:, 2:].max() == size
    inner = (top > 0) & (left > 0) & (bottom < size) & (right < size)
    np.testing.assert_array_equal((bottom - top)[inner], (right - left)[inner])
    # timm's rand_bbox with its correction, drawn by NumPy.
    rng = np.random.default_rng(0)
    side = (size * np.sqrt(1 - rng.beta(1, 1, 20_000))).astype(int)
    center = rng.integers(0, size, (2, 20_000))
    low, high = np.clip(center - side // 2, 0, size), np.clip(center + (side + 1) // 2, 0, size)
    expected = 1 - (high - low).prod(axis=0) / size**2
    assert share.mean() == pytest.approx(expected.mean(), abs=0.025)
    assert share.std() == pytest.approx(expected.std(), abs=0.02)


def test_batches_switch_between_mixup_cutmix_and_neither():
    drawn = numbers({"mixup": 1.0, "cutmix": 1.0, "mix_probability": 0.6}, 2000)
    plain = drawn[:, 1] == 1
    cut = ~plain & (drawn[:, 0] == 1)
    # A box of less than a pixel mixes nothing: 1 of 400 here, so the bounds are wide enough.
    assert plain.mean() == pytest.approx(0.4, abs=0.04)
    assert cut.mean() == pytest.approx(0.3, abs=0.04)


MIX = np.array([[0.7, 0.7, 0, 0, 0, 0]] * 2 + [[1, 0.75, 2, 1, 4, 3]] * 4, np.float32)


def numpy_mix(images, mix):
    mixed = images.astype(float)
    for place, (weight, _, *box) in enumerate(mix):
        top, left, bottom, right = (int(side) for side in box)
        partner = images[place ^ 1]
        mixed[place] = weight * images[place] + (1.0 - weight) * partner
        mixed[place, top:bottom, left:right] = partner[top:bottom, left:right]
    return mixed


def test_mixing_equals_numpy():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 4, 5, 3), np.uint8)
    mixed = mix_images(tf.constant(images), tf.constant(MIX))
    np.testing.assert_allclose(mixed, numpy_mix(images, MIX), rtol=1e-6)
    targets = rng.random((6, 7)).astype(np.float32)
    swapped = targets[[1, 0, 3, 2, 5, 4]]
    expected = MIX[:, 1:2] * targets + (1 - MIX[:, 1:2]) * swapped
    np.testing.assert_allclose(mix_targets(tf.constant(targets), tf.constant(MIX)), expected)
    shares = MIX.copy()
    shares[2:4, 1] = 0.4
    labels = major_labels(tf.constant([10, 11, 12, 13, 14, 15]), tf.constant(shares))
    np.testing.assert_array_equal(labels, [10, 11, 13, 12, 14, 15])
    np.testing.assert_array_equal(neighbors(labels), [11, 10, 12, 13, 15, 14])


def linear_network():
    import keras

    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Flatten()(inputs)))
    model.preprocessing = {
        "image_size": 4, "crop_ratio": 1.0, "interpolation": "bilinear",
        "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "channel_order": "rgb",
    }  # fmt: skip
    return model


@pytest.mark.parametrize("replicas", [1, 2])
def test_training_on_mixed_batches_equals_numpy(replicas):
    """One step of plain SGD, with label smoothing as in timm's mixup_target."""
    import keras

    config = default_config()
    config.batch_size, config.optimizer.weight_decay = 8, 0.0
    config.loss.label_smoothing = 0.1
    config.log_gradient_norms = "off"  # which only optimizers of this package give
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (8, 4, 4, 3), np.uint8),
        "label": rng.integers(0, 5, 8).astype(np.int32),
        "mix": np.concatenate([MIX[:2], MIX]),
    }
    strategy = make_strategy("cpu") if replicas == 1 else mirrored_strategy(replicas)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model, optimizer = linear_network(), keras.optimizers.SGD(0.5)
        optimizer.build(model.trainable_variables)
    kernel, bias = (value.astype(float) for value in model.get_weights())
    steps = Steps(model, optimizer, strategy, config)
    iterator = iter(
        strategy.distribute_datasets_from_function(
            lambda _: tf.data.Dataset.from_tensor_slices(batch).batch(
                8 // replicas, drop_remainder=True
            )
        )
    )
    means = averages(steps.train_loop(iterator, tf.constant(1)).numpy())

    x = (numpy_mix(batch["image"], batch["mix"]) / 255 - [0.4, 0.5, 0.6]) / [0.2, 0.3, 0.4]
    x = x.reshape(8, -1)
    logits = x @ kernel + bias
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    one_hot = np.eye(5)[batch["label"]] * 0.9 + 0.1 / 5
    share = batch["mix"][:, 1:2].astype(float)
    target = share * one_hot + (1 - share) * one_hot[[1, 0, 3, 2, 5, 4, 7, 6]]
    assert means["loss"] == pytest.approx(-(target * log_p).sum() / 8, rel=1e-5)
    assert means["top1"] == np.mean(logits.argmax(axis=1) == batch["label"])  # all shares > 0.5
    gradient = x.T @ (np.exp(log_p) - target) / 8
    np.testing.assert_allclose(model.get_weights()[0], kernel - 0.5 * gradient, atol=1e-5)


def test_labels_stay_what_they_are_in_mixed_batches():
    source = NumberedSource(16)
    plain = labels_of(batches(source, augment={}))
    np.testing.assert_array_equal(labels_of(batches(source, augment={"cutmix": 1.0})), plain)
