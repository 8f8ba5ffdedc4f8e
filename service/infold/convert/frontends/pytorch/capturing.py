"""A module captured with as many axes open as its code, the exporter and the fold allow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from infold.convert.frontends import onnx as onnx_frontend
from infold.convert.frontends.pytorch.examples import Signature
from infold.convert.frontends.pytorch.norms import find_norms
from infold.convert.frontends.pytorch.programs import open_axes, quietly, to_onnx
from infold.convert.frontends.pytorch.wording import in_brief, where_raised
from infold.convert.frontends.tidy import tidy
from infold.errors import InfoldError, SourceError
from infold.fold import fold_batch_norms

__all__ = ["Capture", "Subject", "capture"]

FIXED = "its code fixes the first axis of '{}' at {}: the exported model takes no other"
FROZEN = "the exported model takes '{}' as [{}] only: {}"
BOUNDED = "axis {} of '{}' may be {} only: at other lengths its code does something else, or fails"
TIED = "an equation in its code ties its lengths"
# How a guard speaks of an input's length.
SIZE = re.compile(r"L\['(\w+)'\](?:\[(\d+)\])?\.size\(\)\[(\d+)\]")
SAME_LENGTH = re.compile(rf"{SIZE.pattern} == {SIZE.pattern}")
# A lower bound that convolutions and pools have by themselves.
USUAL_LEAST = 32
# Above this a trial fold costs more memory than knowing its outcome is worth.
LARGEST_TRIAL = 2**30


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A module to capture, and what with.

    Attributes:
        module: In inference mode.
        signature: What it takes.
        inputs: Example inputs, of two rows at least.
        given: The same as the user gave them.
        outputs: What to call the outputs.
        source: What to name in errors.
    """

    module: nn.Module
    signature: Signature
    inputs: Mapping[str, Tensor]
    given: Mapping[str, Tensor]
    outputs: Sequence[str]
    source: str


@dataclass(frozen=True, slots=True, eq=False)
class Capture:
    """A module's graph.

    Attributes:
        program: As PyTorch holds it.
        proto: The same, as unfolded ONNX.
        notes: What the user should know of its axes.
    """

    program: ExportedProgram
    proto: onnx.ModelProto
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    program: ExportedProgram
    proto: onnx.ModelProto
    shapes: Mapping[str, tuple[int, ...]]  # of the inputs it was captured with
    fixed: tuple[str, ...]  # inputs whose first axis has one length only
    axes: Mapping[str, Mapping[int, tuple[int, int | None]]]  # bounds of open axes behind the first
    tied: tuple[str, ...]  # inputs with axes that had to be closed because of an equation


def capture(subject: Subject) -> Capture:
    """Capture a module and write it as ONNX.

    All axes are opened; those that its code fixes stay as the inputs have them. Where that
    fails, or folds fewer norms than a graph with an open batch alone, the batch alone is open.

    Raises:
        SourceError: It cannot be captured or exported.
    """
    try:
        widest = _trial(subject, everything=True)
    except Exception:  # torch asserts where it cannot follow; the plain way says what is wrong
        plain, reason = _trial(subject, everything=False), "torch cannot export it with other axes open"
        closed = [name for name, value in subject.inputs.items() if value.ndim > 2]
    else:
        closed = [name for name, axes in widest.axes.items() if axes]
        folded, whole = _folded(widest.proto, len(find_norms(subject.module)))
        if not closed or (whole and not widest.fixed):
            return Capture(widest.program, widest.proto, _notes(widest))
        plain, reason = _trial(subject, everything=False), "with other axes open, fewer of its norms fold"
        if len(widest.fixed) <= len(plain.fixed) and folded >= _folded(plain.proto)[0]:
            return Capture(widest.program, widest.proto, _notes(widest))
    return Capture(plain.program, plain.proto, _notes(plain, closed, reason))


def _trial(subject: Subject, *, everything: bool) -> _Trial:
    inputs, given = subject.inputs, subject.given
    closed: set[tuple[str, int]] = set()
    if not everything:
        closed = {(name, axis) for name, value in inputs.items() for axis in range(1, value.ndim)}
    program = _captured(subject, closed)
    while everything and (bound := _bound_together(program, inputs)):
        if closed:  # the second time: each capture takes long, so all axes of such an input at once
            bound = {(name, axis) for name, _ in bound for axis in range(1, inputs[name].ndim)}
        closed |= bound
        program = _captured(subject, closed)
    axes = _axes(program, inputs)
    if any(0 not in axes[name] and inputs[name] is not given[name] for name in inputs if inputs[name].ndim):
        # A fixed batch is at least the one the user asked for.
        inputs = given
        program = _captured(replace(subject, inputs=given), closed)
        axes = _axes(program, inputs)
    fixed = tuple(name for name, value in inputs.items() if value.ndim and 0 not in axes[name])
    others = {name: {axis: ends for axis, ends in each.items() if axis} for name, each in axes.items()}
    tied = tuple(name for name in inputs if everything and any(name == own for own, _ in closed))
    shapes = {name: tuple(value.shape) for name, value in inputs.items()}
    proto = to_onnx(program, list(inputs), subject.outputs, subject.source)
    return _Trial(program, proto, shapes, fixed, others, tied)


def _captured(subject: Subject, closed: Set[tuple[str, int]]) -> ExportedProgram:
    args, keywords = subject.signature.arranged(subject.inputs)
    # AUTO opens an axis where the code allows it, and fixes it silently where not.
    axes = {
        name: {axis: Dim.AUTO for axis in range(value.ndim) if (name, axis) not in closed} or None
        for name, value in subject.inputs.items()
    }
    shapes = subject.signature.shapes(axes)
    try:
        # Without gradients: code may look at that to tell inference from training.
        with quietly(), torch.no_grad():
            return torch.export.export(subject.module, args, keywords, dynamic_shapes=shapes, strict=False)
    except Exception as failure:
        raise SourceError(subject.source, _uncapturable(failure)) from failure


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


def _bound_together(program: ExportedProgram, inputs: Mapping[str, Tensor]) -> set[tuple[str, int]]:
    """Open axes that an equation ties to others: height times width is what a dense layer takes.

    PyTorch keeps such as a guard beside its graph; ONNX has no place for it.
    """
    axes = _axes(program, inputs)
    bound: set[tuple[str, int]] = set()
    for guard in program._guards_code:
        if " == " not in guard or SAME_LENGTH.fullmatch(guard):
            continue
        for argument, index, axis in SIZE.findall(guard):
            name = f"{argument}_{index}" if index else argument
            if int(axis) and int(axis) in axes.get(name, ()):
                bound.add((name, int(axis)))
    return bound


def _axes(
    program: ExportedProgram, inputs: Mapping[str, Tensor]
) -> dict[str, dict[int, tuple[int, int | None]]]:
    """Open axes of each input and their bounds; the graph has the inputs in the same order."""
    names = [name for name in program.graph_signature.user_inputs if isinstance(name, str)]
    return {own: open_axes(program, name) for name, own in zip(names, inputs, strict=True)}


def _folded(proto: onnx.ModelProto, expected: int = 0) -> tuple[int, bool]:
    """How many norms fold, and whether that is every one there is."""
    if proto.ByteSize() > LARGEST_TRIAL:
        return 0, True
    try:
        _, report = fold_batch_norms(onnx_frontend.in_memory(tidy(proto)).ir())
    except InfoldError:
        return -1, False
    return len(report.folded), not report.kept and len(report.norms) >= expected


def _notes(trial: _Trial, closed: Iterable[str] = (), reason: str = "") -> tuple[str, ...]:
    """What the user should know of the axes of a graph; inputs whose axes were closed for a reason."""
    told = [FIXED.format(name, trial.shapes[name][0]) for name in trial.fixed]
    for names, why in ((trial.tied, TIED), (closed, reason)):
        for name in names:
            if name not in trial.fixed:
                told.append(FROZEN.format(name, ", ".join(["batch", *map(str, trial.shapes[name][1:])]), why))
    return (*told, *_bounded(trial))


def _bounded(trial: _Trial) -> Iterator[str]:
    for name, axes in trial.axes.items():
        for axis, (least, most) in axes.items():
            if most is not None:
                yield BOUNDED.format(axis, name, f"{least} to {most}")
            elif least > USUAL_LEAST:
                yield BOUNDED.format(axis, name, f"{least} or more")
