"""What folding decided, and why: reasons, refusals and the report of a whole model.

Not folding is never an error. A rule that cannot fold raises `Refused`, the
driver catches it in one place, and from there on it is data. Reason codes are
an interface: they are never reused and never renamed (docs/reasons.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from infold.fold.affine import F64, Affine
from infold.fold.places import Place, spelled

__all__ = ["Decision", "FoldReport", "NormParameters", "Outcome", "Reason", "Refusal", "Refused"]


class Reason(StrEnum):
    """Why a norm could not be folded in one direction."""

    GRAPH_INPUT = "graph-input"
    GRAPH_OUTPUT = "graph-output"
    SHARED_OUTPUT = "shared-output"
    CAPTURED_BY_SUBGRAPH = "captured-by-subgraph"
    NOT_CONSTANT = "not-constant"
    TRAINING_MODE = "training-mode"
    AXIS_MISMATCH = "axis-mismatch"
    UNKNOWN_SHAPE = "unknown-shape"
    BLOCKED_BY_OP = "blocked-by-op"
    ZERO_PADDING = "zero-padding"
    SCATTERED_BORDER = "scattered-border"
    NEGATIVE_SCALE = "negative-scale"
    SHIFT_NOT_MOVABLE = "shift-not-movable"
    COSTS_MORE = "costs-more"
    QUANTIZED = "quantized"
    INVALID_STATISTICS = "invalid-statistics"
    NOT_REPRESENTABLE = "not-representable"


class Outcome(StrEnum):
    """What became of a norm."""

    FOLDED = "folded"
    KEPT = "kept"


class Refused(Exception):  # noqa: N818 - an outcome, not an error
    """A rule's no, raised anywhere below it and caught by the driver alone.

    Attributes:
        reason: The code.
        at: Name of the node or value that blocks.
        detail: What exactly, in a few words; may be empty.
    """

    def __init__(self, reason: Reason, at: str | None, detail: str = "") -> None:
        self.reason = reason
        self.at = at or ""
        self.detail = detail
        super().__init__(f"{reason} at {self.at}: {detail}")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one direction was refused for one norm."""

    rule: str
    reason: Reason
    at: str
    detail: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class NormParameters:
    """The trained parameters of one norm, as stored: float64 [C] each, and epsilon."""

    gamma: F64
    beta: F64
    mean: F64
    variance: F64
    epsilon: float


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """What became of one norm.

    Attributes:
        site: Name of the norm's node (of the last node where it is written out).
        spelling: How it is written: `BatchNormalization`, or `Sub,Div,Mul,Add`.
        output: Name of the value the norm computes in the unfolded model.
        outcome: Folded or kept.
        place: The body or function it stands in; empty for the main graph.
        is_norm: False for a bare bias or a scalar factor, which is folded where
            that is free but is nothing a user would call a norm.
        rule: The rule that folded it; empty where kept.
        into: Name of the node that absorbed it; empty where kept.
        into_op: Operator of that node.
        across: Names of nodes that the affine crossed on the way.
        copied: Names of weights that had other readers and so were copied.
        probes: Names of values that exist in both models and must agree there.
        refusals: One per direction tried; empty where folded.
        producer: Operator and name of what computes its input, or `input`.
        affine: The norm as one affine; None where it could not be read.
        parameters: The trained parameters; None where they are written into constants.
        layer: Its name in the user's own model, where a frontend knows it.
    """

    site: str
    spelling: str
    output: str
    outcome: Outcome
    place: Place = ()
    is_norm: bool = True
    rule: str = ""
    into: str = ""
    into_op: str = ""
    across: tuple[str, ...] = ()
    copied: tuple[str, ...] = ()
    probes: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    producer: str = ""
    affine: Affine | None = None
    parameters: NormParameters | None = None
    layer: str = ""

    @property
    def where(self) -> str:
        """The body or function it stands in, as people read it; empty for the main graph."""
        return spelled(self.place)

    @property
    def full_name(self) -> str:
        """The site, and where it stands."""
        return f"{self.site} in {self.where}" if self.place else self.site

    @property
    def why(self) -> str:
        """The `into / why` column: what absorbed the norm, or the reason of each refusal."""
        if self.outcome is Outcome.FOLDED:
            return f"into {self.rule} {self.into_op}"
        return "; ".join(
            f"{refusal.rule}: {refusal.reason}" + (f" ({refusal.detail})" if refusal.detail else "")
            for refusal in self.refusals
        )

    @property
    def at(self) -> str:
        """The `at` column: the node that absorbed the norm, or the one that blocks."""
        if self.outcome is Outcome.FOLDED:
            return self.into
        return next((refusal.at for refusal in self.refusals), "")


@dataclass(frozen=True, slots=True, eq=False)
class FoldReport:
    """All decisions for one model, in the order of its graph.

    Attributes:
        decisions: One per site found.
        nodes_before, nodes_after: Node counts, subgraphs and functions included.
    """

    decisions: tuple[Decision, ...]
    nodes_before: int
    nodes_after: int

    @property
    def norms(self) -> tuple[Decision, ...]:
        """The decisions on real norms: biases and scalar factors left out."""
        return tuple(decision for decision in self.decisions if decision.is_norm)

    @property
    def all_folded(self) -> tuple[Decision, ...]:
        """Everything that is gone, biases and scalar factors included."""
        return tuple(d for d in self.decisions if d.outcome is Outcome.FOLDED)

    @property
    def folded(self) -> tuple[Decision, ...]:
        """The norms that are gone."""
        return tuple(d for d in self.norms if d.outcome is Outcome.FOLDED)

    @property
    def kept(self) -> tuple[Decision, ...]:
        """The norms that stayed."""
        return tuple(d for d in self.norms if d.outcome is Outcome.KEPT)
