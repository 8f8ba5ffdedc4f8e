"""bfloat16 into a session and out of it: every bit, every shape, and nobody else's memory."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest

from graphs import model, normal
from infold.errors import NoKernelError, SessionError
from infold.runtime import Cache, Run, RunOptions, Session, run_isolated
from infold.runtime.bfloat16 import restored
from infold.runtime.measuring import one_row, time_rows
from infold.tensors import BFLOAT16, Array

IDENTITY = "g (bfloat16[n,m] x) => (bfloat16[n,m] y) { y = Identity (x) }"
ANY = "g (bfloat16 x) => (bfloat16 y, float z) { y = Identity (x)  z = Cast <to=1> (x) }"
CASTS = """g (bfloat16[n] h, float[n] f) => (float[n] up, bfloat16[n] down, float[n] sum)
    { up = Cast <to=1> (h)  down = Cast <to=16> (f)  sum = Add (up, f) }"""
EVERY_PAIR = np.arange(2**16, dtype=np.uint16).view(BFLOAT16)


def session(folder: Path, text: str, options: RunOptions | None = None) -> Session:
    path = folder / "model.onnx"
    onnx.save(model(text), str(path))
    return Session(path, options)


def halves(*values: float) -> Array:
    return np.array(values).astype(BFLOAT16)


def test_every_pair_of_bytes_comes_back_as_it_went(tmp_path: Path) -> None:
    """NaN of every kind, infinities, zeros of both signs, numbers below the normal ones."""
    x = EVERY_PAIR.reshape(256, 256)
    y = session(tmp_path, IDENTITY).run({"x": x})["y"]
    assert (y.dtype, y.shape) == (BFLOAT16, (256, 256))
    assert y.tobytes() == x.tobytes()


def test_casts_read_and_write_it(tmp_path: Path) -> None:
    """Beside floats, which go their usual way."""
    subject = session(tmp_path, CASTS)
    assert [str(spec.dtype) for spec in subject.signature.inputs] == ["bfloat16", "float32"]
    f = np.array([0.5, 3.14159, -1e30], np.float32)
    found = subject.run({"h": halves(1.5, -2, 0.25), "f": f})
    assert found["up"].tolist() == [1.5, -2.0, 0.25]
    assert found["down"].dtype == BFLOAT16
    assert found["down"].tolist() == f.astype(BFLOAT16).tolist()
    assert found["sum"].tolist() == (f + np.array([1.5, -2, 0.25], np.float32)).tolist()


@pytest.mark.parametrize(
    ("wanted", "in_order"),
    [(["up"], ["up"]), (["down"], ["down"]), (["sum", "down", "up"], ["sum", "down", "up"])],
)
def test_outputs_come_in_the_order_asked(tmp_path: Path, wanted: list[str], in_order: list[str]) -> None:
    """Those asked for, of either type."""
    x = {"h": halves(1.5), "f": np.array([2], np.float32)}
    subject = session(tmp_path, CASTS)
    found, everything = subject.run(x, wanted), subject.run(x)
    assert list(found) == in_order
    assert all(found[name].tobytes() == everything[name].tobytes() for name in wanted)


def test_it_may_only_go_in_or_only_come_out(tmp_path: Path) -> None:
    """Either end of a model alone."""
    out = session(tmp_path, "g (float[n] f) => (bfloat16[n] h) { h = Cast <to=16> (f) }")
    assert out.run({"f": np.array([1.5, -0.0], np.float32)})["h"].tobytes() == halves(1.5, -0.0).tobytes()
    into = session(tmp_path, "g (bfloat16[n] h) => (float[n] f) { f = Cast <to=1> (h) }")
    assert into.run({"h": halves(1.5, -2)})["f"].tolist() == [1.5, -2.0]


def test_a_scalar_stays_one(tmp_path: Path) -> None:
    """It has no axis, in or out."""
    found = session(tmp_path, ANY).run({"x": np.array(3, BFLOAT16)})
    assert (found["y"].shape, found["z"].shape) == ((), ())
    assert (float(found["y"]), float(found["z"])) == (3.0, 3.0)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_nothing_is_nothing_of_that_shape(tmp_path: Path, shape: tuple[int, int]) -> None:
    """No rows are answered with none."""
    y = session(tmp_path, IDENTITY).run({"x": np.empty(shape, BFLOAT16)})["y"]
    assert (y.shape, y.dtype) == (shape, BFLOAT16)
    up = session(tmp_path, CASTS).run({"h": np.empty(0, BFLOAT16), "f": np.empty(0, np.float32)})
    assert [each.shape for each in up.values()] == [(0,)] * 3


def test_arrays_need_not_lie_row_by_row(tmp_path: Path) -> None:
    """Columns, every second row, backwards; of floats, too."""
    subject = session(tmp_path, IDENTITY)
    x = EVERY_PAIR[:600].reshape(20, 30)
    for view in (x.T, x[::2], x[::-1, ::-3], x[:, :1], np.asfortranarray(x)):
        y = subject.run({"x": view})["y"]
        assert (y.shape, y.tobytes()) == (view.shape, np.ascontiguousarray(view).tobytes())
    casts = session(tmp_path, CASTS)
    f = np.arange(12, dtype=np.float32).reshape(4, 3)
    for wanted in (None, ["up", "sum"]):
        found = casts.run({"h": x[:4, 7], "f": f[:, 1]}, wanted)
        assert found["sum"].tolist() == (f[:, 1] + x[:4, 7].astype(np.float32)).tolist()


def test_what_is_read_only_is_read(tmp_path: Path) -> None:
    """As the body of a request is, at an odd place in it as well."""
    body = bytes(3) + EVERY_PAIR[:64].tobytes()
    x = np.frombuffer(body, BFLOAT16, offset=3).reshape(8, 8)
    assert session(tmp_path, IDENTITY).run({"x": x})["y"].tobytes() == body[3:]
    f = np.frombuffer(np.arange(4, dtype=np.float32).tobytes(), np.float32)
    assert session(tmp_path, CASTS).run({"h": halves(1, 1, 1, 1), "f": f})["sum"].tolist() == [1, 2, 3, 4]


def test_strings_go_beside_it_unless_it_comes_out_too(tmp_path: Path) -> None:
    """It goes in beside strings; a model that takes strings and gives it back is refused at its load."""
    words = np.array([["a", "x"], ["ü", "y"], ["", "z"]], np.object_)[:, 0]
    text = """g (bfloat16[n] h, string[n] s, int64[k] i) => (float[n] f, string[n] t, int64[k] j)
        { f = Cast <to=1> (h)  t = Identity (s)  j = Identity (i) }"""
    found = session(tmp_path, text).run({"h": halves(1, 2, 3), "s": words, "i": np.array([7])})
    assert found["f"].tolist() == [1, 2, 3]
    assert found["t"].tolist() == ["a", "ü", ""]
    assert found["j"].tolist() == [7]
    out = """g (bfloat16[n] h) => (bfloat16[n] k, string[2] t)
        <string[2] w = {"a", "b"}> { k = Identity (h)  t = Identity (w) }"""
    assert session(tmp_path, out).run({"h": halves(1)})["t"].tolist() == ["a", "b"]
    both = """g (string[n] s, float[n] f) => (bfloat16[n] h, string[n] t)
        { h = Cast <to=16> (f)  t = Identity (s) }"""
    with pytest.raises(NoKernelError, match="input 's' takes strings and output 'h' is bfloat16"):
        session(tmp_path, both)


def test_an_input_that_is_an_output_too_comes_back_in_memory_of_its_own(tmp_path: Path) -> None:
    """The input's goes with its request; whoever writes there must not change the answer."""
    text = """g (bfloat16[n] h, float[n] f) => (bfloat16[n] h, float[n] f, bfloat16[n] k)
        { k = Identity (h) }"""
    subject = session(tmp_path, text)
    h, f = halves(1, 2), np.array([3, 4], np.float32)
    for wanted in (None, ["f"], ["h", "f"]):
        found = subject.run({"h": h, "f": f}, wanted)
        assert not any(np.shares_memory(one, other) for one in found.values() for other in (h, f))
        assert found["f"].tolist() == [3, 4]


def test_answers_outlive_their_request_and_their_session(tmp_path: Path) -> None:
    """They are nobody's memory but their own."""
    subject = session(tmp_path, CASTS)
    kept = []
    for n in range(200):
        h, f = np.full(n + 1, n, BFLOAT16), np.full(n + 1, n / 2, np.float32)
        kept.append(subject.run({"h": h, "f": f}))
        h[:], f[:] = -1, -1
    del subject
    gc.collect()
    for n, found in enumerate(kept):
        assert (found["up"] == float(halves(n)[0])).all()
        assert found["down"].tobytes() == np.full(n + 1, n / 2, np.float32).astype(BFLOAT16).tobytes()


def test_threads_do_not_see_each_other_s_numbers(tmp_path: Path) -> None:
    """Thousands of runs of every size, the memory of each given back at once."""
    subject = session(tmp_path, CASTS, RunOptions(intra_op_threads=1))
    wrong: list[object] = []

    def ask(number: int) -> None:
        dice = np.random.default_rng(number)
        for turn in range(600):
            rows = int(dice.integers(0, 3000))
            body = dice.integers(0, 0x7F80, rows, np.uint16).tobytes()
            f = dice.standard_normal(rows).astype(np.float32)
            wanted = (None, ["down"], ["sum", "up"])[turn % 3]
            found = subject.run({"h": np.frombuffer(body, BFLOAT16), "f": f}, wanted)
            h = np.frombuffer(body, BFLOAT16).astype(np.float32)
            right = {"up": h, "down": f.astype(BFLOAT16), "sum": h + f}
            del f, h
            if any(right[name].tobytes() != array.tobytes() for name, array in found.items()):
                wrong.append((number, turn))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_wrong_inputs_fail_as_session_errors(tmp_path: Path) -> None:
    """Of another type, another rank, or not there."""
    subject = session(tmp_path, CASTS)
    f = np.array([1], np.float32)
    for tensors in ({"h": f, "f": f}, {"h": halves(1).reshape(1, 1), "f": f}, {"f": f}):
        for wanted in (None, ["up"]):
            with pytest.raises(SessionError):
                subject.run(tensors, wanted)


# -- what is kept of a model ------------------------------------------------------------------------


NET = """g (bfloat16[n,3] x) => (bfloat16[n,4] y)
    { f = Cast <to=1> (x)  h = Gemm (f, w, b)  r = Relu (h)  y = Cast <to=16> (r) }"""


def net(folder: Path) -> Path:
    """A layer between casts."""
    path = folder / "model.onnx"
    onnx.save(model(NET, {"w": normal(3, 4, seed=3), "b": normal(4, seed=4)}), str(path))
    return path


def test_its_optimized_graph_is_kept_and_answers_alike(tmp_path: Path) -> None:
    """Bit by bit, with what was learnt beside it."""
    path, options = net(tmp_path), RunOptions(intra_op_threads=1)
    cache = Cache(tmp_path / "cache")
    key = cache.key(path, options)
    plain = Session(path, options)
    row = one_row(path, plain.signature)
    assert row["x"].dtype == BFLOAT16
    entry = cache.make(key, path, options, row)
    assert entry is not None
    x = normal(5, 3, dtype="bfloat16")
    assert entry.open(options).run({"x": x})["y"].tobytes() == plain.run({"x": x})["y"].tobytes()
    assert set(time_rows(plain, row, (1, 2, 4), 10.0)) == {1, 2, 4}


def test_a_file_of_numpy_s_gives_it_its_name_back(tmp_path: Path) -> None:
    """It is kept as nameless pairs; what else is in there stays as it is."""
    x = EVERY_PAIR.reshape(16, -1)
    np.savez(tmp_path / "a.npz", x=x, f=np.float32([1]), s=np.array(2, BFLOAT16))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as saved:
        assert restored(saved["x"]).dtype == BFLOAT16
        assert restored(saved["x"]).tobytes() == x.tobytes()
        assert restored(saved["s"]).shape == ()
        assert restored(saved["f"]).dtype == np.float32


def test_golden_rows_are_what_it_is_measured_on(tmp_path: Path) -> None:
    """Those beside the model, not zeros."""
    path = net(tmp_path)
    signature = Session(path).signature
    golden = normal(4, 3, dtype="bfloat16")
    np.savez(tmp_path / "golden.npz", **{"in.x": golden})
    assert one_row(path, signature)["x"].tobytes() == golden[:1].tobytes()


def test_it_crosses_to_a_child_process_and_back(tmp_path: Path) -> None:
    """Where models are run that may crash."""
    x = EVERY_PAIR.reshape(64, -1)
    path = tmp_path / "model.onnx"
    onnx.save(model(IDENTITY), str(path))
    (found,) = run_isolated([Run("identity", path, {"x": x})])
    assert found["y"].dtype == BFLOAT16
    assert found["y"].tobytes() == x.tobytes()
