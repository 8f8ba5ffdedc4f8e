"""Everything that goes wrong in a service's life, under load; `make test-faults`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from faults.ending import end_and_begin_again
from faults.run import BAD_CLIENTS, STEPS, Run, carry_out, crowd, one_after_another, run, steps
from faults.sizes import FAULTS, scaled
from faults.stage import until
from faults.vitals import HAS_PROC, Vitals

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(300 + 1200 * FAULTS),
    pytest.mark.skipif(not HAS_PROC, reason="no /proc"),
]

SECONDS = 240 * FAULTS
COUNTS = {
    **dict.fromkeys(STEPS, scaled(4)),
    "hot swap": scaled(50, 10),
    "kill -9 a worker": scaled(10, 2),
}
LEAST_ANSWERED = scaled(50_000, 10_000)
ENDS = scaled(5)
# How much more the service may take in the end than it took when it was warm.
GROWTH_MIB, GROWTH_DESCRIPTORS, GROWTH_THREADS = 60.0, 8, 24


def test_no_answer_is_wrong_and_none_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every answer has the very bits of a version that was there, every refusal its reason."""
    with run(tmp_path) as under_way:
        stage = under_way.stage
        first = under_way.warmed()
        with crowd(stage):
            one_after_another(stage, steps(stage.dice, COUNTS), SECONDS)
            until(lambda: stage.ledger.answered >= LEAST_ANSWERED, "as many answers as are wanted", 300)
        last = under_way.vitals()
        for _ in range(ENDS):
            carry_out(stage, "SIGTERM", end_and_begin_again)
    ledger = stage.ledger
    with capsys.disabled():
        print(f"\n{ledger.table()}\n\nat the start {first}\nin the end   {last}")
    assert (ledger.wrong, ledger.lost, ledger.broken) == ([], [], [])
    assert ledger.is_balanced
    assert {*STEPS, *BAD_CLIENTS, "SIGTERM"} == set(ledger.faults)
    assert_bounded(first, last)
    assert_calm(under_way)


def assert_bounded(first: Vitals, last: Vitals) -> None:
    """What it takes has not grown, nothing waits, and every process is there."""
    assert (last.waiting_rows, last.in_flight, last.processes) == (0, 0, first.processes)
    assert last.memory_mib - first.memory_mib < GROWTH_MIB
    assert last.descriptors - first.descriptors <= GROWTH_DESCRIPTORS
    assert last.threads - first.threads <= GROWTH_THREADS


def assert_calm(under_way: Run) -> None:
    """The log is JSON, and nothing in it a failure of ours."""
    text = under_way.stage.host.log.read_text()
    assert "Traceback" not in text, text[text.index("Traceback") :][:3000]
    for line in text.splitlines():
        json.loads(line)
