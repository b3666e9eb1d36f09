"""The training call of a network with fewer bytes moved: the same mathematics, other operations.

A rewrite of what runs, not of the network: layers, variables, names, graph, `.keras` files and
`fit` stay what they are. `patterns.py` finds in the graph where a rewrite holds, `nodes.py` runs
the graph with what it found, `gram.py` has the mathematics of the larger one, and `forms.py` says
which of them a device is better off with. docs/training.md, "A leaner step", explains them.
"""

from keras_resnet.fused.forms import Form, describe
from keras_resnet.fused.nodes import FusedNode, form_now, operations_of, run_nodes, training_as
from keras_resnet.fused.patterns import form_for, fused_nodes

__all__ = [
    "Form",
    "FusedNode",
    "describe",
    "form_for",
    "form_now",
    "fused_nodes",
    "operations_of",
    "run_nodes",
    "training_as",
]
