"""The proof: folded and unfolded side by side, every output and every folded site.

Both models run on onnxruntime with graph optimizations off (it folds by itself
and would hide our mistakes), in a child process. Where onnxruntime lacks a
kernel both run on onnx's reference evaluator, and the result names the oracle.

The allowed error is derived, not chosen (`bounds.py`). At the model's outputs the
sites' bounds, as shares of their values, add up like independent errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from infold.convert.blocks import mean_square
from infold.convert.bounds import OpMagnitudes, bound_of, op_magnitudes
from infold.convert.comparison import Comparison, compare, compare_output
from infold.convert.side_by_side import Model, OnnxRuntime, Oracle, Reference
from infold.convert.truth import error, site_budget
from infold.convert.watching import Sizes, Watched, watch, windows
from infold.errors import NoKernelError
from infold.fold import Decision
from infold.tensors import Tensors

__all__ = ["Model", "Proof", "SiteProof", "prove"]


@dataclass(frozen=True, slots=True, eq=False)
class SiteProof:
    """What was found at one folded norm.

    Attributes:
        site: Name of the norm.
        fan_in: Of the op that absorbed it.
        comparison: Folded against unfolded.
        share: What this fold may add over the value, both as root mean squares.
        folded_error: Largest distance of the folded value from its float64 evaluation, over
            the largest magnitude; None where the value is not one op's output.
        unfolded_error: The same for the unfolded value.
    """

    site: str
    fan_in: int
    comparison: Comparison
    share: float = 0.0
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
    try:
        return _prove(OnnxRuntime(), unfolded, folded, decisions, samples)
    except NoKernelError as lacking:
        return _prove(Reference(lacking), unfolded, folded, decisions, samples)


def _prove(
    oracle: Oracle, unfolded: Model, folded: Model, decisions: Sequence[Decision], samples: Tensors
) -> Proof:
    names = [value.name for value in unfolded.proto.graph.output]
    results, answers = oracle.run([(unfolded, names), (folded, names)], samples)
    watched, unseen = watch(unfolded, folded, decisions)
    sizes = Sizes(unfolded, samples), Sizes(folded, samples)
    sites: list[SiteProof] = []
    for window in windows(watched, sizes, oracle.window_bytes):
        sites += _look_at(oracle, window, unfolded, folded, samples, sizes, site_budget(len(watched)))
    spread = math.sqrt(sum(each.share**2 for each in sites))
    outputs = tuple(compare_output(name, results[name], answers[name], spread) for name in names)
    rows = next((array.shape[0] for array in samples.values() if array.ndim), 1)
    missing = tuple(each.site for each in unseen)
    return Proof(oracle.name, rows, outputs, tuple(sites), missing, samples, results)


def _look_at(
    oracle: Oracle,
    window: Sequence[Watched],
    unfolded: Model,
    folded: Model,
    samples: Tensors,
    sizes: tuple[Sizes, Sizes],
    budget: int,
) -> list[SiteProof]:
    """Compare a few norms; what was asked of the models for it is gone afterwards."""
    asked = [sorted(set().union(*sides)) for sides in zip(*((w.left, w.right) for w in window), strict=True)]
    left, right = oracle.run([(unfolded, asked[0]), (folded, asked[1])], samples)
    for known, found in zip(sizes, (left, right), strict=True):
        known.learn(found.items())
    left, right = {**samples, **left}, {**samples, **right}
    parts = op_magnitudes(window, left, right)
    return [_compare(each, parts, left, right, budget) for each in window]


def _compare(
    watched: Watched, parts: Mapping[str, OpMagnitudes], left: Tensors, right: Tensors, budget: int
) -> SiteProof:
    want, got = left[watched.probe], right[watched.probe]
    bound = bound_of(watched, parts, want.shape)
    found = compare(watched.probe, want, got, bound.limit)
    size = mean_square(want.shape, want.__getitem__)
    share = math.sqrt(bound.own_mean_square / size) if size else 0.0
    errors = [_error(watched, side, budget) for side in (right, left)]
    return SiteProof(watched.decision.site, bound.fan_in, found, share, *errors)


def _error(watched: Watched, side: Tensors, budget: int) -> float | None:
    """Distance of one side's value from what float64 makes of that side's own data."""
    op = watched.ops[0] if len(watched.ops) == 1 else None
    if op is None or not op.is_unrounded or op.nodes[-1].outputs[0].name != watched.probe:
        return None
    data = side.get(op.input.name or "")
    return None if data is None else error(op, data, side[watched.probe], budget)
