"""`golden.npz`: what a server may check itself against, and nothing that it could not hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from graphs import conv_norm, dense_norm, model, norm, normal
from infold.convert import Conversion, Sampling, convert_to_repository, golden
from infold.runtime import Run, Session, read_config, run_isolated
from infold.runtime.bfloat16 import restored
from infold.runtime.measuring import one_row
from infold.tensors import BFLOAT16, Array, Tensors

ALLOWED = 1e-3  # what a server allows, of the largest magnitude of an output


def converted(proto: onnx.ModelProto, folder: Path, **samples: Array) -> Conversion:
    source = folder / "source.onnx"
    onnx.save(proto, str(source))
    sampling = Sampling()
    if samples:
        np.savez(folder / "samples.npz", **samples)  # type: ignore[arg-type]
        sampling = Sampling(folder / "samples.npz")
    return convert_to_repository(source, folder / "models", "net", sampling)


def held(done: Conversion) -> dict[str, Array]:
    """The arrays of its file, which holds no objects."""
    with np.load(done.destination.with_name("golden.npz"), allow_pickle=False) as saved:
        return dict(saved)


def served(done: Conversion, arrays: dict[str, Array]) -> Tensors:
    """What the folded model answers as it is served."""
    inputs = {name[3:]: array for name, array in arrays.items() if name.startswith("in.")}
    off = read_config(done.destination.with_name("model.toml")).session.disabled_optimizers
    return run_isolated([Run("served", done.destination, inputs, True, off)])[0]


def assert_holds(done: Conversion) -> dict[str, Array]:
    """A server finds its own answers in the file."""
    arrays = held(done)
    answers = served(done, arrays)
    for name, wanted in arrays.items():
        if name.startswith("out."):
            answer = answers[name[4:]]
            if wanted.dtype.kind == "f":
                off = np.abs(answer.astype(np.float64) - wanted).max()
                assert off <= ALLOWED * np.abs(wanted.astype(np.float64)).max()
            else:
                assert (answer == wanted).all()
    return arrays


def answered_otherwise(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[str, Array], Array]) -> None:
    """The folded model's answers, as another machine may give them."""
    real = golden.run_isolated

    def run(runs: Sequence[Run]) -> list[dict[str, Array]]:
        return [{name: spoil(name, np.array(array)) for name, array in each.items()} for each in real(runs)]

    monkeypatch.setattr(golden, "run_isolated", run)


def test_the_file_is_the_same_however_often_it_is_written(tmp_path: Path) -> None:
    """Byte for byte; a version need not differ from the last one for no reason."""
    first, second = (converted(conv_norm(), tmp_path) for _ in range(2))
    assert first.destination != second.destination
    both = [each.destination.with_name("golden.npz").read_bytes() for each in (first, second)]
    assert both[0] == both[1]
    assert_holds(first)


def test_rows_that_depend_on_each_other_are_run_by_themselves(tmp_path: Path) -> None:
    """Four rows have another mean than the eight they were taken from."""
    proto = model(
        """g (float[n,3] x) => (float[n,4] y) {
            m = ReduceMean <axes=[0]> (x)  c = Sub (x, m)  h = Gemm (c, w, b)
            y = BatchNormalization (h, gamma, beta, mean, variance) }""",
        {"w": normal(3, 4), "b": normal(4, seed=1), **norm(4)},
    )
    arrays = assert_holds(converted(proto, tmp_path))
    assert arrays["in.x"].shape == (4, 3)


def test_rows_on_which_the_two_differ_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A class that a near tie decides is nothing to check a server by."""
    bad = normal(8, 2, 6, 6)[1]

    def spoil(name: str, array: Array) -> Array:
        if len(array) == 4:
            array[1] += np.float32(1)
        return array

    answered_otherwise(monkeypatch, spoil)
    done = converted(conv_norm(), tmp_path, x=normal(8, 2, 6, 6))
    arrays = held(done)
    assert len(arrays["in.x"]) == len(arrays["out.y"])
    assert len(arrays["in.x"]) == 3
    assert not any((row == bad).all() for row in arrays["in.x"])
    assert done.notes == ()


def test_an_output_on_which_they_differ_throughout_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a note, on the terminal and in the report."""
    proto = model(
        """g (float[n,3] x) => (float[n,4] y, int64[n] best) {
            h = Gemm (x, w, b)  y = BatchNormalization (h, gamma, beta, mean, variance)
            best = ArgMax <axis=1, keepdims=0> (y) }""",
        {"w": normal(3, 4), "b": normal(4, seed=1), **norm(4)},
    )
    answered_otherwise(monkeypatch, lambda name, array: array + 1 if name == "best" else array)
    done = converted(proto, tmp_path)
    assert set(held(done)) == {"in.x", "out.y"}
    (note,) = done.notes
    assert "golden.npz holds nothing of output 'best'" in note
    assert done.json["notes"] == [note]


def test_without_any_answer_the_inputs_are_still_good_to_be_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server measures with them."""
    answered_otherwise(monkeypatch, lambda name, array: array + 1)
    done = converted(conv_norm(), tmp_path)
    assert set(held(done)) == {"in.x"}
    assert "golden.npz holds nothing of output 'y'" in done.notes[-1]


def test_whole_numbers_that_rounding_decides_are_no_trouble(tmp_path: Path) -> None:
    """Scores times two million, cut to whole numbers: few rows of eight agree, or none."""
    proto = model(
        """g (float[n,3] x) => (float[n,4] y, int64[n,4] r) {
            h = Gemm (x, w, b)  y = BatchNormalization (h, gamma, beta, mean, variance)
            big = Mul (y, k)  r = Cast <to=7> (big) }""",
        {"w": normal(3, 4), "b": normal(4, seed=1), "k": np.array(2.0**21, np.float32), **norm(4)},
    )
    done = converted(proto, tmp_path)
    arrays = assert_holds(done)
    assert "out.y" in arrays
    assert ("out.r" in arrays) == (done.notes == ())


def test_without_a_proof_there_is_nothing_to_hold(tmp_path: Path) -> None:
    """Nothing was run, as whoever asked for that knows."""
    source = tmp_path / "source.onnx"
    onnx.save(conv_norm(), str(source))
    done = convert_to_repository(source, tmp_path / "models", "net", prove_it=False)
    assert not done.destination.with_name("golden.npz").exists()
    assert done.notes == ()


@pytest.mark.parametrize(("limit", "rows"), [(4 * 864, 4), (3 * 864, 3), (1000, 1)])
def test_fewer_rows_where_they_are_large(
    tmp_path: Path, limit: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as fit, of inputs and outputs together."""
    monkeypatch.setattr(golden, "MOST_BYTES", limit)
    assert len(assert_holds(converted(conv_norm(), tmp_path))["in.x"]) == rows


@pytest.mark.parametrize("shape", ["n", "8"])
def test_a_row_that_is_too_large_makes_no_file(
    tmp_path: Path, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or samples, where there are no rows; a note says so."""
    monkeypatch.setattr(golden, "MOST_BYTES", 20)
    proto = model(f"g (float[{shape},4] x) => (float[{shape},4] y) {{ y = Relu (x) }}")
    done = converted(proto, tmp_path)
    assert not done.destination.with_name("golden.npz").exists()
    (note,) = done.notes
    assert note.startswith("no golden.npz: ")
    assert "larger than" in note


def test_strings_are_stored_as_numpy_s_own(tmp_path: Path) -> None:
    """No pickle; and what is measured with them takes them."""
    proto = model("g (string[n] x) => (string[n] y) { y = Identity (x) }")
    texts = np.array(["a", "", "\N{SNOWMAN} and more", "b", "c"])
    done = converted(proto, tmp_path, x=texts)
    arrays = assert_holds(done)
    assert arrays["in.x"].dtype.kind == arrays["out.y"].dtype.kind == "U"
    assert arrays["in.x"].tolist() == texts[:4].tolist()
    row = one_row(done.destination, Session(done.destination).signature)
    assert row["x"].tolist() == ["a"]
    assert row["x"].dtype == np.object_


def test_strings_that_numpy_would_cut_are_not_stored(tmp_path: Path) -> None:
    """It takes zeros at their ends for padding."""
    proto = model("g (float[n] x) => (float[n] y, string[n] t) { y = Neg (x)  t = Cast <to=8> (x) }")
    found = golden._stored(np.array(["a\0", "b"], object))
    assert found is None
    arrays = assert_holds(converted(proto, tmp_path))
    assert set(arrays) == {"in.x", "out.t", "out.y"}


def test_bfloat16_is_stored_as_it_is(tmp_path: Path) -> None:
    """Under no name that numpy knows, and read under its own."""
    proto = model(
        """g (bfloat16[n,3] x) => (bfloat16[n,4] y) {
            f = Cast <to=1> (x)  h = Gemm (f, w, b)
            z = BatchNormalization (h, gamma, beta, mean, variance)  y = Cast <to=16> (z) }""",
        {"w": normal(3, 4, seed=3), "b": normal(4, seed=4), **norm(4)},
    )
    done = converted(proto, tmp_path)
    arrays = held(done)
    assert {name: array.shape for name, array in arrays.items()} == {"in.x": (4, 3), "out.y": (4, 4)}
    inputs = {"x": restored(arrays["in.x"])}
    assert inputs["x"].dtype == BFLOAT16
    (answers,) = run_isolated([Run("served", done.destination, inputs, optimize=True)])
    wanted = restored(arrays["out.y"]).astype(np.float32)
    assert np.abs(answers["y"].astype(np.float32) - wanted).max() <= 2e-2 * np.abs(wanted).max()
    row = one_row(done.destination, Session(done.destination).signature)
    assert row["x"].tobytes() == arrays["in.x"][:1].tobytes()


def test_several_inputs_and_a_model_without_rows(tmp_path: Path) -> None:
    """Taken as a whole."""
    proto = model(
        "g (float[2,3] a, int64[2] b) => (float[2,3] y, int64[2] z) { y = Neg (a)  z = Add (b, b) }"
    )
    arrays = assert_holds(converted(proto, tmp_path))
    assert set(arrays) == {"in.a", "in.b", "out.y", "out.z"}


def test_numbers_that_are_none_are_kept_where_both_have_them(tmp_path: Path) -> None:
    """NaN and infinities of the network itself."""
    proto = model("g (float[n,2] x) => (float[n,2] y) { y = Log (x) }")
    x = np.array([[1, 2], [0, -1], [3, 4], [5, 6]], np.float32)
    arrays = held(converted(proto, tmp_path, x=x))
    assert np.isnan(arrays["out.y"]).any()
    assert np.isinf(arrays["out.y"]).any()


def test_a_dense_network_holds_too(tmp_path: Path) -> None:
    """Into a Gemm."""
    assert_holds(converted(dense_norm(), tmp_path))
