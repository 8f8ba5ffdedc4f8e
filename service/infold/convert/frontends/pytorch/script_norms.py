"""Batch norms of a TorchScript program: its batch_norm operators, and arithmetic written by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from infold.convert.frontends.exported import Convention, Norm
from infold.convert.frontends.pytorch.norms import flat, norm_of_parts, parts_of

__all__ = ["layer_of_value", "script_norms"]


def script_norms(module: Any, graph: Any) -> tuple[tuple[Norm, ...], list[tuple[Any, int]]]:
    """All norms in the order of the program, and the nodes on its top level that give their values."""
    kinds = {
        name: getattr(each, "original_name", type(each).__name__) for name, each in module.named_modules()
    }
    # Of nodes only their outputs have names to compare.
    top = {node.output().debugName() for node in graph.nodes() if node.outputsSize() == 1}
    norms: dict[str, Norm] = {}
    places: list[tuple[Any, str]] = []
    for number, node in enumerate(graph.findAllNodes("aten::batch_norm")):
        inputs = list(node.inputs())
        owners = [layer_of_value(value) for value in (*inputs[3:5], *inputs[1:3])]
        layer = next((each for each in owners if each), f"batch_norm_{number}")
        if layer not in norms:
            norm = _norm(module, layer, kinds.get(layer, "batch_norm"), inputs)
            if norm is None:
                continue
            norms[layer] = norm
        if node.output().debugName() in top:
            places.append((node, layer))
    norms.update(_written_by_hand(module, graph, kinds, norms))
    order = {layer: index for index, layer in enumerate(norms)}
    return tuple(norms.values()), [(node, order[layer]) for node, layer in places]


def _written_by_hand(
    module: Any, graph: Any, kinds: Mapping[str, str], known: Mapping[str, Norm]
) -> dict[str, Norm]:
    """Modules that have a norm's tensors, and add a small number to the variance among them."""
    epsilons = {}
    for node in graph.findAllNodes("aten::add"):
        data, number = list(node.inputs())[:2]
        origin = _origin(data)
        if "var" in _path(origin).rpartition(".")[2] and (epsilon := _number(number)) is not None:
            epsilons[layer_of_value(origin)] = epsilon, origin is data
    norms = {}
    for layer, each in module.named_modules():
        tensors = {**dict(each.named_parameters(recurse=False)), **dict(each.named_buffers(recurse=False))}
        parts = parts_of(tensors)
        if parts is not None and layer in epsilons and layer not in known:
            epsilon, is_direct = epsilons[layer]
            # Statistics of one axis meet the last one of the data, unless they are reshaped before.
            axis = -1 if parts.mean.ndim == 1 and is_direct else 1
            norms[layer] = norm_of_parts(layer, kinds[layer], axis, parts, epsilon)
    return norms


def _origin(value: Any) -> Any:
    """What a value is a mere view of."""
    while value.node().kind() in ("aten::view", "aten::reshape", "aten::unsqueeze", "aten::detach"):
        value = next(value.node().inputs())
    return value


def _norm(module: Any, layer: str, kind: str, inputs: list[Any]) -> Norm | None:
    gamma, beta, mean, variance = (_tensor(module, value) for value in inputs[1:5])
    known = next((each for each in (mean, gamma, beta) if each is not None), None)
    momentum, epsilon = inputs[6].toIValue(), inputs[7].toIValue()
    if known is None or epsilon is None:
        return None
    channels = known.numel()
    return Norm(
        layer,
        kind,
        1,
        float(epsilon),
        None if momentum is None else float(momentum),
        Convention.OF_THE_NEW,
        None if gamma is None else bool(gamma.requires_grad),
        np.ones(channels) if gamma is None else flat(gamma),
        np.zeros(channels) if beta is None else flat(beta),
        None if mean is None else flat(mean),
        None if variance is None else flat(variance),
    )


def _number(value: Any) -> float | None:
    """A constant float; a traced one is a tensor."""
    found = value.toIValue() if value.node().kind() == "prim::Constant" else None
    if isinstance(found, Tensor) and found.is_floating_point() and found.numel() == 1:
        return float(found)
    return found if isinstance(found, float) else None


def _path(value: Any) -> str:
    """`layer1.bn.weight`, if a value is an attribute of the program's modules."""
    names: list[str] = []
    while value.node().kind() == "prim::GetAttr":
        names.append(value.node().s("name"))
        value = next(value.node().inputs())
    return ".".join(reversed(names))


def layer_of_value(value: Any) -> str:
    """The module whose attribute a value is, or nothing."""
    return _path(value).rpartition(".")[0]


def _tensor(module: Any, value: Any) -> Tensor | None:
    if value.node().kind() == "prim::Constant":
        found = value.toIValue()
    else:
        found = module
        for name in filter(None, _path(value).split(".")):
            found = getattr(found, name)
    return found if isinstance(found, Tensor) else None
