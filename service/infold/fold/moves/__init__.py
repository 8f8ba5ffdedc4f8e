"""What an affine may cross: a table from operator to how the affine looks on the other side.

A move against the flow answers: if the affine were applied to each of these
inputs instead, the output would be the same. A move with the flow answers: if it
were left out of this input, it would have to be applied to these outputs.
Whoever cannot say so refuses. Uses and graph outputs are no concern of this table.

Source: docs/folding.md, the table of moves.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from infold.fold.field import Field
from infold.fold.moves import axes, branches, pad, through
from infold.fold.moves.reading import (
    Down,
    Hop,
    Up,
    anything,
    positive_scale_only,
    require_monotone,
    require_scale_only,
)
from infold.fold.patch import Amendment
from infold.fold.report import Reason, Refused

__all__ = ["Hop", "amended", "move_down", "move_up"]


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


def amended(node: ir.Node, field: Field, opset: int, *, upward: bool) -> Amendment | None:
    """What must change in a node itself when the field crosses it; None where nothing must.

    Raises:
        Refused: It would have to change in a way that it cannot.
    """
    return pad.amend_pad(node, field, opset, upward=upward) if node.op_type == "Pad" else None


MOVES: Mapping[str, tuple[Up, Down]] = {
    "Identity": through.elementwise(anything),
    "Dropout": through.through(through.check_dropout),
    "Cast": through.through(through.check_cast),
    "Relu": through.elementwise(positive_scale_only),
    "LeakyRelu": through.elementwise(positive_scale_only),
    "PRelu": through.elementwise(positive_scale_only),
    "AveragePool": through.through(through.check_average_pool),
    "GlobalAveragePool": through.through(through.check_global_average),
    "MaxPool": through.through(through.check_max_pool),
    "GlobalMaxPool": through.through(through.check_max_pool),
    "LpPool": through.through(through.check_lp_pool),
    "GlobalLpPool": through.through(through.check_lp_pool),
    "Resize": through.through(through.check_resize),
    "Upsample": through.through(through.check_resize),
    "Pad": (pad.pad_up, pad.pad_down),
    "Transpose": axes.rearranging(axes.transpose_up, axes.transpose_down),
    "Reshape": axes.rearranging(axes.reshape_up, axes.reshape_down),
    "Flatten": axes.rearranging(axes.reshape_up, axes.reshape_down),
    "Squeeze": axes.rearranging(axes.reshape_up, axes.reshape_down),
    "Unsqueeze": axes.rearranging(axes.reshape_up, axes.reshape_down),
    "DepthToSpace": axes.rearranging(axes.to_depth, axes.to_space),
    "SpaceToDepth": axes.rearranging(axes.to_space, axes.to_depth),
    "ReduceMean": axes.reduction(anything),
    "ReduceSum": axes.reduction(require_scale_only),
    "ReduceMax": axes.reduction(require_monotone),
    "ReduceMin": axes.reduction(require_monotone),
    "Concat": (branches.concat_up, branches.concat_down),
    "Split": (branches.split_up, branches.split_down),
    "Slice": (branches.slice_up, branches.slice_down),
    "Gather": (branches.gather_up, branches.gather_down),
}

UP: Mapping[str, Up] = {op: pair[0] for op, pair in MOVES.items()} | {
    "Add": branches.add_up,
    "Sum": branches.add_up,
    "Sub": branches.add_up,
    "Max": branches.max_up,
    "Min": branches.max_up,
    "Mean": branches.mean_up,
}
DOWN: Mapping[str, Down] = {op: pair[1] for op, pair in MOVES.items()}
