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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from infold.convert import truth
from infold.convert.comparison import UNIT_ROUNDOFF, Comparison, compare, compare_output
from infold.convert.magnitudes import bias_magnitude, magnitudes
from infold.convert.side_by_side import Model, run_both
from infold.fold import Decision, LinearOp, linear_op
from infold.fold.affine import F64
from infold.fold.constants import constant, is_constant
from infold.fold.report import Refused
from infold.tensors import Array, Tensors

__all__ = ["Model", "Proof", "SiteProof", "prove"]

# Safety factor C: sums are not always random walks.
C = 4.0
NORM_OPERATIONS = 4


@dataclass(frozen=True, slots=True, eq=False)
class SiteProof:
    """What was found at one folded norm.

    Attributes:
        site: Name of the norm.
        fan_in: Of the op that absorbed it.
        comparison: Folded against unfolded.
        folded_error: Largest distance of the folded value from its float64 evaluation, over
            the largest magnitude; None where the value is not one op's output.
        unfolded_error: The same for the unfolded value.
    """

    site: str
    fan_in: int
    comparison: Comparison
    folded_error: float | None = None
    unfolded_error: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Proof:
    """What a proof found.

    Attributes:
        oracle: What ran both models.
        rows: Length of the samples' first axis.
        outputs: One comparison an output.
        sites: One an accessible folded norm, in graph order.
        unseen: Folded norms whose own value is in no second model any more: inside subgraphs,
            or followed by another fold, which is looked at in their stead.
        samples: What went in.
        results, folded_results: What the unfolded and the folded model made of it.
    """

    oracle: str
    rows: int
    outputs: tuple[Comparison, ...]
    sites: tuple[SiteProof, ...] = ()
    unseen: tuple[str, ...] = ()
    samples: Tensors = field(default_factory=dict)
    results: Tensors = field(default_factory=dict)
    folded_results: Tensors = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Every output and every site is within its bound."""
        return all(each.passed for each in self.outputs) and not self.first_off

    @property
    def first_off(self) -> SiteProof | None:
        """The first site where the error is larger than rounding explains."""
        return next((each for each in self.sites if not each.comparison.passed), None)

    @property
    def closer_to_truth(self) -> tuple[int, int]:
        """At how many norms the folded value is nearer to float64 than the unfolded, and of how many."""
        known = [
            (each.folded_error, each.unfolded_error)
            for each in self.sites
            if each.folded_error is not None and each.unfolded_error is not None
        ]
        return sum(folded <= unfolded for folded, unfolded in known), len(known)

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
            words.append(
                f"the first norm that is off is '{site.site}': up to {site.comparison.max_abs:.3g}, "
                f"{site.comparison.exceeded:.3g} times what rounding explains at its place"
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
    shared = _computed(unfolded) & _computed(folded)
    inner = {each.probe for each in watched}
    anchors: dict[str, set[str]] = {}
    for op in (op for each in watched for op in each.ops):
        name = op.input.name or ""
        anchors[name] = _anchors(op.input, shared)
        inner |= anchors[name] | {name}
    exposed = sorted(inner & _computed(folded))
    common = [name for name in exposed if name in shared]
    oracle, (left, right) = run_both(unfolded, folded, common, exposed, samples)
    left, right = {**samples, **left}, {**samples, **right}
    allowed = _allowed(watched, anchors, left, right)
    sites = tuple(_compare_site(each, allowed, left, right) for each in watched)
    spread = math.sqrt(sum(_relative_bound(each, allowed, left) ** 2 for each in watched))
    names = [value.name for value in unfolded.proto.graph.output]
    outputs = tuple(compare_output(name, left[name], right[name], spread) for name in names)
    rows = next((array.shape[0] for array in samples.values() if array.ndim), 1)
    results, folded_results = ({name: side[name] for name in names} for side in (left, right))
    return Proof(oracle, rows, outputs, sites, unseen, samples, results, folded_results)


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
    seen: set[ir.Node] = set()
    waiting = [value]
    while waiting:
        node = waiting.pop(0).producer()
        if node is None or node in seen:
            continue
        seen.add(node)
        try:
            op = linear_op(node, opset)
        except Refused:
            op = None
        if op is not None:
            yield op
        else:
            waiting += [each for each in node.inputs if each is not None]


def _anchors(value: ir.Value, shared: set[str]) -> set[str]:
    """The nearest values at or above one that both models know by the same name."""
    seen: set[ir.Value] = set()
    found: set[str] = set()
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if each in seen:
            continue
        seen.add(each)
        node = each.producer()
        if each.name in shared or each.is_graph_input():
            found.add(each.name or "")
        elif node is not None:
            waiting += [source for source in node.inputs if source is not None]
    return found


# -- comparing ------------------------------------------------------------------------------------


Allowed = dict[str, tuple[F64, F64]]


def _allowed(
    watched: Sequence[_Watched], anchors: Mapping[str, set[str]], left: Tensors, right: Tensors
) -> Allowed:
    """For each absorbing op: what it may add itself for each unit of C sqrt(n) u, and what it was brought."""
    ops = {op.name: op for each in watched for op in each.ops}
    data: dict[str, Array] = {}
    brought: dict[str, Array] = {}
    for op in ops.values():
        name = op.input.name or ""
        data[name] = constant(op.input) if is_constant(op.input) else right[name]
        if name in left or name not in right:
            brought[name] = _difference(data[name], left.get(name, data[name]))
            continue
        # A fold across a pool, say, has given the op's data a new meaning: what it was brought
        # is then no more than what came in where both models still agree on the meaning.
        shifts = [_difference(right[each], left[each]) for each in anchors[name] if each in left]
        largest = max((float(np.abs(each).max(initial=0.0)) for each in shifts), default=0.0)
        brought[name] = np.full(np.shape(data[name]), largest, np.float32)
    sums, passed_on = magnitudes(list(ops.values()), [data, brought])
    return {
        name: (sums[name] + bias_magnitude(op, sums[name].ndim), passed_on[name]) for name, op in ops.items()
    }


def _difference(a: Array, b: Array) -> Array:
    with np.errstate(invalid="ignore", over="ignore"):
        return np.nan_to_num(a.astype(np.float32) - b.astype(np.float32))


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
        direct = op.nodes[-1].outputs[0].name == watched.probe
        apart = not direct or here.shape != want.shape
        limit = limit + (np.max(here, initial=0.0) if apart else here)
    found = compare(watched.probe, want, got, limit)
    errors = _errors(watched, want, got, left, right)
    return SiteProof(watched.decision.site, fan_in, found, *errors)


def _errors(
    watched: _Watched, want: Array, got: Array, left: Tensors, right: Tensors
) -> tuple[float | None, float | None]:
    """Distance of the folded and of the unfolded value from what float64 makes of their own data."""
    op = watched.ops[0] if len(watched.ops) == 1 else None
    if op is None or not op.is_unrounded or op.nodes[-1].outputs[0].name != watched.probe:
        return None, None
    found: list[float | None] = []
    for side, value in ((right, got), (left, want)):
        data = side.get(op.input.name or "")
        rows = truth.row_limit(op, value)
        exact = None if data is None else truth.evaluate(op, data[:rows])
        if exact is None or exact.shape != value[:rows].shape:
            found.append(None)
            continue
        scale = float(np.abs(exact).max(initial=0.0)) or 1.0
        found.append(float(np.abs(exact - value[:rows].astype(np.float64)).max(initial=0.0)) / scale)
    return found[0], found[1]


def _norm_magnitude(decision: Decision) -> float:
    """Largest |s| |mean| + |beta| of a norm: what its own two additions may cancel."""
    if decision.affine is None:
        return 0.0
    parameters = decision.parameters
    if parameters is None:
        return float(np.abs(decision.affine.shift).max())
    return float((np.abs(decision.affine.scale * parameters.mean) + np.abs(parameters.beta)).max())


def _relative_bound(watched: _Watched, allowed: Allowed, left: Tensors) -> float:
    """What one norm's folding may add, over its value, both as root mean squares."""
    size = _mean_square(left[watched.probe].astype(np.float64))
    if size == 0:
        return 0.0
    total = 0.0
    for op in watched.ops:
        weight = op.linear.weight
        unit = C * math.sqrt(weight.fan_in + NORM_OPERATIONS) * UNIT_ROUNDOFF[weight.dtype]
        own = unit * (allowed[op.name][0] + _norm_magnitude(watched.decision))
        total += _mean_square(own)
    return math.sqrt(total / size)


def _mean_square(array: F64) -> float:
    finite = array[np.isfinite(array)]
    return float(np.mean(np.square(finite))) if finite.size else 0.0
