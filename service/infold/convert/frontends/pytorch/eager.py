"""A module at hand: captured with `torch.export`, run as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.overrides import TorchFunctionMode

from infold.convert.frontends.exported import Answer, Call, Exported, Norm, Request
from infold.convert.frontends.pytorch.capturing import Subject, capture
from infold.convert.frontends.pytorch.examples import Signature, take, widened
from infold.convert.frontends.pytorch.graph_norms import called_norms
from infold.convert.frontends.pytorch.norms import (
    find_norms,
    is_norm,
    library_norm,
    no_statistics,
    written_norm,
)
from infold.convert.frontends.pytorch.programs import as_array, named_leaves
from infold.convert.frontends.pytorch.wording import in_brief, where_raised
from infold.errors import SourceError
from infold.tensors import Tensors

__all__ = ["TRAINING_NOTE", "open_module", "output_names", "supported_floats"]

PRETENDING = (
    "'{}' ({}) has moving statistics but does not normalize by them in inference mode; it stays as it is"
)
TRAINS = (
    "its forward() switches {} to training, whatever mode the network is in: it normalizes or drops by the "
    "batch at hand; take train() out of forward()"
)
RANDOM = (
    "gives other numbers on each call in inference mode: dropout or another random operator is live; pass "
    "training=self.training, or draw in training mode only"
)
# What two calls may differ by, relative to the largest value.
REPEATS = 1e-3
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
    _require_inference(module, signature, inputs, structure, request.source)
    outputs = output_names(structure, inputs, request.source)
    captured = capture(Subject(module, signature, inputs, given, outputs, request.source))
    told += captured.notes
    norms, modules, by_mean = _table(module, seen, captured.program, told)
    if request.options.weights is not None:
        told += [UNSAVED.format(norm.layer) for norm in norms if norm.layer in plain]
    return Exported(
        f"torch {torch.__version__}",
        captured.proto,
        tuple(norms),
        _Runner(module, signature, modules, by_mean, request.source),
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


def _require_inference(
    module: nn.Module, signature: Signature, inputs: Mapping[str, Tensor], structure: Any, source: str
) -> None:
    """Refuse code that trains, or draws numbers, in inference mode."""
    training = [name or type(each).__name__ for name, each in module.named_modules() if each.training]
    if training:
        raise SourceError(source, TRAINS.format(", ".join(f"'{name}'" for name in training[:3])))
    again = _forward(module, signature, inputs)
    for (_, one), (_, other) in zip(named_leaves(structure), named_leaves(again), strict=True):
        if isinstance(one, Tensor) and isinstance(other, Tensor) and not _alike(one, other):
            raise SourceError(source, RANDOM)


def _alike(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    first, second = one.detach().cdouble(), other.detach().cdouble()
    largest = float(first.nan_to_num(0.0, 0.0, 0.0).abs().max()) if first.numel() else 0.0
    return bool(torch.allclose(first, second, rtol=REPEATS, atol=REPEATS * largest, equal_nan=True))


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
    module: nn.Module, seen: Mapping[str, tuple[int, ...]], program: ExportedProgram, told: list[str]
) -> tuple[list[Norm], dict[int, nn.Module], dict[int, int]]:
    """All norms; the modules that give values of some, and the moving means that tell the calls of others."""
    norms: list[Norm] = []
    modules: dict[int, nn.Module] = {}
    doubtful: dict[str, nn.Module] = {}
    for name, each in find_norms(module).items():
        norm = library_norm(name, each) if is_norm(each) else written_norm(name, each, seen.get(name))
        if norm is None:
            if not any(True for _ in each.children()):  # of a network's own arithmetic nobody knows
                doubtful[name or type(each).__name__] = each
            continue
        modules[len(norms)] = each
        norms.append(norm)
    by_mean = {}
    known = {norm.layer for norm in norms}
    for norm, mean in called_norms(program):
        if norm.layer not in known:
            doubtful.pop(norm.layer, None)
            if mean is not None:
                by_mean[mean.data_ptr()] = len(norms)
            norms.append(norm)
    told += [no_statistics(norm.layer) for norm in norms if norm.mean is None]
    told += [PRETENDING.format(name, type(each).__name__) for name, each in doubtful.items()]
    return norms, modules, by_mean


# Functions that are norms, and where their arguments have the moving mean.
MEAN_OF = {torch.batch_norm: 3, nn.functional.batch_norm: 1}


class _Calls(TorchFunctionMode):  # type: ignore[misc]  # torch is untyped where mypy runs
    """Watches calls of the library's function that no module of a norm makes."""

    def __init__(self, by_mean: Mapping[int, int], calls: list[Call]) -> None:
        super().__init__()
        self._by_mean = by_mean
        self._calls = calls

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        value = function(*args, **(kwargs or {}))
        place = MEAN_OF.get(function)
        if place is not None:
            mean = args[place] if len(args) > place else (kwargs or {}).get("running_mean")
            index = self._by_mean.get(mean.data_ptr()) if isinstance(mean, Tensor) else None
            if index is not None:
                self._calls.append(Call(index, as_array(value)))
        return value


class _Runner:
    """The module itself on samples, its norms watched."""

    def __init__(
        self,
        module: nn.Module,
        signature: Signature,
        norms: Mapping[int, nn.Module],
        by_mean: Mapping[int, int],
        source: str,
    ) -> None:
        self._module = module
        self._signature = signature
        self._norms = norms
        self._by_mean = by_mean
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
            with _Calls(self._by_mean, calls):
                structure = _forward(self._module, self._signature, inputs)
        except Exception as failure:
            raise _unfit(self._source, inputs, failure) from failure
        finally:
            for handle in handles:
                handle.remove()
        names = output_names(structure, inputs, self._source)
        tensors = [value for _, value in named_leaves(structure) if isinstance(value, Tensor)]
        return Answer(dict(zip(names, map(as_array, tensors), strict=True)), tuple(calls))
