"""Where a norm can go: each rule returns a patch, or refuses with a reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from infold.fold.layouts import linear_op
from infold.fold.patch import Patch, Replacement
from infold.fold.report import Reason, Refused
from infold.fold.sites import Site

__all__ = ["RULES", "Fold", "Rule", "into_producer"]


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """A rule's yes: the patch, and what to say about it.

    Attributes:
        patch: The rewrite.
        into: Name of the node that absorbs.
        into_op: Its operator.
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


def into_producer(site: Site, opset: int) -> Fold:
    """Absorb the affine into the linear op that computes the site's input.

    Exact up to rounding, padded or not: the affine acts on each output element
    alone, and every output element is one sum plus one bias.

    Raises:
        Refused: With the reason that stands in the way.
    """
    value = site.input
    require_only_reader(value, site.nodes[0])
    node = value.producer()
    if node is None:
        raise Refused(Reason.GRAPH_INPUT, value.name)
    if node.graph is not site.nodes[0].graph:
        raise Refused(Reason.CAPTURED_BY_SUBGRAPH, value.name, "computed outside the subgraph")
    op = linear_op(node, opset)
    if op is None:
        raise Refused(Reason.BLOCKED_BY_OP, node.name or value.name, node.op_type)
    outputs = op.linear.weight.outputs
    if site.axis is not None and site.axis != op.out_axis:
        detail = f"channels on axis {site.axis}, {node.op_type} has them on {op.out_axis}"
        raise Refused(Reason.AXIS_MISMATCH, op.name, detail)
    if site.affine.channels not in (1, outputs):
        detail = f"{site.affine.channels} statistics for {outputs} outputs"
        raise Refused(Reason.INVALID_STATISTICS, op.name, detail)
    new = op.write(op.linear.absorb_output(site.affine.over(outputs)))
    patch = Patch((Replacement(op.nodes, new),), site.nodes, site.data_index)
    return Fold(patch, op.name, op.nodes[0].op_type, (_name(site.output),), _copied(op.weight_value))


def require_only_reader(value: ir.Value, reader: ir.Node) -> None:
    """Pass if nobody but `reader`, once, sees the value.

    Raises:
        Refused: `graph-output`, `shared-output` or `captured-by-subgraph`.
    """
    if value.is_graph_output():
        raise Refused(Reason.GRAPH_OUTPUT, value.name, "the caller sees it")
    others = [use.node for use in value.uses() if use.node is not reader]
    for other in others:
        if other.graph is not reader.graph:
            raise Refused(Reason.CAPTURED_BY_SUBGRAPH, value.name, "a subgraph reads it too")
    if others or len(value.uses()) > 1:
        seen = others[0].name or others[0].op_type if others else reader.name
        raise Refused(Reason.SHARED_OUTPUT, value.name, f"'{seen}' reads it too")


def _copied(weight: ir.Value) -> tuple[str, ...]:
    return (_name(weight),) if len(weight.uses()) > 1 else ()


def _name(value: ir.Value) -> str:
    return value.name or ""


RULES: tuple[tuple[str, Rule], ...] = (("producer", into_producer),)
