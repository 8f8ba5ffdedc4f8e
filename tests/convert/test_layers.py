"""The user's own layers found again in an exported graph, and the error at each step from the framework."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from graphs import model, normal
from infold.convert.behaviour import check_behaviour
from infold.convert.framework_proof import check_export, compare_steps
from infold.convert.frontends import onnx as onnx_frontend
from infold.convert.frontends.exported import Answer, Call, Convention, Framework, Norm, Request
from infold.convert.frontends.formats import Format
from infold.convert.frontends.onnx import Source
from infold.convert.layers import find_layers
from infold.convert.pipeline import fold_source
from infold.convert.side_by_side import run_inside
from infold.errors import ProofError
from infold.tensors import Array, Tensors

RNG = np.random.default_rng(7)


def a_norm(layer: str, channels: int = 3, seed: int = 0) -> Norm:
    rng = np.random.default_rng(seed)
    gamma, beta, mean, variance = rng.uniform(0.5, 2.0, (4, channels))
    return Norm(layer, "Norm", -1, 1e-3, 0.99, Convention.OF_THE_OLD, True, gamma, beta, mean, variance)


def written_out(norm: Norm, shape: Sequence[int] = (-1,)) -> dict[str, Array]:
    """Sub, Mul, Add: the constants of a norm."""
    assert norm.mean is not None
    assert norm.variance is not None
    numbers = (norm.mean, norm.gamma / np.sqrt(norm.variance + norm.epsilon), norm.beta)
    keys = (f"{norm.layer}_{part}" for part in ("m", "s", "b"))
    return {key: each.reshape(shape).astype(np.float32) for key, each in zip(keys, numbers, strict=True)}


def apply(norm: Norm, x: Array) -> Array:
    """The norm on the last axis, as a framework computes it."""
    assert norm.mean is not None
    assert norm.variance is not None
    scale = norm.gamma / np.sqrt(norm.variance + norm.epsilon)
    return np.asarray((x.astype(np.float64) - norm.mean) * scale + norm.beta, np.float32)


A, B = a_norm("block/bn1", seed=1), a_norm("block/bn2", seed=2)


def two_norms() -> onnx.ModelProto:
    """Dense, norm, relu, norm: nothing in the graph bears the layers' names."""
    return model(
        """g (float[N,3] x) => (float[N,3] y) {
            h = MatMul (x, w)
            a0 = Sub (h, am)
            a1 = Mul (a0, as)
            a2 = Add (a1, ab)
            r = Relu (a2)
            b0 = Sub (r, bm)
            b1 = Mul (b0, bs)
            y = Add (b1, bb) }""",
        {
            "w": normal(3, 3, seed=3),
            **{f"a{k[-1]}": v for k, v in written_out(A).items()},
            **{f"b{k[-1]}": v for k, v in written_out(B).items()},
        },
    )


def source(
    proto: onnx.ModelProto, norms: Sequence[Norm], outputs: Mapping[str, Array], calls: Sequence[Call]
) -> Source:
    samples = {"x": normal(6, 3, seed=4)}
    framework = Framework("numpy 2", Format.KERAS, tuple(norms), (), samples, Answer(outputs, tuple(calls)))
    return replace(onnx_frontend.in_memory(proto), framework=framework)


def two_layers(off: float = 0.0) -> Source:
    """The two norms with what the framework computed; `off` is added to all from the second on."""
    x, w = normal(6, 3, seed=4), normal(3, 3, seed=3)
    first = apply(A, x @ w)
    second = apply(B, np.maximum(first, 0)) + np.float32(off)
    return source(two_norms(), [A, B], {"y": second}, [Call(0, first), Call(1, second)])


def test_a_layer_is_found_by_what_it_computes() -> None:
    """And reports speak of it by the name it has in the user's own model."""
    marked, layers, outputs = find_layers(two_layers())
    assert [(each.name, each.value) for each in layers] == [("block/bn1", "a2"), ("block/bn2", "y")]
    assert all(each.error < 1e-6 for each in layers)
    assert set(outputs) == {"y"}
    _, _, report = fold_source(marked)
    assert [each.site for each in report.norms] == ["block/bn1", "block/bn2"]
    assert [each.layer for each in report.norms] == ["block/bn1", "block/bn2"]


def test_two_layers_in_a_row_stay_two() -> None:
    """A written-out chain ends where a layer does, whatever follows."""
    text = """g (float[N,3] x) => (float[N,3] y) {
        h = MatMul (x, w)
        a0 = Sub (h, am) a1 = Mul (a0, as) a2 = Add (a1, ab)
        b0 = Sub (a2, bm) b1 = Mul (b0, bs) y = Add (b1, bb) }"""
    weights = {
        "w": normal(3, 3, seed=3),
        **{f"a{k[-1]}": v for k, v in written_out(A).items()},
        **{f"b{k[-1]}": v for k, v in written_out(B).items()},
    }
    first = apply(A, normal(6, 3, seed=4) @ normal(3, 3, seed=3))
    second = apply(B, first)
    opened = source(model(text, weights), [A, B], {"y": second}, [Call(0, first), Call(1, second)])
    _, _, report = fold_source(find_layers(opened)[0])
    assert [(each.site, each.outcome) for each in report.norms] == [
        ("block/bn1", "folded"),
        ("block/bn2", "folded"),
    ]


def test_every_use_of_a_shared_layer_has_a_name() -> None:
    """The second use counts up."""
    text = """g (float[N,3] x) => (float[N,3] y, float[N,3] z) {
        a0 = Sub (x, am) a1 = Mul (a0, as) y = Add (a1, ab)
        n = Neg (x)
        c0 = Sub (n, am) c1 = Mul (c0, as) z = Add (c1, ab) }"""
    x = normal(6, 3, seed=4)
    first, second = apply(A, x), apply(A, -x)
    proto = model(text, {f"a{k[-1]}": v for k, v in written_out(A).items()})
    opened = source(proto, [A], {"y": first, "z": second}, [Call(0, first), Call(0, second)])
    _, layers, _ = find_layers(opened)
    assert [(each.name, each.value) for each in layers] == [("block/bn1", "y"), ("block/bn1:2", "z")]


def test_equal_values_go_to_their_layers_in_order() -> None:
    """Two uses on the same data cannot be told apart, so each gets one."""
    text = """g (float[N,3] x) => (float[N,3] y, float[N,3] z) {
        a0 = Sub (x, am) a1 = Mul (a0, as) y = Add (a1, ab)
        c0 = Sub (x, am) c1 = Mul (c0, as) z = Add (c1, ab) }"""
    first = apply(A, normal(6, 3, seed=4))
    proto = model(text, {f"a{k[-1]}": v for k, v in written_out(A).items()})
    opened = source(proto, [A], {"y": first, "z": first}, [Call(0, first), Call(0, first)])
    _, layers, _ = find_layers(opened)
    assert [each.value for each in layers] == ["y", "z"]


def test_a_layer_ends_where_its_value_comes_last() -> None:
    """A norm without beta adds zeros: the site is the whole of it, not half."""
    text = """g (float[N,3] x) => (float[N,3] y) {
        h = MatMul (x, w)
        a0 = Sub (h, am) a1 = Mul (a0, as) a2 = Add (a1, zero) y = Relu (a2) }"""
    bare = replace(A, beta=np.zeros(3))
    weights = {f"a{k[-1]}": v for k, v in written_out(bare).items()}
    first = apply(bare, normal(6, 3, seed=4) @ normal(3, 3, seed=3))
    proto = model(text, {"w": normal(3, 3, seed=3), "zero": np.zeros(3, np.float32), **weights})
    opened = source(proto, [bare], {"y": np.maximum(first, 0)}, [Call(0, first)])
    marked, (layer,), _ = find_layers(opened)
    assert layer.value == "a2"
    assert [each.site for each in fold_source(marked)[2].norms] == ["block/bn1"]


def test_a_layer_is_found_in_the_other_layout() -> None:
    """The framework has channels last, the graph has them first."""
    text = """g (float[N,4,3] x) => (float[N,3,4] y) {
        t = Transpose <perm=[0,2,1]> (x)
        a0 = Sub (t, am) a1 = Mul (a0, as) y = Add (a1, ab) }"""
    x = normal(2, 4, 3, seed=5)
    want = apply(A, x)
    proto = model(text, {f"a{k[-1]}": v for k, v in written_out(A, (3, 1)).items()})
    answer = Answer({"y": np.moveaxis(want, -1, 1)}, (Call(0, want),))
    framework = Framework("numpy 2", Format.KERAS, (A,), (), {"x": x}, answer)
    _, (layer,), _ = find_layers(replace(onnx_frontend.in_memory(proto), framework=framework))
    assert layer.value == "y"
    assert layer.error < 1e-6


def test_without_values_a_layer_is_found_by_its_statistics() -> None:
    """The only BatchNormalization with that very mean and variance."""
    norms = [a_norm("a", seed=1), a_norm("b", seed=2)]
    weights = {}
    for name, norm in zip("pq", norms, strict=True):
        assert norm.mean is not None
        assert norm.variance is not None
        parts = {"g": norm.gamma, "b": norm.beta, "m": norm.mean, "v": norm.variance}
        weights |= {name + key: each.astype(np.float32) for key, each in parts.items()}
    text = """g (float[N,3] x) => (float[N,3] y) {
        h = BatchNormalization (x, qg, qb, qm, qv)
        y = BatchNormalization (h, pg, pb, pm, pv) }"""
    proto = model(text, weights)
    opened = source(proto, norms, {"y": normal(6, 3)}, [])
    _, layers, _ = find_layers(opened)
    assert {each.name: each.value for each in layers} == {"a": "y", "b": "h"}


def test_an_export_that_is_off_names_the_first_layer_that_differs() -> None:
    """The framework's second norm gave something else."""
    marked, layers, outputs = find_layers(two_layers(off=0.5))
    assert marked.framework is not None
    with pytest.raises(ProofError, match=r"already differs from numpy 2: output 'y' .*'block/bn2'") as off:
        check_export(marked.framework, layers, outputs, marked.proto.graph)
    assert off.value.site == "block/bn2"


def test_an_export_that_is_right_passes() -> None:
    """And every step is measured."""
    marked, layers, outputs = find_layers(two_layers())
    framework = marked.framework
    assert framework is not None
    check_export(framework, layers, outputs, marked.proto.graph)
    steps = compare_steps(framework, layers, outputs, outputs, marked.proto.graph)
    (each,) = steps.outputs
    assert each.unfolded == each.folded < 1e-6
    assert each.allowed == 1e-4
    assert steps.passed


def test_folding_may_be_off_by_ten_times_the_export() -> None:
    """An ill-conditioned network is not folding's fault; more than that is."""
    marked, layers, _ = find_layers(two_layers())
    framework = marked.framework
    assert framework is not None
    want = framework.answer.outputs["y"]
    scale = np.float32(np.abs(want).max())
    graph = marked.proto.graph
    for folded, passed in ((1.9e-3, True), (2.1e-3, False)):
        steps = compare_steps(
            framework,
            layers,
            {"y": want + scale * np.float32(2e-4)},
            {"y": want + scale * np.float32(folded)},
            graph,
        )
        assert steps.passed is passed
    assert "output 'y' is off by 0.0021 (allowed 0.002)" in steps.failure()


def test_a_softmax_is_compared_by_its_logits() -> None:
    """Probabilities of 1 and 1e-20 hide any error of the small one."""
    proto = model("g (float[N,3] x) => (float[N,3] y) { y = Softmax (x) }", {})
    want = np.array([[1.0, 1e-20, 1e-10]], np.float32)
    got = np.array([[1.0, 1e-10, 1e-10]], np.float32)
    framework = Framework("numpy 2", Format.KERAS, (), (), {}, Answer({"y": want}))
    with pytest.raises(ProofError, match="output 'y' is off"):
        check_export(framework, (), {"y": got}, proto.graph)


def test_a_model_that_draws_at_random_is_refused() -> None:
    """Live dropout gives another answer every time."""
    proto = model("g (float[N,3] x) => (float[N,3] y) { r = RandomNormalLike (x) y = Add (x, r) }", {})
    opened = onnx_frontend.in_memory(proto)
    samples = {"x": normal(4, 3)}
    outputs = run_inside(proto, opened.folder, (), samples)
    with pytest.raises(ProofError, match="output 'y' is different every time the model runs"):
        check_behaviour(proto, opened.folder, samples, outputs)


def test_batch_statistics_that_survived_an_export_are_told() -> None:
    """A row alone gets another answer than among others; an ordinary model's does not."""
    batch = "g (float[N,3] x) => (float[N,3] y) { m = ReduceMean <axes=[0]> (x) y = Sub (x, m) }"
    plain = "g (float[N,3] x) => (float[N,3] y) { y = Neg (x) }"
    samples = {"x": normal(4, 3)}
    found = []
    for text in (batch, plain):
        proto = model(text, {})
        opened = onnx_frontend.in_memory(proto)
        outputs = run_inside(proto, opened.folder, (), samples)
        found.append(check_behaviour(proto, opened.folder, samples, outputs))
    assert "output 'y' of a row changes with the other rows of its batch" in found[0][0]
    assert found[1] == ()


def behaviour(text: str, arrays: dict[str, Array], samples: Tensors) -> tuple[str, ...]:
    """What is told of a model."""
    proto = model(text, arrays)
    opened = onnx_frontend.in_memory(proto)
    return check_behaviour(proto, opened.folder, samples, run_inside(proto, opened.folder, (), samples))


def test_an_open_batch_that_takes_no_row_alone_is_refused() -> None:
    """An export that has the batch it saw inside: declared open, works for that number only."""
    text = "g (float[N,3] x) => (float[4,3] y) { r = Reshape (x, s) y = Neg (r) }"
    shape = {"s": np.array([4, 3], np.int64)}
    with pytest.raises(ProofError, match="fails on one row alone, although it runs on 4"):
        behaviour(text, shape, {"x": normal(4, 3)})


def test_an_output_that_has_its_rows_whatever_goes_in_is_told() -> None:
    """A batch fixed by broadcasting; an output with several rows for each of the input is none."""
    text = "g (float[N,3] x) => (float[4,3] y) { y = Add (x, zero) }"
    (note,) = behaviour(text, {"zero": np.zeros((4, 3), np.float32)}, {"x": normal(4, 3)})
    assert note.startswith("output 'y' has 4 rows when 4 go in and 4 when one does")
    text = "g (float[N,4] x) => (float[M,2] y) { y = Reshape (x, s) }"
    assert behaviour(text, {"s": np.array([-1, 2], np.int64)}, {"x": normal(4, 4)}) == ()


def test_what_a_framework_said_survives_the_way_back(tmp_path: Path) -> None:
    """Requests and answers cross between processes as JSON and .npy."""
    framework = two_layers().framework
    assert framework is not None
    framework.save(tmp_path)
    back = Framework.load(tmp_path)
    assert (back.name, back.format, back.notes) == (framework.name, framework.format, framework.notes)
    for ours, theirs in zip(back.norms, framework.norms, strict=True):
        assert ours.layer == theirs.layer
        assert ours.convention is theirs.convention
        np.testing.assert_array_equal(ours.gamma, theirs.gamma)
    np.testing.assert_array_equal(back.answer.calls[1].value, framework.answer.calls[1].value)
    request = Request("m.keras", Format.KERAS, samples=Path("s.npz"), shapes={"": (1, 3)})
    assert Request.parse(request.dump()) == request
