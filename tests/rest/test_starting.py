"""What the start tells of the machine, and the defaults that follow from it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from infold.rest import starting
from infold.rest.bounds import Bounds
from infold.rest.starting import fitted, running_line, tell_unused_name
from infold.runtime import memory
from infold.settings import Settings

MIB = 2**20


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`--cpus 2.5 --memory 512m` on a machine of 16 cores and 64 GiB."""
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    for module in (starting, memory):
        monkeypatch.setattr(module, "host_bytes", lambda: 2**36)
    folder = tmp_path / "sys/fs/cgroup"
    folder.mkdir(parents=True)
    (folder / "cpu.max").write_text("250000 100000\n")
    (folder / "memory.max").write_text(f"{512 * MIB}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("quota", "workers", "line"),
    [
        ("50000 100000", 1, "cpu (asked for), 1 core (quota 0.5), 512 MiB of memory"),
        ("250000 100000", 1, "cpu (asked for), 3 cores (quota 2.5), 512 MiB of memory"),
        ("800000 100000", 4, "cpu (asked for), 2 cores a worker (quota 8), 512 MiB of memory"),
        ("50000 100000", 2, "cpu (asked for), 1 core a worker (quota 0.5), 512 MiB of memory"),
        ("max 100000", 1, "cpu (asked for), 16 cores, 512 MiB of memory"),
    ],
)
def test_the_plan_is_told_with_what_bounds_it(root: Path, quota: str, workers: int, line: str) -> None:
    """So many cores each process keeps busy."""
    (root / "sys/fs/cgroup/cpu.max").write_text(quota)
    assert running_line("cpu (asked for)", workers, root) == f"infold runs models on {line}"


def test_without_limits_it_is_told_in_few_words(root: Path) -> None:
    """A limit that no machine has is none."""
    (root / "sys/fs/cgroup/cpu.max").unlink()
    (root / "sys/fs/cgroup/memory.max").write_text(str(2**40))
    assert running_line("cpu (asked for)", 1, root) == "infold runs models on cpu (asked for), 16 cores"


def test_bodies_may_have_a_quarter_of_the_memory_by_default(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so, once: who is handed the outcome changes nothing of it."""
    caplog.set_level(logging.INFO)
    settings = fitted(Settings(), root)
    assert settings.max_in_flight_bytes == 128 * MIB
    assert Bounds.of(settings).in_flight.limit_bytes == 128 * MIB
    (record,) = caplog.records
    assert record.getMessage() == "less room for bodies than by default"
    (root / "sys/fs/cgroup/memory.max").write_text(str(64 * MIB))
    again = Settings(**settings.model_dump(mode="json"))  # as a worker has them
    assert fitted(again, root).max_in_flight_bytes == 128 * MIB


def test_what_was_set_is_kept_but_told_where_it_cannot_be(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The operator's word counts."""
    for wanted, told in ((300 * MIB, 0), (2**30, 1)):
        settings = Settings(max_in_flight_bytes=wanted)
        assert fitted(settings, root) is settings
        assert len(caplog.records) == told


def test_a_machine_with_room_changes_nothing(root: Path) -> None:
    """4 GiB are enough for the default."""
    (root / "sys/fs/cgroup/memory.max").write_text(str(2**32))
    settings = Settings()
    assert fitted(settings, root) is settings


@pytest.mark.parametrize(
    ("name", "served", "told"),
    [("isvc", ["digits"], 1), ("digits", ["digits"], 0), ("", ["digits"], 0), ("isvc", [], 0)],
)
def test_a_name_that_nobody_bears_is_told(
    caplog: pytest.LogCaptureFixture, name: str, served: list[str], told: int
) -> None:
    """In a repository models have names of their own."""
    tell_unused_name(Settings(model_name=name), served)
    assert len(caplog.records) == told
