"""Where a norm can go: each rule returns a patch, or refuses with a reason.

Against the flow the affine must reach absorbers on every branch that feeds it,
and nobody may look on. With the flow everybody who reads it must absorb it.
Both walks are the same few lines; what an operator lets through is in
`moves.py`, who absorbs in `absorbers.py`, who may be rewired in `lawful.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from infold.fold.absorbers import Absorber, absorber_above, absorber_below
from infold.fold.field import Field
from infold.fold.lawful import readers, require_only_reader
from infold.fold.moves import amended, move_down, move_up
from infold.fold.patch import Amendment, Patch, Replacement
from infold.fold.quantized import dequantizer
from infold.fold.report import Reason, Refused
from infold.fold.sites import Site

__all__ = ["RULES", "Fold", "Rule", "into_consumers", "into_neighbour", "into_producer"]


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """A rule's yes: the patch, and what to say about it.

    Attributes:
        patch: The rewrite.
        into: Names of the nodes that absorb.
        into_op: Their operators.
        probes: Values that exist before and after and must agree.
        copied: Weights that have other readers and so are copied.
        across: Names of the nodes crossed.
    """

    patch: Patch
    into: str
    into_op: str
    probes: tuple[str, ...]
    copied: tuple[str, ...] = ()
    across: tuple[str, ...] = ()


Rule = Callable[[Site, int], Fold]


@dataclass(slots=True, eq=False)
class _Walk:
    """What a walk has met so far.

    Attributes:
        site: The site it started from; its own nodes are no absorbers.
        opset: Version of the default operator set.
        absorbers: Those reached, by first node.
        crossed: Nodes crossed, in order.
        changed: Values that will carry something else.
        amendments: Crossed nodes that do not stay as they are.
    """

    site: Site
    opset: int
    absorbers: dict[ir.Node, Absorber] = field(default_factory=dict)
    crossed: dict[ir.Node, None] = field(default_factory=dict)
    changed: dict[ir.Value, None] = field(default_factory=dict)
    amendments: list[Amendment] = field(default_factory=list)

    def up(self, value: ir.Value, reader: ir.Node, carried: Field) -> None:
        """Carry a field to whoever computes the value.

        Raises:
            Refused: Somebody looks on, or somebody in between lets it not through.
        """
        node = value.producer()
        if node is None:
            what = "it is given at run time" if value.is_graph_input() else "it is a constant or a parameter"
            raise Refused(Reason.GRAPH_INPUT, value.name, what)
        require_only_reader(value, reader)
        if node.graph is not reader.graph:
            raise Refused(Reason.CAPTURED_BY_SUBGRAPH, value.name, "computed outside the subgraph")
        absorber = absorber_above(node, self.opset)
        if absorber is not None:  # behind a Split that is joined again it is met more than once
            self.absorbers.setdefault(absorber.nodes[0], absorber).absorb_output(carried)
            return
        self._cross(node)
        self.changed[value] = None
        hops = move_up(node, value, carried, self.opset)
        self._amend(node, carried, upward=True)
        for source, onward in hops:
            self.up(source, node, onward)

    def down(self, value: ir.Value, carried: Field) -> None:
        """Carry a field to everybody who reads the value.

        Raises:
            Refused: Somebody who reads it can neither absorb it nor let it through.
        """
        for node, index in readers(value, self.site.nodes[0].graph):
            absorber = absorber_below(node, index, self.opset)
            if absorber is not None:
                absorber = self.absorbers.setdefault(absorber.nodes[0], absorber)
                absorber.absorb_input(carried)
                continue
            self._cross(node)
            hops = move_down(node, index, carried, self.opset)
            self._amend(node, carried, upward=False)
            for output, onward in hops:
                self.changed[output] = None
                self.down(output, onward)

    def _cross(self, node: ir.Node) -> None:
        if self.site.input.shape is None and self.site.output.shape is None:
            raise Refused(Reason.UNKNOWN_SHAPE, self.site.input.name, "the rank is not known")
        self.crossed[node] = None

    def _amend(self, node: ir.Node, carried: Field, *, upward: bool) -> None:
        amendment = amended(node, carried, self.opset, upward=upward)
        if amendment is not None:
            self.amendments.append(amendment)

    def fold(self, probes: tuple[str, ...], *, upward: bool) -> Fold:
        """The finished walk as a patch.

        Raises:
            Refused: `not-representable`, or `costs-more` if the graph would grow.
        """
        found = list(self.absorbers.values())
        replacements = tuple(
            Replacement(
                each.nodes,
                each.write(),
                renamed=upward and each.nodes[-1].outputs[0] is not self.site.input,
            )
            for each in found
        )
        old = [node for each in replacements for node in each.old]
        before = len(old) + len(self.site.nodes) + len(_read_by_nobody_else(old))
        after = sum(len(each.new) for each in replacements)
        if after > before:
            raise Refused(Reason.COSTS_MORE, found[0].name, f"{after} nodes instead of {before}")
        site = self.site
        renamed = tuple(value for value in self.changed if value is not site.input)
        patch = Patch(
            replacements,
            site.nodes,
            site.data_index,
            keeps_source=not upward,
            renamed=renamed,
            amendments=tuple(self.amendments),
        )
        return Fold(
            patch,
            ", ".join(each.name for each in found),
            ", ".join(dict.fromkeys(each.nodes[0].op_type for each in found)),
            probes,
            tuple(name for each in found for name in each.copied),
            tuple(node.name or node.op_type for node in self.crossed),
        )


def _read_by_nobody_else(nodes: Sequence[ir.Node]) -> set[ir.Node]:
    """The DequantizeLinears that go with these nodes: each op writes one of its own."""
    found = {dequantizer(value) for node in nodes for value in node.inputs} - {None}
    return {each for each in found if each and set(each.outputs[0].consumers()) <= set(nodes)}


def into_producer(site: Site, opset: int) -> Fold:
    """Absorb the affine into the linear ops that compute the site's input.

    Exact up to rounding, padded or not: the affine acts on each output element
    alone, and every output element is one sum plus one bias.

    Raises:
        Refused: With the reason that stands in the way.
    """
    walk = _walk_up(site, opset)
    other = next((each for each in walk.absorbers.values() if not each.is_linear), None)
    if other is not None:
        raise Refused(Reason.BLOCKED_BY_OP, other.name, other.nodes[-1].op_type)
    return walk.fold((site.output.name or "",), upward=True)


def into_consumers(site: Site, opset: int) -> Fold:
    """Absorb the affine into the linear ops that read its result, all of them.

    Raises:
        Refused: With the reason that stands in the way.
    """
    return _into_readers(site, opset, linear=True)


def into_neighbour(site: Site, opset: int) -> Fold:
    """Let two affines that meet become one, whichever side the other is on.

    Raises:
        Refused: With the reason that stands in the way.
    """
    try:
        return _walk_up(site, opset).fold((site.output.name or "",), upward=True)
    except Refused:
        return _into_readers(site, opset, linear=False)


def _walk_up(site: Site, opset: int) -> _Walk:
    walk = _Walk(site, opset)
    walk.up(site.input, site.nodes[0], _field(site))
    return walk


def _into_readers(site: Site, opset: int, *, linear: bool) -> Fold:
    walk = _Walk(site, opset)
    walk.down(site.output, _field(site))
    found = list(walk.absorbers.values())
    if not found:
        raise Refused(Reason.BLOCKED_BY_OP, site.output.name, "nobody reads it")
    other = next((each for each in found if not each.is_linear), None)
    if linear and other is not None:
        raise Refused(Reason.BLOCKED_BY_OP, other.name, other.nodes[0].op_type)
    probes = tuple(each.nodes[-1].outputs[0].name or "" for each in found)
    return walk.fold(probes, upward=False)


def _field(site: Site) -> Field:
    shape = site.input.shape or site.output.shape
    if shape is None:
        # A BatchNormalization behind a linear op needs no more than its own axis.
        return Field.of(site.affine, site.axis, 2 if site.axis is None else site.axis + 1)
    return Field.of(site.affine, site.axis, len(shape))


RULES: tuple[tuple[str, Rule], ...] = (
    ("producer", into_producer),
    ("consumer", into_consumers),
    ("neighbour", into_neighbour),
)
