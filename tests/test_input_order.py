"""Order: permutations, resuming, hosts, exact evaluation."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from input_helpers import PREPROCESSING, NumberedSource, encode, images_of, labels_of

from keras_resnet.input_pipeline import evaluation_batches, order, train_batches
from keras_resnet.input_pipeline.errors import DataError
from keras_resnet.input_pipeline.sources import record_files

property_test = settings(max_examples=8, deadline=None)
AUGMENT = {"crop_padding": 2, "flip": True}


def indices(size, *, batch_size, steps, seed=0, start_step=0):
    batches = order.training_indices(size, batch_size=batch_size, seed=seed, start_step=start_step)
    return np.stack(list(batches.take(steps).as_numpy_iterator()))


@property_test
@given(size=st.integers(1, 60), batch_size=st.integers(1, 25), seed=st.integers(-(2**40), 2**40))
def test_every_epoch_is_a_fresh_permutation(size, batch_size, seed):
    row = indices(size, batch_size=batch_size, steps=-(-3 * size // batch_size), seed=seed)
    epochs = row.ravel()[: 3 * size].reshape(3, size)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(size), (3, 1)))
    if size > 20:
        assert len({tuple(epoch) for epoch in epochs}) == 3


@property_test
@given(size=st.integers(1, 60), batch_size=st.integers(1, 25), start_step=st.integers(0, 30))
def test_resumed_order_is_the_rest_of_the_uninterrupted_one(size, batch_size, start_step):
    whole = indices(size, batch_size=batch_size, steps=start_step + 4)
    resumed = indices(size, batch_size=batch_size, steps=4, start_step=start_step)
    np.testing.assert_array_equal(resumed, whole[start_step:])


@property_test
@given(
    size=st.integers(1, 60),
    host_batch=st.integers(1, 8),
    hosts=st.integers(1, 3),
    start_step=st.integers(0, 9),
)
def test_hosts_together_read_the_global_batch(size, host_batch, hosts, start_step):
    source = NumberedSource(size, size=2)
    parts = [
        source.training_order(
            batch_size=host_batch * hosts,
            seed=3,
            start_step=start_step,
            shard_index=host,
            num_shards=hosts,
        )
        .take(3)
        .as_numpy_iterator()
        for host in range(hosts)
    ]
    union = np.stack([np.concatenate(step) for step in zip(*parts, strict=True)])
    alone = indices(size, batch_size=host_batch * hosts, steps=3, seed=3, start_step=start_step)
    np.testing.assert_array_equal(union, alone)


@pytest.mark.parametrize("size", [2, 3, 5, 64])
def test_permutations_are_uniform(size):
    """Each example is equally likely at each place: chi-squared per degree of freedom near 1."""
    epochs = 1500
    draw = tf.function(lambda epoch: order.permutation(size, seed=7, epoch=epoch))
    places = np.stack([draw(tf.constant(epoch, tf.int64)) for epoch in range(epochs)])
    counts = np.stack([np.bincount(column, minlength=size) for column in places.T])
    expected = epochs / size
    chi_squared = ((counts - expected) ** 2 / expected).sum() / (size - 1) ** 2
    # Its standard deviation is sqrt(2) / (size - 1); four of them.
    assert abs(chi_squared - 1) < 4 * np.sqrt(2) / (size - 1)
    assert len(np.unique(places, axis=0)) == min(epochs, math.factorial(size))


def test_shuffling_differs_between_seeds_and_ignores_the_global_one():
    first = indices(50, batch_size=50, steps=1, seed=1)
    tf.random.set_seed(5)
    np.testing.assert_array_equal(indices(50, batch_size=50, steps=1, seed=1), first)
    assert (indices(50, batch_size=50, steps=1, seed=2) != first).any()


def batches(source, **changes):
    arguments = {"batch_size": 6, "seed": 1, "num_steps": 9, "image_size": 8, "augment": AUGMENT}
    return train_batches(source, **{**arguments, **changes})


@pytest.mark.slow  # test_input_augment_batches.py has the same with every augmentation
def test_training_batches_resume_and_split_over_hosts_to_the_pixel():
    source = NumberedSource(20)
    whole = list(batches(source).as_numpy_iterator())
    assert len(whole) == 9
    resumed = list(batches(source, start_step=5).as_numpy_iterator())
    hosts = [
        list(batches(source, shard_index=host, num_shards=3).as_numpy_iterator())
        for host in range(3)
    ]
    for key in ("image", "label"):
        for rest, batch in zip(resumed, whole[5:], strict=True):
            np.testing.assert_array_equal(rest[key], batch[key])
        for step, batch in enumerate(whole):
            union = np.concatenate([host[step][key] for host in hosts])
            np.testing.assert_array_equal(union, batch[key])
    assert list(batches(source, start_step=9)) == []


@pytest.mark.slow  # likewise
def test_training_batches_do_not_depend_on_threads():
    source = NumberedSource(40)
    expected = images_of(batches(source, batch_size=16, num_steps=20))
    for threads in (1, 7):
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        dataset = batches(source, batch_size=16, num_steps=20).with_options(options)
        np.testing.assert_array_equal(images_of(dataset), expected)


def test_training_batches_have_static_shapes_and_the_stated_types():
    assert batches(NumberedSource(5), num_shards=2).element_spec == {
        "image": tf.TensorSpec([3, 8, 8, 3], tf.uint8),
        "label": tf.TensorSpec([3], tf.int32),
    }


@pytest.mark.slow  # test_training_host_batches.py has the same over hosts and replicas
@property_test
@given(size=st.integers(1, 50), host_batch=st.integers(1, 12), hosts=st.integers(1, 3))
def test_evaluation_counts_every_example_once(size, host_batch, hosts):
    source = NumberedSource(size)
    batch_size = host_batch * hosts
    counted = []
    for host in range(hosts):
        dataset = evaluation_batches(
            source,
            batch_size=batch_size,
            preprocessing=PREPROCESSING,
            shard_index=host,
            num_shards=hosts,
        )
        elements = list(dataset.as_numpy_iterator())
        assert len(elements) == -(-size // batch_size) == dataset.cardinality()
        for element in elements:
            assert element["image"].shape == (host_batch, 8, 8, 3)
            real = element["mask"] == 1
            assert set(element["mask"]) <= {0, 1}
            np.testing.assert_array_equal(
                element["image"][real, 0, 0, 0], element["label"][real] % 256
            )
            counted.extend(element["label"][real])
    assert sorted(counted) == list(range(size))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"batch_size": 7, "num_shards": 2}, "7, which cannot be split evenly over 2 hosts"),
        ({"shard_index": 2, "num_shards": 2}, "shard_index is 2; it must be in 0..1"),
        ({"start_step": 10}, r"start_step is 10; it must be in 0\.\.9"),
    ],
)
def test_batch_arguments_out_of_range(changes, message):
    with pytest.raises(DataError, match=message):
        batches(NumberedSource(4), **changes)


@pytest.fixture(scope="module")
def record_source(tmp_path_factory):
    """51 records in 7 files, labels 0..50 in order; the first file is cut to its last record."""
    folder = tmp_path_factory.mktemp("records")
    image = encode(np.zeros((8, 8, 3), np.uint8))
    slices, number = [], -2
    for index, count in enumerate([3, 9, 12, 5, 1, 13, 10]):
        path = str(folder / f"part-{index}")
        with tf.io.TFRecordWriter(path) as writer:
            for _ in range(count):
                feature = {
                    "photo": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
                    "class": tf.train.Feature(int64_list=tf.train.Int64List(value=[number])),
                }
                number += 1
                example = tf.train.Example(features=tf.train.Features(feature=feature))
                writer.write(example.SerializeToString())
        slices.append((path, 2, 1) if index == 0 else (path, 0, count))
    source = record_files.RecordFileSource(
        title="records",
        class_names=("a",),
        slices=slices,
        record_bytes=100,
        image_key="photo",
        label_key="class",
    )
    return source


@pytest.mark.ci
def test_record_stream_mixes_every_epoch_and_resumes(record_source):
    size = record_source.num_examples
    assert size == 51
    whole = labels_of(batches(record_source, batch_size=10, num_steps=25))
    epochs = whole[: 4 * size].reshape(4, size)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(size), (4, 1)))
    assert len({tuple(epoch) for epoch in epochs}) == 4
    tf.random.set_seed(99)
    for start_step in (3, 13):
        resumed = labels_of(
            batches(record_source, batch_size=10, num_steps=25, start_step=start_step)
        )
        np.testing.assert_array_equal(resumed, whole[10 * start_step :])


@pytest.mark.parametrize(
    "hosts", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)]
)
def test_record_stream_splits_over_hosts(record_source, hosts):
    evaluated, trained = [], []
    for host in range(hosts):
        part = {"shard_index": host, "num_shards": hosts}
        evaluation = evaluation_batches(
            record_source, batch_size=12, preprocessing=PREPROCESSING, **part
        )
        for batch in evaluation.as_numpy_iterator():
            evaluated.extend(batch["label"][batch["mask"] == 1])
        start, stop = order.shard_range(51, host, hosts)
        training = labels_of(batches(record_source, batch_size=hosts, num_steps=51, **part))
        trained.extend(training[: stop - start])
    assert sorted(evaluated) == sorted(trained) == list(range(51))


def test_too_many_hosts_for_a_record_stream(record_source):
    with pytest.raises(DataError, match="too few for 102 hosts"):
        batches(record_source, batch_size=102, shard_index=0, num_shards=102)
