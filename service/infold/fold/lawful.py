"""Who may be rewired: the one place that looks at readers, graph outputs and subgraphs.

An affine changes numbers, never a shape: who asks for no more than that is no reader here.
"""

from __future__ import annotations

import onnx_ir as ir

from infold.fold.report import Reason, Refused

__all__ = ["readers", "require_only_reader"]


def _uses(value: ir.Value) -> list[tuple[ir.Node, int]]:
    """Every use that depends on the numbers, as node and input index."""
    uses = ((use.node, use.idx) for use in value.uses())
    return [(node, index) for node, index in uses if node.domain or node.op_type not in ("Shape", "Size")]


def require_only_reader(value: ir.Value, reader: ir.Node) -> None:
    """Pass if nobody but `reader`, once, sees the value: it may then carry something else.

    Raises:
        Refused: `graph-output`, `shared-output` or `captured-by-subgraph`.
    """
    if value.is_graph_output():
        raise Refused(Reason.GRAPH_OUTPUT, value.name, "the caller sees it")
    uses = _uses(value)
    for node, _ in uses:
        if node.graph is not reader.graph:
            raise Refused(Reason.CAPTURED_BY_SUBGRAPH, value.name, "a subgraph reads it too")
    others = [node for node, _ in uses if node is not reader]
    if others or len(uses) > 1:
        seen = others[0] if others else reader
        raise Refused(Reason.SHARED_OUTPUT, value.name, f"'{seen.name or seen.op_type}' reads it too")


def readers(value: ir.Value, graph: ir.Graph | None) -> list[tuple[ir.Node, int]]:
    """Everybody who sees the value, as node and input index, all in one graph.

    Raises:
        Refused: `graph-output` or `captured-by-subgraph`: somebody sees it who cannot absorb.
    """
    if value.is_graph_output():
        raise Refused(Reason.GRAPH_OUTPUT, value.name, "the caller sees it")
    uses = _uses(value)
    if any(node.graph is not graph for node, _ in uses):
        raise Refused(Reason.CAPTURED_BY_SUBGRAPH, value.name, "a subgraph reads it")
    return uses
