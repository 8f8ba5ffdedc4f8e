"""Batch norms of a captured graph: calls of the library's, and arithmetic written by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor, fx
from torch.export import ExportedProgram

from infold.convert.frontends.exported import Convention, Norm
from infold.convert.frontends.pytorch.norms import Parts, flat, norm_of_parts, parts_of
from infold.convert.frontends.pytorch.programs import layer_of

__all__ = ["FLAGGED", "graph_norms"]

# Operators that are norms: arguments are the input, gamma, beta, mean, variance, then (of those
# that have one) the training flag, momentum and epsilon.
FLAGGED = (
    "aten.batch_norm.default",
    "aten.native_batch_norm.default",
    "aten._native_batch_norm_legit.default",
)
UNFLAGGED = ("aten._native_batch_norm_legit_no_training.default", "aten._batch_norm_no_update.default")


def graph_norms(program: ExportedProgram, graph: fx.GraphModule) -> tuple[tuple[Norm, ...], dict[str, int]]:
    """All norms, and which node of the graph gives the value of which.

    Args:
        program: As captured; holds the tensors.
        graph: `program.module()`.
    """
    tensors = {
        name: value
        for name, value in (*program.constants.items(), *program.state_dict.items())
        if isinstance(value, Tensor)
    }
    norms: dict[str, Norm] = {}
    places: dict[str, str] = {}
    for node in graph.graph.nodes:
        if node.op == "call_function" and str(node.target) in (*FLAGGED, *UNFLAGGED):
            norm = _of_call(node, tensors)
            norms.setdefault(norm.layer, norm)
            places[node.name] = norm.layer
    for layer, parts in _written_by_hand(tensors, norms):
        for nodes in _runs(graph, layer):
            epsilon = _epsilon(nodes, layer)
            last = nodes[-1]
            if epsilon is None or not _is_value(last):
                continue
            norms.setdefault(layer, _of_parts(layer, last, parts, epsilon))
            places[last.name] = layer
    order = {layer: index for index, layer in enumerate(norms)}
    return tuple(norms.values()), {node: order[layer] for node, layer in places.items()}


def _of_call(node: fx.Node, tensors: Mapping[str, Tensor]) -> Norm:
    shift = 1 if str(node.target) in FLAGGED else 0
    gamma, beta, mean, variance = (_array(each, tensors) for each in node.args[1:5])
    momentum, epsilon = node.args[5 + shift], node.args[6 + shift]
    channels = int(node.args[0].meta["val"].shape[1])
    owners = [_owner(each) for each in (*node.args[3:5], *node.args[1:3])]
    layer = next((each for each in owners if each), "") or layer_of(node) or node.name
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    kind = _kind(stack[-1][1]) if stack and layer_of(node) == layer else "batch_norm"
    weight = tensors.get(str(getattr(node.args[1], "target", "")))
    return Norm(
        layer,
        kind,
        1,
        float(epsilon),
        float(momentum) if isinstance(momentum, float | int) else None,
        Convention.OF_THE_NEW,
        None if weight is None else bool(weight.requires_grad),
        np.ones(channels) if gamma is None else gamma,
        np.zeros(channels) if beta is None else beta,
        mean,
        variance,
    )


def _array(node: Any, tensors: Mapping[str, Tensor]) -> Any:
    name = str(node.target) if isinstance(node, fx.Node) and node.op == "get_attr" else ""
    return flat(tensors[name]) if name in tensors else None


def _owner(node: Any) -> str:
    if isinstance(node, fx.Node) and node.op == "get_attr":
        return str(node.target).rpartition(".")[0]
    return ""


def _kind(described: Any) -> str:
    name = described if isinstance(described, str) else getattr(described, "__name__", str(described))
    return str(name).rpartition(".")[2]


def _written_by_hand(tensors: Mapping[str, Tensor], known: Mapping[str, Norm]) -> Iterator[tuple[str, Parts]]:
    """Modules whose tensors are those of a norm, but which called none."""
    owned: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        layer, _, own = name.rpartition(".")
        owned.setdefault(layer, {})[own] = value
    for layer, each in owned.items():
        parts = parts_of(each)
        if parts is not None and layer not in known:
            yield layer, parts


def _runs(graph: fx.GraphModule, layer: str) -> Iterator[list[fx.Node]]:
    """The nodes of each call of a module."""
    run: list[fx.Node] = []
    for node in graph.graph.nodes:
        if node.op == "call_function" and layer_of(node) == layer:
            run.append(node)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _epsilon(nodes: list[fx.Node], layer: str) -> float | None:
    """The number that is added to the variance of a layer."""
    for node in nodes:
        if str(node.target).startswith(("aten.add.", "aten.add_.")) and len(node.args) > 1:
            data, number = node.args[0], node.args[1]
            if (
                _owner(data) == layer
                and "var" in str(getattr(data, "target", ""))
                and isinstance(number, float)
            ):
                return number
    return None


def _is_value(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor)


def _of_parts(layer: str, node: fx.Node, parts: Parts, epsilon: float) -> Norm:
    channels = parts.mean.numel()
    rank = node.meta["val"].ndim
    axis = 1
    if parts.mean.ndim > 1:
        own = next((index for index, length in enumerate(parts.mean.shape) if length == channels), 0)
        axis = rank - parts.mean.ndim + own
    elif rank > 1 and node.meta["val"].shape[1] != channels:
        axis = rank - 1
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return norm_of_parts(layer, _kind(stack[-1][1]) if stack else "batch norm", axis, parts, epsilon)
