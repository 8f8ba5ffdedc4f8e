"""Moves that rearrange the axes of a field, and reductions that drop some."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from infold.fold.attributes import int_of, ints_of, string_of
from infold.fold.field import Field, regroup
from infold.fold.moves.reading import Down, Hop, Up, at, axes_of, data_of, dims, known, require_constant_along
from infold.fold.report import Reason, Refused

__all__ = [
    "rearranging",
    "reduction",
    "reshape_down",
    "reshape_up",
    "to_depth",
    "to_space",
    "transpose_down",
    "transpose_up",
]


def rearranging(
    up: Callable[[Field, ir.Node, ir.Value], Field], down: Callable[[Field, ir.Node, ir.Value], Field]
) -> tuple[Up, Down]:
    """A move that rearranges the field's axes; each function gets node and data input."""

    def go_up(node: ir.Node, output: ir.Value, field: Field, opset: int) -> list[Hop]:
        del output, opset
        return [(data_of(node), up(field, node, data_of(node)))]

    def go_down(node: ir.Node, index: int, field: Field, opset: int) -> list[Hop]:
        del opset
        if index != 0:
            raise Refused(Reason.BLOCKED_BY_OP, at(node), f"not the data of {node.op_type}")
        return [(node.outputs[0], down(field, node, data_of(node)))]

    return go_up, go_down


def _permutation(node: ir.Node, rank: int) -> list[int]:
    return list(ints_of(node, "perm", range(rank - 1, -1, -1)))


def transpose_up(field: Field, node: ir.Node, _: ir.Value) -> Field:
    """Back through the permutation."""
    inverse = np.argsort(_permutation(node, field.rank))
    return field.mapped(lambda array: np.transpose(array, inverse))


def transpose_down(field: Field, node: ir.Node, _: ir.Value) -> Field:
    """Along with the permutation."""
    return field.mapped(lambda array: np.transpose(array, _permutation(node, field.rank)))


def _reshape(field: Field, node: ir.Node, source: ir.Value, target: ir.Value) -> Field:
    moved = regroup(field, dims(source), dims(target))
    if moved is None:
        raise Refused(Reason.UNKNOWN_SHAPE, at(node), "where the channels go depends on open lengths")
    return moved


def reshape_up(field: Field, node: ir.Node, data: ir.Value) -> Field:
    """Back through a Reshape, Flatten, Squeeze or Unsqueeze, axis group by axis group."""
    return _reshape(field, node, node.outputs[0], data)


def reshape_down(field: Field, node: ir.Node, data: ir.Value) -> Field:
    """Along with a Reshape, Flatten, Squeeze or Unsqueeze, axis group by axis group."""
    return _reshape(field, node, data, node.outputs[0])


def _space(node: ir.Node, data: ir.Value) -> tuple[list[int], bool]:
    """Shape (blocks, channels) or (channels, blocks) of the deep side's channels; blocks first?"""
    size = int_of(node, "blocksize", 1) ** 2
    deep = data if node.op_type == "DepthToSpace" else node.outputs[0]
    channels = known(dims(deep)[1], node)
    blocks_first = node.op_type == "SpaceToDepth" or string_of(node, "mode", "DCR") == "DCR"
    shallow = channels // size
    return ([size, shallow] if blocks_first else [shallow, size]), blocks_first


def to_depth(field: Field, node: ir.Node, data: ir.Value) -> Field:
    """From the shallow side: each channel's affine for every block of it."""
    layout, blocks_first = _space(node, data)
    require_constant_along(field, range(2, field.rank), node)
    wide = field.over(1, layout[1] if blocks_first else layout[0])
    repeat = np.tile if blocks_first else np.repeat
    indices = repeat(np.arange(layout[1] if blocks_first else layout[0]), layout[0 if blocks_first else 1])
    return wide.picked(1, indices)


def to_space(field: Field, node: ir.Node, data: ir.Value) -> Field:
    """From the deep side: lawful only if all blocks of a channel share one affine."""
    layout, blocks_first = _space(node, data)
    require_constant_along(field, range(2, field.rank), node)
    wide = field.over(1, layout[0] * layout[1])
    index = np.arange(layout[0] * layout[1]).reshape(layout)
    first = index[0] if blocks_first else index[:, 0]
    for block in index if blocks_first else index.T:
        same = all(
            np.array_equal(np.take(array, block, 1), np.take(array, first, 1))
            for array in (wide.scale, wide.shift)
        )
        if not same:
            raise Refused(Reason.AXIS_MISMATCH, at(node), "channels that become one place differ")
    return wide.picked(1, first)


def _reduced_axes(node: ir.Node, rank: int) -> list[int]:
    axes = axes_of(node)
    if axes is None or not axes:
        return [] if axes == [] and int_of(node, "noop_with_empty_axes", 0) else list(range(rank))
    return [axis % rank for axis in axes]


def reduction(condition: Callable[[Field, ir.Node], None]) -> tuple[Up, Down]:
    """Moves over a reduction: axes that are reduced away come and go, on one condition."""

    def up(node: ir.Node, output: ir.Value, field: Field, opset: int) -> list[Hop]:
        del output, opset
        condition(field, node)
        data = data_of(node)
        axes = _reduced_axes(node, len(dims(data)))
        if not int_of(node, "keepdims", 1):
            field = field.mapped(lambda array: np.expand_dims(array, tuple(axes)))
        return [(data, field)]

    def down(node: ir.Node, index: int, field: Field, opset: int) -> list[Hop]:
        del opset
        if index != 0:
            raise Refused(Reason.BLOCKED_BY_OP, at(node), f"not the data of {node.op_type}")
        condition(field, node)
        axes = _reduced_axes(node, field.rank)
        require_constant_along(field, axes, node)
        if not int_of(node, "keepdims", 1):
            field = field.mapped(lambda array: np.squeeze(array, tuple(axes)))
        return [(node.outputs[0], field)]

    return up, down
