"""What to look at in a pair of models: for each folded norm its value, and what explains its error.

A norm's value may be large, so norms are looked at a few at a time, in the order of the graph.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from infold.convert.side_by_side import Model
from infold.fold import Affine, Decision, LinearOp, NormParameters, linear_op
from infold.fold.report import Refused
from infold.fold.sites import find_candidates, read_site
from infold.tensors import Array, Tensors

__all__ = ["Chain", "Sizes", "Watched", "norm_magnitude", "watch", "windows"]


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """Affines that follow each other in the unfolded model and are one in the folded.

    Attributes:
        length: How many.
        gain: What an error in front of them is multiplied with, at most.
        constants: Sum of the magnitudes of what they add, at the end of the chain.
    """

    length: int
    gain: float
    constants: float


@dataclass(frozen=True, slots=True, eq=False)
class Watched:
    """A folded norm whose value exists in both models.

    Attributes:
        decision: What became of it.
        probe: The value that must agree.
        ops: The linear ops that absorbed it.
        chain: Where no linear op, but another affine absorbed it: what the unfolded model does.
        anchors: For the data of each op, or of the chain, by name: the nearest values at or above
            it that both models know by the same name.
        left, right: What to ask of the unfolded and of the folded model.
    """

    decision: Decision
    probe: str
    ops: tuple[LinearOp, ...]
    chain: Chain | None
    anchors: dict[str, frozenset[str]]
    left: frozenset[str]
    right: frozenset[str]


def watch(
    unfolded: Model, folded: Model, decisions: Sequence[Decision]
) -> tuple[list[Watched], list[Decision]]:
    """The norms that can be looked at, and those whose value is in no second model any more.

    Args:
        unfolded: One side.
        folded: The other.
        decisions: Folded norms of the main graph.
    """
    values, before = (_outputs(side) for side in (folded, unfolded))
    opset = folded.graph.opset_imports.get("", 1)
    theirs = folded.computed
    shared = unfolded.computed & theirs
    watched, unseen = [], []
    for decision in decisions:
        present = [probe for probe in decision.probes if probe in values]
        if not present:
            unseen.append(decision)
        for probe in present:
            nodes, above = _between(values[probe], shared)
            ops = [op for op in dict.fromkeys(_absorbers(values[probe], opset)) if nodes & set(op.nodes)]
            chain = None if ops or probe not in before else _chain(before[probe], shared, opset)
            anchors = {op.input.name or "": _anchors(op.input, shared) for op in ops} or {probe: above}
            wanted = frozenset({probe, *anchors, *(name for each in anchors.values() for name in each)})
            watched.append(
                Watched(decision, probe, tuple(ops), chain, anchors, wanted & shared, wanted & theirs)
            )
    return watched, unseen


def _outputs(model: Model) -> dict[str | None, ir.Value]:
    return {output.name: output for node in model.graph.graph for output in node.outputs}


def _between(value: ir.Value, shared: set[str]) -> tuple[set[ir.Node], frozenset[str]]:
    """The nodes from the nearest values above that both models know down to this one; and those values."""
    nodes: set[ir.Node] = set()
    found: set[str] = set()
    waiting = [value]
    while waiting:
        each = waiting.pop()
        node = each.producer()
        if each is not value and (each.name in shared or each.is_graph_input()):
            found.add(each.name or "")
        elif node is not None and node not in nodes:
            nodes.add(node)
            waiting += [source for source in node.inputs if source is not None]
    return nodes, frozenset(found)


def _chain(value: ir.Value, shared: set[str], opset: int) -> Chain:
    """The affines of the unfolded model that end in this value."""
    nodes, _ = _between(value, shared)
    graph = value.graph
    length, gain, constants = 0, 1.0, 0.0
    for candidate in find_candidates(graph, opset) if graph is not None else ():
        if not nodes & set(candidate.nodes):
            continue
        try:
            site = read_site(candidate, opset)
        except Refused:
            continue
        factor = float(np.abs(site.affine.scale).max())
        length, gain = length + 1, gain * factor
        constants = constants * factor + norm_magnitude(site.affine, site.parameters)
    return Chain(length, gain, constants)


def norm_magnitude(affine: Affine, parameters: NormParameters | None) -> float:
    """Largest |s| |mean| + |beta| of a norm: what its own two additions may cancel."""
    if parameters is None:
        return float(np.abs(affine.shift).max())
    return float((np.abs(affine.scale * parameters.mean) + np.abs(parameters.beta)).max())


def _absorbers(value: ir.Value, opset: int) -> Iterator[LinearOp]:
    """The nearest linear ops at or above a value."""
    seen: set[ir.Node] = set()
    waiting = [value]
    while waiting:
        node = waiting.pop(0).producer()
        if node is None or node in seen:
            continue
        seen.add(node)
        try:
            op = linear_op(node, opset)
        except Refused:
            op = None
        if op is not None:
            yield op
        else:
            waiting += [each for each in node.inputs if each is not None]


def _anchors(value: ir.Value, shared: set[str]) -> frozenset[str]:
    """The nearest values at or above one that both models know by the same name."""
    seen: set[ir.Value] = set()
    found: set[str] = set()
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if each in seen:
            continue
        seen.add(each)
        node = each.producer()
        if each.name in shared or each.is_graph_input():
            found.add(each.name or "")
        elif node is not None:
            waiting += [source for source in node.inputs if source is not None]
    return frozenset(found)


class Sizes:
    """How many bytes a value takes: from its stated shape, or by experience."""

    def __init__(self, model: Model, samples: Tensors) -> None:
        self._known: dict[str, int] = {}
        self._values = {output.name: output for node in model.graph.graph for output in node.outputs}
        self._symbols: dict[str, int] = {}
        for value in model.graph.graph.inputs:
            sample = samples.get(value.name or "")
            if sample is not None and value.shape is not None:
                for dim, length in zip(value.shape, sample.shape, strict=False):
                    if isinstance(dim, ir.SymbolicDim) and dim.value:
                        self._symbols[dim.value] = length

    def learn(self, found: Iterable[tuple[str, Array]]) -> None:
        """Take note of values that have been seen."""
        self._known |= {name: array.nbytes for name, array in found}

    def __call__(self, name: str) -> float:
        """Bytes of a value; where nothing is known, those of the largest that is."""
        if name not in self._known and (stated := self._stated(self._values.get(name))) is not None:
            self._known[name] = stated
        if name in self._known:
            return self._known[name]
        return max(self._known.values(), default=math.inf)

    def _stated(self, value: ir.Value | None) -> int | None:
        if value is None or value.shape is None:
            return None
        lengths = [
            each if isinstance(each, int) else self._symbols.get(each.value or "") for each in value.shape
        ]
        itemsize = 4 if value.dtype is None else value.dtype.itemsize
        known = [length for length in lengths if length is not None]
        return math.ceil(math.prod(known) * itemsize) if len(known) == len(lengths) else None


def windows(watched: Sequence[Watched], sizes: tuple[Sizes, Sizes], budget: float) -> Iterator[list[Watched]]:
    """Cut the norms into runs of neighbours whose values take no more than `budget` bytes.

    A single norm may take more. Sizes learnt from one window serve the next.
    """
    rest = list(watched)
    while rest:
        window = [rest.pop(0)]
        left, right = set(window[0].left), set(window[0].right)
        while rest:
            left |= rest[0].left
            right |= rest[0].right
            if sum(map(sizes[0], left)) + sum(map(sizes[1], right)) > budget:
                break
            window.append(rest.pop(0))
        yield window
