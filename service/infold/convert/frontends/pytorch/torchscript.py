"""TorchScript: an archive with its own program, exported by the exporter made for it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor

from infold.convert.frontends.exported import Answer, Call, Exported, Request
from infold.convert.frontends.pytorch.eager import TRAINING_NOTE, output_names, supported_floats
from infold.convert.frontends.pytorch.examples import Signature, take, widened
from infold.convert.frontends.pytorch.norms import no_statistics
from infold.convert.frontends.pytorch.programs import OPSET, as_array, named_leaves, quietly
from infold.convert.frontends.pytorch.screening import screen_script
from infold.convert.frontends.pytorch.script_norms import layer_of_value, script_norms
from infold.convert.frontends.pytorch.wording import in_brief
from infold.errors import SourceError
from infold.tensors import Tensors

__all__ = ["load", "open_script"]

FROZEN = (
    "the TorchScript program is frozen: torch.jit.freeze has folded norms into their neighbours already, and "
    "only what it left can be shown"
)
TRACED = (
    "was traced in training mode ({}): what it computes depends on the other rows of a batch, or on chance; "
    "call module.eval() before torch.jit.trace"
)
FIXED = "the program was traced for a batch of {0}: the exported model takes no other"


def load(source: str) -> torch.jit.ScriptModule:
    """Read an archive.

    Raises:
        SourceError: It is damaged, or works with files.
    """
    screen_script(Path(source))
    try:
        with quietly():
            return torch.jit.load(source, map_location="cpu")
    except (RuntimeError, ValueError, OSError) as broken:
        detail = f"torch {torch.__version__} cannot open it: {in_brief(broken)}"
        raise SourceError(source, detail) from broken


def open_script(request: Request, module: Any, notes: Sequence[str] = ()) -> Exported:
    """Export a TorchScript module.

    Raises:
        SourceError: It does not take the inputs, was traced in training mode, or uses an
            operator that ONNX lacks.
    """
    told = list(notes)
    with quietly():
        if any(getattr(each, "training", False) for each in module.modules()):
            told.append(TRAINING_NOTE)
        if hasattr(module, "training"):
            module.eval()
        graph = module.inlined_graph.copy()
    _require_inference(graph, request.source)
    if not [*module.parameters(), *module.buffers()] and _holds_weights(graph):
        told.append(FROZEN)
    signature = _signature(module)
    given = take(request, signature, supported_floats(module, request.source))
    inputs, structure, is_open = _tried(module, signature, given, request.source)
    if not is_open:
        told.append(FIXED.format(next(iter(inputs.values())).shape[0]))
    outputs = output_names(structure, inputs, request.source)
    proto = _to_onnx(module, signature, inputs, outputs, is_open, request.source)
    norms, places = script_norms(module, graph)
    told += [no_statistics(norm.layer) for norm in norms if norm.mean is None]
    run = _Runner(module, signature, _probe(module, graph, places), places, request.source)
    return Exported(f"torch {torch.__version__}", proto, norms, run, tuple(told))


def _signature(module: Any) -> Signature:
    arguments = module.forward.schema.arguments[1:]
    needed = tuple(each.name for each in arguments if not each.has_default_value())
    return Signature(tuple(each.name for each in arguments), needed)


def _require_inference(graph: Any, source: str) -> None:
    """Refuse flags that were frozen when the program was traced; module.eval() does not reach them."""
    for kind, place in (("aten::batch_norm", 5), ("aten::dropout", 2), ("aten::dropout_", 2)):
        for node in _always_run(graph.nodes(), kind):
            inputs = list(node.inputs())
            if kind == "aten::batch_norm" and _is_none(inputs[3]):
                continue
            share = inputs[1].node()
            if (
                kind != "aten::batch_norm"
                and share.kind() == "prim::Constant"
                and share.output().toIValue() == 0
            ):
                continue  # it drops nothing
            if inputs[place].node().kind() == "prim::Constant" and inputs[place].toIValue() is True:
                name = layer_of_value(inputs[3]) if kind == "aten::batch_norm" else ""
                raise SourceError(source, TRACED.format(f"'{name}'" if name else "its dropout is on"))


def _always_run(nodes: Iterable[Any], kind: str) -> Iterator[Any]:
    """Nodes of a kind, those in branches left out: a trace has none, and a script asks its flags there."""
    for node in nodes:
        if node.kind() == kind:
            yield node
        elif node.kind() == "prim::Loop":
            for block in node.blocks():
                yield from _always_run(block.nodes(), kind)


def _holds_weights(graph: Any) -> bool:
    """Whether a program has tensors among its constants."""
    values = (node.output().toIValue() for node in graph.findAllNodes("prim::Constant"))
    return any(isinstance(value, Tensor) and value.numel() > 1 for value in values)


def _is_none(value: Any) -> bool:
    return bool(value.node().kind() == "prim::Constant" and value.toIValue() is None)


def _tried(
    module: Any, signature: Signature, given: Mapping[str, Tensor], source: str
) -> tuple[dict[str, Tensor], Any, bool]:
    """Inputs the program takes, the structure of what it gives, and whether it takes other batches."""
    wide = widened(given)
    try:
        structure = _forward(module, signature, wide)
    except Exception as failure:
        try:
            return dict(given), _forward(module, signature, given), False
        except Exception:
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in given.items())
            detail = (
                f"its forward() fails on {shapes}: {_cause(failure)}; give a shape it takes with --shape, or "
                "--samples FILE.npz"
            )
            raise SourceError(source, detail) from failure
    rows = {value.shape[0] for value in wide.values() if value.ndim}
    more = {
        name: torch.cat((value, value[:1])) if value.ndim and len(rows) == 1 else value
        for name, value in wide.items()
    }
    try:
        _forward(module, signature, more)
    except Exception:
        return wide, structure, False
    return wide, structure, True


def _cause(failure: Exception) -> str:
    """The last line: a TorchScript interpreter puts its stack trace first."""
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    told = [line for line in lines if re.match(r"(RuntimeError|\w+Error|builtins\.\w+)\b", line)]
    return " ".join((told or lines or [type(failure).__name__])[-1].split())[:300]


def _forward(module: Any, signature: Signature, inputs: Mapping[str, Tensor]) -> Any:
    args, keywords = signature.arranged({name: value.clone() for name, value in inputs.items()})
    with torch.no_grad():
        return module(*args, **keywords)


def _to_onnx(
    module: Any,
    signature: Signature,
    inputs: Mapping[str, Tensor],
    outputs: list[str],
    is_open: bool,
    source: str,
) -> onnx.ModelProto:
    args, keywords = signature.arranged(inputs)
    file = io.BytesIO()
    axes = {name: {0: "batch"} for name in (*inputs, *outputs)} if is_open else {}
    try:
        with quietly(), torch.no_grad():
            torch.onnx.export(
                module,
                args,
                file,
                kwargs=keywords or None,
                dynamo=False,
                training=torch.onnx.TrainingMode.PRESERVE,
                do_constant_folding=False,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=outputs,
                dynamic_axes=axes,
            )
    except Exception as failure:
        raise SourceError(source, _unexportable(module, failure)) from failure
    proto = onnx.load_from_string(file.getvalue())
    _complete_inputs(proto, inputs, is_open)
    return proto


def _unexportable(module: Any, failure: Exception) -> str:
    if "lower all tuples" in str(failure) or "prim::DictConstruct" in str(failure):
        return (
            "TorchScript cannot write outputs that are dictionaries or nested tuples as ONNX; return a "
            "tensor or a flat tuple of tensors, or convert the module itself (package.module:factory)"
        )
    found = re.search(r"operator '?(?:aten::)?([\w:]+)'? to ONNX", str(failure))
    if found is None:
        return f"its program cannot be written as ONNX: {in_brief(failure)}"
    graph = module.inlined_graph  # its nodes live no longer than this
    nodes = graph.findAllNodes(f"aten::{found[1]}")
    layer = re.sub(r"\([^)]*\)", "", nodes[0].getModuleHierarchy()) if nodes else ""
    where = f" (in layer '{layer}')" if layer else ""
    return f"the operator 'aten.{found[1]}'{where} has no ONNX form in torch {torch.__version__}; replace it"


def _complete_inputs(proto: onnx.ModelProto, inputs: Mapping[str, Tensor], is_open: bool) -> None:
    """The exporter drops inputs that nothing reads; they are the model's all the same."""
    present = {value.name: value for value in proto.graph.input}
    if set(present) == set(inputs):
        return
    complete = []
    for name, tensor in inputs.items():
        if name not in present:
            kind = onnx.helper.np_dtype_to_tensor_dtype(as_array(tensor).dtype)
            shape: list[int | str] = list(tensor.shape)
            if is_open and shape:
                shape[0] = "batch"
            present[name] = onnx.helper.make_tensor_value_info(name, kind, shape)
        complete.append(present[name])
    del proto.graph.input[:]
    proto.graph.input.extend(complete)


def _probe(module: Any, graph: Any, places: list[tuple[Any, int]]) -> Any:
    """The program, changed to give the values of its norms beside its own, or None.

    A copy of each value is taken, since what follows may change it in place.
    """
    if not places:
        return None
    values = []
    for node, _ in places:
        nothing = graph.create("prim::Constant", [], 1)
        nothing.output().setType(torch._C.NoneType.get())
        nothing.insertAfter(node)
        copy = graph.create("aten::clone", [node.output(), nothing.output()], 1)
        copy.output().setType(torch._C.TensorType.get())
        copy.insertAfter(nothing)
        values.append(copy.output())
    own = list(graph.outputs())
    joined = graph.create("prim::TupleConstruct", [*own, *values], 1)
    joined.output().setType(torch._C.TupleType([value.type() for value in (*own, *values)]))
    graph.appendNode(joined)
    for _ in own:
        graph.eraseOutput(0)
    graph.registerOutput(joined.output())
    try:
        return torch._C._create_function_from_graph("forward", graph)
    except RuntimeError:
        return None


class _Runner:
    """The program itself on samples."""

    def __init__(
        self, module: Any, signature: Signature, probe: Any, places: list[tuple[Any, int]], source: str
    ) -> None:
        self._module = module
        self._signature = signature
        self._probe = probe
        self._norms = [index for _, index in places]
        self._source = source

    def __call__(self, samples: Tensors) -> Answer:
        inputs = {name: torch.from_numpy(array.copy()) for name, array in samples.items()}
        try:
            structure = _forward(self._module, self._signature, inputs)
        except Exception as failure:
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in inputs.items())
            raise SourceError(self._source, f"fails on {shapes}: {_cause(failure)}") from failure
        names = output_names(structure, inputs, self._source)
        tensors = [value for _, value in named_leaves(structure) if isinstance(value, Tensor)]
        return Answer(dict(zip(names, map(as_array, tensors), strict=True)), tuple(self._calls(inputs)))

    def _calls(self, inputs: Mapping[str, Tensor]) -> Iterator[Call]:
        args, keywords = self._signature.arranged(inputs)
        if self._probe is None or keywords or len(args) < len(self._signature.names):
            return
        with torch.no_grad():
            values = self._probe(self._module._c, *args)
        for index, value in zip(self._norms, values[-len(self._norms) :], strict=True):
            yield Call(index, as_array(value))
