"""Endurance: requests, swaps and bad clients for an hour; `make soak`."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from faults.run import STEPS, carry_out, crowd, run
from faults.sizes import SOAK
from faults.stage import Stage
from faults.vitals import HAS_PROC, Vitals

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(300 + 2 * 3600 * SOAK),
    pytest.mark.skipif(not HAS_PROC, reason="no /proc"),
]

SECONDS = 3600 * SOAK
EVERY_S = min(60.0, SECONDS / 3)
# Of what happens between two samples, by how often; who kills workers cannot tell whether they grow.
MIX = {name: 1 for name in STEPS if "kill" not in name} | {"hot swap": 20}
REST_S = 1.0
GROWTH_MIB, GROWTH_DESCRIPTORS, GROWTH_THREADS = 60.0, 8, 24


def test_an_hour_leaves_a_service_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Memory, descriptors and threads do not grow once it is warm, and nothing stays in a queue."""
    samples: list[tuple[float, Vitals]] = []

    def sample(seconds: float, vitals: Vitals) -> None:
        samples.append((seconds, vitals))
        with capsys.disabled():
            print(f"\n{seconds:7.0f} s {vitals}", end="", flush=True)

    with run(tmp_path, seed=1) as under_way:
        stage = under_way.stage
        sample(0.0, under_way.warmed())
        began = time.monotonic()
        while (passed := time.monotonic() - began) < SECONDS:
            with crowd(stage):
                mixed(stage, began + passed + EVERY_S)
            sample(time.monotonic() - began, under_way.vitals())
    ledger = stage.ledger
    with capsys.disabled():
        print(f"\n\n{ledger.table()}")
    assert (ledger.wrong, ledger.lost, ledger.broken) == ([], [], [])
    assert ledger.is_balanced
    assert len(samples) > 1
    warm = samples[len(samples) // 10][1]
    for _, each in samples:
        assert (each.waiting_rows, each.in_flight, each.processes) == (0, 0, warm.processes)
    last = samples[-1][1]
    assert last.memory_mib - warm.memory_mib < GROWTH_MIB
    assert last.descriptors - warm.descriptors <= GROWTH_DESCRIPTORS
    assert last.threads - warm.threads <= GROWTH_THREADS


def mixed(stage: Stage, end: float) -> None:
    """One step after another, whichever, until then."""
    while time.monotonic() < end:
        (name,) = stage.dice.choices(list(MIX), list(MIX.values()))
        carry_out(stage, name, STEPS[name])
        time.sleep(REST_S)
