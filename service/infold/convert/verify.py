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
from contextlib import suppress
from dataclasses import dataclass

from onnx_ir import DataType

from infold.convert.blocks import mean_square
from infold.convert.bodies import cut, unrounded
from infold.convert.bounds import OpMagnitudes, bound_of, op_magnitudes
from infold.convert.comparison import UNIT_ROUNDOFF, compare, compare_output
from infold.convert.openings import Opening, Scope, UncutError, lead_to, openings
from infold.convert.proof import BodyProof, Proof, SiteProof, Unseen
from infold.convert.side_by_side import Model, OnnxRuntime, Oracle, Reference
from infold.convert.truth import error, site_budget
from infold.convert.watching import Sizes, Watched, watch, windows
from infold.errors import NoKernelError, NothingToProveError, ProofError
from infold.fold import Decision
from infold.fold.constants import is_float
from infold.fold.places import Place, spelled
from infold.runtime import kept_child
from infold.tensors import Tensors

__all__ = ["Model", "Proof", "SiteProof", "prove"]


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
    with kept_child():
        return _Prover(folded, decisions).whole(unfolded, folded, samples)


# What a norm that could not be looked at is taken to add to its value, in units of roundoff: that of
# an op with a fan-in of 4096.
UNPROVEN = 4.0 * 64


@dataclass(slots=True, eq=False)
class _Found:
    """What was found in one graph, bodies in it left out."""

    oracle: Oracle
    outputs: tuple[str, ...]
    results: Tensors
    answers: Tensors
    sites: list[SiteProof]
    unseen: list[Unseen]


class _Prover:
    """Goes through the main graph and every body and function that holds a folded norm."""

    def __init__(self, folded: Model, decisions: Sequence[Decision]) -> None:
        self._decisions: dict[Place, list[Decision]] = {}
        for each in decisions:
            self._decisions.setdefault(each.place, []).append(each)
        self._exact = unrounded(folded.graph)
        self._shares: dict[Place, float] = {}  # what folding may add to what a body gives back
        self._stuck: dict[Place, str] = {}
        self._sites: list[SiteProof] = []
        self._unseen: list[Unseen] = []
        self._bodies: list[BodyProof] = []

    def whole(self, unfolded: Model, folded: Model, samples: Tensors) -> Proof:
        """The proof of the whole model."""
        self._wanted = lead_to(unfolded.graph, self._decisions)
        scope = Scope((), unfolded, folded, samples)
        found = self._look(scope)
        spread = self._spread(scope, found)
        outputs = tuple(
            compare_output(name, found.results[name], found.answers[name], spread) for name in found.outputs
        )
        for place, decisions in self._decisions.items():
            if place and place not in self._shares:
                why = self._stuck.get(place, "nothing that runs leads there")
                self._unseen += [Unseen(each, why) for each in decisions]
        rows = next((array.shape[0] for array in samples.values() if array.ndim), 1)
        return Proof(
            found.oracle.name,
            rows,
            outputs,
            (*found.sites, *self._sites),
            (*found.unseen, *self._unseen),
            tuple(self._bodies),
            samples,
            found.results,
            found.answers,
        )

    def _look(self, scope: Scope) -> _Found:
        decisions = self._decisions.get(scope.place, [])
        try:
            return _look_into(OnnxRuntime(), scope, decisions)
        except NoKernelError as lacking:
            return _look_into(Reference(lacking), scope, decisions)

    def _spread(self, scope: Scope, found: _Found | None) -> float:
        """What folding may add to the outputs of a graph, over their size; bodies are proven on the way."""
        opened = list(openings(scope, self._wanted))
        values = self._values(scope, found, [each for _, each in opened if isinstance(each, Opening)])
        total = sum(each.share**2 for each in found.sites) if found is not None else 0.0
        for place, opening in opened:
            if isinstance(opening, UncutError):
                self._stuck[place] = str(opening)
            elif place not in self._shares:
                self._body(scope, opening, values)
            rounds = opening.rounds(values) if isinstance(opening, Opening) else 1
            total += (self._share(place, scope) * rounds) ** 2
        return math.sqrt(total)

    def _share(self, place: Place, scope: Scope) -> float:
        """What folding may add to what a body gives back; a guess where it could not be run."""
        if place in self._shares:
            return self._shares[place]
        norms = sum(len(each) for at, each in self._decisions.items() if at[: len(place)] == place)
        halves = any(array.dtype.itemsize == 2 for array in scope.samples.values())
        return math.sqrt(norms) * UNPROVEN * UNIT_ROUNDOFF[DataType.FLOAT16 if halves else DataType.FLOAT]

    def _values(self, scope: Scope, found: _Found | None, opened: Sequence[Opening]) -> Tensors:
        """What the unfolded graph has for the bodies in it."""
        names = {name for each in opened for name in each.wants(scope)}
        inner = scope.unfolded
        values = {name: scope.samples[name] for name in names if name in scope.samples}
        for name in names - values.keys():
            stored = inner.graph.graph.initializers.get(name)
            if stored is not None and stored.const_value is not None:
                values[name] = stored.const_value.numpy()
        asked = sorted(names & inner.computed)
        if found is not None and asked:
            with suppress(ProofError, NoKernelError):  # then they are drawn, or the body says what it lacks
                values |= found.oracle.run([(inner, asked)], scope.samples)[0]
        return values

    def _body(self, outer: Scope, opening: Opening, values: Tensors) -> None:
        try:
            scope = cut(outer, opening, values, self._exact)
        except UncutError as no:
            self._stuck[opening.place] = str(no)
            return
        found = None
        try:
            found = self._look(scope)
        except NothingToProveError as no:
            self._stuck[scope.place] = f"it cannot be run on its own: {no.detail}"
        except ProofError as failure:
            raise ProofError(f"in {spelled(scope.place)}: {failure.detail}", failure.site) from failure
        spread = self._spread(scope, found)
        if found is None:
            return
        self._shares[scope.place] = spread
        self._sites += found.sites
        self._unseen += found.unseen
        outputs = []
        for name in found.outputs:
            with suppress(NothingToProveError):
                if is_float(found.results[name]):
                    outputs.append(compare_output(name, found.results[name], found.answers[name], spread))
        self._bodies.append(BodyProof(scope.place, found.oracle.name, scope.drawn, tuple(outputs)))


def _look_into(oracle: Oracle, scope: Scope, decisions: Sequence[Decision]) -> _Found:
    """Run a graph and compare its norms; bodies in it are not entered."""
    unfolded, folded, samples = scope.unfolded, scope.folded, scope.samples
    names = tuple(value.name for value in unfolded.proto.graph.output)
    results, answers = oracle.run([(unfolded, names), (folded, names)], samples)
    watched, passed_over = watch(unfolded, folded, decisions)
    found = _Found(oracle, names, results, answers, [], [])
    found.unseen += [
        Unseen(each, "another fold took its value along; what that made of it is compared")
        for each in passed_over
    ]
    sizes = Sizes(unfolded, samples), Sizes(folded, samples)
    for window in windows(watched, sizes, oracle.window_bytes):
        _look_at(found, scope, window, sizes, site_budget(len(watched)))
    return found


def _look_at(
    found: _Found, scope: Scope, window: Sequence[Watched], sizes: tuple[Sizes, Sizes], budget: int
) -> None:
    """Compare a few norms; what was asked of the models for it is gone afterwards."""
    asked = [sorted(set().union(*sides)) for sides in zip(*((w.left, w.right) for w in window), strict=True)]
    left, right = found.oracle.run([(scope.unfolded, asked[0]), (scope.folded, asked[1])], scope.samples)
    for known, values in zip(sizes, (left, right), strict=True):
        known.learn(values.items())
    left, right = {**scope.samples, **left}, {**scope.samples, **right}
    parts = op_magnitudes(window, left, right)
    for each in window:
        if not left[each.probe].size:
            found.unseen.append(Unseen(each.decision, "its value is empty on the samples"))
            continue
        try:
            found.sites.append(_compare(each, parts, left, right, budget))
        except NothingToProveError as no:
            if not scope.place:
                raise
            found.unseen.append(Unseen(each.decision, no.detail))


def _compare(
    watched: Watched, parts: Mapping[str, OpMagnitudes], left: Tensors, right: Tensors, budget: int
) -> SiteProof:
    want, got = left[watched.probe], right[watched.probe]
    bound = bound_of(watched, parts, left, right)
    found = compare(watched.probe, want, got, bound.limit)
    size = mean_square(want.shape, want.__getitem__)
    share = math.sqrt(bound.own_mean_square / size) if size else 0.0
    errors = [_error(watched, side, budget) for side in (right, left)]
    return SiteProof(watched.decision, bound.fan_in, found, share, *errors)


def _error(watched: Watched, side: Tensors, budget: int) -> float | None:
    """Distance of one side's value from what float64 makes of that side's own data."""
    op = watched.ops[0] if len(watched.ops) == 1 else None
    if op is None or not op.is_unrounded or op.nodes[-1].outputs[0].name != watched.probe:
        return None
    data = side.get(op.input.name or "")
    return None if data is None else error(op, data, side[watched.probe], budget)
