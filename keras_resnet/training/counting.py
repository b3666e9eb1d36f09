"""What a replica counts of its batch, inside the compiled step, on any backend of Keras."""

from typing import Any, Protocol

from keras import ops

from keras_resnet.training.metrics import LABEL_SET_SUMS, SUMS


class Counting(Protocol):
    """What is counted of labels of one kind.

    Attributes:
        names: of the sums, in their order.
        row_shape: of what is kept of each example.
        row_dtype: of that.
    """

    names: tuple[str, ...]
    row_shape: tuple[int, ...]
    row_dtype: str

    def sums(self, losses: Any, labels: Any, logits: Any, mask: Any = None) -> Any:
        """Returns the sums over a batch, float32[len(names)].

        Args:
            losses: float32[b], of each example.
            labels: of the examples.
            logits: float[b, classes].
            mask: float[b], 0 for padding that must not count; None: there is none.
        """

    def rows(self, labels: Any, logits: Any, mask: Any) -> Any:
        """Returns what is kept of each example, -1 for padding."""


class OneLabel:
    """Of one label an image: SUMS, and int32[2] with the label and the prediction."""

    names: tuple[str, ...] = SUMS
    row_shape: tuple[int, ...] = (2,)
    row_dtype = "int32"

    def sums(self, losses: Any, labels: Any, logits: Any, mask: Any = None) -> Any:
        return sums_of_batch(losses, labels, logits, mask)

    def rows(self, labels: Any, logits: Any, mask: Any) -> Any:
        return labels_and_predictions(labels, logits, mask)


class LabelSet:
    """Of several labels an image: LABEL_SET_SUMS, and float32[2, classes], labels and scores.

    A label is predicted where its probability is above a half.
    """

    names: tuple[str, ...] = LABEL_SET_SUMS
    row_dtype = "float32"

    def __init__(self, classes: int):
        self.row_shape: tuple[int, ...] = (2, classes)

    def sums(self, losses: Any, labels: Any, logits: Any, mask: Any = None) -> Any:
        predicted = ops.cast(logits > 0, "float32")
        labels = ops.cast(labels, "float32")
        counted = [
            losses,
            ops.sum(predicted * labels, axis=-1),
            ops.sum(ops.abs(predicted - labels), axis=-1),
            ops.ones_like(losses),
        ]
        return _masked_sums(counted, mask)

    def rows(self, labels: Any, logits: Any, mask: Any) -> Any:
        rows = ops.stack([labels, ops.sigmoid(ops.cast(logits, "float32"))], axis=1)
        return ops.where(mask[:, None, None] > 0, rows, -1.0)


def counting_of(multi_label: bool, classes: int) -> Counting:
    """Returns what counts labels of the kind that `data.multi_label` says."""
    return LabelSet(classes) if multi_label else OneLabel()


def with_sum_of(sums: Any, values: Any) -> Any:
    """Returns sums over a batch, float32[n], with that of `values`, float32[b], after them."""
    return ops.concatenate([sums, ops.reshape(ops.sum(values), [1])])


def sums_of_batch(losses: Any, labels: Any, logits: Any, mask: Any = None) -> Any:
    """Returns SUMS over a batch, float32[4].

    Args:
        losses: float32[b], of each example.
        labels: int32[b].
        logits: float[b, classes].
        mask: float[b], 0 for padding that must not count; None: there is none.
    """
    logits, labels = ops.cast(logits, "float32"), ops.cast(labels, "int32")
    counted = [
        losses,
        ops.cast(predicted_classes(logits) == labels, losses.dtype),
        ops.cast(in_top_k(labels, logits, 5), losses.dtype),
        ops.ones_like(losses),
    ]
    return _masked_sums(counted, mask)


def in_top_k(labels: Any, logits: Any, k: int) -> Any:
    """Returns bool[b]: whether less than k logits of an example are larger than its label's.

    As `tf.math.in_top_k` has it: equal logits are all among the first, and logits of which one is
    not finite have no order. `ops.in_top_k` means something else on each backend.
    """
    of_label = ops.take_along_axis(logits, labels[:, None], axis=-1)
    larger = ops.sum(ops.cast(logits > of_label, "int32"), axis=-1)
    return (larger < k) & ops.all(ops.isfinite(logits), axis=-1)


def _masked_sums(counted: list[Any], mask: Any) -> Any:
    mask = ops.ones_like(counted[0]) if mask is None else ops.cast(mask, counted[0].dtype)
    # where() and not only a product: a loss of NaN on padding must not reach the sum.
    return ops.stack([ops.sum(ops.where(mask > 0, row * mask, 0.0)) for row in counted])


def predicted_classes(logits: Any) -> Any:
    """Returns int32[b]: the class with the largest logit, the first of equal ones."""
    # Not in_top_k: it calls every class right where a dead network gives equal logits.
    return ops.argmax(logits, axis=-1)


def labels_and_predictions(labels: Any, logits: Any, mask: Any) -> Any:
    """Returns int32[b, 2]: label and most probable class of each example, -1 for padding."""
    pairs = ops.stack([ops.cast(labels, "int32"), predicted_classes(logits)], axis=1)
    return ops.where(mask[:, None] > 0, pairs, -1)
