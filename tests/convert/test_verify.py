"""The proof, put to the proof: planted errors are found and named, honest rounding passes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from graphs import fold, model, norm, normal
from infold.convert import Sampling, verify
from infold.convert.side_by_side import OnnxRuntime
from infold.convert.verify import Proof
from infold.errors import ProofError

CHANNELS = 64
F32 = NDArray[np.float32]
BN = "BatchNormalization <epsilon=0.001>"


def network() -> onnx.ModelProto:
    """Three layers with a norm each: convolution, convolution, dense."""
    weights = {
        "w1": normal(CHANNELS, 3, 3, 3, seed=1) / 5,
        "w2": normal(CHANNELS, CHANNELS, 1, 1, seed=2) / 8,
        "w3": normal(CHANNELS, CHANNELS, seed=3) / 8,
    }
    for layer in (1, 2, 3):
        weights |= {f"{name}{layer}": array for name, array in norm(CHANNELS, layer).items()}

    def parameters(layer: int) -> str:
        return ", ".join(f"{name}{layer}" for name in ("gamma", "beta", "mean", "variance"))

    return model(
        f"""g (float[N,3,6,6] x) => (float[N,{CHANNELS}] y) {{
            [conv1] c1 = Conv <pads=[1,1,1,1]> (x, w1)  [bn1] n1 = {BN} (c1, {parameters(1)})
            r1 = Relu (n1)
            [conv2] c2 = Conv (r1, w2)  [bn2] n2 = {BN} (c2, {parameters(2)})
            r2 = Relu (n2)  p = GlobalAveragePool (r2)  f = Flatten (p)
            [dense] h = Gemm (f, w3)  [bn3] n3 = {BN} (h, {parameters(3)})
            y = Relu (n3) }}""",
        weights,
    )


def planted(layer: int, change: Callable[[F32], Any], *, bias: bool = False) -> onnx.ModelProto:
    """The folded network with one layer's weight or bias edited in place."""
    folded = fold(network()).proto
    node = [each for each in folded.graph.node if each.op_type in ("Conv", "Gemm")][layer - 1]
    name = node.input[2 if bias else 1]
    tensor = next(each for each in folded.graph.initializer if each.name == name)
    array = onnx.numpy_helper.to_array(tensor).copy()
    change(array)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, name))
    return folded


def proof_of(unfolded: onnx.ModelProto, folded: onnx.ModelProto, folder: Path, **sampling: Any) -> Proof:
    paths = folder / "unfolded.onnx", folder / "folded.onnx"
    for path, proto in zip(paths, (unfolded, folded), strict=True):
        path.write_bytes(proto.SerializeToString())
    return verify(*paths, Sampling(**sampling))[1]


def test_honest_rounding_passes(tmp_path: Path) -> None:
    """Every site and every output is within its bound, and not merely just."""
    proof = proof_of(network(), fold(network()).proto, tmp_path)
    assert proof.passed
    assert [site.site for site in proof.sites] == ["bn1", "bn2", "bn3"]
    assert [site.fan_in for site in proof.sites] == [27, CHANNELS, CHANNELS]
    for site in proof.sites:
        assert 0 < site.comparison.max_abs < site.comparison.bound
        assert site.comparison.bound < 1e-3 * 30, "a bound that allows visible errors proves nothing"


def flip_one_element(w: F32) -> None:
    place = np.unravel_index(np.abs(w).argmax(), w.shape)
    w[place] = -w[place]


def negate_channel(w: F32) -> None:
    w[17] = -w[17]


def swap_channels(w: F32) -> None:
    w[[3, 4]] = w[[4, 3]]


def scale_wrong_axis(w: F32) -> None:
    w[:, 1] *= np.float32(1.01)


def reverse_inputs(w: F32) -> None:
    w[...] = w[:, ::-1]


def nudge_channel(w: F32) -> None:
    w[63] *= np.float32(1.001)


WEIGHT_ERRORS = [
    (flip_one_element, 1),
    (negate_channel, 1),
    (negate_channel, 3),
    (swap_channels, 2),
    (scale_wrong_axis, 3),
    (reverse_inputs, 2),
    (nudge_channel, 2),
]


@pytest.mark.parametrize(("error", "layer"), WEIGHT_ERRORS, ids=lambda each: getattr(each, "__name__", each))
def test_a_planted_weight_error_is_found_where_it_is(
    tmp_path: Path, error: Callable[[F32], None], layer: int
) -> None:
    """One sign, one channel of 64, two swapped, one axis mixed up: the first site off is the culprit."""
    if layer == 3:  # the dense layer stores inputs first
        proof = proof_of(network(), planted(layer, lambda w: error(w.T)), tmp_path)
    else:
        proof = proof_of(network(), planted(layer, error), tmp_path)
    assert not proof.passed
    assert proof.first_off is not None and proof.first_off.site == f"bn{layer}"
    assert f"'bn{layer}'" in proof.failure()


def test_a_planted_bias_error_is_found_where_it_is(tmp_path: Path) -> None:
    """A shift with the wrong sign on one channel."""

    def negate_largest(b: F32) -> None:
        b[np.abs(b).argmax()] *= -1

    proof = proof_of(network(), planted(2, negate_largest, bias=True), tmp_path)
    assert proof.first_off is not None and proof.first_off.site == "bn2"


def test_a_forgotten_epsilon_is_found(tmp_path: Path) -> None:
    """Folding with epsilon 0 instead of 0.001 is off by half a thousandth: far beyond rounding."""
    wrong = network()
    for node in wrong.graph.node:
        if node.name == "bn2":
            node.attribute[0].f = 0.0
    proof = proof_of(network(), fold(wrong).proto, tmp_path)
    assert proof.first_off is not None and proof.first_off.site == "bn2"


def test_a_difference_that_is_not_finite_is_found(tmp_path: Path) -> None:
    """NaN on one side only is infinitely far off."""

    def poison(b: F32) -> None:
        b[5] = np.nan

    proof = proof_of(network(), planted(2, poison, bias=True), tmp_path)
    assert not proof.passed
    assert proof.first_off is not None and proof.first_off.site == "bn2"


def rows_of_norms(last_beta: float = 0.0, *, kind: str = "float") -> onnx.ModelProto:
    """Two norms in a row and no linear op to take them; the second adds so much to its last channel."""
    dtype = {"float": "float32", "float16": "float16", "double": "float64"}[kind]
    second = norm(4, seed=1, dtype=dtype, prefix="s_")
    second["s_beta"][3] += np.asarray(last_beta, dtype)
    return model(
        f"""g ({kind}[N,4,6,6] x) => ({kind}[N,4,6,6] y) {{
            h = Relu (x)
            [first] a = {BN} (h, gamma, beta, mean, variance)
            [second] b = {BN} (a, s_gamma, s_beta, s_mean, s_variance)  y = Tanh (b) }}""",
        {**norm(4, dtype=dtype), **second},
    )


@pytest.mark.parametrize("kind", ["float", "float16", "double"])
def test_two_norms_that_became_one_give_no_false_alarm(tmp_path: Path, kind: str) -> None:
    """No weight absorbed them, so no sum explains the difference; their own operations do."""
    proof = proof_of(rows_of_norms(kind=kind), fold(rows_of_norms(kind=kind)).proto, tmp_path)
    assert proof.passed, proof.failure()
    (site,) = proof.sites
    assert 0 < site.comparison.exceeded < 0.9
    assert site.comparison.bound < {"float": 1e-4, "float16": 1e-1, "double": 1e-12}[kind]


@pytest.mark.parametrize(("kind", "error"), [("float", 1e-3), ("float16", 0.5), ("double", 1e-11)])
def test_an_error_in_two_norms_that_became_one_is_found(tmp_path: Path, kind: str, error: float) -> None:
    """One channel of the merged norm is off."""
    proof = proof_of(rows_of_norms(kind=kind), fold(rows_of_norms(error, kind=kind)).proto, tmp_path)
    assert proof.first_off is not None and proof.first_off.site == "first"


def test_norms_that_meet_behind_a_fold_inherit_its_error(tmp_path: Path) -> None:
    """What comes in from above is not laid at their door, however much they enlarge it."""

    def graph(nudge: float) -> onnx.ModelProto:
        weights = {"w": normal(4, 8, 3, 3, seed=5) / 8 * np.float32(nudge), **norm(4)}
        weights |= norm(4, 1, prefix="s_") | norm(4, 2, prefix="t_")
        return model(
            f"""g (float[N,8,8,8] x) => (float[N,4,6,6] y) {{
                c = Conv (x, w)  n = {BN} (c, t_gamma, t_beta, t_mean, t_variance)  h = Sigmoid (n)
                a = {BN} (h, gamma, beta, mean, variance)
                b = {BN} (a, s_gamma, s_beta, s_mean, s_variance)  y = Sigmoid (b) }}""",
            weights,
        )

    assert proof_of(graph(1), fold(graph(1)).proto, tmp_path).passed
    proof = proof_of(graph(1), fold(graph(1.01)).proto, tmp_path)
    assert {site.site: site.comparison.passed for site in proof.sites} == {"n": False, "a": True}


def test_looking_at_one_norm_at_a_time_finds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values are asked for in windows to save memory; how many make no difference to what is found."""
    wrong = planted(2, negate_channel)
    whole = proof_of(network(), wrong, tmp_path)
    runs = []
    run = OnnxRuntime.run

    def counted(self: OnnxRuntime, sides: Any, samples: Any) -> Any:
        runs.append([len(names) for _, names in sides])
        return run(self, sides, samples)

    monkeypatch.setattr(OnnxRuntime, "window_bytes", 1)
    monkeypatch.setattr(OnnxRuntime, "run", counted)
    single = proof_of(network(), wrong, tmp_path)
    assert len(runs) == 4, "the outputs, then one norm after another"
    assert [site.comparison for site in single.sites] == [site.comparison for site in whole.sites]
    assert single.outputs == whole.outputs and single.failure() == whole.failure()


def test_nothing_is_left_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither after a proof that passed nor after one that could not be run."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    proof = proof_of(network(), fold(network()).proto, tmp_path)
    assert proof.passed and proof.results["y"].any() and list(scratch.iterdir()) == []
    stuck = model("g (float[N,4] x) => (float[N,4] y) { y = Reshape (x, s) }", {"s": np.array([-1, 3])})
    with pytest.raises(ProofError):
        proof_of(stuck, stuck, tmp_path)
    assert list(scratch.iterdir()) == []


def test_an_error_outside_the_sites_is_found_at_the_output(tmp_path: Path) -> None:
    """What no folded norm sees, the outputs do."""
    text = "g (float[N,4] x) => (float[N,4] y) { y = Mul (x, k) }"
    right = model(text, {"k": np.ones(4, np.float32)})
    wrong = model(text, {"k": np.array([1, 1, 1, 1 + 1e-5], np.float32)})
    proof = proof_of(right, wrong, tmp_path)
    assert not proof.passed and proof.sites == ()
    assert "output 'y' is off" in proof.failure()


def test_an_oracle_with_float64_finds_errors_of_float32(tmp_path: Path) -> None:
    """A double precision model is held to double precision: 1e-9 is an error there."""

    def graph(factor: float) -> onnx.ModelProto:
        return model(
            f"""g (double[N,3] x) => (double[N,4] y) {{
                h = Gemm (x, w)  [bn] y = {BN} (h, gamma, beta, mean, variance) }}""",
            {"w": normal(3, 4, dtype="float64") * factor, **norm(4, dtype="float64")},
        )

    assert proof_of(graph(1), fold(graph(1)).proto, tmp_path).passed
    proof = proof_of(graph(1), fold(graph(1 + 1e-9)).proto, tmp_path)
    assert proof.first_off is not None and proof.first_off.site == "bn"


def test_float64_numbers_beyond_float32_are_still_compared(tmp_path: Path) -> None:
    """Magnitudes above 3e38 must not make the bound infinite."""

    def graph(sign: float) -> onnx.ModelProto:
        return model(
            f"""g (double[N,3] x) => (double[N,4] y) {{
                h = Gemm (x, w)  [bn] y = {BN} (h, gamma, beta, mean, variance) }}""",
            {"w": sign * 1e60 * normal(3, 4, dtype="float64"), **norm(4, dtype="float64")},
        )

    assert proof_of(graph(1), fold(graph(1)).proto, tmp_path).passed
    assert not proof_of(graph(1), fold(graph(-1)).proto, tmp_path).passed


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_a_deep_network_gives_no_false_alarm(tmp_path: Path, dtype: str) -> None:
    """Thirty dense layers with norms: rounding adds up along the way, and is expected to."""
    kind = {"float32": "float", "float16": "float16", "float64": "double"}[dtype]
    lines, weights, last = [], {}, "x"
    for layer in range(30):
        weights[f"w{layer}"] = (normal(16, 16, seed=layer, dtype="float64") / 4).astype(dtype)
        weights |= {f"{name}{layer}": array for name, array in norm(16, layer, dtype).items()}
        parameters = ", ".join(f"{name}{layer}" for name in ("gamma", "beta", "mean", "variance"))
        lines.append(f"h{layer} = Gemm ({last}, w{layer})  n{layer} = {BN} (h{layer}, {parameters})")
        lines.append(f"t{layer} = Tanh (n{layer})")
        last = f"t{layer}"
    text = f"g ({kind}[N,16] x) => ({kind}[N,16] y) {{ {' '.join(lines)} y = Identity ({last}) }}"
    proto = model(text, weights)
    assert proof_of(proto, fold(proto).proto, tmp_path).passed


def test_large_means_that_cancel_give_no_false_alarm(tmp_path: Path) -> None:
    """A norm that subtracts a mean of a thousand from data around a thousand loses digits by itself."""
    numbers = norm(4) | {"mean": np.full(4, 1000, np.float32), "variance": np.full(4, 1e-3, np.float32)}
    proto = model(
        f"""g (float[N,3] x) => (float[N,4] y) {{
            h = Gemm (x, w, b)  y = {BN} (h, gamma, beta, mean, variance) }}""",
        {"w": normal(3, 4), "b": np.full(4, 1000, np.float32), **numbers},
    )
    assert proof_of(proto, fold(proto).proto, tmp_path).passed


def test_rounding_alone_is_not_called_an_error_in_reordered_sums(tmp_path: Path) -> None:
    """The same dense layer as MatMul and Add, and as Gemm, agree."""
    weights = {"w": normal(300, 8), "b": normal(8)}
    separate = "g (float[N,300] x) => (float[N,8] y) { h = MatMul (x, w)  y = Add (h, b) }"
    together = "g (float[N,300] x) => (float[N,8] y) { y = Gemm (x, w, b) }"
    proof = proof_of(model(separate, weights), model(together, weights), tmp_path)
    assert proof.outputs[0].cosine is not None and proof.outputs[0].cosine > 1 - 1e-6
    assert proof.outputs[0].argmax_agreement == 1.0


def test_class_agreement_is_counted(tmp_path: Path) -> None:
    """Two networks that answer alike on three rows of four."""
    text = "g (float[N,2] x) => (float[N,2] y) { y = Mul (x, k) }"
    np.savez(tmp_path / "s.npz", x=np.array([[2, 1], [1, 2], [3, 1], [1.0, 1.5]], np.float32))
    proof = proof_of(
        model(text, {"k": np.ones(2, np.float32)}),
        model(text, {"k": np.array([1, 0.6], np.float32)}),
        tmp_path,
        file=tmp_path / "s.npz",
    )
    assert proof.outputs[0].argmax_agreement == 0.75
    assert proof.rows == 4


def test_channels_of_very_different_size_may_be_shuffled(tmp_path: Path) -> None:
    """Behind a channel shuffle an element's bound is not the one of the place it came from."""
    rng = np.random.default_rng(0)
    weight = (rng.normal(size=(12, 4, 3, 3)) * np.exp(rng.uniform(-4, 4, (12, 1, 1, 1)))).astype(np.float32)
    proto = model(
        """g (float[2,4,8,8] x) => (float[2,12,8,8] y) {
            a = Conv <pads=[1,1,1,1]> (x, w)
            p = Reshape (a, split)  q = Transpose <perm=[0,2,1,3,4]> (p)  r = Reshape (q, merge)
            n = BatchNormalization (r, gamma, beta, mean, variance)  y = Relu (n) }""",
        {"w": weight, "split": np.array([2, 3, 4, 8, 8]), "merge": np.array([2, 12, 8, 8]), **norm(12)},
    )
    proof = proof_of(proto, fold(proto).proto, tmp_path)
    assert proof.passed
    assert proof.sites[0].comparison.exceeded < 0.5


def test_what_comes_in_from_above_is_allowed_below_a_pool(tmp_path: Path) -> None:
    """A norm folded across a pool reads data of a new meaning, and inherits its error all the same."""
    proto = model(
        """g (float[N,4,12,12] x) => (float[N,5] y) {
            a = Conv (x, w)  b = BatchNormalization (a, gamma, beta, mean, variance)
            t = Tanh (b)
            c = BatchNormalization (t, h_gamma, h_beta, h_mean, h_variance)
            p = GlobalAveragePool (c)  f = Flatten (p)  y = Gemm (f, v) }""",
        {
            "w": normal(8, 4, 3, 3),
            "v": normal(8, 5, seed=1),
            **norm(8),
            **norm(8, seed=2, prefix="h_"),
        },
    )
    proof = proof_of(proto, fold(proto).proto, tmp_path)
    assert proof.passed
    assert len(proof.sites) == 2


def test_models_of_different_rank_are_no_pair(tmp_path: Path) -> None:
    """Said before anything runs, with both interfaces."""
    one, other = tmp_path / "one.onnx", tmp_path / "other.onnx"
    onnx.save(model("g (float[N,4] x) => (float[N,4] y) { y = Relu (x) }"), one)
    onnx.save(model("g (float[N,4,1] x) => (float[N,4,1] y) { y = Relu (x) }"), other)
    with pytest.raises(ProofError, match="the inputs differ"):
        verify(one, other)
