"""From a version on disk to sessions and a plan: what is measured, once, and what is wished."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graphs import conv_norm, model, normal
from infold.errors import SessionError
from infold.runtime import Batching, Cache, Device, ModelConfig, Placement, Session, SessionConfig
from infold.runtime.gpu_runs import Left
from infold.runtime.prepared import GRAPH
from infold.serving import loading, preparing
from infold.serving.loading import Loaded
from infold.serving.plan import ENOUGH_TIMES
from infold.serving.repository import ModelVersion
from infold.tensors import Tensors

CPU = Placement(Device.CPU, "asked for")


class Watched:
    """Loads models and counts what it takes to."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cache = Cache(folder / "cache")
        self.folder = folder / "m" / "1"
        self.folder.mkdir(parents=True)
        self.rows: list[Tensors] = []
        self.made = self.measured = 0
        time_rows, make = preparing.time_rows, Cache.make

        def counted_rows(session: Any, row: Tensors, *more: Any) -> Any:
            self.measured += 1
            self.rows.append(row)
            return time_rows(session, row, *more)

        def counted_make(cache: Cache, *more: Any) -> Any:
            self.made += 1
            return make(cache, *more)

        monkeypatch.setattr(preparing, "time_rows", counted_rows)
        monkeypatch.setattr(preparing, "MEASURE_S", 0.05)
        monkeypatch.setattr(preparing, "QUIET", 0.0)  # other tests run meanwhile
        monkeypatch.setattr(Cache, "make", counted_make)

    def load(self, proto: onnx.ModelProto | None = None, cores: int = 2, **config: Any) -> Loaded:
        """Load what lies there, or what is put there now."""
        if proto is not None:
            onnx.save(proto, str(self.folder / "model.onnx"))
        version = ModelVersion("m", 1, self.folder / "model.onnx", ModelConfig(**config))
        return loading.load(version, CPU, cores, self.cache)


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(tmp_path, monkeypatch)


def test_a_second_load_makes_and_measures_nothing(watched: Watched) -> None:
    """And comes to the same plan."""
    first = watched.load(conv_norm(16))
    assert (watched.made, watched.measured) == (1, 1)
    assert watched.load().plan == first.plan
    watched.cache = Cache(watched.cache.folder)
    assert watched.load().plan == first.plan
    assert (watched.made, watched.measured) == (1, 1)
    x = {"x": normal(2, 2, 6, 6)}
    assert (first.session.run(x)["y"] == watched.load().session.run(x)["y"]).all()


def test_what_was_measured_on_a_busy_machine_is_measured_again(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It serves for now, and the least of all times counts; once there are enough of them, they do."""
    monkeypatch.setattr(preparing, "QUIET", 2.0)  # no thread can have two cores
    watched.load(conv_norm())
    for _ in range(ENOUGH_TIMES + 2):
        watched.load()
    assert (watched.made, watched.measured) == (1, ENOUGH_TIMES)


def test_what_model_toml_says_needs_no_new_preparation(watched: Watched) -> None:
    """Only what is run with other threads is measured anew; other optimizers make another graph."""
    watched.load(conv_norm(16))
    watched.load(batching=Batching(max_rows=2, capacity_rows=2, join="always"))
    watched.load(session=SessionConfig(wide="always", inline="never", runs=2))
    assert (watched.made, watched.measured) == (1, 1)
    watched.load(session=SessionConfig(intra_op_threads=2))
    assert (watched.made, watched.measured) == (1, 2)
    watched.load(cores=1)
    assert (watched.made, watched.measured) == (1, 3)
    watched.load(session=SessionConfig(disabled_optimizers=("ConvBNFusion",)))
    assert (watched.made, watched.measured) == (2, 4)


@pytest.mark.parametrize("is_cached", [True, False])
def test_wishes_reach_the_plan(watched: Watched, is_cached: bool) -> None:
    """Whatever was measured; whether or not anything can be kept."""
    if not is_cached:
        watched.cache.folder = None
    always = SessionConfig(wide="always", inline="always")
    loaded = watched.load(
        conv_norm(16), cores=4, batching=Batching(max_rows=8, join="always"), session=always
    )
    assert (loaded.plan.wide_cores, loaded.plan.join_rows, loaded.plan.inline_rows) == (4, 8, 8)
    assert loaded.wide is not None
    x = {"x": normal(2, 2, 6, 6)}
    assert np.allclose(loaded.wide.run(x)["y"], loaded.session.run(x)["y"], rtol=0, atol=1e-5)
    never = SessionConfig(wide="never", inline="never", runs=3)
    loaded = watched.load(cores=4, batching=Batching(join="never"), session=never)
    assert (loaded.plan.wide_cores, loaded.plan.join_rows, loaded.plan.inline_rows) == (0, 1, 0)
    assert (loaded.plan.cores, loaded.plan.runs, loaded.wide) == (1, 3, None)
    loaded = watched.load(cores=4, session=SessionConfig(intra_op_threads=9))
    assert (loaded.plan.cores, loaded.plan.runs) == (4, 1)


@pytest.mark.parametrize(("join", "rows"), [("auto", 8), ("always", 8), ("never", 1)])
def test_on_a_gpu_requests_are_joined_unless_that_is_not_wished(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, join: str, rows: int
) -> None:
    """Nothing is measured there."""
    for module in (loading, preparing):
        monkeypatch.setattr(module, "Session", lambda path, options: Session(path))
    monkeypatch.setattr(preparing, "nodes_left", lambda *_: Left(("Shape",), ("Resize",)))
    onnx.save(conv_norm(16), str(watched.folder / "model.onnx"))
    config = ModelConfig(batching=Batching(max_rows=8, join=join))
    version = ModelVersion("m", 1, watched.folder / "model.onnx", config)
    cuda = Placement(Device.CUDA, "asked for")
    loaded = loading.load(version, cuda, 2, watched.cache)
    assert (loaded.plan.join_rows, loaded.left_on_cpu, loaded.left_on_cuda) == (rows, ("Shape",), ("Resize",))
    # No size comes up that was not warmed up; rows of a model that joins none may depend on each other.
    assert loaded.plan.pad_to == ((1, 2, 4, 8) if rows == 8 else ())


def test_the_golden_row_is_what_is_run(watched: Watched) -> None:
    """Zeros take another time in many a model."""
    golden = normal(3, 2, 6, 6)
    np.savez(watched.folder / "golden.npz", **{"in.x": golden})
    watched.load(conv_norm(16))
    (row,) = watched.rows
    assert (row["x"] == golden[:1]).all()


def test_a_model_whose_open_lengths_cannot_be_1_is_served_unmeasured(watched: Watched) -> None:
    """It takes what it takes; nothing of it is kept."""
    loaded = watched.load(
        model("g (float[N,M] x) => (float[N,K] y) <int64[2] shape = {-1, 4}> { y = Reshape (x, shape) }")
    )
    assert (watched.made, watched.measured) == (0, 0)
    assert loaded.wide is None
    assert loaded.session.run({"x": normal(3, 4)})["y"].shape == (3, 4)


def test_a_model_whose_first_axis_is_open_by_name_only_is_served_and_not_joined(watched: Watched) -> None:
    """A Reshape inside is for one row."""
    text = "g (float[N,4] x) => (float[N,4] y) <int64[2] shape = {1, 4}> { y = Reshape (x, shape) }"
    for _ in range(2):
        loaded = watched.load(model(text))
        assert loaded.plan.join_rows == 1
        assert loaded.session.run({"x": normal(1, 4)})["y"].shape == (1, 4)


@pytest.mark.parametrize(
    ("text", "tensors"),
    [
        ("g (float[2,4] x) => (float[2,4] y) { y = Neg (x) }", {"x": normal(2, 4)}),
        ("g (float x) => (float y) { y = Neg (x) }", {"x": np.float32(2)}),
        (
            "g (float[N,2] x, float k) => (float[N,2] y) { y = Mul (x, k) }",
            {"x": normal(3, 2), "k": np.float32(2)},
        ),
        ("g (float[N] x) => (float y) { y = ReduceSum <keepdims=0> (x) }", {"x": normal(3)}),
    ],
)
def test_models_without_rows_to_join_are_measured_too(watched: Watched, text: str, tensors: Tensors) -> None:
    """As they are."""
    tensors = {name: np.asarray(array) for name, array in tensors.items()}
    loaded = watched.load(model(text), batching=Batching(join="always"))
    assert watched.measured == 1
    assert loaded.plan.join_rows == 1
    assert "y" in loaded.session.run(tensors)


def test_an_entry_that_does_not_load_is_made_anew(watched: Watched) -> None:
    """Of the right size, and damaged all the same."""
    watched.load(conv_norm(16))
    assert watched.cache.folder is not None
    (graph,) = watched.cache.folder.glob(f"*/{GRAPH}")
    graph.write_bytes(b"\xff" * graph.stat().st_size)
    x = {"x": normal(1, 2, 6, 6)}
    assert watched.load().session.run(x)["y"].shape == (1, 16, 6, 6)
    assert (watched.made, watched.measured) == (2, 2)


def test_a_model_that_is_none_is_named(watched: Watched) -> None:
    """Garbage, or gone since it was listed."""
    path = watched.folder / "model.onnx"
    path.write_bytes(b"garbage")
    for _ in range(2):
        with pytest.raises(SessionError, match=str(path)):
            watched.load()
        path.unlink(missing_ok=True)
    assert watched.cache.folder is not None
    assert not list(watched.cache.folder.glob("[!.]*"))
