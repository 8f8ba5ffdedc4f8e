"""Properties of folding on graphs that nobody thought of."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from fold.random_graphs import FEATURES, FORKS, Made, features_of, make
from graphs import Array, Folded, fold, op_types, to_ir
from infold.fold import Outcome, Reason, fold_batch_norms
from infold.fold.sites import find_candidates
from oracle import LINEAR, compare, count_roundings, every_node, gamma, magnitudes, run, underflow

ROUNDS = 21
EACH = 20
UNIT = 2.0**-24
# A sum over a window or over space; none here has more terms.
SUMMING = ("AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum", "LpPool", "Resize", "Mean", "Sum")
TERMS = 300


@dataclass
class Seen:
    """How often what was met, over all graphs."""

    across: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    forks: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def feeds(proto: onnx.ModelProto, seed: int) -> dict[str, Array]:
    """Standard normal numbers, and a coin."""
    rng = np.random.default_rng(seed)
    made: dict[str, Array] = {}
    for value in proto.graph.input:
        kind = value.type.tensor_type
        shape = [dim.dim_value for dim in kind.shape.dim]
        is_flag = kind.elem_type == onnx.TensorProto.BOOL
        made[value.name] = (
            np.array(seed % 2 == 0) if is_flag else rng.standard_normal(shape).astype(np.float32)
        )
    return made


def bounds(proto: onnx.ModelProto, fed: dict[str, Array]) -> list[np.ndarray]:
    """How far two evaluations may be apart; a minimum is no larger than a maximum of magnitudes."""
    positive = onnx.ModelProto()
    positive.CopyFrom(proto)
    for node in every_node(positive.graph):
        node.op_type = {"Min": "Max", "ReduceMin": "ReduceMax"}.get(node.op_type, node.op_type)
    sums = sum(node.op_type in SUMMING for node in every_node(proto.graph))
    roundings = count_roundings(proto) + TERMS * sums
    return [2 * gamma(roundings, UNIT) * m + underflow(proto, fed) for m in magnitudes(positive, fed)]


def check_graph(proto: onnx.ModelProto, folded: Folded) -> None:
    """A valid model with the same interface, and never more nodes."""
    onnx.checker.check_model(folded.proto, full_check=True)
    assert folded.proto.graph.input == proto.graph.input
    assert folded.proto.graph.output == proto.graph.output
    before, after = (list(op_types(each.graph)) for each in (proto, folded.proto))
    assert (folded.report.nodes_before, folded.report.nodes_after) == (len(before), len(after))
    assert len(after) <= len(before)


def check_numbers(proto: onnx.ModelProto, folded: Folded, seed: int) -> None:
    """Every output within rounding."""
    fed = feeds(proto, seed)
    compare(run(proto, fed), run(folded.proto, fed), bounds(proto, fed), "on onnxruntime")


def check_again(source: ir.Model, folded: Folded, *, inferred: bool) -> None:
    """The same model gives the same bytes, and the folded one has nothing left to fold."""
    written = folded.proto.SerializeToString(deterministic=True)
    assert folded_from(source).proto.SerializeToString(deterministic=True) == written
    again = fold(folded.proto) if inferred else folded_from(ir.from_proto(folded.proto))
    assert again.report.folded == (), [each.why for each in again.report.decisions]
    assert again.proto.SerializeToString(deterministic=True) == written


def folded_from(source: ir.Model) -> Folded:
    model, report = fold_batch_norms(source)
    return Folded(ir.to_proto(model), report)


def check_account(made: Made, source: ir.Model, folded: Folded, *, inferred: bool) -> None:
    """Every site of the unfolded graph has exactly one decision, under its own name."""
    graphs = [source.graph, *source.graph.subgraphs()]
    sites = [site for graph in graphs for site in find_candidates(graph, 17)]
    found = Counter((site.nodes[-1].outputs[0].name, site.spelling) for site in sites)
    told = Counter((each.output, each.spelling) for each in folded.report.decisions)
    assert told == found, f"told {told - found} instead of {found - told}"
    norms = [each for each in folded.report.decisions if each.spelling == "BatchNormalization"]
    assert len(norms) == made.norms and all(each.is_norm for each in norms)
    if inferred:  # all shapes are known, so every constant is recognised
        steps = sum(len(each.spelling.split(",")) for each in folded.report.decisions) - made.norms
        assert steps == made.affines
    gone = sum(each.outcome is Outcome.FOLDED for each in norms)
    left = sum(op == "BatchNormalization" for op in op_types(folded.proto.graph))
    assert left == made.norms - gone


def count(made: Made, folded: Folded, seen: Seen) -> None:
    """Keep the books."""
    seen.forks.update(made.forks)
    for decision in folded.report.decisions:
        if decision.outcome is Outcome.FOLDED:
            seen.rules[f"{decision.rule} {decision.into_op}"] += 1
            for name in decision.across:
                seen.across[f"{name.split('_')[0]} {decision.rule}"] += 1
        for refusal in decision.refusals:
            seen.reasons[refusal.reason.value] += 1


JOINED = ("Add", "Sub", "Sum", "Max", "Min", "Mean")
# These need a broken model or another type; each has its graph in test_reasons.py.
NOT_HERE = {"training-mode", "invalid-statistics", "not-representable", "quantized"}


@pytest.fixture(scope="module")
def seen() -> Seen:
    """All graphs, made, folded and checked once."""
    seen = Seen()
    for seed in range(ROUNDS * len(FEATURES)):
        made = make(seed)
        onnx.checker.check_model(made.proto, full_check=True)
        inferred = seed % 9 != 0  # now and then nobody has inferred shapes
        source = to_ir(made.proto) if inferred else ir.from_proto(made.proto)
        try:
            folded = folded_from(source)
        except Exception as crash:
            seen.wrong["graph"].append(f"make({seed}) of {features_of(seed)}: {crash!r}")
            continue
        checks = {
            "graph": partial(check_graph, made.proto, folded),
            "numbers": partial(check_numbers, made.proto, folded, seed),
            "again": partial(check_again, source, folded, inferred=inferred),
            "account": partial(check_account, made, source, folded, inferred=inferred),
        }
        for name, check in checks.items():
            try:
                check()
            except AssertionError as wrong:
                seen.wrong[name].append(f"make({seed}) of {features_of(seed)}: {wrong}")
        count(made, folded, seen)
    return seen


@pytest.mark.parametrize("what", ["graph", "numbers", "again", "account"])
def test_random_graphs(seen: Seen, what: str) -> None:
    """A valid graph, the same numbers, nothing left to fold, and every site told once."""
    assert not seen.wrong[what], f"{len(seen.wrong[what])} graphs, first " + seen.wrong[what][0]


def test_all_of_it_was_met(seen: Seen) -> None:
    """Each operator in each direction, each reason, each kind of fork, each linear op on each side."""
    crossed = {op.split()[0] for op, direction in FEATURES if direction == "up"}
    wanted = {f"{op} producer": seen.across for op in crossed}
    wanted |= {f"{op} consumer": seen.across for op in crossed - set(JOINED)}
    wanted |= {reason.value: seen.reasons for reason in Reason if reason.value not in NOT_HERE}
    wanted |= dict.fromkeys(FORKS, seen.forks)
    wanted |= {f"{rule} {op}": seen.rules for rule in ("producer", "consumer") for op in LINEAR}
    few = {name: counter[name] for name, counter in wanted.items() if counter[name] < EACH}
    assert not few


@pytest.mark.parametrize("seed", range(0, len(FEATURES), 7))
def test_a_flipped_sign_is_caught(seed: int) -> None:
    """The bounds say something: the negative of the largest output is outside."""
    proto = make(seed).proto
    fed = feeds(proto, seed)
    want = run(proto, fed)
    for out, limit in zip(want, bounds(proto, fed), strict=True):
        worst = np.unravel_index(np.abs(out).argmax(), out.shape)
        assert out[worst] == 0 or 2 * abs(float(out[worst])) > limit[worst]
