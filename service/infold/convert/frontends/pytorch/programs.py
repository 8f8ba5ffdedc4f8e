"""A captured graph (`torch.export.ExportedProgram`) turned into unfolded ONNX."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import onnx
import onnx_ir as ir
import sympy  # type: ignore[import-untyped]  # brought by torch
import torch
from onnxscript import optimizer
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind, TensorArgument
from torch.utils import _pytree as pytree

from infold.convert.frontends.pytorch.wording import in_brief
from infold.errors import SourceError
from infold.tensors import Array

__all__ = [
    "OPSET",
    "as_array",
    "batch_is_open",
    "layer_of",
    "named_leaves",
    "open_axes",
    "quietly",
    "to_onnx",
]

OPSET = 20


def to_onnx(
    program: ExportedProgram, inputs: Sequence[str], outputs: Sequence[str], source: str
) -> onnx.ModelProto:
    """ONNX with every norm in it.

    The exporter's own optimizer folds norms, so it stays off; the shape arithmetic that
    it would have removed is constant and goes without it.

    Args:
        program: The graph.
        inputs: What to call them, in order.
        outputs: The same.
        source: What to name in errors.

    Raises:
        SourceError: The exporter lacks an operator; names the layer.
    """
    _separate_outputs(program)
    try:
        with quietly():
            exported: Any = torch.onnx.export(
                program,
                (),
                dynamo=True,
                optimize=False,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
                external_data=False,
                verbose=False,
            )
            model = exported.model
            optimizer.fold_constants(model)
            optimizer.remove_unused_nodes(model)
            proto: onnx.ModelProto = ir.to_proto(model)
            _number_fixed_dims(proto)
            return proto
    except torch.onnx.errors.OnnxExporterError as failure:
        raise SourceError(source, _lacking(failure, program)) from failure


def _separate_outputs(program: ExportedProgram) -> None:
    """A value of its own for each output: the exporter would rename an input that is one, or merge two."""
    end = next(node for node in program.graph.nodes if node.op == "output")
    given = list(end.args[0])
    seen: set[fx.Node] = set()
    for index, (node, spec) in enumerate(zip(given, program.graph_signature.output_specs, strict=True)):
        if not isinstance(node, fx.Node) or spec.kind is not OutputKind.USER_OUTPUT:
            continue
        if node in seen or node.op == "placeholder":
            with program.graph.inserting_before(end):
                copied = program.graph.call_function(torch.ops.aten.clone.default, (node,))
            copied.meta = {"val": node.meta["val"]}
            given[index] = copied
            spec.arg = TensorArgument(name=copied.name)
        seen.add(node)
    end.args = (tuple(given),)
    program.graph_module.recompile()


def _lacking(failure: Exception, program: ExportedProgram) -> str:
    text = str(failure)
    found = re.search(r"No ONNX function found for <OpOverload\(op='(?:\w+\.)?(\w+)'", text)
    if found is None:
        found = re.search(r"Error when translating node %(\w+)", text)
        if found is None:
            return f"its graph cannot be written as ONNX: {in_brief(failure)}"
    wanted = re.sub(r"(_\d+)+$", "", found[1])
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    near = next((node for node in nodes if wanted in str(node.target) or node.name == found[1]), None)
    operator = str(near.target).removesuffix(".default") if near is not None else wanted
    layer = layer_of(near) if near is not None else ""
    where = f" (in layer '{layer}')" if layer else ""
    return f"the operator '{operator}'{where} has no ONNX form in torch {torch.__version__}; replace it"


@contextmanager
def quietly() -> Iterator[None]:
    """Warnings about deprecated ways and what exporters print, kept away."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch.fx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def layer_of(node: fx.Node) -> str:
    """Name of the module that a node was captured in."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return re.sub(r"@\d+", "", stack[-1][0]) if stack else ""


def batch_is_open(program: ExportedProgram, name: str) -> bool:
    """Whether the first axis of an input may have any length."""
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name == name:
            shape = node.meta["val"].shape
            return len(shape) == 0 or _length(shape[0]) is None
    return True


def open_axes(program: ExportedProgram, name: str) -> dict[int, tuple[int, int | None]]:
    """The axes of an input that may have several lengths, with the least and the most."""
    node = next(each for each in program.graph.nodes if each.op == "placeholder" and each.name == name)
    found = {}
    for axis, dim in enumerate(node.meta["val"].shape):
        if _length(dim) is None:
            ends = program.range_constraints.get(dim.node.expr)
            least, most = (0, None) if ends is None else (ends.lower, ends.upper)
            found[axis] = int(least), int(most) if isinstance(most, int | sympy.Integer) else None
    return found


def _length(dim: Any) -> int | None:
    """A fixed length; what began as a symbol may have become a number on the way."""
    if isinstance(dim, int):
        return dim
    found = dim.node.maybe_as_int()
    return None if found is None else int(found)


def _number_fixed_dims(proto: onnx.ModelProto) -> None:
    """Symbols that became numbers are written as names of symbols, `2`."""
    for value in (*proto.graph.input, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param.isdecimal():
                dim.dim_value = int(dim.dim_param)


def named_leaves(structure: Any) -> list[tuple[str, Any]]:
    """What a network gives, flat and named: `output`, `output_0` and so on, or the keys of a dictionary."""
    leaves = []
    for path, value in pytree.tree_flatten_with_path(structure)[0]:
        words = [_word(key) for key in path]
        if not path or not isinstance(path[0], pytree.MappingKey | pytree.GetAttrKey):
            words.insert(0, "output")
        leaves.append(("_".join(words), value))
    return leaves


def _word(key: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def as_array(tensor: Tensor) -> Array:
    """A copy that later changes in place do not reach."""
    array: Array = tensor.detach().clone().resolve_conj().resolve_neg().cpu().contiguous().numpy()
    return array
