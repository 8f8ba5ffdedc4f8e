"""Moves that leave the field as it is: the shape stays, or shrinks where the norm does not vary."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from infold.fold.attributes import int_of, ints_of, string_of
from infold.fold.constants import FLOATS, constant
from infold.fold.field import Field
from infold.fold.moves.reading import (
    Down,
    Hop,
    Up,
    at,
    data_of,
    dims,
    positive_scale_only,
    require_constant_along,
    require_monotone,
    require_scale_only,
)
from infold.fold.report import Reason, Refused

__all__ = [
    "check_average_pool",
    "check_cast",
    "check_dropout",
    "check_global_average",
    "check_lp_pool",
    "check_max_pool",
    "check_resize",
    "elementwise",
    "through",
]


def through(check: Callable[[Field, ir.Node, int], None]) -> tuple[Up, Down]:
    """A move that leaves the field as it is, once `check` agrees."""

    def up(node: ir.Node, output: ir.Value, field: Field, opset: int) -> list[Hop]:
        _require_one_output(node, output)
        check(field, node, opset)
        return [(data_of(node), field)]

    def down(node: ir.Node, index: int, field: Field, opset: int) -> list[Hop]:
        if index != 0:
            raise Refused(Reason.BLOCKED_BY_OP, at(node), f"not the data of {node.op_type}")
        _require_one_output(node, node.outputs[0])
        check(field, node, opset)
        return [(node.outputs[0], field)]

    return up, down


def _require_one_output(node: ir.Node, output: ir.Value) -> None:
    """Indices of a MaxPool, say, are no affine of anything; nobody may read them."""
    others = [each for each in node.outputs if each is not output]
    if output is not node.outputs[0] or any(each.uses() or each.is_graph_output() for each in others):
        raise Refused(Reason.BLOCKED_BY_OP, at(node), f"another output of {node.op_type} is read")


def elementwise(condition: Callable[[Field, ir.Node], None]) -> tuple[Up, Down]:
    """A move over an operator that looks at each element alone, on one condition."""
    return through(lambda field, node, _: condition(field, node))


def check_cast(field: Field, node: ir.Node, opset: int) -> None:
    """Between floats only."""
    del field, opset
    target = ir.DataType(int_of(node, "to", 0))
    source = data_of(node).dtype
    if target not in FLOATS or source not in FLOATS:
        raise Refused(Reason.BLOCKED_BY_OP, at(node), "Cast to or from a type that is no float")


def check_dropout(field: Field, node: ir.Node, opset: int) -> None:
    """At inference only."""
    del field
    if opset < 7 and not int_of(node, "is_test", 0):
        raise Refused(Reason.TRAINING_MODE, at(node), "Dropout with is_test=0")
    training = node.inputs[2] if len(node.inputs) > 2 else None
    if opset >= 12 and training is not None and constant(training, at(node)).any():
        raise Refused(Reason.TRAINING_MODE, at(node), "Dropout with training_mode")


def _has_padding(node: ir.Node) -> bool:
    if string_of(node, "auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
        return True
    return any(ints_of(node, "pads", ()))


def _spatial(field: Field) -> range:
    return range(2, field.rank)


def check_average_pool(field: Field, node: ir.Node, opset: int) -> None:
    """Padding that is counted averages in zeros that no shift has reached."""
    del opset
    require_constant_along(field, _spatial(field), node)
    # Padding that is counted, or a window that hangs over, averages in zeros.
    counts = int_of(node, "count_include_pad", 0) and (_has_padding(node) or int_of(node, "ceil_mode", 0))
    if counts:
        require_scale_only(field, node)


def check_max_pool(field: Field, node: ir.Node, opset: int) -> None:
    """Order must be kept."""
    del opset
    require_constant_along(field, _spatial(field), node)
    require_monotone(field, node)


def check_lp_pool(field: Field, node: ir.Node, opset: int) -> None:
    """A norm of positively scaled values is the scaled norm."""
    del opset
    require_constant_along(field, _spatial(field), node)
    positive_scale_only(field, node)


def check_global_average(field: Field, node: ir.Node, opset: int) -> None:
    """A mean over space."""
    del opset
    require_constant_along(field, _spatial(field), node)


def check_resize(field: Field, node: ir.Node, opset: int) -> None:
    """Weights of every interpolation sum to one, so an affine passes."""
    del opset
    before, after = dims(data_of(node)), dims(node.outputs[0])
    for axis in field.axes():
        if before[axis] != after[axis] or not isinstance(before[axis], int):
            raise Refused(Reason.AXIS_MISMATCH, at(node), f"{node.op_type} may resize axis {axis}")
    if string_of(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        require_scale_only(field, node)
        if node.attributes.get("extrapolation_value"):
            raise Refused(Reason.BLOCKED_BY_OP, at(node), "Resize with an extrapolation_value")
