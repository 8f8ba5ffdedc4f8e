"""Every norm of a model with its place in the graph and its trained parameters, whatever it came from.

A framework's table says what a norm holds, the marked graph says where it
stands. In a plain ONNX file a BatchNormalization says both; a norm that is
written out there has lost its gamma and variance and is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from infold.convert.frontends.exported import Convention, Framework, Norm
from infold.convert.layers import Layer
from infold.convert.moments import Statistics
from infold.fold import FoldReport, NormParameters
from infold.fold.affine import F64
from infold.fold.report import Refused
from infold.fold.sites import (
    LAYER,
    Candidate,
    Site,
    batch_norm_parameters,
    find_candidates,
    find_chain,
    read_site,
)

__all__ = ["Lost", "Place", "affine_of", "find_places", "with_parameters"]

# A suffix of a chain is the norm if its scale and shift are this near to the trained ones.
NEAR = 1e-3
WRITTEN_OUT = "it is written out: gamma and variance cannot be told apart in its constants"


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """One use of one norm in a graph.

    Attributes:
        name: The layer's name, or the node's.
        norm: What it holds; the same object for every use of a shared layer.
        nodes: What computes it, in data-flow order; biases in front of it left out.
        data: What it is applied to.
        axis: The channel axis of `data`, counted from the front.
        statistics: The moving statistics that it holds.
    """

    name: str
    norm: Norm
    nodes: tuple[ir.Node, ...]
    data: ir.Value
    axis: int

    statistics: Statistics

    @property
    def is_batch_normalization(self) -> bool:
        """One node, not written out."""
        return self.nodes[0].op_type == "BatchNormalization"


@dataclass(frozen=True, slots=True)
class Lost:
    """A norm whose place or parameters are not to be had, and why."""

    name: str
    why: str


def affine_of(norm: Norm, held: Statistics) -> tuple[F64, F64]:
    """Scale and shift [C] of a norm with these statistics."""
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = norm.gamma / np.sqrt(held.variance + norm.epsilon)
    return scale, norm.beta - held.mean * scale


def find_places(
    model: ir.Model, framework: Framework | None, layers: Sequence[Layer]
) -> tuple[tuple[Place, ...], tuple[Lost, ...]]:
    """All norms of the main graph.

    Args:
        model: The unfolded model, its layers marked.
        framework: Where it came from; None for plain ONNX.
        layers: From `find_layers`.

    Returns:
        Those with a place, in the order of the graph, and those without.
    """
    found: list[Place | Lost] = []
    if framework is None:
        found += _of_onnx(model)
    else:
        values = {output.name: output for node in model.graph for output in node.outputs}
        for layer in layers:
            norm = framework.norms[layer.norm]
            found.append(_place(layer, norm, values.get(layer.value), model.opset_imports.get("", 1)))
        shown = {layer.norm for layer in layers}
        found += [
            Lost(norm.layer, "its output is not in the exported graph")
            for index, norm in enumerate(framework.norms)
            if index not in shown
        ]
    order = {node: index for index, node in enumerate(model.graph)}
    places = sorted(
        (each for each in found if isinstance(each, Place)), key=lambda each: order[each.nodes[0]]
    )
    return tuple(places), tuple(each for each in found if isinstance(each, Lost))


def with_parameters(report: FoldReport, framework: Framework, layers: Sequence[Layer]) -> FoldReport:
    """The report with what the framework knows of the norms that a graph has lost the parameters of."""
    norms = {layer.name: framework.norms[layer.norm] for layer in layers}
    decisions = []
    for decision in report.decisions:
        norm = norms.get(decision.layer)
        if norm is not None and norm.mean is not None and norm.variance is not None:
            held = NormParameters(norm.gamma, norm.beta, norm.mean, norm.variance, norm.epsilon)
            if decision.affine is None or decision.affine.channels in (1, len(norm.gamma)):
                decision = replace(decision, parameters=decision.parameters or held, is_norm=True)
        decisions.append(decision)
    return replace(report, decisions=tuple(decisions))


def _place(layer: Layer, norm: Norm, value: ir.Value | None, opset: int) -> Place | Lost:
    node = None if value is None else value.producer()
    if node is None:
        return Lost(layer.name, "no value of the exported graph equals its output")
    if norm.mean is None or norm.variance is None:
        return Lost(layer.name, "it keeps no moving statistics: it takes those of each batch")
    held = Statistics(norm.mean, norm.variance)
    if node.op_type == "BatchNormalization" and node.inputs[0] is not None:
        return Place(layer.name, norm, (node,), node.inputs[0], 1, held)
    wanted = affine_of(norm, held)
    chain = find_chain(node, opset, last=True)
    best: tuple[float, Site] | None = None
    for begin in range(len(chain.nodes) if chain else 0):
        assert chain is not None
        try:
            site = read_site(Candidate(chain.nodes[begin:]), opset)
        except Refused:
            continue
        distance = _distance(wanted, (site.affine.scale, site.affine.shift))
        if site.axis is not None and distance <= NEAR and (best is None or distance < best[0]):
            best = distance, site
    if best is None:
        return Lost(
            layer.name, "the exported graph computes it in a form whose statistics cannot be replaced"
        )
    site = best[1]
    assert site.axis is not None
    return Place(layer.name, norm, site.nodes, site.input, site.axis, held)


def _distance(wanted: tuple[F64, F64], found: tuple[F64, F64]) -> float:
    worst = 0.0
    for want, have in zip(wanted, found, strict=True):
        if len(have) not in (1, len(want)):
            return np.inf
        worst = max(worst, float(np.abs(want - have).max(initial=0.0)) / (float(np.abs(want).max()) or 1.0))
    return worst


def _of_onnx(model: ir.Model) -> Iterator[Place | Lost]:
    opset = model.opset_imports.get("", 1)
    for candidate in find_candidates(model.graph, opset):
        node = candidate.nodes[0]
        if node.op_type == "BatchNormalization":
            yield _of_batch_norm(node, opset, candidate.name)
            continue
        try:
            site = read_site(candidate, opset)
        except Refused:
            continue
        if site.is_norm:
            yield Lost(candidate.name, WRITTEN_OUT)
    inner = [node for graph in model.graph.subgraphs() for node in graph]
    inner += [node for function in model.functions.values() for node in function.all_nodes()]
    for node in inner:
        if node.op_type == "BatchNormalization":
            yield Lost(Candidate((node,)).name, "it stands inside a subgraph or function")


def _of_batch_norm(node: ir.Node, opset: int, name: str) -> Place | Lost:
    try:
        read_site(Candidate((node,)), opset)
        held = batch_norm_parameters(node)
    except Refused as no:
        return Lost(name, f"{no.reason} ({no.detail})" if no.detail else str(no.reason))
    assert node.inputs[0] is not None
    momentum = node.attributes["momentum"].as_float() if "momentum" in node.attributes else 0.9
    norm = Norm(
        node.metadata_props.get(LAYER, name),
        "BatchNormalization",
        1,
        held.epsilon,
        momentum,
        Convention.OF_THE_OLD,
        None,
        held.gamma,
        held.beta,
        held.mean,
        held.variance,
    )
    return Place(name, norm, (node,), node.inputs[0], 1, Statistics(held.mean, held.variance))
