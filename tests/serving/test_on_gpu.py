"""A service on a GPU, as far as infold is concerned: what runs, and in which sizes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from graphs import model
from infold.runtime import Cache, Device, Placement, Session, options
from infold.runtime import session as sessions
from infold.serving import Asked, ModelManager, ModelRepository, Work


async def test_no_size_comes_up_that_was_not_warmed_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests of all numbers of rows, many at once; those that fill up are seen by nobody."""

    def opened(graph: Any, native: Any, _: Any) -> Any:
        return onnxruntime.InferenceSession(graph, native, providers=["CPUExecutionProvider"])

    seen: list[int] = []
    run = Session.run

    def watched(session: Session, tensors: Any, *more: Any) -> Any:
        seen.append(len(tensors["x"]))
        return run(session, tensors, *more)

    monkeypatch.setitem(options.PROVIDERS, Device.CUDA, "CPUExecutionProvider")
    monkeypatch.setattr(sessions, "opened_on_gpu", opened)
    monkeypatch.setattr(Session, "run", watched)
    (tmp_path / "models/m/1").mkdir(parents=True)
    (tmp_path / "models/m/model.toml").write_text("[batching]\nmax_rows = 12\n")
    proto = model("g (float[N, 1] x) => (float[N, 1] y) { y = Add(x, x) }")
    onnx.save(proto, str(tmp_path / "models/m/1/model.onnx"))
    cuda = Placement(Device.CUDA, "asked for")
    manager = ModelManager(
        ModelRepository(tmp_path / "models"), cuda, cache=Cache(tmp_path / "cache"), cores=1
    )
    try:
        await manager.reconcile()
        warm = set(seen)
        assert warm == {1, 2, 4, 8, 12}
        seen.clear()

        async def ask(rows: int) -> None:
            x = np.full((rows, 1), rows, np.float32)
            with manager.catalogue.lease("m", None) as servable:
                y = await servable.answer(Work(lambda: Asked({"x": x}), lambda results: results["y"]))
            assert y.tolist() == [[2.0 * rows]] * rows

        for _ in range(3):
            await asyncio.gather(*(ask(rows) for rows in range(1, 13)))
        assert seen and set(seen) <= warm
    finally:
        await manager.close()
