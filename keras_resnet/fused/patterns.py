"""Where the graph of a network has what the rewrites need."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras

from keras_resnet.errors import UsageError
from keras_resnet.fused.forms import Form, form_of
from keras_resnet.fused.kernel_product import KernelProduct
from keras_resnet.fused.nodes import FusedNode
from keras_resnet.fused.pooled_stem import PooledStem
from keras_resnet.fused.product import Product, Prologue, WideningProduct
from keras_resnet.layers import BatchNormalization, PadChannels, PaddedMaxPool, StochasticDepth
from keras_resnet.layers.keras_internals import nodes_in_running_order, number_of_calls
from keras_resnet.layers.subsampling_conv import SUBSAMPLING_CONVOLUTIONS

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    *SUBSAMPLING_CONVOLUTIONS.values(),
)
_DTYPES = ("float32", "bfloat16")


def fused_nodes(nodes: Iterable[Any], outputs: Sequence[Any], form: Form) -> list[Any]:
    """Returns the nodes of a graph with those that a rewrite takes together replaced.

    Args:
        nodes: of a functional model, in running order.
        outputs: its outputs.
        form: which rewrites.

    Returns:
        Nodes in running order. Where a normalization is frozen, shared, grouped, of another class
        or data format, something reads what lies between, or layers compute in different types, the
        nodes stay as they are.
    """
    graph = _Graph(list(nodes), outputs)
    found: dict[int, FusedNode] = {}  # id of the last node that it stands for
    gone: set[int] = set()
    for node in graph.nodes:
        if id(node) in gone:
            continue
        match = _stem(graph, node, form) or (_widening(graph, node, form) if form.gram else None)
        if match is None or not _of_one_type(match[0]):
            continue
        if not gone.intersection(map(id, match[0])):
            inside, made = match
            found[id(inside[-1])] = made
            gone.update(map(id, inside))
    if form.kernel_products:
        rest = (node for node in graph.nodes if id(node) not in gone)
        pointwise = [node for node in rest if _is_pointwise(node.operation)]
        found |= {id(node): _product_node(node) for node in pointwise}
    if form.joins_relu:  # of what the others have left
        for norm in graph.nodes:
            act = graph.only_reader(norm) if _trains(norm.operation) else None
            if act is None or not _is_relu(act.operation) or not _of_one_type((norm, act)):
                continue
            if id(norm) not in gone:
                found[id(act)] = _normalized_relu(norm, act)
                gone.update(map(id, (norm, act)))
    return [
        found.get(id(node), node)
        for node in graph.nodes
        if id(node) in found or id(node) not in gone
    ]


def form_for(model: Any, choice: str, device_kind: str, engine: str) -> Form | None:
    """Returns the form in which a network trains, `None` for the plain one.

    Args:
        model: functional; but for a `ResNet` itself, not one in another model, it is `None`.
        choice, device_kind, engine: as for `form_of`.

    Raises:
        UsageError: the choice is "always", and nothing in the network can be rewritten, though its
            normalizations are trained.
    """
    # That of the model itself says nothing: its layers have policies of their own.
    dtypes = {layer.compute_dtype for layer in model.layers if type(layer) in _CONVOLUTIONS}
    dtype = " and ".join(sorted(dtypes))  # of several there is no form
    form = form_of(choice, device_kind, dtype, engine) if hasattr(model, "training_form") else None
    nodes = [] if form is None else fused_nodes(nodes_in_running_order(model), model.outputs, form)
    if any(isinstance(node, FusedNode) for node in nodes):
        return form
    norms = [layer for layer in model.layers if isinstance(layer, BatchNormalization)]
    frozen = norms and not any(norm.trainable for norm in norms)  # in the first stage, perhaps
    if choice == "always" and not frozen:
        raise UsageError(
            f"config.fused_step='always', but {model.name} in {dtype or 'no type'} has nothing "
            "that can be fused: no 1×1 convolution to at least twice as many channels before a "
            "trained batch normalization, and no stem with a pool, in float32 or bfloat16 and "
            "channels_last. Take fused_step=auto"
        )
    return None


class _Graph:
    """Who makes and who reads a tensor."""

    def __init__(self, nodes: list[Any], outputs: Sequence[Any]):
        self.nodes = nodes
        self._results = {id(tensor) for tensor in outputs}
        self._makers = {id(tensor): node for node in nodes for tensor in node.outputs}
        self._readers: dict[int, list[Any]] = {}
        for node in nodes:
            for tensor in node.input_tensors:
                self._readers.setdefault(id(tensor), []).append(node)

    def maker(self, tensor: Any) -> Any:
        return self._makers.get(id(tensor))

    def only_reader(self, node: Any) -> Any:
        """The one node that reads what a node gives; None where others do, or the model's user."""
        (output,) = node.outputs
        readers = self._readers.get(id(output), [])
        return readers[0] if len(readers) == 1 and id(output) not in self._results else None

    def only_maker(self, node: Any) -> Any:
        """The maker of what a node reads, if nobody else reads it."""
        maker = self.maker(node.input_tensors[0])
        return maker if maker is not None and self.only_reader(maker) is node else None


def _widening(graph: _Graph, node: Any, form: Form) -> tuple[list[Any], FusedNode] | None:
    """A widening 1×1 convolution, its normalization, and as much of a block's end as follows."""
    if not _is_widening(node.operation) or max(node.operation.strides) > 1:
        return None
    norm = _normalization(graph, node)
    channels = node.operation.kernel.shape[-2]
    if norm is None or (form.gram_channels is not None and channels > form.gram_channels):
        return None
    prologue, before = (None, []) if form.folds_scale else _prologue(graph, node)
    source = before[0].input_tensors[0] if before else node.input_tensors[0]
    product = Product(node.operation, norm.operation)
    inside, inputs, last = [*before, node, norm], [source], norm
    drop = add = projection = None
    following = graph.only_reader(norm)
    if following is not None and isinstance(following.operation, StochasticDepth):
        drop, following = following, graph.only_reader(following)
    if following is not None and _adds(following, drop or norm):
        add = following
        shortcut = add.input_tensors[1]
        end = graph.maker(shortcut)
        if form.folds_scale and end is not None and _pads(end.operation):
            return None
        conv = _projection(graph, end, add)
        if conv is not None:
            projection = Product(conv.operation, end.operation)
            inside += [conv, end]
            shortcut = conv.input_tensors[0]
        inside += [drop, add] if drop else [add]
        inputs.append(shortcut)
        last = add
        following = graph.only_reader(add)
    elif following is not None and type(following.operation) is keras.layers.Add:
        return None  # it is the shortcut
    else:  # what gates the branch comes before any sum
        drop = None
        following = graph.only_reader(norm)
    activates = following is not None and _is_relu(following.operation)
    if activates:
        inside, last = [*inside, following], following
    run = WideningProduct(
        product,
        prologue,
        drop=drop.operation if drop else None,
        adds=add is not None,
        projection=projection,
        activates=activates,
        sums_by_products=form.sums_by_products,
        folds_scale=form.folds_scale,
    )
    inside = [each for each in graph.nodes if any(each is other for other in inside)]
    return inside, _node(inside, inputs, last, run, node.operation.name)


def _stem(graph: _Graph, node: Any, form: Form) -> tuple[list[Any], FusedNode] | None:
    """Convolution, normalization, ReLU and pool."""
    conv = node.operation
    if not (form.pools_first and type(conv) in _CONVOLUTIONS and _is_plain(conv)):
        return None
    norm = _normalization(graph, node)
    act = graph.only_reader(norm) if norm is not None else None
    pool = graph.only_reader(act) if act is not None and _is_relu(act.operation) else None
    if pool is None or type(pool.operation) is not PaddedMaxPool:
        return None
    if not _is_strided(pool.operation):  # what is blurred after it: as many pixels to normalize
        return None
    inside = [node, norm, act, pool]
    border = graph.only_maker(node) if form.blocks_stem else None
    if border is not None and _is_zero_padding(border.operation):
        inside = [border, *inside]
    else:
        border = None
    run = PooledStem(
        border.operation if border else None, conv, norm.operation, pool.operation, form.blocks_stem
    )
    return inside, _node(inside, [inside[0].input_tensors[0]], pool, run, conv.name)


def _product_node(node: Any) -> FusedNode:
    conv = node.operation
    return _node([node], node.input_tensors, node, KernelProduct(conv), conv.name)


def _normalized_relu(norm: Any, act: Any) -> FusedNode:
    def run(values: Sequence[Any]) -> Any:
        return norm.operation.activated_call(values[0])

    return _node([norm, act], [norm.input_tensors[0]], act, run, norm.operation.name)


def _node(inside, inputs, last, run, name) -> FusedNode:
    operations = tuple(node.operation for node in inside)
    return FusedNode(operations, tuple(inputs), tuple(last.outputs), run, name)


def _prologue(graph: _Graph, node: Any) -> tuple[Prologue | None, list[Any]]:
    """Normalization and ReLU before a convolution, which it may recompute."""
    act = graph.only_maker(node)
    norm = graph.only_maker(act) if act is not None and _is_relu(act.operation) else None
    if norm is None or not _trains(norm.operation):
        return None, []
    return Prologue(norm.operation), [norm, act]


def _projection(graph: _Graph, end: Any, add: Any) -> Any:
    """The 1×1 convolution of a shortcut that ends in a normalization, if it is one."""
    if end is None or not _trains(end.operation) or graph.only_reader(end) is not add:
        return None
    conv = graph.only_maker(end)
    return conv if conv is not None and _is_widening(conv.operation) else None


def _normalization(graph: _Graph, node: Any) -> Any:
    norm = graph.only_reader(node)
    return norm if norm is not None and _trains(norm.operation) else None


def _adds(node: Any, branch: Any) -> bool:
    """Whether a node is a block's sum, with a branch as its first part."""
    tensors = node.input_tensors
    return (
        type(node.operation) is keras.layers.Add
        and len(tensors) == 2
        and tensors[0] is branch.outputs[0]
        and tensors[0].shape == tensors[1].shape
    )


def _is_strided(pool: PaddedMaxPool) -> bool:
    strides = pool.strides
    return (strides if isinstance(strides, int) else max(strides)) > 1


def _is_plain(conv: Any) -> bool:
    return _is_linear(conv) and not conv.use_bias and number_of_calls(conv) == 1


def _is_linear(conv: Any) -> bool:
    return (
        conv.data_format == "channels_last"
        and conv.groups == 1
        and conv.activation is keras.activations.linear
        and conv.compute_dtype in _DTYPES
    )


def _is_pointwise(conv: Any) -> bool:
    """Whether a layer is a 1×1 convolution of images."""
    return (
        type(conv) in (keras.layers.Conv2D, SUBSAMPLING_CONVOLUTIONS[2])
        and max(conv.kernel_size) == 1
        and conv.trainable
        and _is_linear(conv)
    )


def _is_widening(conv: Any) -> bool:
    """Whether a layer is a 1×1 convolution to at least twice as many channels."""
    return (
        type(conv) in _CONVOLUTIONS
        and max(conv.kernel_size) == 1
        and _is_plain(conv)
        and conv.filters >= 2 * conv.kernel.shape[-2]
    )


def _pads(layer: Any) -> bool:
    """Whether TensorFlow's Pad makes a layer's output.

    Where a sum behind a 1×1 convolution and a bias reads that, oneDNN's pass over the graph takes
    it for the border of the convolution's input, and the process ends (TensorFlow 2.21).
    """
    return type(layer) is PadChannels or _is_zero_padding(layer)


def _is_zero_padding(layer: Any) -> bool:
    return type(layer).__name__.startswith("ZeroPadding")


def _of_one_type(nodes: Iterable[Any]) -> bool:
    """Whether layers round what they give alike, as one operation for all of them does."""
    return len({node.operation.compute_dtype for node in nodes}) == 1


def _is_relu(layer: Any) -> bool:
    if type(layer) is keras.layers.Activation:
        return layer.activation is keras.activations.relu
    return False


def _trains(norm: Any) -> bool:
    """Whether a layer is our batch normalization and normalizes by the batch's own statistics."""
    return (
        type(norm) is BatchNormalization
        and norm.trainable
        and not getattr(norm, "renorm", False)
        and norm.compute_dtype in _DTYPES
        and norm.axis in (-1, len(norm.input.shape) - 1)
        and number_of_calls(norm) == 1
    )
