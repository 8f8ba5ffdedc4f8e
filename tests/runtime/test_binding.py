"""Bound runs, on the CPU's provider; the code is the one that a GPU gets.

tests/gpu asks the same of sessions on a GPU, and of those on the CPU, which bind nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from binding_checks import CHECKS, DOUBLE, Array, Run
from graphs import model, normal
from infold.runtime import binding
from infold.runtime.binding import BoundRuns, can_bind
from infold.runtime.cuda_graph import GraphRuns
from infold.runtime.pinned import plain_memory
from infold.runtime.session import Session, Stop
from infold.tensors import Signature, Tensors


class Poisoned:
    """Memory for buffers, never clean; counts what is taken."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, size: int) -> Any:
        self.sizes.append(size)
        memory = plain_memory(size)
        memory.fill(0xAB)
        return memory


def opened(proto: onnx.ModelProto, tmp_path: Any) -> tuple[Any, Signature]:
    """A session on the CPU, and its signature."""
    path = tmp_path / "model.onnx"
    onnx.save(proto, str(path))
    session = Session(path)
    return session._native, session.signature


def bound(proto: onnx.ModelProto, tmp_path: Any, take: Any = plain_memory) -> tuple[BoundRuns, Run]:
    native, signature = opened(proto, tmp_path)
    assert can_bind(signature)
    runs = BoundRuns(native, signature, take)

    def run(tensors: Tensors, names: Sequence[str] | None) -> dict[str, Array]:
        wanted = [spec.name for spec in signature.outputs] if names is None else names
        return dict(zip(wanted, runs.run(wanted, tensors, None), strict=True))

    return runs, run


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_bound_runs(check: Any, tmp_path: Any) -> None:
    """See `binding_checks`."""
    check(lambda proto: bound(proto, tmp_path, Poisoned())[1])


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_bound_runs_of_what_is_too_large_for_a_buffer(
    check: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bound where it is."""
    monkeypatch.setattr(binding, "LARGEST_BYTES", 8)
    taken = Poisoned()
    check(lambda proto: bound(proto, tmp_path, taken)[1])
    assert all(size <= 8 for size in taken.sizes)


def test_buffers_are_used_again(tmp_path: Any) -> None:
    """One for the input from the first run on, one for the output from the second; none after that."""
    taken = Poisoned()
    _, run = bound(model(DOUBLE), tmp_path, taken)
    for rows in (4, 4, 4, 2, 2, 2, 4, 3, 3):
        run({"x": normal(rows, 3)}, None)
    assert taken.sizes == [48, 48]
    run({"x": normal(5, 3)}, None)
    run({"x": normal(5, 3)}, None)
    assert taken.sizes == [48, 48, 60, 60]


def test_a_scalar_has_its_buffer_too(tmp_path: Any) -> None:
    """No axis is as fixed as can be."""
    taken = Poisoned()
    _, run = bound(model("g (float s) => (float t) { t = Add(s, s) }"), tmp_path, taken)
    for _ in range(3):
        assert run({"s": np.array(2, np.float32)}, None)["t"] == 4
    assert taken.sizes == [4, 4]


def test_runs_at_once_have_buffers_of_their_own_and_few_are_kept(tmp_path: Any) -> None:
    """As many as run at once; two sets stay."""
    runs, _ = bound(model(DOUBLE), tmp_path)
    inside, go = threading.Semaphore(0), threading.Event()
    native = runs._native

    class Held:
        def io_binding(self) -> Any:
            return native.io_binding()

        def run_with_iobinding(self, *given: Any) -> None:
            inside.release()
            assert go.wait(20)
            native.run_with_iobinding(*given)

    runs._native = Held()
    answers: dict[int, Any] = {}

    def call(n: int) -> None:
        answers[n] = runs.run(["y"], {"x": np.full((2, 3), n, np.float32)}, None)[0]

    threads = [threading.Thread(target=call, args=(n,)) for n in range(5)]
    for each in threads:
        each.start()
    for _ in threads:
        assert inside.acquire(timeout=20)
    go.set()
    for each in threads:
        each.join(20)
    assert all((answers[n] == 2 * n).all() for n in range(5))
    assert len(runs._free) == binding.KEPT_SETS


class Counted:
    """A session that counts its runs."""

    def __init__(self, native: Any) -> None:
        self.native, self.runs = native, 0

    def io_binding(self) -> Any:
        return self.native.io_binding()

    def run_with_iobinding(self, *given: Any) -> None:
        self.runs += 1
        self.native.run_with_iobinding(*given)


def test_a_run_that_was_stopped_is_not_run_again(tmp_path: Any) -> None:
    """Whoever gave it up gave it up for good."""
    runs, run = bound(model(DOUBLE), tmp_path)
    x = {"x": normal(2, 3)}
    run(x, None)
    run(x, None)
    counted = runs._native = Counted(runs._native)
    stop = Stop()
    stop.set()
    with pytest.raises(Exception, match="(?i)terminate"):
        runs.run(["y"], x, stop.native)
    assert counted.runs == 1


def test_an_output_that_once_was_of_another_shape_is_not_bound_again(tmp_path: Any) -> None:
    """That run is made twice, and no other."""
    runs, run = bound(model("g (float[N] x) => (int64[1, N] where) { where = NonZero(x) }"), tmp_path)
    counted = runs._native = Counted(runs._native)
    for values, total in (([1, 1], 1), ([1, 1], 2), ([0, 1], 4), ([1, 1], 5), ([0, 1], 6)):
        run({"x": np.array(values, np.float32)}, None)
        assert counted.runs == total


def test_strings_and_bfloat16_are_not_bound() -> None:
    """Numpy's memory has neither."""
    for kind in ("string", "bfloat16"):
        native = onnxruntime.InferenceSession(
            model(f"g ({kind}[N] x) => ({kind}[N] y) {{ y = Identity(x) }}").SerializeToString(),
            providers=["CPUExecutionProvider"],
        )
        from infold.runtime.session import _spec

        specs = tuple(_spec(None, each) for each in native.get_inputs())  # type: ignore[arg-type]
        assert not can_bind(Signature(specs, ()))
        assert not can_bind(Signature((), specs))


FIXED = "g (float[2, 3] x, int64[1] n) => (float[2, 3] y, int64[1] m) { y = Add(x, x) m = Add(n, n) }"


def test_recorded_runs_give_each_its_own_answer(tmp_path: Any) -> None:
    """On the CPU nothing is recorded, but memory is as fixed as on a GPU."""
    runs = GraphRuns(*opened(model(FIXED), tmp_path), "cpu", 0)
    answers = []
    for n in range(5):
        given = {"x": np.full((3, 2), n, np.float32).T, "n": np.array([n])}
        answers.append(runs.run(["m", "y"] if n % 2 else ["y", "m"], given))
    for n, answer in enumerate(answers):
        y, m = answer[::-1] if n % 2 else answer
        assert (y == 2 * n).all() and m.tolist() == [2 * n]


def test_recorded_runs_are_run_on_one_thread_that_ends_with_them(tmp_path: Any) -> None:
    """Which onnxruntime asks for; and nothing of a session is left when it goes."""
    runs = GraphRuns(*opened(model(FIXED), tmp_path), "cpu", 0)
    seen: set[int] = set()
    native = runs._native

    class Seen:
        def run_with_iobinding(self, *given: Any) -> None:
            seen.add(threading.get_ident())
            native.run_with_iobinding(*given)

    runs._native = Seen()
    given = {"x": normal(2, 3), "n": np.array([1])}
    callers = [threading.Thread(target=runs.run, args=(["y"], given)) for _ in range(8)]
    for each in callers:
        each.start()
    for each in callers:
        each.join(20)
    assert len(seen) == 1 and threading.get_ident() not in seen
    (own,) = [each for each in threading.enumerate() if each.ident in seen]
    del runs, each, callers
    own.join(20)
    assert not own.is_alive()
