"""Versions with shadows, as a repository has them: real sessions, loaded, reloaded and unloaded."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graphs import model
from infold.errors import RuntimeCrashError
from infold.runtime import Cache, Session, child
from infold.serving import (
    Asked,
    ModelManager,
    ModelRepository,
    Shadowed,
    SilentObserver,
    State,
    Work,
    shadow_thread,
    shadowing,
)
from infold.serving.sampling import Ran
from infold.serving.shadow import Shadow
from managers import CPU, multiplied, serving, until
from shelves import Shelf, scaled

ALL = "[shadow]\nshare = 1.0\n"


class Told(SilentObserver):
    """What is told of shadows, by version."""

    def __init__(self) -> None:
        self.off: dict[int, list[float]] = {}
        self.outcomes: list[tuple[int, Shadowed]] = []
        self.happened = asyncio.Event()

    def shadowed(self, model: str, version: int, outcome: Shadowed, divergence: float) -> None:
        assert model == "m"
        self.outcomes.append((version, outcome))
        self.happened.set()
        if outcome is Shadowed.RAN:
            self.off.setdefault(version, []).append(divergence)


@pytest.fixture(autouse=True)
def no_thread_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """However a test ends; while it waits it takes a core, and none may be left for the lowest priority."""
    monkeypatch.setattr(shadow_thread, "LOWEST_PRIORITY", 0)
    yield
    for thread in threading.enumerate():
        if thread.name == "infold-shadow":
            thread.join(20)
            assert not thread.is_alive()


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Session]]:
    """Of all shadows that were opened; none is tried in a process of its own first, which takes long."""
    opened: list[weakref.ref[Session]] = []

    class Watched(Session):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            opened.append(weakref.ref(self))

    monkeypatch.setattr(shadowing, "Session", Watched)
    monkeypatch.setattr(shadowing, "run_isolated", lambda *_: [])
    return opened


def twin(shelf: Shelf, factor: float, name: str = "m", number: int = 1, file: str = "unfolded.onnx") -> Path:
    """A file beside a version's graph."""
    path = shelf.root / name / str(number) / file
    onnx.save(scaled(factor), str(path))
    return path


def shadowed(shelf: Shelf, factor: float = 2.0, twins: float = 2.0) -> None:
    """A version, its twin, and a file that says so."""
    shelf.put("m", factor=factor)
    twin(shelf, twins)
    shelf.configure("m", ALL + 'file = "unfolded.onnx"\n')


async def asked(served: Any, told: Told, version: int = 1) -> float:
    """The divergence of one more run."""
    before = len(told.off.get(version, []))
    with served.catalogue.lease("m", version) as servable:
        await multiplied(servable)
    await until(lambda: len(told.off.get(version, [])) > before)
    return told.off[version][-1]


@pytest.mark.usefixtures("sessions")
@pytest.mark.parametrize(("twins", "off"), [(2.0, 0.0), (4.0, 0.5)])
async def test_a_version_is_held_against_the_file_that_it_names(
    shelf: Shelf, cache: Cache, twins: float, off: float
) -> None:
    """Equal, or half of it; the version is ready whether or not its shadow is."""
    shadowed(shelf, twins=twins)
    async with serving(shelf, cache) as served:
        told = served.manager._observer = Told()
        await served.manager.reconcile()
        assert served.states == {("m", 1): "ready"}
        await until(lambda: (1, Shadowed.OPENED) in told.outcomes)
        assert await asked(served, told) == off
        assert served.reasons == []


@pytest.mark.usefixtures("sessions")
async def test_a_version_is_held_against_another_that_need_not_be_served(shelf: Shelf, cache: Cache) -> None:
    """As the model's file says for all; not against itself."""
    for number, factor in ((1, 3.0), (2, 4.0), (3, 6.0)):
        shelf.put("m", number, factor)
    shelf.configure("m", "versions = [2, 3]\n" + ALL + "version = 3\n")
    async with serving(shelf, cache) as served:
        told = served.manager._observer = Told()
        await served.manager.reconcile()
        await until(lambda: (2, Shadowed.OPENED) in told.outcomes)
        assert await asked(served, told, 2) == pytest.approx(1 / 3)
        assert [version for version, _ in told.outcomes if version == 3] == []
        shelf.configure("m", "versions = [2]\n" + ALL + "version = 1\n")
        told.outcomes.clear()
        await served.manager.reconcile()
        await until(lambda: (2, Shadowed.OPENED) in told.outcomes)
        assert await asked(served, told, 2) == pytest.approx(1 / 3)


async def test_a_shadow_ends_with_its_version(
    shelf: Shelf, cache: Cache, sessions: list[weakref.ref[Session]]
) -> None:
    """Reloaded, there is another one; unloaded, there is none, nor a thread."""
    shadowed(shelf)
    async with serving(shelf, cache, ["m"]) as served:
        told = served.manager._observer = Told()
        await served.manager.reconcile()
        await until(lambda: told.outcomes == [(1, Shadowed.OPENED)])
        assert await asked(served, told) == 0.0
        twin(shelf, 4.0)  # a change of it is one of the version
        await served.manager.load("m")
        await until(lambda: told.outcomes.count((1, Shadowed.OPENED)) == 2)
        assert await asked(served, told) == 0.5
        await until(lambda: alive(sessions) == 1)
        await served.manager.unload("m")
        await until(lambda: alive(sessions) == 0)
        await until(lambda: not [each for each in threading.enumerate() if each.name == "infold-shadow"])
        await served.manager.load("m")
        await until(lambda: told.outcomes.count((1, Shadowed.OPENED)) == 3)
        assert await asked(served, told) == 0.5
    await until(lambda: alive(sessions) == 0)


async def test_a_shadow_of_a_version_that_goes_before_it_is_open_is_let_go(
    shelf: Shelf, cache: Cache, sessions: list[weakref.ref[Session]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading takes longer than the version lives."""
    begun, go_on = threading.Event(), threading.Event()

    def held(*_: object) -> list[Any]:
        begun.set()
        assert go_on.wait(20)
        return []

    monkeypatch.setattr(shadowing, "run_isolated", held)
    shadowed(shelf)
    async with serving(shelf, cache, ["m"]) as served:
        told = served.manager._observer = Told()
        await served.manager.reconcile()
        await until(begun.is_set)
        await served.manager.unload("m")
        go_on.set()
        await until(lambda: len(sessions) == 1 and alive(sessions) == 0)
        assert told.outcomes == []


OTHERS = {
    "it has no input 'x'": "g (float[2] z) => (float[2] y) { y = Neg (z) }",
    "it has an input 'k', the version has none": """g (float[2] x, float[2] k) => (float[2] y)
        { y = Mul (x, k) }""",
    "its input 'x' is float64, the version's float32": """g (double[2] x) => (float[2] y)
        { y = Cast <to=1> (x) }""",
    "it has no output 'y'": "g (float[2] x) => (float[2] z) { z = Neg (x) }",
    "it has an output 'z', the version has none": """g (float[2] x) => (float[2] y, float[2] z)
        { y = Neg (x) z = Abs (x) }""",
    "its output 'y' is float16, the version's float32": """g (float[2] x) => (float16[2] y)
        { y = Cast <to=10> (x) }""",
}


@pytest.mark.usefixtures("sessions")
@pytest.mark.parametrize("why", [*OTHERS, "there is no file", "unfolded.onnx: "], ids=str)
async def test_a_shadow_that_cannot_be_is_no_reason_not_to_serve(
    shelf: Shelf, cache: Cache, caplog: pytest.LogCaptureFixture, why: str
) -> None:
    """Another signature, no file, no graph: the index and the log say why; a load by name succeeds."""
    shadowed(shelf)
    path = shelf.root / "m/1/unfolded.onnx"
    if why in OTHERS:
        onnx.save(model(OTHERS[why]), str(path))
    elif why == "there is no file":
        path.unlink()
    else:
        path.write_bytes(b"no graph")
    async with serving(shelf, cache, ["m"]) as served:
        told = served.manager._observer = Told()
        await served.manager.reconcile()
        await until(lambda: told.outcomes == [(1, Shadowed.FAILED)])
        ((state, reason),) = [(each.state, each.reason) for each in served.catalogue.states()]
        assert state is State.READY
        assert reason.startswith("not held against its shadow: ")
        assert why in reason
        assert served.catalogue.is_ready
        assert await served.factor("m") == 2.0
        (line,) = [line for line in caplog.records if line.getMessage() == "shadow not opened"]
        assert why in vars(line)["reason"]
        assert line.levelno == logging.ERROR
        await served.manager.load("m")
        assert served.loads == [("m", 1)], "it is no failure of the version"


async def test_a_shadow_that_kills_whoever_opens_it_kills_nobody_here(
    shelf: Shelf, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is opened in a process of its own first."""

    def dies(*_: object) -> list[Any]:
        raise RuntimeCrashError("unfolded.onnx", "the runtime died of SIGSEGV")

    def never(*_: object, **__: object) -> Any:
        raise AssertionError("not here")

    monkeypatch.setattr(shadowing, "run_isolated", dies)
    monkeypatch.setattr(shadowing, "Session", never)
    shadowed(shelf)
    async with serving(shelf, cache) as served:
        told = served.manager._observer = Told()
        await served.manager.reconcile()
        await until(lambda: told.outcomes == [(1, Shadowed.FAILED)])
        assert "SIGSEGV" in served.reasons[0]
        assert await served.factor("m") == 2.0


async def test_a_shadow_is_tried_with_a_row_it_takes(shelf: Shelf, cache: Cache) -> None:
    """In a real process, once; whoever waits for that leaves the cores to it."""
    shadowed(shelf)
    async with serving(shelf, cache) as served:
        told = served.manager._observer = Told()
        await served.manager.reconcile()
        async with asyncio.timeout(200):
            await told.happened.wait()
        assert await asked(served, told) == 0.0


@pytest.mark.timeout(100)
async def test_a_trial_that_never_ends_ends_with_its_version(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process is left, nor anything that the end of this one would wait for; nothing is told."""
    started: list[subprocess.Popen[str]] = []
    real = subprocess.Popen

    def popen(*given: Any, **named: Any) -> subprocess.Popen[str]:
        process = real([sys.executable, "-c", "import time; time.sleep(600)"], **named)
        started.append(process)
        return process

    monkeypatch.setattr(child.subprocess, "Popen", popen)
    shelf = Shelf(tmp_path / "models")
    shadowed(shelf)
    async with serving(shelf, cache) as served:
        told = served.manager._observer = Told()
        await served.manager.reconcile()
        await until(lambda: bool(started))
    await until(lambda: all(process.poll() is not None for process in started))
    assert [process.poll() for process in started] == [-9]
    await until(lambda: not [each for each in threading.enumerate() if isinstance(each, threading.Timer)])
    assert told.outcomes == []


async def test_a_trial_of_what_is_gone_already_is_not_begun(shelf: Shelf) -> None:
    """Or ended at once."""
    ended = []

    class Desk:
        has_room = True

        def add(self, shadow: Shadow) -> None: ...
        def put(self, shadow: Shadow, ran: Ran) -> bool:
            return False

        def remove(self, shadow: Shadow) -> None: ...

    def opener(shadow: Shadow) -> Any:
        shadow.may_take_long(lambda: ended.append(True))
        raise RuntimeCrashError("m", "SIGKILL")

    told = Told()
    held = Shadow(("m", 1), 1.0, 8, opener, Desk(), told)
    held.close()
    held.open()
    assert ended == [True]
    assert told.outcomes == []


@pytest.mark.usefixtures("sessions")
async def test_where_callers_see_other_shapes_the_shadow_is_asked_in_them(shelf: Shelf, cache: Cache) -> None:
    """As a `config.pbtxt` declares; what it leaves out is not compared."""
    folder = shelf.put("m", factor=2.0)
    twin(shelf, 4.0)
    shelf.configure("m", ALL + 'file = "unfolded.onnx"\n')
    (folder.parent / "config.pbtxt").write_text(
        """input { name: "x" data_type: TYPE_FP32 dims: [2, 1] reshape: { shape: [2] } }
           output { name: "y" data_type: TYPE_FP32 dims: [1, 2] reshape: { shape: [2] } }"""
    )
    async with serving(shelf, cache) as served:
        told = served.manager._observer = Told()
        await served.manager.reconcile()
        await until(lambda: (1, Shadowed.OPENED) in told.outcomes)
        x = np.ones((2, 1), np.float32)
        with served.catalogue.lease("m") as servable:
            answer = await servable.answer(Work(lambda: Asked({"x": x}), lambda results: results["y"]))
        assert answer.shape == (1, 2)
        await until(lambda: told.off.get(1) == [0.5])


@pytest.mark.parametrize(
    ("batching", "kept"), [("", 8), ('join = "never"', 20), ("max_rows = 1", 20)], ids=str
)
@pytest.mark.usefixtures("sessions")
async def test_rows_are_told_apart_only_where_requests_share_runs(
    tmp_path: Path, cache: Cache, batching: str, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that subtracts the mean of all its rows diverges from itself otherwise."""
    folder = tmp_path / "models/m/1"
    folder.mkdir(parents=True)
    of_mean = model("g (float[n] x) => (float[n] y) { m = ReduceMean <axes=[0]> (x)  y = Sub (x, m) }")
    for name in ("model.onnx", "unfolded.onnx"):
        onnx.save(of_mean, str(folder / name))
    (folder / "model.toml").write_text(f'{ALL}file = "unfolded.onnx"\n[batching]\n{batching}\n')
    told = Told()
    manager = ModelManager(ModelRepository(tmp_path / "models"), CPU, told, cache, cores=1)
    copies: list[int] = []
    real = shadowing.Shadow.repeat

    def repeat(self: Any, ran: Any) -> None:
        copies.append(len(ran.tensors["x"]))
        real(self, ran)

    monkeypatch.setattr(shadowing.Shadow, "repeat", repeat)
    await manager.reconcile()
    await until(lambda: (1, Shadowed.OPENED) in told.outcomes)
    x = np.arange(20, dtype=np.float32)
    with manager.catalogue.lease("m") as servable:
        await servable.answer(Work(lambda: Asked({"x": x}), lambda results: results["y"]))
    await until(lambda: bool(told.off))
    assert copies == [kept]
    assert (told.off[1] == [0.0]) == (kept == 20)
    await manager.close()


def alive(sessions: list[weakref.ref[Session]]) -> int:
    """Sessions that are still there."""
    gc.collect()
    return sum(each() is not None for each in sessions)


@pytest.mark.usefixtures("sessions")
async def test_a_shadow_that_leads_out_of_the_repository_is_not_opened(
    shelf: Shelf, cache: Cache, tmp_path: Path
) -> None:
    """As a version that does is not; the version itself answers, and says why it has none."""
    shadowed(shelf)
    outside = tmp_path.parent / f"{tmp_path.name}.onnx"
    onnx.save(scaled(2.0), str(outside))
    path = shelf.root / "m" / "1" / "unfolded.onnx"
    path.unlink()
    path.symlink_to(outside)
    async with serving(shelf, cache) as served:
        await served.manager.reconcile()
        assert await served.factor("m") == 2
        await until(lambda: bool(served.reasons))
        assert str(path) in served.reasons[0]
        assert served.states == {("m", 1): State.READY}
