"""What moves ask of a node and of a field before they let it pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from infold.fold.attributes import int_of, ints_of
from infold.fold.constants import constant
from infold.fold.field import Field
from infold.fold.report import Reason, Refused
from infold.tensors import Dim

__all__ = [
    "Down",
    "Hop",
    "Up",
    "anything",
    "at",
    "axes_of",
    "axis_of",
    "data_of",
    "dims",
    "known",
    "positive_scale_only",
    "require_constant_along",
    "require_monotone",
    "require_scale_only",
]

# A value and the field that is to be applied to it.
Hop = tuple[ir.Value, Field]
Up = Callable[[ir.Node, ir.Value, Field, int], list[Hop]]
Down = Callable[[ir.Node, int, Field, int], list[Hop]]


def at(node: ir.Node) -> str | None:
    """The name a refusal uses for a node."""
    return node.name or node.outputs[0].name


def data_of(node: ir.Node, index: int = 0) -> ir.Value:
    """An input that must be there. Raises Refused `blocked-by-op`."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        raise Refused(Reason.BLOCKED_BY_OP, at(node), f"{node.op_type} lacks an input")
    return value


def dims(value: ir.Value) -> list[Dim]:
    """The lengths of a value's axes: known, named or None.

    Raises:
        Refused: `unknown-shape`, where not even the rank is known.
    """
    if value.shape is None:
        raise Refused(Reason.UNKNOWN_SHAPE, value.name, "the rank is not known")
    return [d if isinstance(d, int) else d.value for d in value.shape]


def axis_of(node: ir.Node, rank: int, default: int) -> int:
    """The `axis` attribute, counted from the front."""
    return int_of(node, "axis", default) % rank


def known(length: Dim, node: ir.Node) -> int:
    """A length that must be known. Raises Refused `unknown-shape`."""
    if not isinstance(length, int):
        raise Refused(Reason.UNKNOWN_SHAPE, at(node), "the length of the channel axis is not known")
    return length


def axes_of(node: ir.Node) -> list[int] | None:
    """The `axes` of a node: an input in newer opsets, an attribute in older ones; None if absent."""
    if "axes" in node.attributes:
        return list(ints_of(node, "axes", ()))
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        return [int(axis) for axis in constant(node.inputs[1], at(node)).reshape(-1)]
    return None


def require_scale_only(field: Field, node: ir.Node) -> None:
    """Raises Refused `shift-not-movable` if there is a shift."""
    if not field.is_pure_scale:
        raise Refused(Reason.SHIFT_NOT_MOVABLE, at(node), f"{node.op_type} with a shift")


def require_monotone(field: Field, node: ir.Node) -> None:
    """Raises Refused `negative-scale` if a scale is negative, naming the channel."""
    if not field.is_monotone:
        channel = int(np.flatnonzero(field.scale.reshape(-1) < 0)[0])
        raise Refused(Reason.NEGATIVE_SCALE, at(node), f"scale of channel {channel} is negative")


def require_constant_along(field: Field, axes: Sequence[int], node: ir.Node) -> None:
    """Raises Refused `axis-mismatch` if the field varies along an axis that the node mixes."""
    crossed = [axis for axis in field.axes() if axis in axes]
    if crossed:
        detail = f"{node.op_type} mixes axis {crossed[0]}, along which the norm varies"
        raise Refused(Reason.AXIS_MISMATCH, at(node), detail)


def anything(field: Field, node: ir.Node) -> None:
    """No condition."""


def positive_scale_only(field: Field, node: ir.Node) -> None:
    """What ReLU and its like let through."""
    require_scale_only(field, node)
    require_monotone(field, node)
