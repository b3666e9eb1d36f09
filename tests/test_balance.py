"""Classes of unequal size: weights of the loss, the balanced order, what a run says of them."""

from types import SimpleNamespace

import numpy as np
import pytest
from input_helpers import NumberedSource, write_images
from sklearn.utils.class_weight import compute_class_weight

from keras_resnet.config import KEYS, check, default_config, from_json, load_config, merge, to_json
from keras_resnet.errors import UsageError
from keras_resnet.input_pipeline import open_source, train_batches
from keras_resnet.input_pipeline.augment.repeats import training_ids
from keras_resnet.input_pipeline.balanced import BalancedOrder, balanced_indices
from keras_resnet.input_pipeline.errors import DataError
from keras_resnet.training.class_balance import balanced_weights, class_weights, describe_balance

LABELS = np.array([2, 0, 0, 4, 2, 0, 0, 0, 0, 4, 2, 0])  # 7, 0, 3, 0 and 2 of five classes


@pytest.mark.parametrize("seed", range(5))
def test_weights_are_those_of_scikit_learn(seed):
    labels = np.random.default_rng(seed).zipf(1.5, 300).clip(max=12) - 1
    present = np.unique(labels)
    expected = compute_class_weight("balanced", classes=present, y=labels)
    ours = np.array(balanced_weights(np.bincount(labels, minlength=15)))
    np.testing.assert_allclose(ours[present], expected, rtol=1e-12)
    assert ours.sum() == pytest.approx(expected.sum())  # of classes without images 0
    assert np.mean(ours[labels]) == pytest.approx(1.0)


def test_weights_come_from_the_training_split(tmp_path):
    write_images(tmp_path / "train", {"ant": 6, "bee": 2})
    write_images(tmp_path / "test", {"ant": 1, "bee": 5})
    source = open_source("image_folder", path=str(tmp_path), split="train")
    config = default_config()
    assert class_weights(config, source) == ()
    merge(config, {"loss.class_weights": "balanced"}, "test")
    assert class_weights(config, source) == pytest.approx((8 / 12, 2.0))
    again = from_json(to_json(check(config)), "config.json")
    assert again.loss.class_weights == "balanced"
    merge(again, {"loss.class_weights": (1.0, 3.0)}, "test")
    assert class_weights(again, source) == (1.0, 3.0)


@pytest.mark.parametrize("cache", ["none", "memory", "file"])
def test_labels_of_every_kind_of_source(cache, tmp_path):
    split = "train[:100]"
    plain = open_source("tfds", name="digits", split=split, cache="none")
    path = str(tmp_path) if cache == "file" else ""
    source = open_source("tfds", name="digits", split=split, cache=cache, cache_path=path)
    expected = np.concatenate([labels.numpy() for _, labels in plain.chunks()])
    np.testing.assert_array_equal(source.labels(), expected)
    assert source.class_counts().sum() == 100
    assert source.labels_at_hand == (cache != "none")


def test_a_word_that_is_none_is_refused():
    key = KEYS["loss.class_weights"]
    assert key.parse("balanced") == "balanced"
    assert key.parse("(1, 2)") == (1, 2)
    config = merge(load_config("smoke"), {"loss.class_weights": "balancd"}, "test")
    with pytest.raises(UsageError, match=r"nor balanced\. Did you mean 'balanced'"):
        check(config)


def _row(labels=LABELS, *, steps=40, batch_size=7, seed=3, start_step=0):
    batches = balanced_indices(labels, batch_size=batch_size, seed=seed, start_step=start_step)
    return np.stack(list(batches.take(steps).as_numpy_iterator()))


def test_every_round_has_every_class_and_every_class_all_its_examples():
    row = _row().ravel()[: 3 * 84].reshape(84, 3)
    np.testing.assert_array_equal(np.sort(LABELS[row], axis=1), [[0, 2, 4]] * 84)
    for label, size in ((0, 7), (2, 3), (4, 2)):
        visits = row[LABELS[row] == label].reshape(-1, size)
        np.testing.assert_array_equal(
            np.sort(visits, axis=1), [np.flatnonzero(label == LABELS)] * len(visits)
        )
        assert len({tuple(epoch) for epoch in visits}) > 1
    places = np.argsort(LABELS[row], axis=1)
    assert len({tuple(order) for order in places}) == 6  # the order of the classes changes, too
    assert not np.array_equal(row.ravel(), _row(seed=4).ravel()[: 3 * 84])


@pytest.mark.parametrize("start_step", [1, 2, 5, 23])
def test_the_resumed_order_is_the_rest_of_the_uninterrupted_one(start_step):
    np.testing.assert_array_equal(_row(start_step=start_step, steps=9), _row()[start_step:][:9])


def test_any_round_is_reached_without_those_before_it():
    order = BalancedOrder.of_labels(LABELS, seed=1)
    whole = order.rounds(0, 200)
    for first, count in ((0, 1), (1, 5), (63, 2), (150, 50)):
        np.testing.assert_array_equal(order.rounds(first, count), whole[first : first + count])


def test_examples_are_equally_likely_at_each_place_of_their_class():
    """Chi-squared per degree of freedom is near 1, over 3,000 epochs of a class of seven."""
    visits = BalancedOrder.of_labels(np.zeros(7, int), seed=0).rounds(0, 21_000).reshape(3000, 7)
    counts = np.stack([np.bincount(column, minlength=7) for column in visits.T])
    chi_squared = ((counts - 3000 / 7) ** 2 / (3000 / 7)).sum() / 36
    assert abs(chi_squared - 1) < 4 * np.sqrt(2) / 6


@pytest.mark.parametrize("repeats", [1, 2])
def test_hosts_together_read_the_global_batch(repeats):
    source = NumberedSource(12, size=2)
    source.labels = lambda: LABELS
    options = {"repeats": repeats, "batch_size": 12, "seed": 3, "start_step": 2}

    def ids(host, hosts):
        found = training_ids(
            source, **options, shard_index=host, num_shards=hosts, sampler="balanced"
        )
        return np.stack(list(found.take(4).as_numpy_iterator()))

    union = np.concatenate([ids(host, 3) for host in range(3)], axis=1)
    np.testing.assert_array_equal(union, ids(0, 1))
    half = _row(batch_size=12 // repeats, start_step=2, steps=4)
    np.testing.assert_array_equal(union, np.tile(half, (1, repeats)))


@pytest.mark.ci
def test_batches_hold_every_class_equally_often(tmp_path):
    write_images(tmp_path / "train", {"ant": 9, "bee": 1, "cat": 3})
    source = open_source("image_folder", path=str(tmp_path), split="train")
    options = {"batch_size": 6, "seed": 0, "num_steps": 5, "image_size": 8, "augment": {}}
    batches = train_batches(source, sampler="balanced", **options)
    labels = np.stack([batch["label"].numpy() for batch in batches])
    assert labels.shape == (5, 6)
    np.testing.assert_array_equal(np.sort(labels, axis=1), [[0, 0, 1, 1, 2, 2]] * 5)


def test_what_is_read_in_one_order_only_is_refused():
    source = open_source("tfds", name="digits", split="train", cache="none")
    options = {"repeats": 1, "batch_size": 8, "seed": 0, "start_step": 0}
    options |= {"shard_index": 0, "num_shards": 1}
    with pytest.raises(DataError, match=r"set data\.cache to memory or file"):
        training_ids(source, **options, sampler="balanced")
    with pytest.raises(DataError, match="Did you mean 'balanced'"):
        training_ids(source, **options, sampler="balance")


def test_a_run_says_how_the_classes_are_filled():
    names = ("ant", "bee", "cat")
    source = SimpleNamespace(
        multi_label=False,
        labels_at_hand=True,
        class_names=names,
        class_counts=lambda: np.array([100, 9, 40]),
    )
    config = default_config()
    counts, warning = describe_balance(config, source)
    assert counts == "classes    3, of 9 (bee) to 100 (ant) images"
    assert "'bee' has 9 training images, less than a tenth of 'ant' (100)" in warning
    assert "--config.data.sampler=balanced" in warning
    config.data.sampler = "balanced"
    assert list(describe_balance(config, source)) == [counts]
    source.labels_at_hand = False
    assert not list(describe_balance(config, source))
