"""Who takes an affine in: linear operators, and other affines.

An absorber is read from a node, takes fields in any number, and says at the end
how it is written back.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import onnx_ir as ir

from infold.fold.affine import F64, Affine
from infold.fold.constants import stored_dtype
from infold.fold.field import Field
from infold.fold.layouts import LinearOp, linear_op
from infold.fold.linear import FoldedBias
from infold.fold.patch import PREVIOUS, NewConstant, NewNode, Operand
from infold.fold.report import Reason, Refused
from infold.fold.sites import Candidate, Site, find_chain, read_site

__all__ = ["Absorber", "absorber_above", "absorber_below"]


class Absorber(Protocol):
    """One or more nodes that can take an affine in on either side.

    Attributes:
        nodes: What is replaced, in data-flow order.
        name: What a report calls it.
        is_linear: A linear operator, as against another affine.
        copied: Names of its weights that have other readers.
    """

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        """See above."""

    @property
    def name(self) -> str:
        """See above."""

    @property
    def is_linear(self) -> bool:
        """See above."""

    @property
    def copied(self) -> tuple[str, ...]:
        """See above."""

    def absorb_output(self, field: Field) -> None:
        """Take in a field that is applied to the output; may refuse."""

    def absorb_input(self, field: Field) -> None:
        """Take in a field that is applied to the data input; may refuse."""

    def write(self) -> tuple[NewNode, ...]:
        """The nodes to put in place; may refuse `not-representable`."""


def absorber_above(node: ir.Node, opset: int) -> Absorber | None:
    """The absorber whose output this node computes, or None.

    Raises:
        Refused: It looks like one, but cannot be read.
    """
    op = linear_op(node, opset)
    if op is not None:
        return _LinearAbsorber(op)
    return _affine_absorber(node, opset, last=True)


def absorber_below(node: ir.Node, index: int, opset: int) -> Absorber | None:
    """The absorber whose data input this node reads at `index`, or None.

    Raises:
        Refused: It looks like one, but cannot be read.
    """
    op = linear_op(node, opset) if node.op_type != "Add" else None
    if op is not None:
        if node.inputs[index] is not op.input or list(node.inputs).count(op.input) > 1:
            raise Refused(Reason.NOT_CONSTANT, op.name, "the norm is its weight or bias")
        bias = _bias_below(node, opset)
        return _LinearAbsorber(bias or op)
    absorber = _affine_absorber(node, opset, last=False)
    if absorber is not None and absorber.site.data_index != index:
        return None
    return absorber


def _bias_below(matmul: ir.Node, opset: int) -> LinearOp | None:
    """The MatMul together with the Add of its bias, where there is one."""
    if matmul.op_type != "MatMul":
        return None
    following = matmul.outputs[0].consumers()
    if len(following) != 1 or following[0].op_type != "Add":
        return None
    return linear_op(following[0], opset)


def _affine_absorber(node: ir.Node, opset: int, *, last: bool) -> _AffineAbsorber | None:
    if node.op_type == "BatchNormalization" and not node.domain:
        return _AffineAbsorber(read_site(Candidate((node,)), opset))
    chain = find_chain(node, opset, last=last)
    if chain is None:
        return None
    return _AffineAbsorber(read_site(chain, opset))


class _LinearAbsorber:
    is_linear = True

    def __init__(self, op: LinearOp) -> None:
        self._op = op
        self._linear = op.linear
        self.nodes = op.nodes
        self.name = op.name
        self.copied = (op.weight_value.name or "",) if len(op.weight_value.uses()) > 1 else ()

    def absorb_output(self, field: Field) -> None:
        outputs = self._linear.weight.outputs
        affine = _along(field, self._op.out_axis, outputs, self._op)
        self._linear = self._linear.absorb_output(affine)

    def absorb_input(self, field: Field) -> None:
        inputs = self._linear.weight.inputs
        affine = _along(field, self._op.in_axis, inputs, self._op)
        self._linear = self._linear.absorb_input(affine, self.name)

    def write(self) -> tuple[NewNode, ...]:
        return self._op.write(self._linear)


def _along(field: Field, axis: int, channels: int, op: LinearOp) -> Affine:
    affine = field.along(axis) if axis < field.rank else None
    if affine is None:
        found = ", ".join(str(each) for each in field.axes())
        detail = f"channels on axis {found}, {op.nodes[0].op_type} has them on {axis}"
        raise Refused(Reason.AXIS_MISMATCH, op.name, detail)
    if affine.channels not in (1, channels):
        detail = f"{affine.channels} statistics for {channels} channels"
        raise Refused(Reason.INVALID_STATISTICS, op.name, detail)
    return affine.over(channels)


class _AffineAbsorber:
    is_linear = False
    copied: tuple[str, ...] = ()

    def __init__(self, site: Site) -> None:
        self.site = site
        self.nodes = site.nodes
        last = site.nodes[-1]
        self.name = last.name or last.outputs[0].name or last.op_type
        shape = site.input.shape
        if shape is None:
            raise Refused(Reason.UNKNOWN_SHAPE, self.name, "the rank of the data is not known")
        self._rank = len(shape)
        self._affine = site.affine
        self._axis = site.axis

    def absorb_output(self, field: Field) -> None:
        self._affine = self._affine.then(self._fitting(field))

    def absorb_input(self, field: Field) -> None:
        self._affine = self._fitting(field).then(self._affine)

    def _fitting(self, field: Field) -> Affine:
        axes = field.axes()
        if len(axes) > 1 or (axes and self._axis not in (None, axes[0])):
            raise Refused(Reason.AXIS_MISMATCH, self.name, "it varies along another axis")
        affine = Affine.of(field.scale.reshape(-1), field.shift.reshape(-1))
        lengths = {affine.channels, self._affine.channels} - {1}
        if len(lengths) > 1:
            raise Refused(Reason.INVALID_STATISTICS, self.name, f"lengths {sorted(lengths)} differ")
        if axes:
            self._axis = axes[0]
        return affine

    def write(self) -> tuple[NewNode, ...]:
        if self.nodes[0].op_type == "BatchNormalization":
            return self._write_batch_norm(self.nodes[0])
        return write_affine(self.site, self._affine, self._axis, self._rank)

    def _write_batch_norm(self, node: ir.Node) -> tuple[NewNode, ...]:
        """The same mean and variance under another gamma and beta."""
        parameters = self.site.parameters
        assert parameters is not None
        merged = self._affine.over(len(parameters.gamma))
        gamma = merged.scale * np.sqrt(parameters.variance + parameters.epsilon)
        beta = merged.shift + parameters.mean * merged.scale
        dtypes = [stored_dtype(value) for value in node.inputs[1:3] if value is not None]
        new: list[Operand] = [node.inputs[0]]
        for name, numbers, dtype, value in zip(
            ("gamma", "beta"), (gamma, beta), dtypes, node.inputs[1:3], strict=True
        ):
            new.append(_constant(numbers, dtype, (value.name if value else None) or name, self.name))
        attributes = tuple(node.attributes.values())
        inputs = (*new, *node.inputs[3:])
        return (
            NewNode("BatchNormalization", inputs, node.name, attributes, metadata=dict(node.metadata_props)),
        )


def write_affine(site: Site, affine: Affine, axis: int | None, rank: int) -> tuple[NewNode, ...]:
    """An affine written out as one Mul and one Add, whichever of them it needs; at least one."""
    last = site.nodes[-1]
    dtype = site.input.dtype or last.outputs[0].dtype
    name = last.name or last.outputs[0].name or last.op_type
    shape = [1] * (rank - axis) if axis is not None else []
    if axis is not None:
        shape[0] = affine.channels
    steps = []
    if not affine.is_pure_shift:
        steps.append(("Mul", affine.scale))
    if not affine.is_pure_scale or not steps:
        steps.append(("Add", affine.shift))
    # An affine keeps the shape, whether anybody has inferred that of its result or not.
    like = ir.Value(name=last.outputs[0].name, type=site.input.type, shape=site.input.shape)
    nodes = []
    for place, (op_type, numbers) in enumerate(steps):
        final = place == len(steps) - 1
        tensor = _constant(numbers.reshape(shape), dtype, f"{name}.{op_type.lower()}", name)
        source: Operand = PREVIOUS if place else site.input
        nodes.append(NewNode(op_type, (source, tensor), last.name if final else f"{name}/scale", (), like))
    return tuple(nodes)


def _constant(numbers: F64, dtype: ir.DataType | None, like: str, at: str) -> NewConstant:
    if dtype is None:
        raise Refused(Reason.UNKNOWN_SHAPE, at, "the type of the data is not known")
    tensor = FoldedBias(np.asarray(numbers, np.float64), dtype)
    rounded = tensor.numpy().astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(rounded.reshape(-1)))
    if bad.size:
        raise Refused(Reason.NOT_REPRESENTABLE, at, f"channel {bad[0]} overflows {dtype.name.lower()}")
    return NewConstant(tensor, like)
