"""Folds whatever can be folded and keeps account of every norm.

The loop is small on purpose: rules decide, patches describe, this applies one
patch at a time and starts over until no site yields another. It ends, because
each patch removes a site.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import onnx_ir as ir

from infold.fold.absorbers import write_affine
from infold.fold.patch import Editor, Patch, Replacement
from infold.fold.places import places
from infold.fold.report import (
    Decision,
    FoldReport,
    NormParameters,
    Outcome,
    Refusal,
    Refused,
)
from infold.fold.rows import merged_rows
from infold.fold.rules import RULES, Fold
from infold.fold.sites import Candidate, Site, batch_norm_parameters, find_candidates, read_site

__all__ = ["drop_initializer_inputs", "fold_batch_norms"]

# Names of values are unique in a graph, not among the branches of an If or among functions.
Decisions = dict[tuple[ir.Graph, str], Decision]

FIRST_IR_WITH_PLAIN_INITIALIZERS = 4


def fold_batch_norms(model: ir.Model, *, freeze_initializers: bool = False) -> tuple[ir.Model, FoldReport]:
    """Fold every norm that can be folded into a neighbouring linear op.

    Args:
        model: Any model; it is left as it is. Shapes, where known, help: run shape
            inference first.
        freeze_initializers: Take inputs that are initializers too as constants, and drop
            them as inputs. For IR 3, which lists every initializer as an input, that is
            always done.

    Returns:
        A folded clone, inputs and outputs untouched, and what became of each norm.
        Folded weights are computed when they are read, in float64, rounded once.
    """
    before = _count_nodes(model)
    folded = model.clone()
    _cut_empty_outputs(folded)
    if freeze_initializers or folded.ir_version < FIRST_IR_WITH_PLAIN_INITIALIZERS:
        drop_initializer_inputs(folded)
    for graph, _ in _graphs(folded):
        if not _is_sorted(graph):
            graph.sort()
    editor = Editor(folded)
    decisions: Decisions = {}
    called = {
        _key(graph, each): (each.name, each.spelling, each.layer) for graph, _, each in _candidates(folded)
    }
    while _fold_once(folded, editor, decisions):
        pass
    _keep_rest(folded, editor, decisions)
    _shrink_chains(folded, editor)
    _merge_rows(folded, editor, decisions)
    where = places(folded)
    # Two that met may by now be written and named otherwise; the report tells of the model as it was.
    ordered = [
        replace(decisions[key], site=name, spelling=spelling, output=key[1], layer=layer, place=where[key[0]])
        for key, (name, spelling, layer) in called.items()
    ]
    report = FoldReport(tuple(ordered), before, _count_nodes(folded))
    return folded, report


def _graphs(model: ir.Model) -> Iterator[tuple[ir.Graph, int]]:
    """Every graph of the model with the default opset version it is written in."""
    default = model.opset_imports.get("", 1)
    yield model.graph, default
    for graph in model.graph.subgraphs():
        yield graph, default
    for function in model.functions.values():
        opset = function.opset_imports.get("", default)
        yield function.graph, opset
        for graph in function.subgraphs():
            yield graph, opset


def _key(graph: ir.Graph, candidate: Candidate) -> tuple[ir.Graph, str]:
    return graph, candidate.nodes[-1].outputs[0].name or ""


def _candidates(model: ir.Model) -> Iterator[tuple[ir.Graph, int, Candidate]]:
    for graph, opset in _graphs(model):
        for candidate in find_candidates(graph, opset):
            yield graph, opset, candidate


def _fold_once(model: ir.Model, editor: Editor, decisions: Decisions) -> bool:
    """Try each site in turn; True if any of them folded."""
    progress = False
    for graph, opset, candidate in list(_candidates(model)):
        if any(node.graph is None for node in candidate.nodes):
            continue  # an earlier patch of this round took it along
        try:
            site = read_site(candidate, opset)
        except Refused:
            continue
        for name, rule in RULES:
            try:
                fold = rule(site, opset)
            except Refused:
                continue
            decision = _folded(candidate, site, name, fold)
            decisions[graph, editor.origin(graph, decision.output)] = decision
            editor.apply(fold.patch)
            progress = True
            break
    return progress


def _keep_rest(model: ir.Model, editor: Editor, decisions: Decisions) -> None:
    """Record every site that is still there, with the refusal of each rule."""
    for graph, opset, candidate in _candidates(model):
        site: Site | None = None
        refusals: list[Refusal] = []
        try:
            site = read_site(candidate, opset)
            for name, rule in RULES[:2]:  # what stops both of these stops the third as well
                try:
                    rule(site, opset)
                except Refused as no:
                    refusals.append(Refusal(name, no.reason, no.at, no.detail))
        except Refused as no:
            refusals.append(Refusal("site", no.reason, no.at, no.detail))
        decision = Decision(
            candidate.name,
            candidate.spelling,
            candidate.nodes[-1].outputs[0].name or "",
            Outcome.KEPT,
            is_norm=site.is_norm if site else True,
            refusals=tuple(refusals),
            producer=_producer(candidate, site),
            affine=site.affine if site else None,
            parameters=site.parameters if site else _parameters(candidate),
        )
        decisions[graph, editor.origin(graph, decision.output)] = decision


def _shrink_chains(model: ir.Model, editor: Editor) -> None:
    """Write every chain that stays as at most one Mul and one Add."""
    for _, opset, candidate in list(_candidates(model)):
        if len(candidate.nodes) < 2 or candidate.nodes[0].op_type == "BatchNormalization":
            continue
        try:
            site = read_site(candidate, opset)
            rank = len(site.input.shape) if site.input.shape is not None else 0
            new = write_affine(site, site.affine, site.axis, rank)
        except Refused:
            continue
        if len(new) < len(candidate.nodes):
            editor.apply(Patch((Replacement(candidate.nodes, new),)))


def _merge_rows(model: ir.Model, editor: Editor, decisions: Decisions) -> None:
    """Write every MatMul that has got a bias as a Gemm, where a Reshape behind it lets that be."""
    for graph, opset in _graphs(model):
        for replacement in merged_rows(graph, opset):
            biased, rows = (node.outputs[0].name or "" for node in replacement.old[-2:])
            for key, each in decisions.items():
                if key[0] is graph and biased in each.probes:  # from now on its rows stand for it
                    probes = tuple(rows if probe == biased else probe for probe in each.probes)
                    decisions[key] = replace(each, probes=probes)
            editor.apply(Patch((replacement,)))


def drop_initializer_inputs(model: ir.Model) -> None:
    """Take inputs that are nothing but initializers out of the model's inputs.

    IR 3 lists every initializer as an input too; in newer versions that means the
    caller may override it.
    """
    kept = [value for value in model.graph.inputs if not value.is_initializer()]
    if len(kept) < len(model.graph.inputs):
        model.graph.inputs.clear()
        model.graph.inputs.extend(kept)
    model.ir_version = max(model.ir_version, FIRST_IR_WITH_PLAIN_INITIALIZERS)


def _is_sorted(graph: ir.Graph) -> bool:
    seen: set[ir.Node] = set()
    for node in graph:
        for before in node.predecessors():
            if before.graph is graph and before not in seen:
                return False
        seen.add(node)
    return True


def _producer(candidate: Candidate, site: Site | None) -> str:
    value = site.input if site is not None else candidate.nodes[0].inputs[0]
    node = None if value is None else value.producer()
    return f"{node.op_type} {node.name or node.outputs[0].name}" if node is not None else "input"


def _parameters(candidate: Candidate) -> NormParameters | None:
    """The parameters of a norm that could not be read as a site, where they can be had at all."""
    if candidate.nodes[0].op_type != "BatchNormalization":
        return None
    try:
        return batch_norm_parameters(candidate.nodes[0])
    except Refused:
        return None


def _folded(candidate: Candidate, site: Site, rule: str, fold: Fold) -> Decision:
    return Decision(
        candidate.name,
        candidate.spelling,
        candidate.nodes[-1].outputs[0].name or "",
        Outcome.FOLDED,
        is_norm=site.is_norm,
        rule=rule,
        into=fold.into,
        into_op=fold.into_op,
        across=fold.across,
        copied=fold.copied,
        probes=fold.probes,
        producer=_producer(candidate, site),
        affine=site.affine,
        parameters=site.parameters,
    )


def _cut_empty_outputs(model: ir.Model) -> None:
    """Cut unnamed extra outputs of BatchNormalization: onnxruntime 1.31 crashes on them."""
    for graph, _ in _graphs(model):
        for node in graph:
            if node.op_type == "BatchNormalization" and not any(out.name for out in node.outputs[1:]):
                node.resize_outputs(1)


def _count_nodes(model: ir.Model) -> int:
    return sum(len(graph) for graph, _ in _graphs(model))
