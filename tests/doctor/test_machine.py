"""What the doctor says of the machine, with files of cgroups and limits that are not this machine's."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from infold.doctor import Level, machine
from infold.doctor.findings import shown_bytes
from infold.settings import Settings

MIB = 2**20


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`--cpus 0.5 --memory 512m` on a machine of 16 cores and 64 GiB."""
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for module in ("infold.doctor.machine", "infold.runtime.memory"):
        monkeypatch.setattr(f"{module}.host_bytes", lambda: 2**36)
    folder = tmp_path / "sys/fs/cgroup"
    folder.mkdir(parents=True)
    (folder / "cpu.max").write_text("50000 100000\n")
    (folder / "memory.max").write_text(f"{512 * MIB}\n")
    (folder / "memory.current").write_text(f"{100 * MIB}\n")
    return tmp_path


def test_half_a_core_is_one_run_of_one_thread(root: Path) -> None:
    """With the file that says so, for people and for programs."""
    (found,) = machine.check_cpu(Settings(), root)
    file = root / "sys/fs/cgroup/cpu.max"
    assert found.level is Level.OK
    assert found.text.startswith(f"host 16, affinity 8, quota 0.5 ({file}); 1 run at once of 1 thread")
    assert {"quota": 0.5, "cores": 1, "host": 16, "affinity": 8}.items() <= found.facts.items()


def test_more_workers_than_cores_are_a_warning(root: Path) -> None:
    """Each of them would wait for the others."""
    (found,) = machine.check_cpu(Settings(workers=4), root)
    assert found.level is Level.WARN and "--workers 1 " in found.remedy
    assert found.text.startswith("4 workers share 1 core;")


def test_memory_is_told_with_its_limit_and_what_bodies_may_have(root: Path) -> None:
    """A default that follows from the limit is told as it will be."""
    (found,) = machine.check_memory(Settings(), root)
    assert found.level is Level.OK
    assert "limit 512 MiB" in found.text and "100 MiB used now; bodies up to 128 MiB" in found.text
    assert found.facts["in_flight_bytes"] == 128 * MIB


def test_settings_that_promise_more_memory_than_there_is_are_named(root: Path) -> None:
    """Each with its variable; the service would start, and be killed one day."""
    settings = Settings(max_in_flight_bytes=2**30, load_memory_bytes=2**31)
    warnings = [each for each in machine.check_memory(settings, root) if each.level is Level.WARN]
    assert [each.text.split()[0] for each in warnings] == ["max_in_flight_bytes", "load_memory_bytes"]
    assert "INFOLD_LOAD_MEMORY_BYTES" in warnings[1].remedy


def test_memory_that_is_nearly_used_up_is_a_warning(root: Path) -> None:
    """Before the kernel acts."""
    (root / "sys/fs/cgroup/memory.current").write_text(f"{500 * MIB}\n")
    (found,) = machine.check_memory(Settings(), root)
    assert found.level is Level.WARN and found.text.startswith("nearly all")


@pytest.mark.parametrize(
    ("limits", "level", "words"),
    [
        ((1024, 1024), Level.WARN, "hard limit 1024: enough for 768 of 4096 connections"),
        ((1024, 2**20), Level.OK, "enough for 4096 connections"),
        ((1024, resource.RLIM_INFINITY), Level.OK, "hard limit no limit"),
    ],
)
def test_descriptors_are_told_as_connections(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], level: Level, words: str
) -> None:
    """The start raises the soft limit by itself: only the hard one counts."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    (found,) = machine.check_descriptors(Settings())
    assert found.level is level and words in found.text


def test_a_cache_that_can_be_made_is_left_unmade(tmp_path: Path) -> None:
    """Looking changes nothing."""
    (found,) = machine.check_cache(Settings(cache_dir=tmp_path / "a/b"))
    assert found.facts["exists"] is False and "can be written" in found.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("has_temporary", [True, False])
def test_a_cache_that_cannot_be_written_says_what_happens_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_temporary: bool
) -> None:
    """As in a container whose root is read-only."""
    monkeypatch.setattr(os, "access", lambda path, _: has_temporary and str(path) == "/tmp")
    (found,) = machine.check_cache(Settings(cache_dir=tmp_path / "cache"))
    assert found.level is Level.WARN
    assert ("a temporary folder is taken" if has_temporary else "nothing is kept") in found.text


def test_a_device_that_is_not_there_stops_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the words of the start; where the CPU is asked for, they are a remark."""
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    (found,), placement = machine.check_device(Settings(device="cuda"))
    assert (found.level, placement) == (Level.BAD, None) and "CPU build" in found.text
    findings, placement = machine.check_device(Settings())
    assert [each.level for each in findings] == [Level.OK, Level.OK] and placement is not None
    assert "CPU build" in findings[1].text and findings[1].facts["is_usable"] is False


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (2**20, "1 MiB"), (2**30 - 2, "1 GiB"), (1536, "1.5 KiB")],
)
def test_bytes_are_shown_in_their_largest_unit(count: int, shown: str) -> None:
    """With three digits, or four below the next unit."""
    assert shown_bytes(count) == shown
