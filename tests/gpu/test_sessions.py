"""Sessions on a GPU: what they answer, what they keep to, and what they leave behind."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from binding_checks import CHECKS, Array, Run
from graphs import conv_norm, fold, model, normal
from infold.errors import SessionError
from infold.runtime import Placement, RunOptions, Session
from infold.runtime.cuda import CudaOptions
from infold.runtime.gpu_runs import Left
from infold.runtime.session import nodes_left
from infold.tensors import Tensors
from oracle import compare, count_roundings, gamma, magnitudes, run, underflow, unit_roundoff

ROOT = Path(__file__).parents[2]
# Other kernels add up in another order, as a serving session's do: `serving_session.SLACK`.
SLACK = 4.0
FIXED = "g (float[64, 64] x) => (float[64, 64] y) { z = MatMul(x, x) y = Relu(z) }"
LARGE = """g (float[1] x) => (float total)
<int64[1] to = {134217728}>
{ wide = Expand(x, to) twice = Add(wide, x) total = ReduceSum<keepdims = 0>(twice) }"""


def options(placement: Placement, **cuda: Any) -> RunOptions:
    return RunOptions(placement, cuda=CudaOptions(placement.gpu_id, **cuda))


def opened(proto: onnx.ModelProto, folder: Path, given: RunOptions) -> Session:
    onnx.save(proto, str(folder / "model.onnx"))
    return Session(folder / "model.onnx", given)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_runs(check: Any, placement: Placement, tmp_path: Path) -> None:
    """See `binding_checks`."""

    def run_of(proto: onnx.ModelProto) -> Run:
        session = opened(proto, tmp_path, options(placement))

        def answer(tensors: Tensors, names: Sequence[str] | None) -> dict[str, Array]:
            return session.run(tensors, names)

        return answer

    check(run_of)


@pytest.mark.gpu
def test_memory_for_transfers_is_pinned(
    cuda: Placement, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """CUDA gives it, and says nothing against it."""
    with caplog.at_level(logging.WARNING):
        session = opened(conv_norm(), tmp_path, options(cuda))
        for _ in range(2):
            session.run({"x": normal(4, 2, 6, 6)})
    assert session.provider == "CUDAExecutionProvider"
    assert "pinned" not in caplog.text


def networks() -> dict[str, tuple[onnx.ModelProto, Array]]:
    """Small, wide enough for tensor cores, and the digits."""
    wide = model(
        """g (float[N, 64, 16, 16] x) => (float[N, 256, 16, 16] y)
        { c = Conv <pads=[1,1,1,1]> (x, w) y = BatchNormalization (c, gamma, beta, mean, variance) }""",
        {
            "w": normal(256, 64, 3, 3, seed=1),
            **{n: np.abs(normal(256, seed=s)) + 0.5 for s, n in enumerate(("gamma", "mean", "variance"))},
            "beta": normal(256, seed=9),
        },
    )
    digits = onnx.load(str(ROOT / "examples/digits/digits.onnx"))
    with np.load(ROOT / "examples/digits/samples.npz") as samples:
        images = samples[f"in.{digits.graph.input[0].name}"][:16]
    return {
        "small": (conv_norm(8), normal(5, 2, 6, 6)),
        "wide": (wide, normal(4, 64, 16, 16)),
        "digits": (digits, images),
    }


@pytest.mark.parametrize("name", ["small", "wide", "digits"])
def test_a_folded_network_agrees_with_the_unfolded_one_on_the_cpu(
    placement: Placement, tmp_path: Path, name: str
) -> None:
    """Within what float32 allows for that many roundings, with onnxruntime's optimizations and without."""
    proto, x = networks()[name]
    folded = fold(proto).proto
    feeds = {proto.graph.input[0].name: x}
    unit = unit_roundoff(x.dtype)
    roundings = 2 * gamma(count_roundings(proto), unit)
    allowed = [SLACK * (roundings * each + underflow(proto, feeds)) for each in magnitudes(proto, feeds)]
    for given in (options(placement), replace(options(placement), optimize=False)):
        session = opened(folded, tmp_path, given)
        got = list(session.run(feeds).values())
        compare(run(proto, feeds), got, allowed, session.provider)


def test_numbers_are_not_rounded_to_tf32(placement: Placement, tmp_path: Path) -> None:
    """1 + 2**-12 has two bits more than TensorFloat-32 has; products with 1 keep them."""
    proto = model(
        """g (float[N, 64, 16, 16] x) => (float[N, 64, 16, 16] c, float[N, 64] m)
        { c = Conv <pads=[1,1,1,1]> (x, w) p = GlobalAveragePool(x) f = Flatten(p) m = MatMul(f, one) }""",
        {
            "w": np.pad(np.eye(64, dtype=np.float32)[:, :, None, None], ((0, 0), (0, 0), (1, 1), (1, 1))),
            "one": np.eye(64, dtype=np.float32),
        },
    )
    session = opened(proto, tmp_path, options(placement))
    for rows in (1, 64):
        for array in session.run({"x": np.full((rows, 64, 16, 16), 1 + 2.0**-12, np.float32)}).values():
            np.testing.assert_allclose(array, 1 + 2.0**-12, rtol=0, atol=1e-5)


@pytest.mark.gpu
def test_a_limit_on_memory_is_kept(cuda: Placement, tmp_path: Path) -> None:
    """What fits without one is refused, and what is small is still answered."""
    x = {"x": np.ones(1, np.float32)}
    total = opened(model(LARGE), tmp_path, options(cuda)).run(x)["total"]
    assert total == 2 * 134217728
    limited = opened(model(LARGE), tmp_path, options(cuda, memory_bytes=64 * 2**20))
    with pytest.raises(SessionError, match=r"(?i)memory"):
        limited.run(x)
    small = opened(conv_norm(), tmp_path, options(cuda, memory_bytes=64 * 2**20))
    assert small.run({"x": normal(1, 2, 6, 6)})["y"].shape == (1, 4, 6, 6)


@pytest.mark.gpu
def test_what_the_gpu_takes_is_given_back_with_the_session(
    cuda: Placement, free_bytes: Any, tmp_path: Path
) -> None:
    """All but what CUDA itself keeps, which the first session brought."""
    large = model("g (float[1] x) => (float[67108864] y) { y = Add(x, w) }", {"w": normal(67108864)})
    opened(conv_norm(), tmp_path, options(cuda)).run({"x": normal(1, 2, 6, 6)})
    before = free_bytes()
    for _ in range(3):
        session = opened(large, tmp_path, options(cuda))
        session.run({"x": np.ones(1, np.float32)})
        assert before - free_bytes() > 256 * 2**20
        del session
        assert before - free_bytes() < 64 * 2**20


@pytest.mark.gpu
def test_what_is_left_to_the_cpu_is_known(cuda: Placement, tmp_path: Path) -> None:
    """There is no determinant on CUDA."""
    proto = model("g (float[N, 3, 3] x) => (float[N] y) { z = Mul(x, x) y = Det(z) }")
    session = opened(proto, tmp_path, options(cuda))
    x = {"x": normal(2, 3, 3)}
    np.testing.assert_allclose(session.run(x)["y"], run(proto, x)[0], rtol=1e-4)
    assert nodes_left(tmp_path / "model.onnx", options(cuda), x) == Left(("Det",))


@pytest.mark.gpu
def test_a_recorded_run_answers_as_any_other(cuda: Placement, tmp_path: Path) -> None:
    """From several threads, each with numbers of its own, while another session is busy."""
    plain = opened(model(FIXED), tmp_path, options(cuda))
    busy = opened(conv_norm(), tmp_path, options(cuda))
    is_over, wrong = threading.Event(), []

    def keep_busy() -> None:
        try:
            while not is_over.is_set():
                busy.run({"x": normal(4, 2, 6, 6)})
        except SessionError as failure:
            wrong.append(failure)

    other = threading.Thread(target=keep_busy)
    other.start()
    try:
        recorded = opened(model(FIXED), tmp_path, options(cuda, cuda_graph=True))

        def call(seed: int) -> None:
            for n in range(20):
                x = {"x": normal(64, 64, seed=100 * seed + n)}
                if not np.allclose(recorded.run(x)["y"], plain.run(x)["y"], rtol=0, atol=1e-4):
                    wrong.append((seed, n))

        callers = [threading.Thread(target=call, args=(seed,)) for seed in range(4)]
        for each in callers:
            each.start()
        for each in callers:
            each.join(60)
    finally:
        is_over.set()
        other.join(60)
    assert not wrong


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("g (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }", "needs every length fixed"),
        ("g (float[2, 3, 3] x) => (float[2] y) { z = Mul(x, x) y = Det(z) }", "left to the CPU"),
    ],
)
def test_what_cannot_be_recorded_is_refused(cuda: Placement, tmp_path: Path, text: str, words: str) -> None:
    """By the key that asks for it."""
    with pytest.raises(SessionError, match=f"session.cuda_graph: .*{words}"):
        opened(model(text), tmp_path, options(cuda, cuda_graph=True))


@pytest.mark.gpu
def test_tensorrt_builds_an_engine_once(tensorrt: Placement, tmp_path: Path) -> None:
    """For all numbers of rows up to the most; the next session finds it."""
    engines = tmp_path / "engines"
    engines.mkdir()
    given = options(tensorrt, engines=engines, most_rows=8)
    stamps = []
    for _ in range(2):
        session = opened(conv_norm(), tmp_path, given)
        assert session.provider == "TensorrtExecutionProvider"
        for rows in (1, 8, 3):
            x = {"x": normal(rows, 2, 6, 6)}
            np.testing.assert_allclose(session.run(x)["y"], run(conv_norm(), x)[0], rtol=0, atol=1e-3)
        stamps.append({each.name: each.stat().st_mtime_ns for each in engines.glob("*.engine")})
    assert stamps[0] and stamps[0] == stamps[1]
