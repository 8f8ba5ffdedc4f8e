"""TensorFlow graphs to ONNX with every norm left in: tf2onnx with its three folding places switched off."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from tf2onnx import tf_loader
from tf2onnx.optimizer import back_to_back_optimizer, transpose_optimizer

from infold.convert.frontends.tf_frozen import Frozen, GraphDef, constant_node, node_of
from infold.convert.frontends.tf_signatures import freeze_signature, load
from infold.errors import SourceError

__all__ = ["OPSET", "convert", "to_onnx", "unfolded"]

OPSET = 17
CONV_NORM = ("Conv", "BatchNormalization")


def to_onnx(path: Path, signature: str | None = None, tag: str | None = None) -> onnx.ModelProto:
    """Convert one signature of a TensorFlow 2 SavedModel, every norm left in the graph.

    Args:
        path: The SavedModel's folder.
        signature: Which; None where there is one, or `serving_default`.
        tag: Which graph; None where there is one, or `serve`.

    Returns:
        A model at opset 17 whose inputs and outputs are called as in the signature.

    Raises:
        SourceError: The SavedModel cannot be read or converted; says what to do.
    """
    return convert(freeze_signature(load(path, tag), signature).frozen, path)


def convert(frozen: Frozen, source: Path | str) -> onnx.ModelProto:
    """Convert a graph of constants as it stands.

    Raises:
        SourceError: The graph holds operators that ONNX or tf2onnx lack; names them.
    """
    names = {tensor: name for name, tensor in (*frozen.inputs.items(), *frozen.outputs.items())}
    with unfolded(), _quiet():
        converted: tuple[onnx.ModelProto, Any] = tf2onnx.convert.from_graph_def(
            _with_constant_shapes(frozen.graph),
            name="model",
            input_names=list(frozen.inputs.values()),
            output_names=list(frozen.outputs.values()),
            tensors_to_rename=names,
            opset=OPSET,
        )
    _require_onnx(converted[0], source)
    return converted[0]


@contextmanager
def unfolded() -> Iterator[None]:
    """Tf2onnx without the three places where it folds norms; it has no option for any of them.

    Grappler's constant folding moves factors into convolutions, the transpose optimizer
    does so with factors and summands, and one rule joins Conv with BatchNormalization.
    """

    def as_it_is(_inputs: Any, _outputs: Any, graph: Any) -> Any:
        return graph

    class TransposeOptimizer(transpose_optimizer.TransposeOptimizer):  # type: ignore[misc]  # untyped
        """Moves transposes as ever, but past factors and summands without merging any."""

        def _initialize_handlers(self) -> None:
            super()._initialize_handlers()
            for op in ("Add", "Mul", "Div"):
                self._handler_map[op] = self._maxmin_handler

    # The optimizers are made anew for each conversion by these factories.
    factories = tf2onnx.optimizer._optimizers
    rules = {key: rule for key, rule in back_to_back_optimizer._func_map.items() if key != CONV_NORM}
    with (
        patch.object(tf_loader, "tf_optimize_grappler", as_it_is),
        patch.dict(factories, {"optimize_transpose": TransposeOptimizer}),
        patch.dict(back_to_back_optimizer._func_map, rules, clear=True),
    ):
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Tf2onnx logs an error for each operator it lacks; `_require_onnx` says it better."""
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _with_constant_shapes(graph: GraphDef) -> GraphDef:
    """A copy in which a Reshape to all but one known length has a constant shape.

    Layers that flatten compute the batch's length first; tf2onnx sees through that or
    not, by the order in which it happens to meet the nodes.
    """
    copy = type(graph)()
    copy.CopyFrom(graph)
    nodes = {node.name: node for node in copy.node}
    shapes = []
    for node in nodes.values():
        pack = nodes[node_of(node.input[1])] if node.op == "Reshape" else None
        if pack is None or pack.op != "Pack":
            continue
        lengths = [_length(nodes[node_of(each)]) for each in pack.input if not each.startswith("^")]
        if lengths.count(-1) > 1:
            continue
        shape = np.array(lengths, tf.as_dtype(pack.attr["T"].type).as_numpy_dtype)
        constant = constant_node(f"{node.name}/infold_shape", shape)
        node.input[1] = constant.name
        shapes.append(constant)
    copy.node.extend(shapes)
    return copy


def _length(node: Any) -> int:
    """A constant length; -1 where it is computed."""
    if node.op != "Const":
        return -1
    return int(tf.make_ndarray(node.attr["value"].tensor).reshape(-1)[0])


def _require_onnx(proto: onnx.ModelProto, source: Path | str) -> None:
    """Tf2onnx copies operators that it lacks; such a graph is no ONNX."""
    for node in _nodes(proto.graph):
        if node.domain in ("", "ai.onnx") and not onnx.defs.has(node.op_type):
            raise SourceError(
                source,
                f"tf2onnx cannot convert operator {node.op_type} at '{node.name}'; "
                "replace it in the model, or name --outputs before it",
            )


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)
