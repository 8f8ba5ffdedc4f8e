"""Finds every place where a graph applies an affine per channel.

Two spellings: BatchNormalization in the form of any opset, and chains of
Add, Sub, Mul, Div and Neg with constants, as frameworks write a norm out. A
chain belongs together while each result has one reader and all constants lie
along the same axis; constants of one element go with any axis.

`c - x` negates. `c / x` is no affine. A constant counts as per channel only if
its place in the broadcast says so: equal lengths prove nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from infold.fold.affine import F64, Affine
from infold.fold.attributes import float_of, int_of
from infold.fold.constants import FLOATS, constant, is_constant, stored_dtype, vector
from infold.fold.layouts import bias_of_matmul
from infold.fold.report import NormParameters, Reason, Refused

__all__ = [
    "LAYER",
    "Candidate",
    "Site",
    "batch_norm_parameters",
    "find_candidates",
    "find_chain",
    "read_site",
]


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """One affine, read.

    Attributes:
        nodes: The nodes that apply it, in data-flow order.
        data_index: Which input of the first node is the data.
        axis: The channel axis of the data, counted from the front; None where
            the affine is the same everywhere and so has no axis.
        affine: What is applied.
        parameters: The trained parameters where they can still be told apart.
    """

    nodes: tuple[ir.Node, ...]
    data_index: int
    axis: int | None
    affine: Affine
    parameters: NormParameters | None = None

    @property
    def input(self) -> ir.Value:
        """The value that the affine is applied to."""
        value = self.nodes[0].inputs[self.data_index]
        assert value is not None
        return value

    @property
    def output(self) -> ir.Value:
        """The result."""
        return self.nodes[-1].outputs[0]

    @property
    def is_norm(self) -> bool:
        """Per channel and with a scale: neither a scalar factor nor a bare bias."""
        return self.axis is not None and not (self.parameters is None and self.affine.is_pure_shift)


# Key of a node's metadata: here ends the layer of this name. A frontend writes it; no chain goes on past it.
LAYER = "infold.layer"


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """Nodes that look like a site; reading them may still be refused."""

    nodes: tuple[ir.Node, ...]

    @property
    def layer(self) -> str:
        """The name of the user's own layer whose end the last node is marked as; empty if unknown."""
        return self.nodes[-1].metadata_props.get(LAYER, "")

    @property
    def name(self) -> str:
        """The name a report uses: the layer's, the last node's, or its output's where nodes are unnamed."""
        last = self.nodes[-1]
        return self.layer or last.name or last.outputs[0].name or last.op_type

    @property
    def spelling(self) -> str:
        """How it is written, as operator types."""
        return ",".join(node.op_type for node in self.nodes)


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """One node of a chain: what it does to its data input."""

    data_index: int
    axis: int | None
    affine: Affine


def find_candidates(graph: ir.Graph | ir.Function, opset: int) -> Iterator[Candidate]:
    """Every candidate of one graph, in its order; subgraphs are graphs of their own."""
    in_chain: set[ir.Node] = set()
    for node in graph:
        if node.domain:
            continue
        if node.op_type == "BatchNormalization":
            yield Candidate((node,))
        elif node not in in_chain and _looks_affine(node, opset) and bias_of_matmul(node) is None:
            chain = tuple(_chain(node, opset))
            in_chain.update(chain)
            yield Candidate(chain)


def find_chain(node: ir.Node, opset: int, *, last: bool) -> Candidate | None:
    """The written-out chain that ends (`last`) or begins with this node, or None."""
    if not _looks_affine(node, opset) or bias_of_matmul(node) is not None:
        return None
    if not last:
        return Candidate(tuple(_chain(node, opset)))
    head = node
    while True:
        value = head.inputs[_read_step(head).data_index]
        before = None if value is None else value.producer()
        if before is None or before.graph is not node.graph or not _looks_affine(before, opset):
            break
        if bias_of_matmul(before) is not None or node not in set(_chain(before, opset)):
            break
        head = before
    chain = tuple(_chain(head, opset))
    return Candidate(chain) if chain[-1] is node else None


def read_site(candidate: Candidate, opset: int) -> Site:
    """Read a candidate's numbers.

    Args:
        candidate: From `find_candidates`.
        opset: Version of the default operator set its graph is written in.

    Raises:
        Refused: `training-mode`, `not-constant`, `invalid-statistics`,
            `axis-mismatch` or `unknown-shape`.
    """
    if candidate.nodes[0].op_type == "BatchNormalization":
        return _read_batch_norm(candidate.nodes[0], opset)
    steps = [_read_step(node) for node in candidate.nodes]
    affine, axis = Affine.identity(), None
    for step in steps:
        with np.errstate(all="ignore"):  # what is not finite is refused below, by its channel
            affine = affine.then(step.affine)
        axis = step.axis if axis is None else axis
    _require_finite(affine, candidate.name)
    return Site(candidate.nodes, steps[0].data_index, axis, affine)


def _require_inference(node: ir.Node, opset: int) -> None:
    """Refuse every disguise of training: batch statistics are no constants.

    Source: ONNX operator changelog, BatchNormalization-1, -6, -7, -9, -14.
    """
    if opset >= 14:
        if int_of(node, "training_mode", 0):
            raise Refused(Reason.TRAINING_MODE, node.name, "training_mode=1")
        return
    if any(output.name for output in node.outputs[1:]):
        raise Refused(Reason.TRAINING_MODE, node.name, "it returns statistics of the batch")
    if opset < 7 and not int_of(node, "is_test", 0):
        raise Refused(Reason.TRAINING_MODE, node.name, "is_test=0")
    if opset < 9 and not int_of(node, "spatial", 1):
        raise Refused(Reason.AXIS_MISMATCH, node.name, "spatial=0: a statistic for each position")


def batch_norm_parameters(node: ir.Node) -> NormParameters:
    """The trained parameters of a BatchNormalization as they stand, sensible or not.

    Raises:
        Refused: `not-constant`, or `invalid-statistics` when they are no vectors of one length.
    """
    if len(node.inputs) < 5:
        raise Refused(Reason.INVALID_STATISTICS, node.name, "fewer than five inputs")
    gamma, beta, mean, variance = (vector(value, node.name) for value in node.inputs[1:5])
    epsilon = float_of(node, "epsilon", 1e-5)
    lengths = {len(gamma), len(beta), len(mean), len(variance)}
    if len(lengths) > 1:
        raise Refused(Reason.INVALID_STATISTICS, node.name, f"lengths {sorted(lengths)} differ")
    return NormParameters(gamma, beta, mean, variance, epsilon)


def _read_batch_norm(node: ir.Node, opset: int) -> Site:
    _require_inference(node, opset)
    parameters = batch_norm_parameters(node)
    gamma, beta = parameters.gamma, parameters.beta
    mean, variance, epsilon = parameters.mean, parameters.variance, parameters.epsilon
    _require_channels(node, len(gamma))
    bad = np.flatnonzero(~(variance + epsilon > 0) | ~np.isfinite(variance) | (variance < 0))
    if bad.size:
        detail = f"moving variance of channel {bad[0]} is {variance[bad[0]]:.6g}"
        raise Refused(Reason.INVALID_STATISTICS, node.name, detail)
    affine = Affine.of_batch_norm(gamma, beta, mean, variance, epsilon)
    _require_finite(affine, node.name)
    return Site((node,), 0, 1, affine, parameters)


def _require_channels(node: ir.Node, channels: int) -> None:
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if shape is None:
        return
    if len(shape) < 2:
        raise Refused(Reason.AXIS_MISMATCH, node.name, f"data of rank {len(shape)} has no axis 1")
    if isinstance(shape[1], int) and shape[1] != channels:
        detail = f"{channels} statistics for {shape[1]} channels"
        raise Refused(Reason.INVALID_STATISTICS, node.name, detail)


def _require_finite(affine: Affine, at: str | None) -> None:
    for what, numbers in (("scale", affine.scale), ("shift", affine.shift)):
        bad = np.flatnonzero(~np.isfinite(numbers))
        if bad.size:
            detail = f"effective {what} of channel {bad[0]} is {numbers[bad[0]]}"
            raise Refused(Reason.INVALID_STATISTICS, at, detail)


# -- chains -------------------------------------------------------------------------------------

# What a node does to its data, given its constant and whether the constant comes first.
STEPS: Mapping[str, Callable[[F64, bool], tuple[F64, F64]]] = {
    "Add": lambda c, _: (np.ones_like(c), c),
    "Sub": lambda c, first: (-np.ones_like(c), c) if first else (np.ones_like(c), -c),
    "Mul": lambda c, _: (c, np.zeros_like(c)),
    "Div": lambda c, _: (1.0 / c, np.zeros_like(c)),
    "Neg": lambda _, __: (-np.ones(1), np.zeros(1)),
}


def _data_index(node: ir.Node) -> int | None:
    """Which input is the data, or None where the node applies no affine."""
    if node.op_type == "Neg":
        return None if is_constant(node.inputs[0]) else 0
    if len(node.inputs) != 2:
        return None
    first, second = (is_constant(value) for value in node.inputs)
    if first == second or (first and node.op_type == "Div"):
        return None
    return 1 if first else 0


def _looks_affine(node: ir.Node, opset: int) -> bool:
    # Before opset 7 broadcasting was spelled by attributes of its own.
    if node.domain or node.op_type not in STEPS or (opset < 7 and node.op_type != "Neg"):
        return False
    index = _data_index(node)
    if index is None:
        return False
    dtype = node.inputs[index].dtype or node.outputs[0].dtype  # type: ignore[union-attr]  # it was found
    if dtype is None and node.op_type != "Neg":
        other = node.inputs[1 - index]
        dtype = None if other is None else stored_dtype(other)
    if dtype is not None and dtype not in FLOATS:
        return False
    try:
        _read_step(node)
    except Refused:
        return False
    return True


def _chain(head: ir.Node, opset: int) -> Iterator[ir.Node]:
    """The head and every node after it that goes on with the same affine."""
    node, axis = head, _read_step(head).axis
    while True:
        yield node
        value = node.outputs[0]
        readers = value.consumers()
        if len(value.uses()) != 1 or value.is_graph_output() or LAYER in node.metadata_props:
            return
        following = readers[0]
        if following.graph is not node.graph or not _looks_affine(following, opset):
            return
        step = _read_step(following)
        if following.inputs[step.data_index] is not value:
            return
        if axis is not None and step.axis is not None and axis != step.axis:
            return
        node, axis = following, axis if step.axis is None else step.axis


def _read_step(node: ir.Node) -> _Step:
    index = _data_index(node)
    if index is None:
        raise Refused(Reason.NOT_CONSTANT, node.name)
    if node.op_type == "Neg":
        return _Step(index, None, Affine.of(-1.0, 0.0))
    array = constant(node.inputs[1 - index], node.name).astype(np.float64)
    axis = _channel_axis(node, array, node.inputs[index])
    with np.errstate(all="ignore"):
        scale, shift = STEPS[node.op_type](array.reshape(-1), index == 1)
    return _Step(index, axis, Affine.of(scale, shift))


def _channel_axis(node: ir.Node, array: np.ndarray, data: ir.Value | None) -> int | None:
    """The data axis along which a constant varies; None where it has one element.

    Raises:
        Refused: `unknown-shape` or `axis-mismatch`: more than one axis, an axis
            that the data lacks, or one that the constant would enlarge.
    """
    shape = None if data is None else data.shape
    if array.ndim == 0:
        return None
    if shape is None:
        raise Refused(Reason.UNKNOWN_SHAPE, node.name, "the rank of the data is not known")
    wide = [axis for axis, length in enumerate(array.shape) if length != 1]
    if array.ndim > len(shape) or len(wide) > 1:
        detail = f"a constant of shape {list(array.shape)} is not per channel"
        raise Refused(Reason.AXIS_MISMATCH, node.name, detail)
    if not wide:
        return None
    axis = wide[0] + len(shape) - array.ndim
    if shape[axis] != array.shape[wide[0]]:
        known = isinstance(shape[axis], int)
        reason = Reason.AXIS_MISMATCH if known else Reason.UNKNOWN_SHAPE
        raise Refused(reason, node.name, f"{array.shape[wide[0]]} constants on axis {axis}")
    return axis
