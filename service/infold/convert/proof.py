"""What a proof found: at each norm, at each output, and where nothing could be looked at."""

from __future__ import annotations

from dataclasses import dataclass, field

from infold.convert.comparison import Comparison
from infold.fold import Decision
from infold.fold.places import Place, spelled
from infold.tensors import Tensors

__all__ = ["BodyProof", "Proof", "SiteProof", "Unseen"]


@dataclass(frozen=True, slots=True, eq=False)
class SiteProof:
    """What was found at one folded norm.

    Attributes:
        decision: What became of the norm.
        fan_in: Of the op that absorbed it.
        comparison: Folded against unfolded.
        share: What this fold may add over the value, both as root mean squares.
        folded_error: Largest distance of the folded value from its float64 evaluation, over
            the largest magnitude; None where the value is not one op's output.
        unfolded_error: The same for the unfolded value.
    """

    decision: Decision
    fan_in: int
    comparison: Comparison
    share: float = 0.0
    folded_error: float | None = None
    unfolded_error: float | None = None

    @property
    def verdict(self) -> str:
        """One line: is it within its bound, and which side is nearer to float64."""
        found = self.comparison
        words = "within what rounding explains" if found.passed else "more than rounding explains"
        words = f"off by {found.max_abs:.1e} of {found.bound:.1e} allowed: {words}"
        if self.folded_error is None or self.unfolded_error is None:
            return words
        same = self.folded_error == self.unfolded_error
        nearer = "is as close to float64 as" if same else "is closer to float64 than"
        sides = ("folded", "unfolded") if self.folded_error <= self.unfolded_error else ("unfolded", "folded")
        errors = sorted((self.folded_error, self.unfolded_error))
        return f"{words}; {sides[0]} {nearer} {sides[1]} ({errors[0]:.1e} against {errors[1]:.1e})"

    @property
    def site(self) -> str:
        """Name of the norm."""
        return self.decision.site


@dataclass(frozen=True, slots=True, eq=False)
class Unseen:
    """A folded norm whose own value was not compared, and why."""

    decision: Decision
    why: str


@dataclass(frozen=True, slots=True, eq=False)
class BodyProof:
    """A body or function that was proven as a model of its own.

    Attributes:
        place: Where it lies.
        oracle: What ran it.
        drawn: Its inputs that were drawn at random, because the model around it has no value.
        outputs: One comparison for each float it gives back.
    """

    place: Place
    oracle: str
    drawn: tuple[str, ...]
    outputs: tuple[Comparison, ...]

    @property
    def where(self) -> str:
        """The place, as people read it."""
        return spelled(self.place)


@dataclass(frozen=True, slots=True, eq=False)
class Proof:
    """What a proof found.

    Attributes:
        oracle: What ran both models.
        rows: Length of the samples' first axis.
        outputs: One comparison an output.
        sites: One a folded norm that can be looked at: the main graph's in its order, then those
            of bodies and functions.
        unseen: Folded norms whose own value was not compared: followed by another fold, which is
            looked at in their stead, or in a body that does not run on its own.
        bodies: The bodies and functions that hold folded norms.
        samples: What went in.
        results, folded_results: What the unfolded and the folded model made of it.
    """

    oracle: str
    rows: int
    outputs: tuple[Comparison, ...]
    sites: tuple[SiteProof, ...] = ()
    unseen: tuple[Unseen, ...] = ()
    bodies: tuple[BodyProof, ...] = ()
    samples: Tensors = field(default_factory=dict)
    results: Tensors = field(default_factory=dict)
    folded_results: Tensors = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Every output and every site is within its bound, those of bodies included."""
        inner = (each for body in self.bodies for each in body.outputs)
        return all(each.passed for each in (*self.outputs, *inner)) and not self.first_off

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
        words += [
            f"in {body.where} output '{each.name}' is off by {each.max_abs:.3g} (allowed {each.bound:.3g})"
            for body in self.bodies
            for each in body.outputs
            if not each.passed
        ]
        if site := self.first_off:
            found = site.comparison
            words.append(
                f"the first norm that is off is {_named(site)}: up to {found.max_abs:.3g}, "
                f"{found.exceeded:.3g} times what rounding explains at its place"
            )
            worst = max(self.sites, key=lambda each: each.comparison.exceeded)
            if worst is not site:
                words.append(f"the worst is {_named(worst)}")
        return "folded and unfolded differ: " + "; ".join(words)


def _named(site: SiteProof) -> str:
    where = f" in {site.decision.where}" if site.decision.place else ""
    return f"'{site.site}'{where}"
