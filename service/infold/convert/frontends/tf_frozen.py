"""A TensorFlow graph whose weights are constants: the one form that everything TensorFlow passes through."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from infold.tensors import Array

__all__ = ["Frozen", "called", "constant_node", "make_constant", "node_of", "subgraph"]

GraphDef = Any  # tensorflow.compat.v1.GraphDef


@dataclass(frozen=True, slots=True, eq=False)
class Frozen:
    """A graph for inference.

    Attributes:
        graph: A GraphDef without variables, functions calls at its top level or a training flag.
        inputs, outputs: Tensor names (`x:0`) by the names that the user knows.
        variables: Names of the variables that constants were, by node name.
        trainable: Those variables that training changes; None where that is not known.
    """

    graph: GraphDef
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    variables: Mapping[str, str] = field(default_factory=dict)
    trainable: frozenset[str] | None = None


def node_of(tensor: str) -> str:
    """Name of the node behind an input of another: `a:1`, `^a` and `a` are all of `a`."""
    return tensor.removeprefix("^").partition(":")[0]


def subgraph(graph: GraphDef, tensors: Iterable[str]) -> GraphDef:
    """What the tensors are computed from, control edges cut, in the graph's own order."""
    nodes = {node.name: node for node in graph.node}
    waiting = [node_of(tensor) for tensor in tensors]
    kept: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in kept:
            kept.add(name)
            waiting += [node_of(each) for each in nodes[name].input if not each.startswith("^")]
    result = type(graph)()
    result.versions.CopyFrom(graph.versions)
    for node in graph.node:
        if node.name in kept:
            copy = result.node.add()
            copy.CopyFrom(node)
            data = [each for each in node.input if not each.startswith("^")]
            del copy.input[:]
            copy.input.extend(data)
            copy.device = ""
            copy.attr.pop("_class", None)  # colocation with a node that may be gone
    result.library.CopyFrom(called(graph, result.node))
    return result


def called(graph: GraphDef, nodes: Iterable[Any]) -> Any:
    """The part of a graph's library that nodes call, directly or not; the rest may be broken."""
    functions = {each.signature.name: each for each in graph.library.function}
    waiting = list(nodes)
    kept: set[str] = set()
    while waiting:
        node = waiting.pop()
        names = {node.op}
        for attribute in node.attr.values():
            names.add(attribute.func.name)
            names.update(each.name for each in attribute.list.func)
        for name in (names & functions.keys()) - kept:
            kept.add(name)
            waiting += functions[name].node_def
    library = type(graph.library)()
    for name in sorted(kept):
        library.function.add().CopyFrom(functions[name])
    return library


def make_constant(graph: GraphDef, values: Mapping[str, Array]) -> None:
    """Let variables be constants, and what read their handles read those.

    Args:
        graph: Changed in place.
        values: By name of the variable's node, or of the placeholder for its handle.
    """
    dtypes = {}
    for node in graph.node:
        if node.name in values:
            tensor = tf.make_tensor_proto(values[node.name])
            dtypes[node.name] = tensor.dtype
            node.op = "Const"
            node.attr.clear()
            node.attr["dtype"].type = tensor.dtype
            node.attr["value"].tensor.CopyFrom(tensor)
    waiting = True
    while waiting:  # handles pass through Identity nodes of inlined calls
        waiting = False
        for node in graph.node:
            if node.op == "Identity" and node.name not in dtypes and node_of(node.input[0]) in dtypes:
                dtypes[node.name] = dtypes[node_of(node.input[0])]
                node.attr["T"].type = dtypes[node.name]
                waiting = True
    for node in graph.node:
        if node.op in ("ReadVariableOp", "RefIdentity"):
            dtype = node.attr["dtype" if node.op == "ReadVariableOp" else "T"].type
            node.op = "Identity"
            node.attr.clear()
            node.attr["T"].type = dtype
        elif node.op == "ResourceGather":
            node.op = "Gather"
            node.attr["Tparams"].type = node.attr["dtype"].type
            for attribute in ("dtype", "batch_dims"):
                node.attr.pop(attribute, None)
        elif node.op == "VariableShape":
            node.op = "Shape"
            node.attr["T"].type = dtypes[node_of(node.input[0])]


def constant_node(name: str, value: Array) -> Any:
    """A Const node."""
    node = tf.compat.v1.NodeDef(name=name, op="Const")
    node.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    return node
