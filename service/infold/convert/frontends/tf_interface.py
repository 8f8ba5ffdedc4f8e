"""What goes into a TensorFlow 1 graph, what comes out, and which placeholder means training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf

from infold.convert.frontends.exported import Options
from infold.convert.frontends.tf_frozen import node_of, subgraph
from infold.convert.frontends.tf_graphs import Graph, known_tensors
from infold.convert.frontends.tf_pinning import predicates
from infold.errors import SourceError

__all__ = ["find_flags", "find_inputs", "find_outputs"]

PLACEHOLDERS = ("Placeholder", "PlaceholderWithDefault")
# What people call the flag; it decides only between several that could be it.
FLAG_NAMES: tuple[str, ...] = (
    "training",
    "is_training",
    "is_train",
    "train",
    "phase_train",
    "train_phase",
    "phase",
)
FLAG_NAMES += ("keras_learning_phase", "train_mode", "training_mode", "learning_phase", "istraining")
# Operators that only training, saving and watching need.
MACHINERY: tuple[str, ...] = (
    "Assign",
    "Apply",
    "ResourceApply",
    "SparseApply",
    "ResourceSparseApply",
    "Scatter",
)
MACHINERY += ("Save", "Restore", "MergeV2Checkpoints", "ShardedFilename", "NoOp", "Print", "Assert")
MACHINERY += ("ScalarSummary", "HistogramSummary", "ImageSummary", "MergeSummary", "TensorSummary")
MACHINERY += ("IsVariableInitialized", "VarIsInitializedOp", "DestroyResourceOp", "BroadcastGradientArgs")
LOSSES = ("SoftmaxCrossEntropyWithLogits", "SparseSoftmaxCrossEntropyWithLogits", "L2Loss", "CTCLoss")
UPDATES = (
    "Assign",
    "AssignAdd",
    "AssignSub",
    "AssignVariableOp",
    "AssignAddVariableOp",
    "AssignSubVariableOp",
)
# A loss reads the output through these.
WRAPPING: tuple[str, ...] = (
    "Reshape",
    "Cast",
    "ArgMax",
    "Shape",
    "StopGradient",
    "Squeeze",
    "TopKV2",
    "InTopKV2",
)
WRAPPING += ("Rank", "Slice", "Neg", "Log", "Exp", "Log1p", "Pack", "Abs", "Round", "ZerosLike")
WRAPPING += ("Select", "SelectV2", "GreaterEqual")
LINEAR: tuple[str, ...] = (
    "MatMul",
    "BatchMatMul",
    "BatchMatMulV2",
    "Conv1D",
    "Conv2D",
    "Conv3D",
    "DepthwiseConv2dNative",
)
LINEAR += ("Conv2DBackpropInput", "Conv3DBackpropInputV2", "Gather", "GatherV2", "ResourceGather")
LINEAR += ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", "Einsum", "Rsqrt", "Sqrt")


def find_flags(given: Graph, wanted: str | None) -> tuple[str, ...]:
    """Placeholders to hold at False.

    Args:
        given: The graph.
        wanted: Names of the user's, parted by commas; None guesses.

    Raises:
        SourceError: The user's name is none of the graph's, or several could be meant.
    """
    nodes = {node.name: node for node in given.graph.node}
    found = predicates(given.graph)
    booleans = [
        node.name
        for node in given.graph.node
        if node.op in PLACEHOLDERS and node.attr["dtype"].type == tf.bool.as_datatype_enum
    ]
    if wanted is not None:
        names = tuple(node_of(each.strip()) for each in wanted.split(","))
        for name in names:
            if name not in nodes or nodes[name].op not in PLACEHOLDERS:
                listed = ", ".join(booleans) or "no boolean placeholder at all"
                raise SourceError(
                    given.source, f"--training-flag {name}: no such placeholder; it has {listed}"
                )
            if name not in booleans:
                raise SourceError(given.source, f"--training-flag {name}: that placeholder is not boolean")
        return names
    likely = [name for name in booleans if name.rpartition("/")[2].lower() in FLAG_NAMES]
    for candidates in ([name for name in likely if name in found], likely, list(found)):
        if len(candidates) == 1 and (len(found) < 2 or candidates[0] in found):
            return tuple(candidates)
        if len(candidates) > 1:
            listed = ", ".join(sorted(candidates))
            raise SourceError(
                given.source,
                f"several placeholders could switch to training: {listed}; "
                "name one, or several with commas, as --training-flag",
            )
    return ()


def find_inputs(given: Graph, graph: Any, outputs: Iterable[str], options: Options) -> dict[str, str]:
    """Tensor names of what the outputs need to be fed, by the names that the user knows.

    Args:
        given: The graph as found.
        graph: Pinned.
        outputs: Tensor names.
        options: The user's `--inputs`.

    Raises:
        SourceError: An input is not in the graph, or there is none.
    """
    nodes = {node.name: node for node in graph.node}
    if options.inputs:
        return _named(given.source, nodes, options.inputs, "--inputs")
    ancestors = _ancestors(nodes, outputs)
    if given.inputs:
        return {
            name: tensor
            for name, tensor in given.inputs.items()
            if node_of(tensor) in ancestors and nodes[node_of(tensor)].op != "Const"
        }
    found = {name: f"{name}:0" for name in nodes if name in ancestors and _is_fed(nodes, name)}
    if not found:
        sources = sorted(
            name
            for name in ancestors
            if nodes[name].op in ("IteratorGetNext", "OneShotIterator")
            or "Queue" in nodes[name].op
            or nodes[name].op.endswith("Iterator")
        )
        hint = f", perhaps {sources[0]}:0" if sources else ""
        raise SourceError(
            given.source, f"has no placeholder to feed; name the tensors to feed with --inputs{hint}"
        )
    return found


def _is_fed(nodes: Mapping[str, Any], name: str) -> bool:
    """Placeholders are, and those with a default unless that is one number (a keep probability)."""
    node = nodes[name]
    if node.op == "PlaceholderWithDefault":
        return not (node.attr["shape"].shape.dim == [] and not node.attr["shape"].shape.unknown_rank)
    return bool(node.op == "Placeholder")


def find_outputs(given: Graph, graph: Any, options: Options) -> dict[str, str]:
    """Tensor names of what the graph is for, by the names that the user knows.

    Without a signature and `--outputs`: whatever nothing reads, in a graph that holds no
    training; else what is left once losses, metrics, gradients and updates are taken away.

    Raises:
        SourceError: An output is not in the graph, there is none, or several could be meant.
    """
    nodes = {node.name: node for node in graph.node}
    if options.outputs:
        return _named(given.source, nodes, options.outputs, "--outputs")
    if given.outputs:
        return dict(given.outputs)
    candidates, trains = _sinks(given, graph, nodes)
    if not candidates:
        raise SourceError(given.source, "no output can be found in this graph; name it with --outputs")
    if trains and len(candidates) > 1:
        listed = ", ".join(sorted(candidates))
        raise SourceError(given.source, f"several tensors could be the output: {listed}; name with --outputs")
    return {name: f"{name}:0" for name in candidates}


def _sinks(given: Graph, graph: Any, nodes: Mapping[str, Any]) -> tuple[list[str], bool]:
    readers = _readers(graph)
    fed = [name for name in nodes if _is_fed(nodes, name)] or [
        name for name, node in nodes.items() if not node.input and "Iterator" in node.op
    ]
    machinery = {name for name, node in nodes.items() if _is_machinery(node)}
    trains = any(
        node.op in LOSSES or "Apply" in node.op or name.startswith("gradients")
        for name, node in nodes.items()
    )
    reaches = {name: _descendants(readers, [name]) for name in fed}
    data = set(fed)
    if trains:  # labels reach no layer, only losses and metrics
        layers = {n for n, node in nodes.items() if node.op in LINEAR and n not in machinery}
        through = {name for name in fed if reaches[name] & layers}
        data = through or data
    labels = set().union(*(reaches[name] for name in fed if name not in data), ())
    depending = set().union(*(reaches[name] for name in data), ())
    forward = depending - machinery
    scalars = _scalars(given.source, subgraph(graph, forward), forward) if trains else set()
    updates = {name for name, node in nodes.items() if node.op in UPDATES}
    while True:  # what only updates read is theirs
        more = {n for n in depending - updates if readers[n] and set(readers[n]) <= updates}
        if not more:
            break
        updates |= more
    gone = machinery | labels | scalars | updates
    left = {name for name in depending - gone if name not in fed and nodes[name].op not in LOSSES}
    # What only a dead branch read is no end of the whole.
    before = _readers(given.graph)
    named = {node.name for node in given.graph.node}
    ends = [name for name in nodes if name in left & named and not readers[name] and not before[name]]
    if ends:
        return ends, trains
    edge = {name for name in left if _is_edge(readers[name], left)}
    roots = {_unwrapped(nodes, name, left) for name in edge}
    # Of logits and what is computed from them, the last is meant.
    last = {name for name in roots if not (_descendants(readers, readers[name]) & roots - {name})}
    return [name for name in nodes if name in last], trains


def _is_edge(readers: Iterable[str], left: set[str]) -> bool:
    """Losses and metrics read it, and nothing else but gradients."""
    others = {name for name in readers if "gradients" not in name.split("/")}
    return bool(others) and not others & left


def _is_machinery(node: Any) -> bool:
    parts = node.name.split("/")
    return (
        node.op in MACHINERY
        or node.op.startswith(MACHINERY[:6])
        or parts[0].startswith("gradients")
        or "gradients" in parts
        or parts[0] in ("save", "init", "report_uninitialized_variables")
    )


def _unwrapped(nodes: Mapping[str, Any], name: str, left: set[str]) -> str:
    """The value that a loss reads, before the loss reshapes and squashes it."""
    while nodes[name].op in WRAPPING:
        before = [node_of(each) for each in nodes[name].input if node_of(each) in left]
        if not before:
            break
        name = before[0]
    return name


def _readers(graph: Any) -> dict[str, list[str]]:
    readers: dict[str, list[str]] = defaultdict(list)
    for node in graph.node:
        for each in node.input:
            if not each.startswith("^"):
                readers[node_of(each)].append(node.name)
    return readers


def _scalars(source: str, graph: Any, names: Iterable[str]) -> set[str]:
    known = known_tensors(source, graph, [f"{name}:0" for name in names])
    return {node_of(tensor) for tensor, (_, shape) in known.items() if shape.rank == 0}


def _named(source: str, nodes: Mapping[str, Any], names: Iterable[str], option: str) -> dict[str, str]:
    found = {}
    for name in names:
        node, _, index = name.partition(":")
        if node not in nodes:
            near = [each for each in nodes if each.rpartition("/")[2] == node.rpartition("/")[2]]
            hint = f"; did you mean {', '.join(near[:3])}?" if near else ""
            raise SourceError(source, f"{option} {name}: the graph has no such tensor{hint}")
        found[node if index in ("", "0") else name] = f"{node}:{index or 0}"
    return found


def _ancestors(nodes: Mapping[str, Any], tensors: Iterable[str]) -> set[str]:
    seen: set[str] = set()
    waiting = [node_of(tensor) for tensor in tensors]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += [node_of(each) for each in nodes[name].input if not each.startswith("^")]
    return seen


def _descendants(readers: Mapping[str, list[str]], names: Iterable[str]) -> set[str]:
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += readers.get(name, [])
    return seen
