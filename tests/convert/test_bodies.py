"""Norms inside bodies and functions, proven on the body cut out as a model of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest

from graphs import fold, model, norm, normal, to_ir
from infold.convert import Proof, Sampling, convert, html_report, verify
from infold.convert.bodies import cut
from infold.convert.openings import Opening, Scope, lead_to, openings
from infold.convert.side_by_side import Model
from infold.errors import ProofError
from infold.fold.places import places

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/fold-report.schema.json").read_text())
BN = "BatchNormalization <epsilon=0.001>"
PARAMETERS = "gamma, beta, mean, variance"
CONV = f"c = Conv <pads=[1,1,1,1]> (s, w)  m = {BN} (c, {PARAMETERS})  out = Tanh (m)"
IMAGE = "float[N,4,6,6]"
WEIGHTS = {"w": normal(4, 4, 3, 3, seed=1) / 6, **norm(4)}
CONSTANTS = """
    w = Constant <value = float[4,1,1,1] {0.5, -1.5, 2.0, 0.75}> ()
    gamma = Constant <value = float[4] {1.5, 0.5, -2.0, 1.0}> ()
    beta = Constant <value = float[4] {0.25, -0.5, 1.0, 0.0}> ()
    mean = Constant <value = float[4] {0.1, 0.2, -0.3, 0.4}> ()
    variance = Constant <value = float[4] {1.0, 0.5, 2.0, 0.25}> ()
"""
DEPTHWISE = f"c = Conv <group=4> (a, w)  q = {BN} (c, {PARAMETERS})"
LOCAL = ', "local" : 1'


def loop(body: str, *, trips: str = "trips", cond: str = "") -> str:
    return f"""[rounds] y = Loop ({trips}, {cond}, h) <body = b (int64 i, bool go, {IMAGE} s)
        => (bool on, {IMAGE} out) {{ on = Identity (go)  {body} }}>"""


def graph(body: str, inputs: str = "") -> str:
    return f"g ({IMAGE} x{inputs}) => ({IMAGE} y) {{ h = Relu (x)  {body} }}"


def gate(body: str, *, result: str = "out", flag: str = "p", other: str = "e") -> str:
    """An If whose first branch the samples do not take."""
    return f"""[gate] {result} = If ({flag}) <
        then_branch = t () => ({IMAGE} {other}1) {{ {body} }},
        else_branch = f () => ({IMAGE} {other}2) {{ {other}2 = Relu (h) }}>"""


def branch() -> onnx.ModelProto:
    never = "p = Constant <value = bool {0}> ()"
    body = f"c = Conv <pads=[1,1,1,1]> (h, w)  m = {BN} (c, {PARAMETERS})  e1 = Tanh (m)"
    return model(graph(f"{never} {gate(body, result='y')}"), WEIGHTS)


def looped() -> onnx.ModelProto:
    return model(graph(loop(CONV)), {**WEIGHTS, "trips": np.array(3, np.int64)})


def never_looped() -> onnx.ModelProto:
    return model(graph(loop(CONV)), {**WEIGHTS, "trips": np.array(0, np.int64)})


def scanned() -> onnx.ModelProto:
    text = f"""g (float[5,2,4] x, float[2,4] start) => (float[2,4] last, float[5,2,4] y) {{
        [steps] last, y = Scan <num_scan_inputs = 1, scan_input_directions = [1], body =
            b (float[2,4] s, float[2,4] t) => (float[2,4] next, float[2,4] seen) {{
                a = Add (s, t)  c = Gemm (a, w)  m = {BN} (c, {PARAMETERS})
                next = Tanh (m)  seen = Identity (next) }}> (start, x) }}"""
    return model(text, {"w": normal(4, 4, seed=1) / 2, **norm(4)})


def in_function() -> onnx.ModelProto:
    return model(
        f"""g ({IMAGE} x) => ({IMAGE} y) {{ h = Relu (x)  m = local.block (h)  y = local.block (m) }}
        <domain: "local", opset_import: ["" : 17]>
        block (a) => (r) {{ {CONSTANTS} {DEPTHWISE}  r = Tanh (q) }}""",
        extra=LOCAL,
    )


def nested() -> onnx.ModelProto:
    """An If inside a Loop; what its branch reads is the state of the Loop and a value of the main graph."""
    body = f"""c = Conv <pads=[1,1,1,1]> (s, w)  m = {BN} (c, {PARAMETERS})  k = Add (m, h)  e1 = Tanh (k)"""
    return model(
        graph(loop("p = Cast <to = 9> (i) " + gate(body)), ""), {**WEIGHTS, "trips": np.array(1, np.int64)}
    )


def function_in_branch() -> onnx.ModelProto:
    """A function that is called nowhere but in the branch not taken, with an attribute of the call."""
    branches = gate("e1 = local.block <slope = 0.5> (h)", result="y")
    return model(
        f"""{graph("p = Constant <value = bool {0}> ()" + branches)}
        <domain: "local", opset_import: ["" : 17]>
        block <slope> (a) => (r) {{ {CONSTANTS} l = LeakyRelu <alpha: float = @slope> (a)
            c = Conv <group=4> (l, w)  q = {BN} (c, {PARAMETERS})  r = Tanh (q) }}""",
        extra=LOCAL,
    )


def branch_in_function() -> onnx.ModelProto:
    return model(
        f"""g ({IMAGE} x, bool[1] p) => ({IMAGE} y) {{ y = local.block (x, p) }}
        <domain: "local", opset_import: ["" : 17]>
        block (a, p) => (r) {{ {CONSTANTS} h = Relu (a)
            r = If (p) <then_branch = t () => ({IMAGE} e1) {{
                c = Conv <group=4> (h, w)  q = {BN} (c, {PARAMETERS})  e1 = Tanh (q) }},
            else_branch = e () => ({IMAGE} e2) {{ e2 = Relu (h) }}> }}""",
        extra=LOCAL,
    )


CASES: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "branch not taken": (branch, "if 'gate'/then_branch"),
    "loop": (looped, "loop 'rounds'/body"),
    "loop of no round": (never_looped, "loop 'rounds'/body"),
    "scan": (scanned, "scan 'steps'/body"),
    "function": (in_function, "function 'local::block'"),
    "branch in a loop": (nested, "loop 'rounds'/body > if 'gate'/then_branch"),
    "function called in a branch": (function_in_branch, "function 'local::block'"),
    "branch in a function": (branch_in_function, "function 'local::block' > if 'r'/then_branch"),
}


def proof_of(unfolded: onnx.ModelProto, folded: onnx.ModelProto, folder: Path, **sampling: Any) -> Proof:
    paths = folder / "unfolded.onnx", folder / "folded.onnx"
    for path, proto in zip(paths, (unfolded, folded), strict=True):
        path.write_bytes(proto.SerializeToString())
    return verify(*paths, Sampling(**sampling))[1]


def bodies(proto: onnx.ModelProto) -> list[Any]:
    """Every graph and function but the main graph."""
    found: list[Any] = list(proto.functions)
    waiting = [proto.graph, *proto.functions]
    while waiting:
        for node in waiting.pop().node:
            inner = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
            found += inner
            waiting += inner
    return found


def spoil(proto: onnx.ModelProto, change: Callable[[Any], Any], which: int) -> onnx.ModelProto:
    """The model with the folded weight (1) or bias (2) of the linear op in a body edited."""
    for body in bodies(proto):
        for node in body.node:
            if node.op_type not in ("Conv", "Gemm"):
                continue
            tensors = [t for g in (proto.graph, *bodies(proto)) for t in getattr(g, "initializer", ())]
            tensors += [
                a.t
                for g in (proto.graph, *bodies(proto))
                for n in g.node
                for a in n.attribute
                if n.op_type == "Constant" and n.output[0] == node.input[which]
            ]
            for tensor in tensors:
                if tensor.name == node.input[which]:
                    array = onnx.numpy_helper.to_array(tensor).copy()
                    change(array)
                    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
                    return proto
    raise AssertionError("no linear op in a body")


def negate_channel(array: Any) -> None:
    array[1] = -array[1]


def nudge_channel(array: Any) -> None:
    array[2] *= np.float32(1.001)


@pytest.mark.parametrize("name", CASES)
def test_norms_in_bodies_are_proven_like_all_others(tmp_path: Path, name: str) -> None:
    """Each has its own bound and error, on real values of the model around it."""
    make, where = CASES[name]
    proof = proof_of(make(), fold(make()).proto, tmp_path)
    assert proof.passed, proof.failure()
    assert [site.decision.where for site in proof.sites] == [where]
    assert proof.unseen == ()
    (site,) = proof.sites
    assert 0 <= site.comparison.max_abs < site.comparison.bound < 1e-3
    assert proof.bodies[-1].where == where or "branch" in name
    assert all(body.drawn == () for body in proof.bodies)


@pytest.mark.parametrize("error", [negate_channel, nudge_channel], ids=lambda each: each.__name__)
@pytest.mark.parametrize("which", [1, 2], ids=["weight", "bias"])
@pytest.mark.parametrize("name", CASES)
def test_an_error_planted_in_a_body_is_found_where_it_is(
    tmp_path: Path, name: str, which: int, error: Callable[[Any], None]
) -> None:
    """One channel with a wrong sign, or off by a thousandth: also where the samples never come."""
    make, where = CASES[name]
    proof = proof_of(make(), spoil(fold(make()).proto, error, which), tmp_path)
    assert not proof.passed
    assert proof.first_off is not None and proof.first_off.decision.where == where
    assert where in proof.failure()


@pytest.mark.parametrize("name", CASES)
def test_the_report_says_in_which_body_a_norm_was_proven(tmp_path: Path, name: str) -> None:
    """In the JSON, by the published schema, and on the page; both sides are held against float64."""
    make, where = CASES[name]
    onnx.save(make(), tmp_path / "m.onnx")
    done = convert(tmp_path / "m.onnx", tmp_path / "folded.onnx")
    jsonschema.validate(done.json, SCHEMA)
    (site,) = (each for each in done.json["sites"] if each["outcome"] == "folded")
    assert site["in"] == where
    for key in ("folded_error", "unfolded_error"):
        assert 0 <= site["proof"][key] < 2.0**-20
    assert "float64" in site["proof"]["verdict"]
    assert where in [each["in"] for each in done.json["proof"]["bodies"]]
    assert done.json["proof"]["not_observable"] == []
    assert where.split("'")[1] in html_report(done, (1, 1))


def test_branches_that_use_the_same_names_have_proofs_of_their_own(tmp_path: Path) -> None:
    """An error in one of them is not laid at the other's door, nor at a main graph's namesake."""

    def graphs(second: float) -> onnx.ModelProto:
        both = " ".join(
            f"{kind}_branch = {kind} () => ({IMAGE} out) {{ c = Conv <pads=[1,1,1,1]> (h, {weight})"
            f"  [bn] m = {BN} (c, {PARAMETERS})  out = Tanh (m) }}{end}"
            for kind, weight, end in (("then", "w", ","), ("else", "v", ""))
        )
        text = f"g ({IMAGE} x, bool p) => ({IMAGE} y) {{ h = Relu (x)  [gate] y = If (p) <{both}> }}"
        return model(text, {**WEIGHTS, "v": WEIGHTS["w"] * np.float32(second)})

    good = proof_of(graphs(0.5), fold(graphs(0.5)).proto, tmp_path)
    assert good.passed
    wanted = [f"bn in if 'gate'/{kind}_branch" for kind in ("then", "else")]
    assert [site.decision.full_name for site in good.sites] == wanted
    bad = proof_of(graphs(0.5), fold(graphs(0.501)).proto, tmp_path)
    assert [site.comparison.passed for site in bad.sites] == [True, False]


def test_a_deep_branch_gives_no_false_alarm_at_the_output(tmp_path: Path) -> None:
    """What thirty folds in a branch may add is allowed for behind it."""
    lines, weights, last = [], {}, "h"
    for layer in range(30):
        weights[f"w{layer}"] = normal(16, 16, seed=layer) / 4
        weights |= {f"{name}{layer}": array for name, array in norm(16, layer).items()}
        parameters = ", ".join(f"{name}{layer}" for name in ("gamma", "beta", "mean", "variance"))
        lines.append(f"c{layer} = Gemm ({last}, w{layer})  n{layer} = {BN} (c{layer}, {parameters})")
        lines.append(f"t{layer} = Tanh (n{layer})")
        last = f"t{layer}"
    text = f"""g (float[N,16] x) => (float[N,16] y) {{
        h = Relu (x)  p = Constant <value = bool {{1}}> ()
        y = If (p) <then_branch = t () => (float[N,16] out) {{ {" ".join(lines)} out = Mul ({last}, h) }},
                    else_branch = e () => (float[N,16] other) {{ other = Neg (h) }}> }}"""
    proto = model(text, weights)
    proof = proof_of(proto, fold(proto).proto, tmp_path)
    assert proof.passed, proof.failure()
    assert len(proof.sites) == 30
    assert proof.outputs[0].exceeded > 0, "the branch was taken"


def test_weights_outside_the_file_stay_there(tmp_path: Path) -> None:
    """A body reads them from the folder of its model."""
    onnx.save(branch(), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    done = convert(tmp_path / "m.onnx", tmp_path / "folded.onnx")
    assert done.proof is not None and done.proof.passed and len(done.proof.sites) == 1


def test_constants_computed_outside_are_constants_inside(tmp_path: Path) -> None:
    """A branch whose weight reaches it through an Identity is still proven with a bound of its own."""
    never = "p = Constant <value = bool {0}> ()  v = Identity (w)  k = Constant <value = float {0.5}> ()"
    body = f"c = Conv <pads=[1,1,1,1]> (h, v)  m = {BN} (c, {PARAMETERS})  e1 = Mul (m, k)"
    proto = model(graph(f"{never} {gate(body, result='y')}"), WEIGHTS)
    proof = proof_of(proto, fold(proto).proto, tmp_path)
    assert proof.passed and [site.fan_in for site in proof.sites] == [36]


def test_what_no_model_around_has_is_drawn(tmp_path: Path) -> None:
    """A Scan over nothing never runs its body, nor does the branch around it; the slice is drawn."""
    text = f"""g (float[5,2,4] x, float[2,4] start) => (float[2,4] y) {{
        p = Constant <value = bool {{0}}> ()
        [gate] y = If (p) <then_branch = t () => (float[2,4] e1) {{
            none = Slice (x, zero, zero)
            [steps] e1, all = Scan <num_scan_inputs = 1, body =
                b (float[2,4] s, float[2,4] t) => (float[2,4] next, float[2,4] seen) {{
                    a = Add (s, t)  c = Gemm (a, w)  m = {BN} (c, {PARAMETERS})
                    next = Tanh (m)  seen = Identity (next) }}> (start, none) }},
            else_branch = f () => (float[2,4] e2) {{ e2 = Relu (start) }}> }}"""
    proto = model(text, {"w": normal(4, 4, seed=1) / 2, "zero": np.zeros(1, np.int64), **norm(4)})
    proof = proof_of(proto, fold(proto).proto, tmp_path)
    assert proof.passed and proof.unseen == ()
    assert [site.decision.where for site in proof.sites] == ["if 'gate'/then_branch > scan 'steps'/body"]
    assert [body.drawn for body in proof.bodies] == [("t",)], "the state is the model's own"
    wrong = proof_of(proto, spoil(fold(proto).proto, negate_channel, 1), tmp_path)
    assert not wrong.passed


def cut_open(proto: onnx.ModelProto, values: dict[str, Any]) -> Scope:
    """The one body of a model, cut out of it twice, with what the main graph has."""
    sides = [Model(label, to_ir(proto), proto, Path()) for label in ("unfolded", "folded")]
    scope = Scope((), sides[0], sides[1], {})
    (place,) = {place for place in places(sides[0].graph).values() if place}
    ((found, opening),) = openings(scope, lead_to(sides[0].graph, [place]))
    assert found == place and isinstance(opening, Opening)
    assert opening.wants(scope) == values.keys()
    return cut(scope, opening, values, {})


def test_a_loop_starts_with_its_first_round() -> None:
    """Round 0, condition true, and the initial state."""
    state = normal(1, 4, 6, 6)
    scope = cut_open(looped(), {"h": state, "trips": np.array(3)})
    assert scope.samples["i"] == 0 and scope.samples["go"] == np.True_
    assert scope.samples["s"] is state


@pytest.mark.parametrize(("turned", "row"), [(0, 0), (1, -1)])
def test_a_scan_starts_at_its_first_slice(turned: int, row: int) -> None:
    """Which is the last one where it runs backwards."""
    proto = scanned()
    next(a for a in proto.graph.node[0].attribute if a.name == "scan_input_directions").ints[:] = [turned]
    data = normal(5, 2, 4)
    scope = cut_open(proto, {"x": data, "start": normal(2, 4)})
    np.testing.assert_array_equal(scope.samples["t"], data[row])


def test_a_scan_along_another_axis_is_cut_along_it() -> None:
    """The slice loses the axis that is scanned."""
    proto = scanned()
    proto.graph.node[0].attribute.append(onnx.helper.make_attribute("scan_input_axes", [1]))
    data = normal(2, 5, 4)
    scope = cut_open(proto, {"x": data, "start": normal(2, 4)})
    np.testing.assert_array_equal(scope.samples["t"], data[:, -1])


@pytest.mark.parametrize(("call", "alpha"), [("<slope = 0.5>", 0.5), ("", 0.25)])
def test_a_function_gets_the_attributes_of_its_call(call: str, alpha: float) -> None:
    """Or its own defaults."""
    proto = model(
        f"""g (float[N] x) => (float[N] y) {{ y = local.block {call} (x) }}
        <domain: "local", opset_import: ["" : 17]>
        block <slope: float = 0.25> (a, b) => (r) {{
            l = LeakyRelu <alpha: float = @slope> (a)  r = Clip (l, b) }}""",
        extra=LOCAL,
    )
    scope = cut_open(proto, {"x": normal(3)})
    leaky, clip = scope.unfolded.proto.graph.node
    assert [(each.name, each.f, each.ref_attr_name) for each in leaky.attribute] == [("alpha", alpha, "")]
    assert list(clip.input) == ["l", ""], "an argument that the call leaves out"
    assert scope.samples.keys() == {"a"}


UNSEEN = {
    "a function that nobody calls": (
        lambda: model(
            f"""g ({IMAGE} x) => ({IMAGE} y) {{ y = Relu (x) }}
            <domain: "local", opset_import: ["" : 17]>
            block (a) => (r) {{ {CONSTANTS} {DEPTHWISE}  r = Tanh (q) }}""",
            extra=LOCAL,
        ),
        "nothing that runs leads there",
    ),
    "a branch made for other data": (
        lambda: model(
            graph(
                "p = Constant <value = bool {0}> ()"
                + gate(
                    f"r = Reshape (h, s)  c = Conv <pads=[1,1,1,1]> (r, w)  m = {BN} (c, {PARAMETERS})"
                    "  e1 = Tanh (m)",
                    result="y",
                )
            ),
            {**WEIGHTS, "s": np.array([1, 4, 5, 5])},
        ),
        "it cannot be run on its own: the unfolded model does not run",
    ),
    "a branch that gives nothing finite": (
        lambda: model(
            graph(
                "p = Constant <value = bool {0}> ()"
                + gate(
                    f"k = Sub (h, h)  d = Div (k, k)  c = Conv <pads=[1,1,1,1]> (d, w)"
                    f"  m = {BN} (c, {PARAMETERS})  e1 = Tanh (m)",
                    result="y",
                )
            ),
            WEIGHTS,
        ),
        "nowhere finite",
    ),
    "a loop over a sequence": (
        lambda: model(
            f"""g ({IMAGE} x) => ({IMAGE} y) {{
                none = SequenceConstruct (x)
                all = Loop (trips, , none) <body = b (int64 i, bool go, seq({IMAGE}) s)
                    => (bool on, seq({IMAGE}) out) {{
                    on = Identity (go)  e = SequenceAt (s, i)
                    c = Conv <pads=[1,1,1,1]> (e, w)  m = {BN} (c, {PARAMETERS})  t = Tanh (m)
                    out = SequenceInsert (s, t) }}>
                y = SequenceAt (all, trips) }}""",
            {**WEIGHTS, "trips": np.array(1, np.int64)},
        ),
        "it is given 's', which is no tensor",
    ),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_what_cannot_be_run_on_its_own_is_named_with_the_reason(tmp_path: Path, name: str) -> None:
    """It is proven through the outputs alone, and that is no failure."""
    make, why = UNSEEN[name]
    onnx.save(make(), tmp_path / "m.onnx")
    done = convert(tmp_path / "m.onnx", tmp_path / "folded.onnx")
    assert done.proof is not None and done.proof.passed and done.proof.sites == ()
    (unseen,) = done.proof.unseen
    assert why in unseen.why
    jsonschema.validate(done.json, SCHEMA)
    assert why in done.json["proof"]["not_observable"][0]["why"]
    assert "Not compared on their own" in html_report(done, (1, 1))


def test_a_folded_body_that_does_not_run_is_an_error(tmp_path: Path) -> None:
    """The unfolded one does, so folding broke it, taken branch or not."""
    folded = fold(branch()).proto
    (body,) = (each for each in bodies(folded) if any(node.op_type == "Conv" for node in each.node))
    conv = next(node for node in body.node if node.op_type == "Conv")
    bias = next(tensor for tensor in body.initializer if tensor.name == conv.input[2])
    bias.CopyFrom(onnx.numpy_helper.from_array(np.zeros(3, np.float32), bias.name))
    with pytest.raises(ProofError, match=r"in if 'gate'/then_branch: the folded model does not run"):
        proof_of(branch(), folded, tmp_path)


def test_a_body_that_is_missing_is_said_to_be(tmp_path: Path) -> None:
    """Two files that compute the same need not have the same bodies."""
    plain = model(graph("y = Identity (h)"))
    proof = proof_of(branch(), plain, tmp_path)
    assert proof.passed
    assert [each.why for each in proof.unseen] == ["the folded model has no such body"]
