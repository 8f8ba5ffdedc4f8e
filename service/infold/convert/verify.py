"""The proof: folded and unfolded side by side, every output and every folded site.

Both models run on onnxruntime with graph optimizations off (it folds by itself
and would hide our mistakes), in a child process. Where onnxruntime lacks a
kernel both run on onnx's reference evaluator, and the result names the oracle.

The allowed error is derived, not chosen. Folding changes one thing only: the
rounding of a weight and of the sums it takes part in. Summing n products in a
type of unit roundoff u is off by about sqrt(n) u times the sum of magnitudes
(Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., section
2.8), so at the output y of a linear op that absorbed a norm

    |y_folded - y_unfolded|  <=  C sqrt(n) u (sum |w||x| + |s|(|b| + |mean|) + |beta|)
                                 + sum |w| |x_folded - x_unfolded|

element by element, where n is the fan-in plus the norm's own four operations.
The first line is what this fold may add, the second what earlier ones brought
along. At the model's outputs the sites' relative bounds add up like
independent errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from infold.convert.magnitudes import bias_magnitude, magnitudes
from infold.errors import NoKernelError, ProofError, RuntimeCrashError, SessionError
from infold.fold import Decision, LinearOp, linear_op
from infold.fold.affine import F64
from infold.fold.constants import constant, is_constant
from infold.fold.report import Refused
from infold.runtime import Run, run_isolated, versions
from infold.tensors import Array, Tensors

__all__ = ["Comparison", "Model", "Proof", "SiteProof", "prove"]

# Safety factor C: sums are not always random walks.
C = 4.0
UNIT_ROUNDOFF = {
    ir.DataType.DOUBLE: 2.0**-53,
    ir.DataType.FLOAT: 2.0**-24,
    ir.DataType.FLOAT16: 2.0**-11,
    ir.DataType.BFLOAT16: 2.0**-8,
}
NORM_OPERATIONS = 4
TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """One side of a proof.

    Attributes:
        label: What to call it: `unfolded` or `folded`.
        graph: The model for reading.
        proto: The model for running; external data may lie outside.
        folder: Where its external data lies.
    """

    label: str
    graph: ir.Model
    proto: onnx.ModelProto
    folder: Path


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two arrays of one name, compared in float64.

    Attributes:
        max_abs: Largest absolute difference.
        relative: The same over the largest magnitude of the unfolded array.
        bound: Largest absolute difference that rounding explains.
        exceeded: How far the difference goes beyond what is allowed at its place;
            at most 1 passes.
        cosine: Cosine similarity; None where an array is all zero.
        argmax_agreement: Share of rows with the same largest class, where the array
            looks like class scores ([rows, at least 2] of floats).
    """

    name: str
    max_abs: float
    relative: float
    bound: float
    exceeded: float
    cosine: float | None = None
    argmax_agreement: float | None = None

    @property
    def passed(self) -> bool:
        """The difference is within what rounding explains."""
        return self.exceeded <= 1.0


@dataclass(frozen=True, slots=True, eq=False)
class SiteProof:
    """The comparison at one folded norm; `fan_in` of the op that absorbed it."""

    site: str
    fan_in: int
    comparison: Comparison


@dataclass(frozen=True, slots=True, eq=False)
class Proof:
    """What a proof found.

    Attributes:
        oracle: What ran both models.
        rows: Length of the samples' first axis.
        outputs: One comparison an output.
        sites: One an accessible folded norm, in graph order.
        unseen: Folded norms whose values cannot be looked at (inside subgraphs).
        samples, results: What went in, and what the unfolded model made of it.
    """

    oracle: str
    rows: int
    outputs: tuple[Comparison, ...]
    sites: tuple[SiteProof, ...] = ()
    unseen: tuple[str, ...] = ()
    samples: Tensors = field(default_factory=dict)
    results: Tensors = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Every output and every site is within its bound."""
        return all(each.passed for each in self.outputs) and not self.first_off

    @property
    def first_off(self) -> SiteProof | None:
        """The first site where the error is larger than rounding explains."""
        return next((each for each in self.sites if not each.comparison.passed), None)

    @property
    def worst_relative(self) -> float:
        """Largest relative error of any output."""
        return max((each.relative for each in self.outputs), default=0.0)

    def failure(self) -> str:
        """One line on what is wrong: which outputs, and where it begins."""
        off = [each for each in self.outputs if not each.passed]
        words = [
            f"output '{each.name}' is off by {each.max_abs:.3g} (allowed {each.bound:.3g})" for each in off
        ]
        if site := self.first_off:
            found = site.comparison
            words.append(
                f"the first norm that is off is '{site.site}': "
                f"{found.max_abs:.3g} where {found.bound:.3g} is allowed"
            )
            worst = max(self.sites, key=lambda each: each.comparison.exceeded)
            if worst is not site:
                words.append(f"the worst is '{worst.site}'")
        return "folded and unfolded differ: " + "; ".join(words)


@dataclass(frozen=True, slots=True, eq=False)
class _Watched:
    """A folded norm whose value exists in both models, and the ops that absorbed it."""

    decision: Decision
    probe: str
    ops: tuple[LinearOp, ...]


def prove(unfolded: Model, folded: Model, decisions: Sequence[Decision], samples: Tensors) -> Proof:
    """Run both models on the samples and compare them.

    Args:
        unfolded: The model as trained.
        folded: The model that should compute the same.
        decisions: What became of each norm; the folded ones are looked at.
        samples: Inputs by name.

    Returns:
        What was found, passed or not.

    Raises:
        ProofError: One side cannot run, or gives nothing that can be compared.
    """
    watched, unseen = _watch(folded, decisions)
    inputs = {op.input.name or "" for each in watched for op in each.ops}
    inner = inputs | {each.probe for each in watched}
    shared = _computed(unfolded) & _computed(folded)
    exposed = sorted(inner & _computed(folded))
    common = [name for name in exposed if name in shared]
    oracle, (left, right) = _run_both(unfolded, folded, common, exposed, samples)
    left, right = {**samples, **left}, {**samples, **right}
    allowed = _allowed(watched, left, right)
    sites = tuple(_compare_site(each, allowed, left, right) for each in watched)
    spread = C * math.sqrt(sum(_relative_bound(each, left) ** 2 for each in sites))
    names = [value.name for value in unfolded.proto.graph.output]
    outputs = tuple(_compare_output(name, left[name], right[name], spread) for name in names)
    rows = next((array.shape[0] for array in samples.values() if array.ndim), 1)
    return Proof(oracle, rows, outputs, sites, unseen, samples, {name: left[name] for name in names})


# -- which values to look at ----------------------------------------------------------------------


def _computed(model: Model) -> set[str]:
    """Names of the values that nodes of the main graph compute."""
    return {output for node in model.proto.graph.node for output in node.output if output}


def _watch(folded: Model, decisions: Sequence[Decision]) -> tuple[list[_Watched], tuple[str, ...]]:
    values = {output.name: output for node in folded.graph.graph for output in node.outputs}
    opset = folded.graph.opset_imports.get("", 1)
    watched, unseen = [], []
    for decision in decisions:
        present = [probe for probe in decision.probes if probe in values]
        if not present:
            unseen.append(decision.site)
        for probe in present:
            ops = tuple(dict.fromkeys(_absorbers(values[probe], opset)))
            watched.append(_Watched(decision, probe, ops))
    return watched, tuple(unseen)


def _absorbers(value: ir.Value, opset: int) -> Iterator[LinearOp]:
    """The nearest linear ops at or above a value."""
    node = value.producer()
    if node is None:
        return
    try:
        op = linear_op(node, opset)
    except Refused:
        op = None
    if op is not None:
        yield op
        return
    for each in node.inputs:
        if each is not None:
            yield from _absorbers(each, opset)


# -- running --------------------------------------------------------------------------------------


def _run_both(
    unfolded: Model,
    folded: Model,
    common: Sequence[str],
    exposed: Sequence[str],
    samples: Tensors,
) -> tuple[str, tuple[dict[str, Array], dict[str, Array]]]:
    with TemporaryDirectory(prefix="infold-proof-") as name:
        scratch = Path(name)
        sides = ((unfolded, common), (folded, exposed))
        try:
            runs = [_run(model, names, samples, scratch) for model, names in sides]
            left, right = run_isolated(runs)
            return f"onnxruntime {versions()['onnxruntime']}, graph optimizations off", (left, right)
        except NoKernelError as lacking:
            oracle = f"onnx {onnx.__version__} reference evaluator ({lacking.detail[:120]})"
        except RuntimeCrashError as crash:
            raise ProofError(f"onnxruntime crashed on the {crash.model} model: {crash.detail}") from crash
        except SessionError as failure:
            raise ProofError(f"the {failure.model} model does not run: {failure.detail}") from failure
    return oracle, tuple(_evaluate(model, names, samples) for model, names in sides)  # type: ignore[return-value]


def _run(model: Model, names: Sequence[str], samples: Tensors, scratch: Path) -> Run:
    path = scratch / f"{model.label}.onnx"
    with _Exposed(model.proto, names) as proto:
        path.write_bytes(proto.SerializeToString())
    return Run(model.label, path, samples, external_folder=model.folder)


def _evaluate(model: Model, names: Sequence[str], samples: Tensors) -> dict[str, Array]:
    try:
        with _Exposed(model.proto, names) as proto:
            complete = onnx.ModelProto()
            complete.CopyFrom(proto)
        onnx.external_data_helper.load_external_data_for_model(complete, str(model.folder))
        evaluator = ReferenceEvaluator(complete)
        return dict(zip(evaluator.output_names, evaluator.run(None, dict(samples)), strict=True))
    except Exception as failure:
        detail = " ".join(str(failure).split())[:300]
        raise ProofError(f"the {model.label} model runs on no oracle: {detail}") from failure


class _Exposed:
    """A model with more outputs, for as long as the context lasts; no copy of its weights."""

    def __init__(self, proto: onnx.ModelProto, names: Sequence[str]) -> None:
        self._proto = proto
        present = {value.name for value in proto.graph.output}
        self._extra = [name for name in names if name not in present]

    def __enter__(self) -> onnx.ModelProto:
        self._proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self._extra)
        return self._proto

    def __exit__(self, *_: object) -> None:
        if self._extra:
            del self._proto.graph.output[-len(self._extra) :]


# -- comparing ------------------------------------------------------------------------------------


Allowed = dict[str, tuple[F64, F64]]


def _allowed(watched: Sequence[_Watched], left: Tensors, right: Tensors) -> Allowed:
    """For each absorbing op: what it may add itself for each unit of C sqrt(n) u, and what it was brought."""
    ops = {op.name: op for each in watched for op in each.ops}
    data: dict[str, Array] = {}
    brought: dict[str, Array] = {}
    for op in ops.values():
        name = op.input.name or ""
        data[name] = constant(op.input) if is_constant(op.input) else right[name]
        before = left.get(name, data[name])
        with np.errstate(invalid="ignore"):
            brought[name] = np.nan_to_num(data[name].astype(np.float32) - before.astype(np.float32))
    sums, passed_on = magnitudes(list(ops.values()), [data, brought])
    return {
        name: (sums[name] + bias_magnitude(op, sums[name].ndim), passed_on[name]) for name, op in ops.items()
    }


def _compare_site(watched: _Watched, allowed: Allowed, left: Tensors, right: Tensors) -> SiteProof:
    want, got = left[watched.probe], right[watched.probe]
    limit: F64 = np.zeros(())
    fan_in = 0
    for op in watched.ops:
        weight = op.linear.weight
        n = weight.fan_in + NORM_OPERATIONS
        sums, passed_on = allowed[op.name]
        unit = C * math.sqrt(n) * UNIT_ROUNDOFF[weight.dtype]
        here = unit * (sums + _norm_magnitude(watched.decision)) + passed_on
        fan_in = max(fan_in, weight.fan_in)
        # What lies between op and site may move elements: then the largest stands for all.
        apart = here.shape != want.shape or len(watched.ops) > 1
        limit = limit + (np.max(here, initial=0.0) if apart else here)
    return SiteProof(watched.decision.site, fan_in, _compare(watched.probe, want, got, limit))


def _norm_magnitude(decision: Decision) -> float:
    """Largest |s| |mean| + |beta| of a norm: what its own two additions may cancel."""
    if decision.affine is None:
        return 0.0
    parameters = decision.parameters
    if parameters is None:
        return float(np.abs(decision.affine.shift).max())
    return float((np.abs(decision.affine.scale * parameters.mean) + np.abs(parameters.beta)).max())


def _relative_bound(site: SiteProof, left: Tensors) -> float:
    scale = float(np.abs(left[site.comparison.name].astype(np.float64)).max(initial=0.0))
    return site.comparison.bound / scale if scale > 0 else 0.0


def _compare_output(name: str, want: Array, got: Array, spread: float) -> Comparison:
    if want.dtype.kind not in "fiub" and want.dtype != ir.DataType.BFLOAT16.numpy():
        same = want.shape == got.shape and bool((want == got).all())
        return Comparison(name, 0.0, 0.0, 0.0, 0.0 if same else math.inf)
    finite = np.abs(want.astype(np.float64))
    scale = float(finite[np.isfinite(finite)].max(initial=0.0))
    floor = UNIT_ROUNDOFF[ir.DataType.FLOAT16] if want.dtype.itemsize == 2 else 2.0**-22
    return _compare(name, want, got, np.asarray(max(spread, floor) * scale))


def _compare(name: str, want: Array, got: Array, allowed: Array) -> Comparison:
    """Compare two arrays element by element.

    Raises:
        ProofError: They differ in shape, or nothing in them is finite.
    """
    if want.shape != got.shape:
        raise ProofError(f"'{name}' has shape {list(got.shape)} folded and {list(want.shape)} unfolded", name)
    a, b = want.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(a)
    if a.size and not finite.any():
        raise ProofError(f"'{name}' is nowhere finite on the samples: nothing can be compared", name)
    same_kind = np.array_equal(a[~finite], b[~finite], equal_nan=True) and np.isfinite(b[finite]).all()
    difference = np.abs(np.where(finite, b - np.where(finite, a, 0.0), 0.0))
    max_abs = float(difference.max(initial=0.0)) if same_kind else math.inf
    limits = np.maximum(np.broadcast_to(allowed, a.shape), TINY)
    exceeded = float((difference / limits).max(initial=0.0)) if same_kind else math.inf
    scale = float(np.abs(a[finite]).max(initial=0.0))
    norms = float(np.linalg.norm(a[finite]) * np.linalg.norm(b[finite]))
    cosine = float(np.dot(a[finite], b[finite]) / norms) if norms > 0 and same_kind else None
    return Comparison(
        name,
        max_abs,
        max_abs / scale if scale > 0 else max_abs,
        float(np.max(allowed, initial=0.0)),
        exceeded,
        cosine,
        _argmax_agreement(want, got),
    )


def _argmax_agreement(want: Array, got: Array) -> float | None:
    if want.ndim != 2 or want.shape[1] < 2 or want.shape[0] == 0 or want.dtype.kind != "f":
        return None
    return float((want.argmax(axis=1) == got.argmax(axis=1)).mean())
