"""What bound runs must do, on whatever provider: each check opens models, runs them and raises if not so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from graphs import conv_norm, model, normal
from infold.tensors import Tensors

Array = NDArray[np.generic]
Run = Callable[[Tensors, Sequence[str] | None], dict[str, Array]]
Open = Callable[[onnx.ModelProto], Run]

TYPES = {
    "bool": np.bool_,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "float16": np.float16,
    "float": np.float32,
    "double": np.float64,
}
ECHO = "g ({0}[N, M] x) => ({0}[N, M] y) {{ y = Identity(x) }}"
DOUBLE = "g (float[N, 3] x) => (float[N, 3] y) { y = Add(x, x) }"


def every_type_comes_back_as_it_went(run_of: Open) -> None:
    """Extremes included; the second run has its output bound, too."""
    for name, kind in TYPES.items():
        run = run_of(model(ECHO.format(name)))
        dtype = np.dtype(kind)
        for seed in range(3):
            bytes_ = np.random.default_rng(seed).integers(0, 256, 12 * dtype.itemsize, np.uint8)
            x = bytes_ % 2 == 1 if kind is np.bool_ else bytes_.view(dtype)
            x = x.reshape(4, 3)
            y = run({"x": x}, None)["y"]
            assert (y.dtype, y.shape, y.tobytes()) == (x.dtype, x.shape, x.tobytes()), name


def answers_are_never_overwritten(run_of: Open) -> None:
    """Each is read only after all runs are over, of the same shape, of a smaller and of a larger one."""
    run = run_of(model(DOUBLE))
    inputs = [normal(rows, 3, seed=n) for n, rows in enumerate([4, 4, 4, 2, 4, 9, 4, 1, 4, 9])]
    answers = [run({"x": x}, None)["y"] for x in inputs]
    for x, y in zip(inputs, answers, strict=True):
        np.testing.assert_array_equal(y, x + x)
    for n, one in enumerate(answers):
        assert one.flags.writeable
        assert not any(np.may_share_memory(one, other) for other in answers[n + 1 :])


def an_input_may_change_after_its_run(run_of: Open) -> None:
    """Also where it comes back as it is, which no node has copied."""
    for text in (DOUBLE, "g (float[N, 3] x) => (float[N, 3] y, float[N, 3] x) { y = Add(x, x) }"):
        run = run_of(model(text))
        for _ in range(3):
            x = normal(2, 3)
            before = x.copy()
            answers = run({"x": x}, None)
            x.fill(7)
            run({"x": x}, None)
            np.testing.assert_array_equal(answers["y"], before + before)
            np.testing.assert_array_equal(answers.get("x", before), before)


def an_input_is_left_alone(run_of: Open) -> None:
    """One that cannot be written, and ones that do not lie in rows."""
    run = run_of(model(DOUBLE))
    x = normal(4, 3)
    x.flags.writeable = False
    for given in (x, x[::-1], x[::2], normal(3, 4).T, np.broadcast_to(x[:1], (4, 3))):
        for _ in range(2):
            np.testing.assert_array_equal(run({"x": given}, None)["y"], given + given)
    np.testing.assert_array_equal(x, normal(4, 3))


def shapes_may_depend_on_the_numbers(run_of: Open) -> None:
    """Even where the model gives a length the name of another one, and where it happened to be the same."""
    honest = run_of(model("g (float[N, 3] x) => (int64[2, K] where) { where = NonZero(x) }"))
    misled = run_of(model("g (float[N] x) => (int64[1, N] where) { where = NonZero(x) }"))
    for ones in ((0, 1, 2), (0, 1, 2), (1,), (0, 1, 2), (), (2,)):
        x = np.zeros((1, 3), np.float32)
        x[0, list(ones)] = 1
        np.testing.assert_array_equal(honest({"x": x}, None)["where"], np.array(np.nonzero(x)))
        np.testing.assert_array_equal(misled({"x": x[0]}, None)["where"], np.array(np.nonzero(x[0])))


def nothing_goes_in_and_comes_out(run_of: Open) -> None:
    """Arrays of no elements, before and after others."""
    run = run_of(model(DOUBLE))
    for rows in (0, 2, 0, 0, 3):
        y = run({"x": np.ones((rows, 3), np.float32)}, None)["y"]
        assert (y.shape, y.tolist()) == ((rows, 3), [[2.0] * 3] * rows)


def scalars_and_many_axes_come_and_go(run_of: Open) -> None:
    """No axis at all, and several outputs of several types."""
    text = """g (float s, float[1, N, 2, 1] x) => (float total, int64[4] shape, float[1, N, 2, 1] y)
    { y = Mul(x, s) total = ReduceSum<keepdims = 0>(y) shape = Shape(y) }"""
    run = run_of(model(text))
    for rows in (2, 2, 2, 5):
        x = np.ones((1, rows, 2, 1), np.float32)
        answers = run({"s": np.array(3, np.float32), "x": x}, None)
        assert answers["total"].shape == () and answers["total"] == rows * 6
        assert answers["shape"].tolist() == [1, rows, 2, 1]
        np.testing.assert_array_equal(answers["y"], x * 3)


def only_what_is_asked_for_comes_in_the_order_asked(run_of: Open) -> None:
    """Whatever was asked before."""
    run = run_of(model("g (float[N] x) => (float[N] a, float[N] b) { a = Add(x, x) b = Mul(x, x) }"))
    x = np.array([3.0, 5.0], np.float32)
    for names in (["b"], None, ["b", "a"], ["a"], ["b"], None, ["b", "a"]):
        answers = run({"x": x}, names)
        assert list(answers) == (names or ["a", "b"])
        assert all((answers[name] == (x + x if name == "a" else x * x)).all() for name in answers)


def runs_at_once_do_not_mix(run_of: Open) -> None:
    """Six threads, sizes of their own and common ones; all begin together."""
    run = run_of(model(DOUBLE))
    wrong: list[object] = []
    begin = threading.Barrier(6)

    def caller(seed: int) -> None:
        rng = np.random.default_rng(seed)
        begin.wait(20)
        kept = []
        for _ in range(60):
            x = rng.standard_normal((int(rng.integers(0, 6)), 3)).astype(np.float32)
            kept.append((x, run({"x": x}, None)["y"]))
        wrong.extend(x for x, y in kept if not np.array_equal(y, x + x))

    threads = [threading.Thread(target=caller, args=(seed,)) for seed in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(120)
        assert not each.is_alive()
    assert not wrong


def a_run_that_fails_leaves_the_next_alone(run_of: Open) -> None:
    """Before and after it has bound outputs."""
    text = """g (float[N] x, int64[1] to) => (float[N] y, float[K] z)
    { z = Reshape(x, to) y = Add(x, x) }"""
    run = run_of(model(text))
    x = np.arange(4, dtype=np.float32)
    fits, not_so = np.array([4]), np.array([3])
    for to in (not_so, fits, fits, not_so, fits):
        if to is not_so:
            with pytest.raises(Exception, match="(?i)reshape"):
                run({"x": x, "to": to}, None)
            continue
        answers = run({"x": x, "to": to}, None)
        assert (answers["y"].tolist(), answers["z"].tolist()) == ([0, 2, 4, 6], [0, 1, 2, 3])


def a_network_computes_the_same_in_every_size(run_of: Open) -> None:
    """A convolution with its norm; each row as if it were alone."""
    run = run_of(conv_norm(4))
    x = normal(8, 2, 6, 6)
    alone = np.concatenate([run({"x": x[n : n + 1]}, None)["y"] for n in range(8)])
    for rows in (8, 8, 3, 8, 1):
        np.testing.assert_allclose(run({"x": x[:rows]}, None)["y"], alone[:rows], rtol=0, atol=1e-5)


CHECKS = (
    every_type_comes_back_as_it_went,
    answers_are_never_overwritten,
    an_input_may_change_after_its_run,
    an_input_is_left_alone,
    shapes_may_depend_on_the_numbers,
    nothing_goes_in_and_comes_out,
    scalars_and_many_axes_come_and_go,
    only_what_is_asked_for_comes_in_the_order_asked,
    runs_at_once_do_not_mix,
    a_run_that_fails_leaves_the_next_alone,
    a_network_computes_the_same_in_every_size,
)
