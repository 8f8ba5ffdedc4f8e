"""What an affine may cross: a table from operator to how the affine looks on the other side.

A move against the flow answers: if the affine were applied to each of these
inputs instead, the output would be the same. A move with the flow answers: if it
were left out of this input, it would have to be applied to these outputs.
Whoever cannot say so refuses. Uses and graph outputs are no concern of this table.

Source: docs/folding.md, the table of moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from infold.fold.attributes import float_of, int_of, ints_of, string_of
from infold.fold.constants import FLOATS, constant
from infold.fold.field import Field, regroup
from infold.fold.report import Reason, Refused
from infold.tensors import Dim

__all__ = ["Hop", "move_down", "move_up"]

# A value and the field that is to be applied to it.
Hop = tuple[ir.Value, Field]


def move_up(node: ir.Node, output: ir.Value, field: Field, opset: int) -> list[Hop]:
    """Carry a field from an output of a node to its inputs.

    Raises:
        Refused: `blocked-by-op`, `negative-scale`, `shift-not-movable`, `unknown-shape`,
            `axis-mismatch` or `not-constant`.
    """
    move = UP.get(node.op_type) if not node.domain else None
    if move is None:
        raise Refused(Reason.BLOCKED_BY_OP, node.name or output.name, node.op_type)
    return move(node, output, field, opset)


def move_down(node: ir.Node, index: int, field: Field, opset: int) -> list[Hop]:
    """Carry a field from an input of a node to its outputs.

    Raises:
        Refused: As `move_up`.
    """
    move = DOWN.get(node.op_type) if not node.domain else None
    if move is None:
        name = node.name or node.outputs[0].name
        raise Refused(Reason.BLOCKED_BY_OP, name, node.op_type)
    return move(node, index, field, opset)


Up = Callable[[ir.Node, ir.Value, Field, int], list[Hop]]
Down = Callable[[ir.Node, int, Field, int], list[Hop]]

# -- reading a node -------------------------------------------------------------------------------


def _at(node: ir.Node) -> str | None:
    return node.name or node.outputs[0].name


def _input(node: ir.Node, index: int = 0) -> ir.Value:
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        raise Refused(Reason.BLOCKED_BY_OP, _at(node), f"{node.op_type} lacks an input")
    return value


def dims(value: ir.Value) -> list[Dim]:
    """The lengths of a value's axes: known, named or None.

    Raises:
        Refused: `unknown-shape`, where not even the rank is known.
    """
    if value.shape is None:
        raise Refused(Reason.UNKNOWN_SHAPE, value.name, "the rank is not known")
    return [d if isinstance(d, int) else d.value for d in value.shape]


def _axis(node: ir.Node, rank: int, default: int) -> int:
    return int_of(node, "axis", default) % rank


def _known(length: Dim, node: ir.Node) -> int:
    if not isinstance(length, int):
        raise Refused(Reason.UNKNOWN_SHAPE, _at(node), "the length of the channel axis is not known")
    return length


def _axes_of(node: ir.Node) -> list[int] | None:
    """The `axes` of a node: an input in newer opsets, an attribute in older ones; None if absent."""
    if "axes" in node.attributes:
        return list(ints_of(node, "axes", ()))
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        return [int(axis) for axis in constant(node.inputs[1], _at(node)).reshape(-1)]
    return None


# -- conditions -----------------------------------------------------------------------------------


def _require_scale_only(field: Field, node: ir.Node) -> None:
    if not field.is_pure_scale:
        raise Refused(Reason.SHIFT_NOT_MOVABLE, _at(node), f"{node.op_type} with a shift")


def _require_monotone(field: Field, node: ir.Node) -> None:
    if not field.is_monotone:
        channel = int(np.flatnonzero(field.scale.reshape(-1) < 0)[0])
        raise Refused(Reason.NEGATIVE_SCALE, _at(node), f"scale of channel {channel} is negative")


def _require_constant_along(field: Field, axes: Sequence[int], node: ir.Node) -> None:
    crossed = [axis for axis in field.axes() if axis in axes]
    if crossed:
        detail = f"{node.op_type} mixes axis {crossed[0]}, along which the norm varies"
        raise Refused(Reason.AXIS_MISMATCH, _at(node), detail)


def _any(field: Field, node: ir.Node) -> None:
    """No condition."""


def _positive_scale_only(field: Field, node: ir.Node) -> None:
    _require_scale_only(field, node)
    _require_monotone(field, node)


# -- one in, one out, shapes kept -----------------------------------------------------------------


def _through(check: Callable[[Field, ir.Node, int], None]) -> tuple[Up, Down]:
    """A move that leaves the field as it is, once `check` agrees."""

    def up(node: ir.Node, output: ir.Value, field: Field, opset: int) -> list[Hop]:
        _require_one_output(node, output)
        check(field, node, opset)
        return [(_input(node), field)]

    def down(node: ir.Node, index: int, field: Field, opset: int) -> list[Hop]:
        if index != 0:
            raise Refused(Reason.BLOCKED_BY_OP, _at(node), f"not the data of {node.op_type}")
        _require_one_output(node, node.outputs[0])
        check(field, node, opset)
        return [(node.outputs[0], field)]

    return up, down


def _require_one_output(node: ir.Node, output: ir.Value) -> None:
    """Indices of a MaxPool, say, are no affine of anything; nobody may read them."""
    others = [each for each in node.outputs if each is not output]
    if output is not node.outputs[0] or any(each.uses() or each.is_graph_output() for each in others):
        raise Refused(Reason.BLOCKED_BY_OP, _at(node), f"another output of {node.op_type} is read")


def _elementwise(condition: Callable[[Field, ir.Node], None]) -> tuple[Up, Down]:
    return _through(lambda field, node, _: condition(field, node))


def _check_cast(field: Field, node: ir.Node, opset: int) -> None:
    del field, opset
    target = ir.DataType(int_of(node, "to", 0))
    source = _input(node).dtype
    if target not in FLOATS or source not in FLOATS:
        raise Refused(Reason.BLOCKED_BY_OP, _at(node), "Cast to or from a type that is no float")


def _check_dropout(field: Field, node: ir.Node, opset: int) -> None:
    del field
    if opset < 7 and not int_of(node, "is_test", 0):
        raise Refused(Reason.TRAINING_MODE, _at(node), "Dropout with is_test=0")
    training = node.inputs[2] if len(node.inputs) > 2 else None
    if opset >= 12 and training is not None and constant(training, _at(node)).any():
        raise Refused(Reason.TRAINING_MODE, _at(node), "Dropout with training_mode")


def _has_padding(node: ir.Node) -> bool:
    if string_of(node, "auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
        return True
    return any(ints_of(node, "pads", ()))


def _spatial(field: Field) -> range:
    return range(2, field.rank)


def _check_average_pool(field: Field, node: ir.Node, opset: int) -> None:
    del opset
    _require_constant_along(field, _spatial(field), node)
    # Padding that is counted, or a window that hangs over, averages in zeros.
    counts = int_of(node, "count_include_pad", 0) and (_has_padding(node) or int_of(node, "ceil_mode", 0))
    if counts:
        _require_scale_only(field, node)


def _check_max_pool(field: Field, node: ir.Node, opset: int) -> None:
    del opset
    _require_constant_along(field, _spatial(field), node)
    _require_monotone(field, node)


def _check_lp_pool(field: Field, node: ir.Node, opset: int) -> None:
    del opset
    _require_constant_along(field, _spatial(field), node)
    _positive_scale_only(field, node)


def _check_global_average(field: Field, node: ir.Node, opset: int) -> None:
    del opset
    _require_constant_along(field, _spatial(field), node)


def _check_resize(field: Field, node: ir.Node, opset: int) -> None:
    del opset
    before, after = dims(_input(node)), dims(node.outputs[0])
    for axis in field.axes():
        if before[axis] != after[axis] or not isinstance(before[axis], int):
            raise Refused(Reason.AXIS_MISMATCH, _at(node), f"{node.op_type} may resize axis {axis}")
    if string_of(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        _require_scale_only(field, node)
        if node.attributes.get("extrapolation_value"):
            raise Refused(Reason.BLOCKED_BY_OP, _at(node), "Resize with an extrapolation_value")


def _check_pad(field: Field, node: ir.Node, opset: int) -> None:
    pads, value = _pad_arguments(node, opset)
    before, after = pads[: len(pads) // 2], pads[len(pads) // 2 :]
    padded = [axis for axis, both in enumerate(zip(before, after, strict=True)) if any(both)]
    _require_constant_along(field, padded, node)
    if string_of(node, "mode", "constant") != "constant" or not padded:
        return
    if value != 0:
        raise Refused(Reason.BLOCKED_BY_OP, _at(node), f"Pad with {value:g}")
    if not field.is_pure_scale:
        raise Refused(Reason.ZERO_PADDING, _at(node), "the shift would not reach the padding")


def _pad_arguments(node: ir.Node, opset: int) -> tuple[list[int], float]:
    """Pads in the spec's order for every axis, and the value."""
    if opset < 11:
        name = "paddings" if opset < 2 else "pads"
        return list(ints_of(node, name, ())), float_of(node, "value", 0.0)
    rank = len(dims(_input(node)))
    pads = [int(each) for each in constant(_input(node, 1), _at(node)).reshape(-1)]
    given = node.inputs[2] if len(node.inputs) > 2 else None
    value = float(constant(given, _at(node)).reshape(-1)[0]) if given is not None else 0.0
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        axes = [int(axis) % rank for axis in constant(node.inputs[3], _at(node)).reshape(-1)]
        full = [0] * (2 * rank)
        for place, axis in enumerate(axes):
            full[axis], full[rank + axis] = pads[place], pads[len(axes) + place]
        pads = full
    return pads, value


# -- one in, one out, axes rearranged -------------------------------------------------------------


def _rearranging(
    up: Callable[[Field, ir.Node, ir.Value], Field], down: Callable[[Field, ir.Node, ir.Value], Field]
) -> tuple[Up, Down]:
    """A move that rearranges the field's axes; each function gets node and data input."""

    def go_up(node: ir.Node, output: ir.Value, field: Field, opset: int) -> list[Hop]:
        del output, opset
        return [(_input(node), up(field, node, _input(node)))]

    def go_down(node: ir.Node, index: int, field: Field, opset: int) -> list[Hop]:
        del opset
        if index != 0:
            raise Refused(Reason.BLOCKED_BY_OP, _at(node), f"not the data of {node.op_type}")
        return [(node.outputs[0], down(field, node, _input(node)))]

    return go_up, go_down


def _permutation(node: ir.Node, rank: int) -> list[int]:
    return list(ints_of(node, "perm", range(rank - 1, -1, -1)))


def _transpose_up(field: Field, node: ir.Node, _: ir.Value) -> Field:
    inverse = np.argsort(_permutation(node, field.rank))
    return field.mapped(lambda array: np.transpose(array, inverse))


def _transpose_down(field: Field, node: ir.Node, _: ir.Value) -> Field:
    return field.mapped(lambda array: np.transpose(array, _permutation(node, field.rank)))


def _reshape(field: Field, node: ir.Node, source: ir.Value, target: ir.Value) -> Field:
    moved = regroup(field, dims(source), dims(target))
    if moved is None:
        raise Refused(Reason.UNKNOWN_SHAPE, _at(node), "where the channels go depends on open lengths")
    return moved


def _reshape_up(field: Field, node: ir.Node, data: ir.Value) -> Field:
    return _reshape(field, node, node.outputs[0], data)


def _reshape_down(field: Field, node: ir.Node, data: ir.Value) -> Field:
    return _reshape(field, node, data, node.outputs[0])


def _space(node: ir.Node, data: ir.Value) -> tuple[list[int], bool]:
    """Shape (blocks, channels) or (channels, blocks) of the deep side's channels; blocks first?"""
    size = int_of(node, "blocksize", 1) ** 2
    deep = data if node.op_type == "DepthToSpace" else node.outputs[0]
    channels = _known(dims(deep)[1], node)
    blocks_first = node.op_type == "SpaceToDepth" or string_of(node, "mode", "DCR") == "DCR"
    shallow = channels // size
    return ([size, shallow] if blocks_first else [shallow, size]), blocks_first


def _to_depth(field: Field, node: ir.Node, data: ir.Value) -> Field:
    """From the shallow side: each channel's affine for every block of it."""
    layout, blocks_first = _space(node, data)
    _require_constant_along(field, range(2, field.rank), node)
    wide = field.over(1, layout[1] if blocks_first else layout[0])
    repeat = np.tile if blocks_first else np.repeat
    indices = repeat(np.arange(layout[1] if blocks_first else layout[0]), layout[0 if blocks_first else 1])
    return wide.picked(1, indices)


def _to_space(field: Field, node: ir.Node, data: ir.Value) -> Field:
    """From the deep side: lawful only if all blocks of a channel share one affine."""
    layout, blocks_first = _space(node, data)
    _require_constant_along(field, range(2, field.rank), node)
    wide = field.over(1, layout[0] * layout[1])
    index = np.arange(layout[0] * layout[1]).reshape(layout)
    first = index[0] if blocks_first else index[:, 0]
    for block in index if blocks_first else index.T:
        same = all(
            np.array_equal(np.take(array, block, 1), np.take(array, first, 1))
            for array in (wide.scale, wide.shift)
        )
        if not same:
            raise Refused(Reason.AXIS_MISMATCH, _at(node), "channels that become one place differ")
    return wide.picked(1, first)


# -- reductions -----------------------------------------------------------------------------------


def _reduced_axes(node: ir.Node, rank: int) -> list[int]:
    axes = _axes_of(node)
    if axes is None or not axes:
        return [] if axes == [] and int_of(node, "noop_with_empty_axes", 0) else list(range(rank))
    return [axis % rank for axis in axes]


def _reduction(condition: Callable[[Field, ir.Node], None]) -> tuple[Up, Down]:
    def up(node: ir.Node, output: ir.Value, field: Field, opset: int) -> list[Hop]:
        del output, opset
        condition(field, node)
        data = _input(node)
        axes = _reduced_axes(node, len(dims(data)))
        if not int_of(node, "keepdims", 1):
            field = field.mapped(lambda array: np.expand_dims(array, tuple(axes)))
        return [(data, field)]

    def down(node: ir.Node, index: int, field: Field, opset: int) -> list[Hop]:
        del opset
        if index != 0:
            raise Refused(Reason.BLOCKED_BY_OP, _at(node), f"not the data of {node.op_type}")
        condition(field, node)
        axes = _reduced_axes(node, field.rank)
        _require_constant_along(field, axes, node)
        if not int_of(node, "keepdims", 1):
            field = field.mapped(lambda array: np.squeeze(array, tuple(axes)))
        return [(node.outputs[0], field)]

    return up, down


# -- several inputs or outputs --------------------------------------------------------------------


def _concat_up(node: ir.Node, output: ir.Value, field: Field, opset: int) -> list[Hop]:
    del output, opset
    axis = _axis(node, field.rank, 1)
    if axis not in field.axes():
        return [(_input(node, i), field) for i in range(len(node.inputs))]
    hops: list[Hop] = []
    start = 0
    for index in range(len(node.inputs)):
        value = _input(node, index)
        length = _known(dims(value)[axis], node)
        hops.append((value, field.picked(axis, range(start, start + length))))
        start += length
    return hops


def _concat_down(node: ir.Node, index: int, field: Field, opset: int) -> list[Hop]:
    del opset
    axis = _axis(node, field.rank, 1)
    lengths = [_known(dims(_input(node, i))[axis], node) for i in range(len(node.inputs))]
    start = sum(lengths[:index])
    places = range(start, start + lengths[index])
    wide = field.over(axis, lengths[index])
    return [(node.outputs[0], wide.embedded(axis, places, sum(lengths)))]


def _split_places(node: ir.Node, output: ir.Value, rank: int) -> tuple[int, range, int]:
    axis = _axis(node, rank, 0)
    lengths = [_known(dims(each)[axis], node) for each in node.outputs]
    start = sum(lengths[: list(node.outputs).index(output)])
    return axis, range(start, start + lengths[list(node.outputs).index(output)]), sum(lengths)


def _split_up(node: ir.Node, output: ir.Value, field: Field, opset: int) -> list[Hop]:
    del opset
    axis, places, total = _split_places(node, output, field.rank)
    return [(_input(node), field.over(axis, len(places)).embedded(axis, places, total))]


def _split_down(node: ir.Node, index: int, field: Field, opset: int) -> list[Hop]:
    del opset
    if index != 0:
        raise Refused(Reason.BLOCKED_BY_OP, _at(node), "not the data of Split")
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
        return [int(n) for n in constant(node.inputs[index], _at(node)).reshape(-1)]

    starts, ends = given(1, "starts", None), given(2, "ends", None)
    axes = given(3, "axes", range(len(starts)))
    steps = given(4, "steps", [1] * len(starts)) or [1] * len(starts)
    found: dict[int, np.ndarray] = {}
    lengths = dims(_input(node))
    for place, axis in enumerate(axes):
        length = lengths[axis % rank]
        if isinstance(length, int):
            found[axis % rank] = np.arange(length)[slice(starts[place], ends[place], steps[place])]
        else:
            found[axis % rank] = np.empty(0, np.int64)
    return found


def _slice_up(node: ir.Node, output: ir.Value, field: Field, opset: int) -> list[Hop]:
    del output
    data = _input(node)
    lengths = dims(data)
    for axis, places in _slice_places(node, field.rank, opset).items():
        if axis in field.axes():
            total = _known(lengths[axis], node)
            # What is not taken is read by nobody, so it may stay as it is.
            field = field.over(axis, len(places)).embedded(axis, places, total)
    return [(data, field)]


def _slice_down(node: ir.Node, index: int, field: Field, opset: int) -> list[Hop]:
    if index != 0:
        raise Refused(Reason.BLOCKED_BY_OP, _at(node), "not the data of Slice")
    for axis, places in _slice_places(node, field.rank, opset).items():
        if axis in field.axes():
            field = field.picked(axis, places)
    return [(node.outputs[0], field)]


def _gather_places(node: ir.Node, rank: int) -> tuple[int, np.ndarray, int]:
    axis = _axis(node, rank, 0)
    length = _known(dims(_input(node))[axis], node)
    indices = constant(_input(node, 1), _at(node))
    if indices.ndim != 1:
        raise Refused(Reason.AXIS_MISMATCH, _at(node), "Gather with indices that are no list")
    return axis, indices.astype(np.int64) % length, length


def _gather_up(node: ir.Node, output: ir.Value, field: Field, opset: int) -> list[Hop]:
    del output, opset
    axis, places, total = _gather_places(node, field.rank)
    if axis not in field.axes():
        return [(_input(node), field)]
    wide = field.over(axis, len(places))
    moved = wide.embedded(axis, places, total)
    again = moved.over(axis, total).picked(axis, places)
    for back, wanted in ((again.scale, wide.scale), (again.shift, wide.shift)):
        if not np.array_equal(np.broadcast_to(back, wide.scale.shape), wanted):
            raise Refused(Reason.AXIS_MISMATCH, _at(node), "one channel is taken twice, with two affines")
    return [(_input(node), moved)]


def _gather_down(node: ir.Node, index: int, field: Field, opset: int) -> list[Hop]:
    del opset
    if index != 0:
        raise Refused(Reason.BLOCKED_BY_OP, _at(node), "not the data of Gather")
    axis, places, total = _gather_places(node, field.rank)
    return [(node.outputs[0], field.over(axis, total).picked(axis, places))]


def _require_same_axes(node: ir.Node, field: Field) -> None:
    """Branches must not be broadcast along an axis where the field varies, nor differ in rank."""
    for index in range(len(node.inputs)):
        lengths = dims(_input(node, index))
        if len(lengths) != field.rank:
            raise Refused(Reason.AXIS_MISMATCH, _at(node), "branches of different rank")
        for axis in field.axes():
            if lengths[axis] != max(field.scale.shape[axis], field.shift.shape[axis]):
                raise Refused(Reason.AXIS_MISMATCH, _at(node), "a branch is broadcast over the channels")


def _add_up(node: ir.Node, output: ir.Value, field: Field, opset: int) -> list[Hop]:
    """Scale into every branch, shift into the first: a(x+y)+b = (ax+b) + ay."""
    del output, opset
    _require_same_axes(node, field)
    rest = field.without_shift()
    return [(_input(node, i), rest if i else field) for i in range(len(node.inputs))]


def _max_up(node: ir.Node, output: ir.Value, field: Field, opset: int) -> list[Hop]:
    """Order is kept, so the largest stays the largest."""
    del output, opset
    _require_monotone(field, node)
    _require_same_axes(node, field)
    return [(_input(node, i), field) for i in range(len(node.inputs))]


def _mean_up(node: ir.Node, output: ir.Value, field: Field, opset: int) -> list[Hop]:
    """The mean of affine values is the affine of the mean."""
    del output, opset
    _require_same_axes(node, field)
    return [(_input(node, i), field) for i in range(len(node.inputs))]


MOVES: Mapping[str, tuple[Up, Down]] = {
    "Identity": _elementwise(_any),
    "Dropout": _through(_check_dropout),
    "Cast": _through(_check_cast),
    "Relu": _elementwise(_positive_scale_only),
    "LeakyRelu": _elementwise(_positive_scale_only),
    "PRelu": _elementwise(_positive_scale_only),
    "AveragePool": _through(_check_average_pool),
    "GlobalAveragePool": _through(_check_global_average),
    "MaxPool": _through(_check_max_pool),
    "GlobalMaxPool": _through(_check_max_pool),
    "LpPool": _through(_check_lp_pool),
    "GlobalLpPool": _through(_check_lp_pool),
    "Resize": _through(_check_resize),
    "Upsample": _through(_check_resize),
    "Pad": _through(_check_pad),
    "Transpose": _rearranging(_transpose_up, _transpose_down),
    "Reshape": _rearranging(_reshape_up, _reshape_down),
    "Flatten": _rearranging(_reshape_up, _reshape_down),
    "Squeeze": _rearranging(_reshape_up, _reshape_down),
    "Unsqueeze": _rearranging(_reshape_up, _reshape_down),
    "DepthToSpace": _rearranging(_to_depth, _to_space),
    "SpaceToDepth": _rearranging(_to_space, _to_depth),
    "ReduceMean": _reduction(_any),
    "ReduceSum": _reduction(_require_scale_only),
    "ReduceMax": _reduction(_require_monotone),
    "ReduceMin": _reduction(_require_monotone),
    "Concat": (_concat_up, _concat_down),
    "Split": (_split_up, _split_down),
    "Slice": (_slice_up, _slice_down),
    "Gather": (_gather_up, _gather_down),
}

UP: Mapping[str, Up] = {op: pair[0] for op, pair in MOVES.items()} | {
    "Add": _add_up,
    "Sum": _add_up,
    "Sub": _add_up,
    "Max": _max_up,
    "Min": _max_up,
    "Mean": _mean_up,
}
DOWN: Mapping[str, Down] = {op: pair[1] for op, pair in MOVES.items()}
