"""A module at hand: captured with `torch.export`, run as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from infold.convert.frontends.exported import Answer, Call, Exported, Norm, Request
from infold.convert.frontends.pytorch.examples import Signature, take, widened
from infold.convert.frontends.pytorch.norms import (
    find_norms,
    is_norm,
    library_norm,
    no_statistics,
    written_norm,
)
from infold.convert.frontends.pytorch.programs import as_array, batch_is_open, named_leaves, quietly, to_onnx
from infold.convert.frontends.pytorch.wording import in_brief, where_raised
from infold.errors import SourceError
from infold.tensors import Tensors

__all__ = ["TRAINING_NOTE", "open_module", "output_names", "supported_floats"]

FIXED = "its code fixes the batch at {}: the exported model takes no other"
UNSAVED = (
    "'{}' keeps its moving statistics as plain attributes, which no state dict holds: they are what the code "
    "gives them; keep them with register_buffer"
)
TRAINING_NOTE = "the network was in training mode; it is exported for inference (module.eval())"


def open_module(request: Request, module: nn.Module, notes: Sequence[str] = ()) -> Exported:
    """Export a module.

    Raises:
        SourceError: It does not take the inputs, or cannot be captured or exported.
    """
    told = list(notes)
    if any(each.training for each in module.modules()):
        told.append(TRAINING_NOTE)
    module.eval()
    signature = Signature.of(module.forward)
    given = take(request, signature, supported_floats(module, request.source))
    plain = _own_their_tensors(module)
    inputs, seen, structure = _tried(module, signature, given, request.source)
    program = _captured(module, signature, inputs, request.source)
    if not _all_open(program) and any(inputs[name] is not given[name] for name in given):
        inputs = given  # a fixed batch is at least the one the user asked for
        program = _captured(module, signature, inputs, request.source)
    if not _all_open(program):
        rows = {value.shape[0] for value in inputs.values() if value.ndim}
        told.append(FIXED.format(", ".join(map(str, sorted(rows)))))
    outputs = output_names(structure, inputs, request.source)
    proto = to_onnx(program, list(inputs), outputs, request.source)
    norms, tables = _table(module, seen, told)
    if request.options.weights is not None:
        told += [UNSAVED.format(norm.layer) for norm in norms if norm.layer in plain]
    return Exported(
        f"torch {torch.__version__}",
        proto,
        tuple(norms),
        _Runner(module, signature, tables, request.source),
        tuple(told),
    )


def supported_floats(module: nn.Module, source: str) -> torch.dtype:
    """The type of a module's weights.

    Raises:
        SourceError: It is one that neither numpy nor onnxruntime's CPU kernels have.
    """
    tensors = [*module.parameters(), *module.buffers()]
    kinds = [each.dtype for each in tensors if each.is_floating_point()]
    for kind in kinds:
        if kind not in (torch.float16, torch.float32, torch.float64):
            name = str(kind).removeprefix("torch.")
            raise SourceError(
                source, f"its weights are {name}, which onnxruntime cannot run on a CPU; use .float()"
            )
    return kinds[0] if kinds else torch.float32


def _tried(
    module: nn.Module, signature: Signature, given: Mapping[str, Tensor], source: str
) -> tuple[dict[str, Tensor], dict[str, tuple[int, ...]], Any]:
    """Inputs that the network takes, the shapes its norms see, and the structure of what it gives."""
    seen: dict[str, tuple[int, ...]] = {}
    wide = widened(given)
    with _watched(find_norms(module), seen):
        try:
            return wide, seen, _forward(module, signature, wide)
        except Exception as failure:
            if all(wide[name] is given[name] for name in given):
                raise _unfit(source, given, failure) from failure
        try:
            return dict(given), seen, _forward(module, signature, given)
        except Exception as failure:
            raise _unfit(source, given, failure) from failure


def _forward(module: nn.Module, signature: Signature, inputs: Mapping[str, Tensor]) -> Any:
    args, keywords = signature.arranged({name: value.clone() for name, value in inputs.items()})
    with torch.no_grad():
        return module(*args, **keywords)


def _unfit(source: str, inputs: Mapping[str, Tensor], failure: Exception) -> SourceError:
    shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in inputs.items())
    words = in_brief(failure)
    if re.search(r"scalar types?:? (Long|Int)|indices must be|as indices", words):
        remedy = "it takes integers: give some with --samples FILE.npz"
    else:
        remedy = "give a shape it takes with --shape, or --samples FILE.npz"
    return SourceError(source, f"its forward() fails on {shapes}: {words}{where_raised(failure)}; {remedy}")


@contextmanager
def _watched(norms: Mapping[str, nn.Module], seen: dict[str, tuple[int, ...]]) -> Any:
    def note(name: str) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...], _output: Any) -> None:
            if args and isinstance(args[0], Tensor):
                seen.setdefault(name, tuple(args[0].shape))

        return hook

    handles = [each.register_forward_hook(note(name)) for name, each in norms.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _own_their_tensors(module: nn.Module) -> set[str]:
    """Tensors that the user's modules keep as plain attributes become buffers; names of those modules.

    torch.export refuses a forward() that assigns such an attribute, as a norm written by
    hand does with its moving statistics.
    """
    owners = set()
    for layer, each in module.named_modules():
        if type(each).__module__.startswith("torch."):
            continue
        for name, value in list(vars(each).items()):
            if not isinstance(value, Tensor) or isinstance(value, nn.Parameter):
                continue
            delattr(each, name)
            try:
                each.register_buffer(name, value, persistent=False)
                owners.add(layer)
            except KeyError:  # the class has an attribute of that name
                setattr(each, name, value)
    return owners


def _captured(
    module: nn.Module, signature: Signature, inputs: Mapping[str, Tensor], source: str
) -> ExportedProgram:
    args, keywords = signature.arranged(inputs)
    # AUTO opens an axis where the code allows it, and fixes it silently where not.
    axes = {name: {0: Dim.AUTO} if value.ndim else None for name, value in inputs.items()}
    try:
        # Without gradients: code may look at that to tell inference from training.
        with quietly(), torch.no_grad():
            return torch.export.export(
                module, args, keywords, dynamic_shapes=signature.shapes(axes), strict=False
            )
    except Exception as failure:
        raise SourceError(source, _uncapturable(failure)) from failure


def _uncapturable(failure: Exception) -> str:
    text = str(failure)
    raised = re.search(r'raised this error:\s+File "([^"]+)", line (\d+)', text)
    where = f" ({raised[1]}, line {raised[2]})" if raised else where_raised(failure)
    if "data-dependent" in text:
        return (
            f"its forward() decides on values of its input{where}, which a graph cannot; write it with "
            "torch.where or torch.cond"
        )
    return f"torch.export cannot capture it: {in_brief(failure)}{where}"


def _all_open(program: ExportedProgram) -> bool:
    names = [name for name in program.graph_signature.user_inputs if isinstance(name, str)]
    return all(batch_is_open(program, name) for name in names)


def output_names(structure: Any, inputs: Mapping[str, Any], source: str) -> list[str]:
    """Names of what a network gives, none of them an input's.

    Raises:
        SourceError: It gives something that is no tensor.
    """
    names: list[str] = []
    for name, value in named_leaves(structure):
        if value is None:
            continue
        if not isinstance(value, Tensor):
            detail = f"gives a {type(value).__name__} as '{name}' beside its tensors; return tensors only"
            raise SourceError(source, detail)
        unique = f"output_{name}" if name in inputs else name
        while unique in names:
            unique += "_"
        names.append(unique)
    if not names:
        raise SourceError(source, "gives no tensor")
    return names


def _table(
    module: nn.Module, seen: Mapping[str, tuple[int, ...]], told: list[str]
) -> tuple[list[Norm], dict[int, nn.Module]]:
    """All norms, and the modules that are to be watched for each."""
    norms: list[Norm] = []
    modules: dict[int, nn.Module] = {}
    for name, each in find_norms(module).items():
        if is_norm(each):
            norm: Norm | None = library_norm(name, each)
            if norm is not None and norm.mean is None:
                told.append(no_statistics(name))
        else:
            norm = written_norm(name, each, seen.get(name))
            if norm is None:
                told.append(
                    f"'{name}' ({type(each).__name__}) has moving statistics but does not normalize by "
                    "them in inference mode; it stays as it is"
                )
                continue
        if norm is not None:
            modules[len(norms)] = each
            norms.append(norm)
    return norms, modules


class _Runner:
    """The module itself on samples, its norms watched."""

    def __init__(
        self, module: nn.Module, signature: Signature, norms: Mapping[int, nn.Module], source: str
    ) -> None:
        self._module = module
        self._signature = signature
        self._norms = norms
        self._source = source

    def __call__(self, samples: Tensors) -> Answer:
        inputs = {name: torch.from_numpy(array.copy()) for name, array in samples.items()}
        calls: list[Call] = []

        def record(index: int) -> Any:
            def hook(_module: nn.Module, _args: Any, output: Any) -> None:
                if isinstance(output, Tensor):
                    calls.append(Call(index, as_array(output)))

            return hook

        handles = [each.register_forward_hook(record(index)) for index, each in self._norms.items()]
        try:
            structure = _forward(self._module, self._signature, inputs)
        except Exception as failure:
            raise _unfit(self._source, inputs, failure) from failure
        finally:
            for handle in handles:
                handle.remove()
        names = output_names(structure, inputs, self._source)
        tensors = [value for _, value in named_leaves(structure) if isinstance(value, Tensor)]
        return Answer(dict(zip(names, map(as_array, tensors), strict=True)), tuple(calls))
