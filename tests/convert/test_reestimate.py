"""Moving statistics taken anew from samples, each norm fed by those before it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from graphs import model, norm, normal
from infold.convert import Convention, Momentum, convert, inspect, reestimate
from infold.convert.calibration import Calibration
from infold.convert.frontends import onnx as onnx_frontend
from infold.convert.norms import find_places
from infold.convert.reestimate import _Sweep
from infold.errors import SamplesError, SourceError, TargetError
from infold.tensors import Array
from oracle import run


def stacked(**changes: Array) -> onnx.ModelProto:
    """Conv, norm, relu, conv, norm with statistics that fit nothing."""
    weights = {"w": normal(4, 3, 3, 3), "v": normal(4, 4, 1, 1, seed=1)}
    weights |= norm(4, prefix="p_") | norm(4, seed=1, prefix="q_") | changes
    return model(
        """g (float[N,3,5,5] x) => (float[N,4,3,3] y) {
            h = Conv (x, w)
            [bn1] a = BatchNormalization <epsilon=0.001> (h, p_gamma, p_beta, p_mean, p_variance)
            r = Relu (a)
            k = Conv (r, v)
            [bn2] y = BatchNormalization <epsilon=0.001> (k, q_gamma, q_beta, q_mean, q_variance) }""",
        weights,
    )


def prepared(tmp_path: Path, proto: onnx.ModelProto, **more: Array) -> tuple[Path, Path, Array]:
    """The model and 40 samples as files."""
    source, file = tmp_path / "source.onnx", tmp_path / "samples.npz"
    source.write_bytes(proto.SerializeToString())
    x = np.asarray(normal(40, 3, 5, 5, seed=9) * 2 + 1, np.float32)
    np.savez(file, x=x, **more)  # type: ignore[arg-type]  # its stub takes bool only
    return source, file, x


def initializers(path: Path) -> dict[str, Array]:
    proto = onnx.load(str(path))
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def statistics(path: Path, index: int) -> tuple[Array, Array]:
    """Mean and variance of the index-th norm of a file."""
    proto, held = onnx.load(str(path)), initializers(path)
    node = [node for node in proto.graph.node if node.op_type == "BatchNormalization"][index]
    return held[node.input[3]], held[node.input[4]]


def value(proto: onnx.ModelProto, name: str, x: Array) -> Array:
    """An inner value of a model."""
    shown = onnx.ModelProto()
    shown.CopyFrom(proto)
    shown.graph.output.append(onnx.ValueInfoProto(name=name))
    return run(shown, {"x": x})[-1]


def test_each_norm_gets_the_moments_of_what_it_sees(tmp_path: Path) -> None:
    """The second one sees what the first gives with its new statistics."""
    source, file, x = prepared(tmp_path, stacked())
    done = reestimate(source, tmp_path / "new.onnx", file, batch_rows=7)
    assert [each.name for each in done.moved] == ["bn1", "bn2"]
    new = onnx.load(str(tmp_path / "new.onnx"))
    for index, seen in enumerate(("h", "k")):
        data = value(new, seen, x).astype(np.float64)
        mean, variance = statistics(tmp_path / "new.onnx", index)
        np.testing.assert_allclose(mean, data.mean(axis=(0, 2, 3)), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(variance, data.var(axis=(0, 2, 3)), rtol=1e-5)
    assert done.rows == 40
    assert done.moved[0].count == 40 * 9


def test_after_it_a_norm_gives_beta_and_gamma_as_moments(tmp_path: Path) -> None:
    """What batch normalization is for: mean beta, deviation |gamma|."""
    source, file, x = prepared(tmp_path, stacked())
    reestimate(source, tmp_path / "new.onnx", file)
    y = run(onnx.load(str(tmp_path / "new.onnx")), {"x": x})[0].astype(np.float64)
    np.testing.assert_allclose(y.mean(axis=(0, 2, 3)), norm(4, seed=1)["beta"], atol=1e-5)
    deviation = np.abs(norm(4, seed=1)["gamma"].astype(np.float64))
    np.testing.assert_allclose(y.std(axis=(0, 2, 3)), deviation, rtol=1e-2)  # epsilon


def test_the_result_converts_and_keeps_weights_and_gamma(tmp_path: Path) -> None:
    """Nothing but statistics has changed, and every norm still folds."""
    source, file, _ = prepared(tmp_path, stacked())
    reestimate(source, tmp_path / "new.onnx", file)
    before, after = initializers(source), initializers(tmp_path / "new.onnx")
    for name in ("w", "v", "p_gamma", "p_beta", "q_gamma", "q_beta"):
        np.testing.assert_array_equal(before[name], after[name])
    assert len(convert(tmp_path / "new.onnx", tmp_path / "folded.onnx").report.folded) == 2


def test_momentum_goes_on_from_the_trained_statistics(tmp_path: Path) -> None:
    """Batch after batch in Keras' convention."""
    source, file, x = prepared(tmp_path, stacked())
    momentum = Momentum(0.7, Convention.OF_THE_OLD)
    reestimate(source, tmp_path / "new.onnx", file, momentum=momentum, batch_rows=20)
    h = value(stacked(), "h", x).astype(np.float64)
    mean = norm(4)["mean"].astype(np.float64)
    for batch in (h[:20], h[20:]):
        mean = 0.7 * mean + 0.3 * batch.mean(axis=(0, 2, 3))
    np.testing.assert_allclose(statistics(tmp_path / "new.onnx", 0)[0], mean, rtol=1e-5, atol=1e-6)


def test_masked_rows_do_not_count(tmp_path: Path) -> None:
    """Only the first ten are looked at."""
    mask = np.arange(40) < 10
    source, file, x = prepared(tmp_path, stacked(), keep=mask)
    done = reestimate(source, tmp_path / "new.onnx", file, mask="keep", batch_rows=16)
    h = value(stacked(), "h", x[:10]).astype(np.float64)
    np.testing.assert_allclose(
        statistics(tmp_path / "new.onnx", 0)[0], h.mean(axis=(0, 2, 3)), rtol=1e-5, atol=1e-6
    )
    assert done.moved[0].count == 10 * 9


def test_parameters_shared_by_two_norms_are_not_changed_under_the_other(tmp_path: Path) -> None:
    """Each norm gets statistics of its own."""
    proto = stacked()
    for node in proto.graph.node:
        if node.name == "bn2":
            node.input[3], node.input[4] = "p_mean", "p_variance"
    source, file, x = prepared(tmp_path, proto)
    reestimate(source, tmp_path / "new.onnx", file)
    new = onnx.load(str(tmp_path / "new.onnx"))
    for index, seen in enumerate(("h", "k")):
        data = value(new, seen, x).astype(np.float64)
        np.testing.assert_allclose(
            statistics(tmp_path / "new.onnx", index)[0], data.mean(axis=(0, 2, 3)), rtol=1e-5, atol=1e-6
        )


def chained() -> onnx.ModelProto:
    """One norm, another, and the first once more."""
    weights = {"w": normal(4, 3, 1, 1)} | norm(4, prefix="p_") | norm(4, seed=1, prefix="q_")
    return model(
        """g (float[N,3,5,5] x) => (float[N,4,5,5] y) {
            h = Conv (x, w)
            [one] a = BatchNormalization <epsilon=0.001> (h, p_gamma, p_beta, p_mean, p_variance)
            r = Relu (a)
            [mid] b = BatchNormalization <epsilon=0.001> (r, q_gamma, q_beta, q_mean, q_variance)
            [two] y = BatchNormalization <epsilon=0.001> (b, p_gamma, p_beta, p_mean, p_variance) }""",
        weights,
    )


def test_a_layer_used_again_behind_what_it_feeds_is_settled_by_going_round(tmp_path: Path) -> None:
    """At the end every norm, the one in between too, has the moments of what it sees."""
    proto = chained()
    source, file, x = prepared(tmp_path, proto)
    opened = onnx_frontend.load(source)
    whole = opened.ir()
    places, _ = find_places(whole, None, ())
    shared = [places[0], places[1], replace(places[2], norm=places[0].norm)]
    sweep = _Sweep(whole, tmp_path, Calibration.read(file, opened, 32), None, None)
    assert sweep.until_settled(shared) == []
    new = ir.to_proto(whole)
    h, r, b = (value(new, name, x).astype(np.float64) for name in ("h", "r", "b"))
    both = np.concatenate([h, b])
    np.testing.assert_allclose(sweep.held["one"].mean, both.mean(axis=(0, 2, 3)), atol=1e-4)
    np.testing.assert_allclose(sweep.held["two"].variance, both.var(axis=(0, 2, 3)), rtol=1e-3)
    np.testing.assert_allclose(sweep.held["mid"].mean, r.mean(axis=(0, 2, 3)), atol=1e-4)


def test_a_model_of_fixed_batch_takes_samples_batch_by_batch(tmp_path: Path) -> None:
    """And tells of rows that are left over."""
    proto = stacked()
    for each in (*proto.graph.input, *proto.graph.output):
        each.type.tensor_type.shape.dim[0].dim_value = 16
    source, file, x = prepared(tmp_path, proto)
    done = reestimate(source, tmp_path / "new.onnx", file)
    assert done.rows == 32
    assert done.notes == ("the model takes batches of 16: 8 rows were left over",)
    h = value(stacked(), "h", x[:32]).astype(np.float64)
    np.testing.assert_allclose(statistics(tmp_path / "new.onnx", 0)[0], h.mean(axis=(0, 2, 3)), atol=1e-5)


def test_inspect_tells_how_far_statistics_have_settled(tmp_path: Path) -> None:
    """Untrained ones have not moved; re-estimated ones are there."""
    untrained = {"p_mean": np.zeros(4, np.float32), "p_variance": np.ones(4, np.float32)}
    source, file, _ = prepared(tmp_path, stacked(**untrained))
    views = inspect(source, calibration=file).views
    assert views[0].settled is not None
    assert views[0].settled.share == 0
    assert "have come 0% of the way" in " ".join(views[0].warnings)
    reestimate(source, tmp_path / "new.onnx", file)
    views = inspect(tmp_path / "new.onnx", calibration=file).views
    assert [view.settled.share for view in views if view.settled] == pytest.approx([1.0, 1.0], abs=1e-4)
    assert not any("of the way" in note for view in views for note in view.warnings)


def test_a_norm_that_is_written_out_is_refused_with_the_reason(tmp_path: Path) -> None:
    """Its gamma and variance are one number now."""
    proto = model(
        "g (float[N,3] x) => (float[N,3] y) { h = Mul (x, s) y = Add (h, b) }",
        {"s": normal(3), "b": normal(3, seed=1)},
    )
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    np.savez(tmp_path / "s.npz", x=normal(5, 3))
    with pytest.raises(SourceError, match="gamma and variance cannot be told apart"):
        reestimate(tmp_path / "m.onnx", tmp_path / "new.onnx", tmp_path / "s.npz")
    assert not (tmp_path / "new.onnx").exists()


def test_bad_calls_leave_nothing_behind(tmp_path: Path) -> None:
    """A destination that is no ONNX file, samples that do not fit, a mask that is not there or all zero."""
    source, file, _ = prepared(tmp_path, stacked(), keep=np.zeros(40))
    with pytest.raises(TargetError, match=r"must be a file ending in \.onnx"):
        reestimate(source, tmp_path / "new.pt", file)
    with pytest.raises(SamplesError, match="holds no array 'mask'"):
        reestimate(source, tmp_path / "new.onnx", file, mask="mask")
    with pytest.raises(SamplesError, match="leaves 'bn1' no position"):
        reestimate(source, tmp_path / "new.onnx", file, mask="keep")
    np.savez(tmp_path / "bad.npz", x=normal(5, 2, 5, 5))
    with pytest.raises(SamplesError, match="'x'"):
        reestimate(source, tmp_path / "new.onnx", tmp_path / "bad.npz")
    assert not list(tmp_path.glob("*new*"))
