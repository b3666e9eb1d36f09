"""What replicas on several hosts read, as `tf.distribute` hands it out: every example once."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import mirrored_strategy
from hypothesis import given, settings
from hypothesis import strategies as st
from input_helpers import PREPROCESSING

from keras_resnet.input_pipeline import SkippedImages, batching, evaluation_batches, train_batches
from keras_resnet.input_pipeline.sources.base import RandomAccessSource
from keras_resnet.training.host_batches import HostBatches
from keras_resnet.training.tensorflow.batches import of_replicas

property_test = settings(max_examples=6, deadline=None)
sizes = st.integers(1, 30)
counts = st.integers(1, 3)


class Pixels(RandomAccessSource):
    """Bare pixels, each of which says which example it is, and for the broken ones less of them."""

    def __init__(self, size, broken=()):
        super().__init__(
            title="pixels", num_examples=size, class_names=tuple(map(str, range(size)))
        )
        self._encoded = tf.constant(
            [bytes([number]) * (5 if number in broken else 8 * 8 * 3) for number in range(size)]
        )
        self.skipped = SkippedImages(size, 1.0) if broken else None

    def fetch(self, ids):
        return tf.gather(self._encoded, ids), tf.cast(ids, tf.int32)

    def records(self):
        raise NotImplementedError


@pytest.fixture(scope="module", autouse=True)
def bare_pixels():
    """Bare pixels in place of image files, for whose decoders a graph takes seconds to build."""

    def read(function, chunk, chunk_size, **options):
        return tf.reshape(tf.io.decode_raw(tf.nest.flatten(chunk)[0], tf.uint8), [-1, 8, 8, 3])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching, "_map_images", read)
        yield


def read(host_batches, hosts, replicas):
    """For each step, what each replica of each host gets; the hosts one after the other."""
    strategy = mirrored_strategy(replicas)
    of_hosts = []
    for host in range(hosts):
        context = tf.distribute.InputContext(hosts, host, hosts * replicas)
        given = strategy.distribute_datasets_from_function(
            lambda _, context=context: of_replicas(host_batches, context)
        )
        local = [
            tf.nest.map_structure(strategy.experimental_local_results, element) for element in given
        ]
        of_hosts.append(
            [
                {key: values[replica].numpy() for key, values in element.items()}
                for element in local
                for replica in range(replicas)
            ]
        )
    return of_hosts


@property_test
@given(size=sizes, share=counts, hosts=counts, replicas=counts, data=st.data())
def test_evaluation_counts_every_example_once(size, share, hosts, replicas, data):
    broken = data.draw(st.sets(st.integers(0, size - 1), max_size=4))
    source = Pixels(size, broken)
    batch_size = share * hosts * replicas
    options = {"preprocessing": PREPROCESSING}
    batches = HostBatches(evaluation_batches, source, batch_size, 1, options)
    counted = []
    for elements in read(batches, hosts, replicas):
        assert len(elements) == replicas * -(-size // batch_size)
        for element in elements:
            assert element["image"].shape == (share, 8, 8, 3)
            assert set(element["mask"]) <= {0, 1}
            real = element["mask"] == 1
            np.testing.assert_array_equal(element["image"][real, 0, 0, 0], element["label"][real])
            counted.extend(element["label"][real])
    assert sorted(counted) == sorted(set(range(size)) - broken)
    if broken:
        named = sorted(int(problem.split()[2]) for problem in source.skipped.problems)
        assert named == sorted(broken)


@property_test
@given(
    size=sizes,
    share=counts,
    hosts=counts,
    replicas=counts,
    parts=st.integers(1, 2),
)
def test_every_epoch_of_training_is_a_permutation(size, share, hosts, replicas, parts):
    batch_size = share * parts * hosts * replicas
    steps = -(-2 * size // batch_size)
    options = {"seed": 5, "num_steps": steps, "image_size": 8, "augment": {}}
    batches = HostBatches(train_batches, Pixels(size), batch_size, parts, options)
    of_hosts = read(batches, hosts, replicas)
    seen = np.zeros(size, int)
    per_step = replicas * parts
    for step in range(steps):
        for elements in of_hosts:
            for element in elements[step * per_step : (step + 1) * per_step]:
                assert element["label"].shape == (share,)
                np.testing.assert_array_equal(element["image"][:, 0, 0, 0], element["label"])
                np.add.at(seen, element["label"], 1)
        # Whatever example is seen once more than another belongs to the epoch that is under way.
        assert seen.sum() == (step + 1) * batch_size
        assert np.ptp(seen) <= 1
