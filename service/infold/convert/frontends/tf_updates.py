"""Momentum of moving statistics, read off the updates that a TensorFlow 1 graph makes in training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf

from infold.convert.frontends.tf_frozen import node_of
from infold.convert.frontends.tf_pinning import pin

__all__ = ["momenta"]

SUBTRACTING = ("AssignSub", "AssignSubVariableOp")
ADDING = ("AssignAdd", "AssignAddVariableOp")
SETTING = ("Assign", "AssignVariableOp")
RELABELLING = ("Identity", "RefIdentity", "ReadVariableOp", "Cast", "StopGradient")
VARIABLES = ("Variable", "VariableV2", "VarHandleOp", "AutoReloadVariable")


def momenta(graph: Any, flags: Iterable[str]) -> dict[str, float]:
    """Share of the old value that one update keeps, by variable name.

    Understood are `v -= (v - new) * decay`, `v += (new - v) * decay` and
    `v = v * keep + new * share`, as `moving_averages`, Keras and most people write it.

    Args:
        graph: The whole graph.
        flags: Placeholders that are true in training.
    """
    training = pin(graph, dict.fromkeys(flags, True))
    nodes = {node.name: node for node in training.node}
    found: dict[str, float] = {}
    for node in training.node:
        if len(node.input) < 2 or node.op not in (*SUBTRACTING, *ADDING, *SETTING):
            continue
        variable = _origin(nodes, node.input[0])
        keep = _kept(nodes, node, variable)
        if keep is not None and 0.0 <= keep <= 1.0 and nodes[variable].op in VARIABLES:
            found[variable] = float(f"{keep:.7g}")
    return found


def _kept(nodes: Mapping[str, Any], update: Any, variable: str) -> float | None:
    value = nodes[_origin(nodes, update.input[1])]
    if update.op in (*SUBTRACTING, *ADDING):
        for difference, decay in _products(nodes, value):
            sides = [_origin(nodes, each) for each in difference.input[:2]]
            old = 0 if update.op in SUBTRACTING else 1
            if difference.op == "Sub" and sides[old] == variable:
                return 1.0 - decay
        return None
    if value.op in ("Add", "AddV2"):
        for each in value.input[:2]:
            for factor, keep in _products(nodes, nodes[_origin(nodes, each)]):
                if factor.name == variable:
                    return keep
    if value.op == "Sub" and _origin(nodes, value.input[0]) == variable:
        for difference, decay in _products(nodes, nodes[_origin(nodes, value.input[1])]):
            if difference.op == "Sub" and _origin(nodes, difference.input[0]) == variable:
                return 1.0 - decay
    return None


def _products(nodes: Mapping[str, Any], node: Any) -> list[tuple[Any, float]]:
    """The factors of a product with a number: the other factor's node, and the number."""
    if node.op != "Mul":
        return []
    pairs = []
    for one, other in ((0, 1), (1, 0)):
        number = _number(nodes, node.input[other])
        if number is not None:
            pairs.append((nodes[_origin(nodes, node.input[one])], number))
    return pairs


def _origin(nodes: Mapping[str, Any], tensor: str) -> str:
    name = node_of(tensor)
    while nodes[name].op in RELABELLING and nodes[name].input:
        name = node_of(nodes[name].input[0])
    return name


def _number(nodes: Mapping[str, Any], tensor: str) -> float | None:
    node = nodes[_origin(nodes, tensor)]
    if node.op == "Const":
        array = tf.make_ndarray(node.attr["value"].tensor)
        return float(array) if array.ndim == 0 and array.dtype.kind == "f" else None
    if node.op == "Sub":
        one, other = _number(nodes, node.input[0]), _number(nodes, node.input[1])
        return None if one is None or other is None else one - other
    return None
