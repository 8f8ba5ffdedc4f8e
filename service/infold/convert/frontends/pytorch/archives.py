"""A `torch.export` archive: screened, opened, its graph brought to inference mode and exported."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from infold.convert.frontends.exported import Answer, Call, Exported, Request
from infold.convert.frontends.formats import Format, recognise
from infold.convert.frontends.pytorch.eager import output_names
from infold.convert.frontends.pytorch.graph_norms import FLAGGED, graph_norms
from infold.convert.frontends.pytorch.norms import no_statistics
from infold.convert.frontends.pytorch.programs import as_array, batch_is_open, named_leaves, quietly, to_onnx
from infold.convert.frontends.pytorch.screening import screen_archive
from infold.convert.frontends.pytorch.wording import in_brief
from infold.errors import SourceError
from infold.tensors import Tensors

__all__ = ["open_archive"]

TRAINED = (
    "the graph was captured in training mode; its batch norms and dropouts are exported for inference, but "
    "other code that looked at module.training is frozen as it was: call module.eval() before "
    "torch.export.export"
)
TRAINING_ONLY = (
    "captured in training mode and lowered to '{}', which has no way back; call module.eval() before "
    "torch.export.export"
)
# Forms of a norm and of dropout that cannot be put right, and the place of their training flag, if any.
LOWERED = {
    "aten._native_batch_norm_legit_functional.default": 5,
    "aten._native_batch_norm_legit.default": 5,
    "aten.cudnn_batch_norm.default": 5,
    "aten.native_dropout.default": 2,
    "aten._batch_norm_with_update.default": None,
    "aten._batch_norm_with_update_functional.default": None,
}
STATIC = (
    "the archive was captured with a fixed batch of {}: the exported model takes no other; capture it with "
    "dynamic_shapes={{'{}': {{0: torch.export.Dim('batch')}}}}"
)


def open_archive(request: Request) -> Exported:
    """Export an archive.

    Raises:
        SourceError: It is damaged or unsafe, of another version, or cannot be exported.
    """
    program = _load(request.source)
    told: list[str] = []
    _bring_to_inference(program, request.source, told)
    _require_kernels(program, request.source)
    inputs = _inputs(program, request.source)
    structure = _structure(program)
    outputs = output_names(structure, dict.fromkeys(inputs), request.source)
    for name, tensor in inputs.items():
        if not batch_is_open(program, name):
            told.append(STATIC.format(tensor.shape[0], name))
            break
    proto = to_onnx(program, list(inputs), outputs, request.source)
    graph: fx.GraphModule = program.module(check_guards=False)
    norms, nodes = graph_norms(program, graph)
    told += [no_statistics(norm.layer) for norm in norms if norm.mean is None]
    runner = _Runner(program, graph, tuple(inputs), outputs, nodes, request.source)
    shapes = {} if program.example_inputs is None else _shapes(program, inputs)
    return Exported(f"torch {torch.__version__}", proto, norms, runner, tuple(told), shapes)


class _Listener(logging.Handler):
    """Keeps the exception that torch.export.load only logs."""

    def __init__(self) -> None:
        super().__init__()
        self.failure: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self.failure = record.exc_info[1]


def _load(source: str) -> ExportedProgram:
    _require_archive(source)
    screen_archive(Path(source))
    listener = _Listener()
    logger = logging.getLogger("torch.export")
    logger.addHandler(listener)
    try:
        with quietly():
            logger.setLevel(logging.WARNING)
            with Path(source).open("rb") as file:
                program = torch.export.load(file)
    except Exception as failure:
        cause = in_brief(listener.failure or failure)
        detail = f"torch {torch.__version__} cannot open it ({cause}); export it again with that version"
        raise SourceError(source, detail) from failure
    finally:
        logger.removeHandler(listener)
    program._guards_code = []  # Python text from the file, compiled on first use
    return program


def _require_archive(source: str) -> None:
    """Archives of other kinds have the same form on the outside."""
    try:
        found = recognise(source)
    except SourceError:
        return  # what is wrong with it, those say who look closer
    if found in (Format.KERAS, Format.TORCHSCRIPT, Format.PICKLE):
        detail = (
            f"is a {found} file, not an archive of torch.export; leave --from out, or give --from {found}"
        )
        raise SourceError(source, detail)


def _bring_to_inference(program: ExportedProgram, source: str, told: list[str]) -> None:
    """Clear the training flag of batch norms and dropouts, as module.eval() would have done."""
    found = False
    for graph in _graphs(program.graph_module):
        for node in graph.nodes:
            target = str(node.target)
            if node.op != "call_function":
                continue
            if target in LOWERED and ((flag := LOWERED[target]) is None or node.args[flag]):
                raise SourceError(source, TRAINING_ONLY.format(target.removesuffix(".default")))
            if target in FLAGGED and node.args[5] is True and node.args[3] is not None:
                node.args = (*node.args[:5], False, *node.args[6:])
                found = True
            if (
                re.match(r"aten\.(feature_|alpha_|feature_alpha_)?dropout_?\.default", target)
                and node.args[2]
            ):
                node.args = (*node.args[:2], False)
                found = True
    if found:
        told.append(TRAINED)


def _graphs(module: torch.nn.Module) -> list[fx.Graph]:
    return [each.graph for each in module.modules() if isinstance(each, fx.GraphModule)]


def _require_kernels(program: ExportedProgram, source: str) -> None:
    for value in (*program.state_dict.values(), *program.constants.values()):
        if isinstance(value, Tensor) and value.dtype in (torch.bfloat16, *_tiny()):
            name = str(value.dtype).removeprefix("torch.")
            detail = f"its weights are {name}, which onnxruntime cannot run on a CPU; export module.float()"
            raise SourceError(source, detail)


def _tiny() -> tuple[torch.dtype, ...]:
    return tuple(value for name, value in vars(torch).items() if name.startswith("float8"))


def _inputs(program: ExportedProgram, source: str) -> dict[str, Any]:
    """The example or symbolic tensor of each input, by name."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    inputs = {
        name: values[name]
        for name in program.graph_signature.user_inputs
        if isinstance(name, str) and isinstance(values.get(name), Tensor)
    }
    if not inputs:
        raise SourceError(source, "takes no tensor")
    return inputs


def _structure(program: ExportedProgram) -> Any:
    """What the program gives, as it was structured: tensors, or the constants among them."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    leaves = [
        values.get(each, each) if isinstance(each, str) else each
        for each in program.graph_signature.user_outputs
    ]
    return pytree.tree_unflatten(leaves, program.call_spec.out_spec)


def _shapes(program: ExportedProgram, inputs: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes the archive's own examples have, at least two rows where the batch is open."""
    examples = pytree.tree_leaves(program.example_inputs)
    named = zip(program.graph_signature.user_inputs, examples, strict=False)
    shapes = {}
    for name, value in named:
        if name in inputs and isinstance(value, Tensor):
            shape = tuple(value.shape)
            if shape and shape[0] == 1 and batch_is_open(program, str(name)):
                shape = (2, *shape[1:])
            shapes[str(name)] = shape
    return shapes


class _Runner:
    """The graph itself on samples, node by node."""

    def __init__(
        self,
        program: ExportedProgram,
        graph: fx.GraphModule,
        inputs: tuple[str, ...],
        outputs: list[str],
        places: Mapping[str, int],
        source: str,
    ) -> None:
        self._order = program.graph_signature.user_inputs
        self._graph = graph
        self._inputs = inputs
        self._outputs = outputs
        self._places = places
        self._source = source

    def __call__(self, samples: Tensors) -> Answer:
        # Arguments that are no tensors are constants of the graph.
        leaves = [
            torch.from_numpy(samples[each].copy()) if isinstance(each, str) and each in self._inputs else each
            for each in self._order
        ]
        watched = _Watched(self._graph, self._places)
        try:
            with torch.no_grad():
                structure = watched.run(*leaves)
        except Exception as failure:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in samples.items())
            detail = f"its graph fails on {shapes}: {in_brief(failure)}; give shapes it takes with --shape"
            raise SourceError(self._source, detail) from failure
        tensors = [value for _, value in named_leaves(structure) if isinstance(value, Tensor)]
        outputs = dict(zip(self._outputs, map(as_array, tensors), strict=True))
        return Answer(outputs, tuple(watched.calls))


class _Watched(fx.Interpreter):  # type: ignore[misc]  # torch is untyped where mypy runs
    """Runs a graph and keeps what its norms give, before anything changes it in place."""

    def __init__(self, graph: fx.GraphModule, places: Mapping[str, int]) -> None:
        super().__init__(graph)
        self._places = places
        self.calls: list[Call] = []

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self._places:
            tensor = value[0] if isinstance(value, tuple | list) else value
            self.calls.append(Call(self._places[n.name], as_array(tensor)))
        return value
