"""What will serve has run before it serves, in every size that is to be expected."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from graphs import conv_norm, model, normal
from infold.errors import SessionError
from infold.runtime import Batching, Cache, Device, ModelConfig, Placement, Session, SessionConfig, Stop
from infold.serving import preparing, sizes
from infold.serving.loading import Loaded, load
from infold.serving.plan import Plan
from infold.serving.repository import ModelVersion
from infold.serving.sizes import warm_sizes
from infold.tensors import Tensors

CPU = Placement(Device.CPU, "asked for")


class Ran:
    """Rows of each run, in the place of a session; every row takes so many seconds of the clock."""

    def __init__(self, session: Session, clock: SimpleNamespace, row_s: float) -> None:
        self.signature, self.provider = session.signature, session.provider
        self.rows: list[int] = []
        self.large: list[bool] = []
        self._session, self._clock, self._row_s = session, clock, row_s

    def run(self, tensors: Tensors, outputs: Any = None, stop: Stop | None = None) -> Any:
        """As `Session.run`."""
        rows = len(tensors["x"])
        self.rows.append(rows)
        self.large.append(stop is not None and stop.is_large)
        self._clock.now += rows * self._row_s
        return self._session.run(tensors, outputs, stop)


@pytest.fixture
def version(tmp_path: Path) -> ModelVersion:
    """A model that takes any number of rows."""
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    onnx.save(conv_norm(4), str(folder / "model.onnx"))
    return ModelVersion("m", 1, folder / "model.onnx", ModelConfig())


def warmed(
    version: ModelVersion,
    monkeypatch: pytest.MonkeyPatch,
    join_rows: int = 1,
    row_s: float = 0.0,
    provider: str = "",
    **batching: Any,
) -> tuple[Ran, Ran]:
    """What the narrow and the wide session have run."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(sizes, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    session = Session(version.path)
    narrow, wide = Ran(session, clock, row_s), Ran(session, clock, row_s)
    narrow.provider = provider or narrow.provider
    config = ModelConfig(batching=Batching(**batching))
    loaded: Any = Loaded(narrow, wide, Plan(1, 1, 2, join_rows))  # type: ignore[arg-type]
    warm_sizes(ModelVersion("m", 1, version.path, config), loaded)
    return narrow, wide


@pytest.mark.parametrize(
    ("join_rows", "more", "rows"),
    [
        (1, {}, [1]),
        (8, {}, [1, 2, 4, 8]),
        (12, {}, [1, 2, 4, 8, 12]),
        (4, {"pad_to": (3, 16)}, [1, 2, 3, 4, 16]),
        (1, {"preferred_rows": (6,)}, [1, 6]),
        (64, {}, [1, 2, 4, 8, 16, 32, 64]),
    ],
)
def test_every_size_is_run_once_and_one_row_on_all_cores(
    version: ModelVersion, monkeypatch: pytest.MonkeyPatch, join_rows: int, more: Any, rows: list[int]
) -> None:
    """Powers of two as far as requests are joined, and what the model's owner names."""
    narrow, wide = warmed(version, monkeypatch, join_rows, **more)
    assert narrow.rows == rows
    assert wide.rows == [1]
    assert narrow.large == [each > join_rows for each in rows]  # whose memory nobody needs all the time


def test_what_would_take_long_is_left_out(version: ModelVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks first for so many rows waits; nobody waits for the model till then."""
    narrow, _ = warmed(version, monkeypatch, 64, row_s=0.1)
    assert narrow.rows == [1, 2, 4, 8]
    narrow, _ = warmed(version, monkeypatch, 64, row_s=0.1, provider="CUDAExecutionProvider")
    assert narrow.rows == [1, 2, 4, 8, 16, 32, 64]
    narrow, _ = warmed(version, monkeypatch, 64, row_s=1000)
    assert narrow.rows == []  # the wide one took it all


def test_a_size_that_the_model_does_not_take_is_the_last(
    version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is served; a request of that size is told why."""
    run = Session.run

    def refuse(session: Session, tensors: Tensors, *more: Any) -> Any:
        if len(tensors["x"]) == 2:
            raise SessionError("m", "only one row")
        return run(session, tensors, *more)

    monkeypatch.setattr(Session, "run", refuse)
    narrow, wide = warmed(version, monkeypatch, 8)
    assert (narrow.rows, wide.rows) == ([1, 2], [1])


def test_a_model_that_no_row_can_be_made_up_for_is_not_run(tmp_path: Path, cache: Cache) -> None:
    """Its open lengths cannot be 1."""
    text = "g (float[N,M] x) => (float[N,K] y) <int64[2] shape = {-1, 4}> { y = Reshape (x, shape) }"
    assert runs(tmp_path, cache, text) == [1]


def test_a_golden_row_is_what_is_run(tmp_path: Path, cache: Cache) -> None:
    """With it, open lengths have numbers."""
    np.savez(tmp_path / "golden.npz", **{"in.x": normal(3, 8)})
    text = "g (float[N,M] x) => (float[N,K] y) <int64[2] shape = {-1, 4}> { y = Reshape (x, shape) }"
    assert runs(tmp_path, cache, text, batching=Batching(join="always", max_rows=2)) == [1, 2]


def runs(folder: Path, cache: Cache, text: str, **config: Any) -> list[int]:
    """Rows of all runs of a model that is loaded, in its narrow session."""
    onnx.save(model(text), str(folder / "model.onnx"))
    version = ModelVersion("m", 1, folder / "model.onnx", ModelConfig(**config, session=SessionConfig()))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(preparing, "MEASURE_S", 0.0)
        loaded = load(version, CPU, 1, cache)
        found: list[int] = []
        run = Session.run

        def counted(session: Session, tensors: Tensors, *more: Any) -> Any:
            found.append(len(tensors["x"]))
            return run(session, tensors, *more)

        patched.setattr(Session, "run", counted)
        warm_sizes(version, loaded)
    return found
