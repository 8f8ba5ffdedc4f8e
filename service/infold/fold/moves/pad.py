"""Pad: what repeats data gets what the data gets; a constant must have been through the affine too."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from infold.fold.affine import F64
from infold.fold.attributes import float_of, ints_of, string_of
from infold.fold.constants import constant, stored, stored_dtype
from infold.fold.field import Field
from infold.fold.linear import LIMITS, FoldedBias
from infold.fold.moves.reading import Hop, at, data_of, dims, require_constant_along
from infold.fold.patch import Amendment, NewConstant
from infold.fold.report import Reason, Refused

__all__ = ["amend_pad", "pad_down", "pad_up"]

VALUE = 2  # the input that holds the constant, since opset 11


def pad_up(node: ir.Node, output: ir.Value, field: Field, opset: int) -> list[Hop]:
    """The field may not vary where the shape changes."""
    del output
    return [(data_of(node), _checked(field, node, opset))]


def pad_down(node: ir.Node, index: int, field: Field, opset: int) -> list[Hop]:
    """The field may not vary where the shape changes."""
    if index != 0:
        raise Refused(Reason.BLOCKED_BY_OP, at(node), "not the data of Pad")
    return [(node.outputs[0], _checked(field, node, opset))]


def _checked(field: Field, node: ir.Node, opset: int) -> Field:
    field = field.mapped(lambda array: array)  # the same everywhere, it fits any length
    before, after = _pads(node, opset)
    padded = [axis for axis, both in enumerate(zip(before, after, strict=True)) if any(both)]
    require_constant_along(field, padded, node)
    return field


def amend_pad(node: ir.Node, field: Field, opset: int, *, upward: bool) -> Amendment | None:
    """The Pad with the constant that looks the same on the other side; None where it is the old one.

    With y = scale * x + shift, what was padded behind y as `v` is padded behind x as
    (v - shift) / scale; and the other way round against the flow. It is one number, so it
    must come out alike on every channel.

    Raises:
        Refused: `zero-padding` or `blocked-by-op`, where it differs or does not exist;
            `not-representable`.
    """
    before, after = _pads(node, opset)
    if string_of(node, "mode", "constant") != "constant" or max((*before, *after), default=0) <= 0:
        return None
    old = _value(node, opset)
    wanted = _seen_through(field, old, upward=upward)
    if wanted is None:
        if old == 0:
            raise Refused(Reason.ZERO_PADDING, at(node), "the shift would not reach the padding")
        raise Refused(Reason.BLOCKED_BY_OP, at(node), f"Pad with {old:g}, which would differ by channel")
    return None if wanted == old else _with(node, wanted, opset)


def _seen_through(field: Field, value: float, *, upward: bool) -> float | None:
    scale, shift = np.broadcast_arrays(field.scale, field.shift)
    with np.errstate(all="ignore"):
        if upward:
            found: F64 = scale * value + shift
        else:
            dead = scale == 0  # nothing but the shift comes out, whatever goes in
            if (shift[dead] != value).any():
                return None
            found = ((value - shift) / scale)[~dead]
    first = float(found.reshape(-1)[0]) if found.size else value
    return first if (found == first).all() else None


def _with(node: ir.Node, value: float, opset: int) -> Amendment:
    given = _given(node, opset)
    dtype = data_of(node).dtype or node.outputs[0].dtype or (stored_dtype(given) if given else None)
    largest, smallest = LIMITS.get(dtype, (0.0, 0.0)) if dtype else (0.0, 0.0)
    if not (value == 0 or smallest <= abs(value) <= largest):
        kind = dtype.name.lower() if dtype else "unknown type"
        raise Refused(Reason.NOT_REPRESENTABLE, at(node), f"Pad would need {value:.3g} in {kind}")
    assert dtype is not None
    if opset < 11:  # an attribute holds a float32, whatever the data is
        if dtype is ir.DataType.DOUBLE and float(np.float32(value)) != value:
            raise Refused(Reason.NOT_REPRESENTABLE, at(node), f"Pad would need {value:.17g} in an attribute")
        return Amendment(node, ir.AttrFloat32("value", value))
    shape = constant(given, at(node)).shape if given is not None else ()
    like = (given.name if given is not None else None) or f"{at(node)}.value"
    return Amendment(node, (VALUE, NewConstant(FoldedBias(np.full(shape, value), dtype), like)))


def _given(node: ir.Node, opset: int) -> ir.Value | None:
    return node.inputs[VALUE] if opset >= 11 and len(node.inputs) > VALUE else None


def _value(node: ir.Node, opset: int) -> float:
    if opset < 11:
        return float_of(node, "value", 0.0)
    given = _given(node, opset)
    if given is None:
        return 0.0
    folded = stored(given)
    exact = folded.exact if isinstance(folded, FoldedBias) else constant(given, at(node))
    return float(exact.reshape(-1)[0])


def _pads(node: ir.Node, opset: int) -> tuple[list[int], list[int]]:
    """What is added before and after each axis; less than nothing crops."""
    if opset < 11:
        pads = list(ints_of(node, "paddings" if opset < 2 else "pads", ()))
        return pads[: len(pads) // 2], pads[len(pads) // 2 :]
    rank = len(dims(data_of(node)))
    pads = [int(each) for each in constant(data_of(node, 1), at(node)).reshape(-1)]
    chosen = node.inputs[3] if len(node.inputs) > 3 else None
    axes = range(rank) if chosen is None else [int(n) % rank for n in constant(chosen, at(node)).reshape(-1)]
    before, after = [0] * rank, [0] * rank
    for place, axis in enumerate(axes):
        before[axis], after[axis] = pads[place], pads[len(axes) + place]
    return before, after
