"""Who may be rewired: the one place that looks at readers, graph outputs and subgraphs."""

from __future__ import annotations

import onnx_ir as ir

from infold.fold.report import Reason, Refused

__all__ = ["readers", "require_only_reader"]


def require_only_reader(value: ir.Value, reader: ir.Node) -> None:
    """Pass if nobody but `reader`, once, sees the value: it may then carry something else.

    Raises:
        Refused: `graph-output`, `shared-output` or `captured-by-subgraph`.
    """
    if value.is_graph_output():
        raise Refused(Reason.GRAPH_OUTPUT, value.name, "the caller sees it")
    uses = value.uses()
    for use in uses:
        if use.node.graph is not reader.graph:
            raise Refused(Reason.CAPTURED_BY_SUBGRAPH, value.name, "a subgraph reads it too")
    others = [use.node for use in uses if use.node is not reader]
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
    uses = list(value.uses())
    for use in uses:
        if use.node.graph is not graph:
            raise Refused(Reason.CAPTURED_BY_SUBGRAPH, value.name, "a subgraph reads it")
    return [(use.node, use.idx) for use in uses]
