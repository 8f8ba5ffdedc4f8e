"""A TensorFlow graph whose weights are constants: the one form that everything TensorFlow passes through."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Frozen", "node_of", "subgraph"]

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
    _copy_functions(graph, result)
    return result


def _copy_functions(graph: GraphDef, result: GraphDef) -> None:
    """Take over the functions that are still called: dead ones may be broken."""
    functions = {each.signature.name: each for each in graph.library.function}
    waiting = list(result.node)
    kept: set[str] = set()
    while waiting:
        node = waiting.pop()
        called = {node.op}
        for attribute in node.attr.values():
            called.add(attribute.func.name)
            called.update(each.name for each in attribute.list.func)
        for name in (called & functions.keys()) - kept:
            kept.add(name)
            waiting += functions[name].node_def
    for function in graph.library.function:
        if function.signature.name in kept:
            result.library.function.add().CopyFrom(function)
