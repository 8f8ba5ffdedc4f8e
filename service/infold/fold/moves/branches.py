"""Moves over operators with several inputs or outputs: branches that join, part, or are picked from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from infold.fold.attributes import ints_of
from infold.fold.constants import constant
from infold.fold.field import Field
from infold.fold.moves.reading import Hop, at, axis_of, data_of, dims, known, require_monotone
from infold.fold.report import Reason, Refused

__all__ = [
    "add_up",
    "concat_down",
    "concat_up",
    "gather_down",
    "gather_up",
    "max_up",
    "mean_up",
    "slice_down",
    "slice_up",
    "split_down",
    "split_up",
]


def concat_up(node: ir.Node, output: ir.Value, field: Field, opset: int) -> list[Hop]:
    """Each branch gets its own channels of the field."""
    del output, opset
    axis = axis_of(node, field.rank, 1)
    if axis not in field.axes():
        return [(data_of(node, i), field) for i in range(len(node.inputs))]
    hops: list[Hop] = []
    start = 0
    for index in range(len(node.inputs)):
        value = data_of(node, index)
        length = known(dims(value)[axis], node)
        hops.append((value, field.picked(axis, range(start, start + length))))
        start += length
    return hops


def concat_down(node: ir.Node, index: int, field: Field, opset: int) -> list[Hop]:
    """The other branches are left unchanged, which is an affine too."""
    del opset
    axis = axis_of(node, field.rank, 1)
    lengths = [known(dims(data_of(node, i))[axis], node) for i in range(len(node.inputs))]
    start = sum(lengths[:index])
    places = range(start, start + lengths[index])
    wide = field.over(axis, lengths[index])
    return [(node.outputs[0], wide.embedded(axis, places, sum(lengths)))]


def _split_places(node: ir.Node, output: ir.Value, rank: int) -> tuple[int, range, int]:
    axis = axis_of(node, rank, 0)
    lengths = [known(dims(each)[axis], node) for each in node.outputs]
    start = sum(lengths[: list(node.outputs).index(output)])
    return axis, range(start, start + lengths[list(node.outputs).index(output)]), sum(lengths)


def split_up(node: ir.Node, output: ir.Value, field: Field, opset: int) -> list[Hop]:
    """The other parts are left unchanged, which is an affine too."""
    del opset
    axis, places, total = _split_places(node, output, field.rank)
    return [(data_of(node), field.over(axis, len(places)).embedded(axis, places, total))]


def split_down(node: ir.Node, index: int, field: Field, opset: int) -> list[Hop]:
    """Each part gets its own channels of the field."""
    del opset
    if index != 0:
        raise Refused(Reason.BLOCKED_BY_OP, at(node), "not the data of Split")
    hops: list[Hop] = []
    for output in node.outputs:
        axis, places, total = _split_places(node, output, field.rank)
        varies = axis in field.axes()
        hops.append((output, field.over(axis, total).picked(axis, places) if varies else field))
    return hops


def _slice_places(node: ir.Node, rank: int, opset: int) -> dict[int, np.ndarray]:
    """For each sliced axis of known length, the places taken; None of another length is touched."""

    def given(index: int, name: str, default: Sequence[int] | None) -> list[int]:
        if opset < 10:
            return list(ints_of(node, name, default or ()))
        if index >= len(node.inputs) or node.inputs[index] is None:
            return list(default or ())
        return [int(n) for n in constant(node.inputs[index], at(node)).reshape(-1)]

    starts, ends = given(1, "starts", None), given(2, "ends", None)
    axes = given(3, "axes", range(len(starts)))
    steps = given(4, "steps", [1] * len(starts)) or [1] * len(starts)
    found: dict[int, np.ndarray] = {}
    lengths = dims(data_of(node))
    for place, axis in enumerate(axes):
        length = lengths[axis % rank]
        if isinstance(length, int):
            found[axis % rank] = np.arange(length)[slice(starts[place], ends[place], steps[place])]
        else:
            found[axis % rank] = np.empty(0, np.int64)
    return found


def slice_up(node: ir.Node, output: ir.Value, field: Field, opset: int) -> list[Hop]:
    """What is not taken may stay as it is."""
    del output
    data = data_of(node)
    lengths = dims(data)
    for axis, places in _slice_places(node, field.rank, opset).items():
        if axis in field.axes():
            total = known(lengths[axis], node)
            # What is not taken is read by nobody, so it may stay as it is.
            field = field.over(axis, len(places)).embedded(axis, places, total)
    return [(data, field)]


def slice_down(node: ir.Node, index: int, field: Field, opset: int) -> list[Hop]:
    """Only what is taken is affected."""
    if index != 0:
        raise Refused(Reason.BLOCKED_BY_OP, at(node), "not the data of Slice")
    for axis, places in _slice_places(node, field.rank, opset).items():
        if axis in field.axes():
            field = field.picked(axis, places)
    return [(node.outputs[0], field)]


def _gather_places(node: ir.Node, rank: int) -> tuple[int, np.ndarray, int]:
    axis = axis_of(node, rank, 0)
    length = known(dims(data_of(node))[axis], node)
    indices = constant(data_of(node, 1), at(node))
    if indices.ndim != 1:
        raise Refused(Reason.AXIS_MISMATCH, at(node), "Gather with indices that are no list")
    return axis, indices.astype(np.int64) % length, length


def gather_up(node: ir.Node, output: ir.Value, field: Field, opset: int) -> list[Hop]:
    """Lawful unless one channel is taken twice, with two affines."""
    del output, opset
    axis, places, total = _gather_places(node, field.rank)
    if axis not in field.axes():
        return [(data_of(node), field)]
    wide = field.over(axis, len(places))
    moved = wide.embedded(axis, places, total)
    again = moved.over(axis, total).picked(axis, places)
    for back, wanted in ((again.scale, wide.scale), (again.shift, wide.shift)):
        if not np.array_equal(np.broadcast_to(back, wide.scale.shape), wanted):
            raise Refused(Reason.AXIS_MISMATCH, at(node), "one channel is taken twice, with two affines")
    return [(data_of(node), moved)]


def gather_down(node: ir.Node, index: int, field: Field, opset: int) -> list[Hop]:
    """Channels are picked alike."""
    del opset
    if index != 0:
        raise Refused(Reason.BLOCKED_BY_OP, at(node), "not the data of Gather")
    axis, places, total = _gather_places(node, field.rank)
    return [(node.outputs[0], field.over(axis, total).picked(axis, places))]


def _require_same_axes(node: ir.Node, field: Field) -> None:
    """Branches must not be broadcast along an axis where the field varies, nor differ in rank."""
    for index in range(len(node.inputs)):
        lengths = dims(data_of(node, index))
        if len(lengths) != field.rank:
            raise Refused(Reason.AXIS_MISMATCH, at(node), "branches of different rank")
        for axis in field.axes():
            if lengths[axis] != max(field.scale.shape[axis], field.shift.shape[axis]):
                raise Refused(Reason.AXIS_MISMATCH, at(node), "a branch is broadcast over the channels")


def add_up(node: ir.Node, output: ir.Value, field: Field, opset: int) -> list[Hop]:
    """Scale into every branch, shift into the first: a(x+y)+b = (ax+b) + ay."""
    del output, opset
    _require_same_axes(node, field)
    rest = field.without_shift()
    return [(data_of(node, i), rest if i else field) for i in range(len(node.inputs))]


def max_up(node: ir.Node, output: ir.Value, field: Field, opset: int) -> list[Hop]:
    """Order is kept, so the largest stays the largest."""
    del output, opset
    require_monotone(field, node)
    _require_same_axes(node, field)
    return [(data_of(node, i), field) for i in range(len(node.inputs))]


def mean_up(node: ir.Node, output: ir.Value, field: Field, opset: int) -> list[Hop]:
    """The mean of affine values is the affine of the mean."""
    del output, opset
    _require_same_axes(node, field)
    return [(data_of(node, i), field) for i in range(len(node.inputs))]
