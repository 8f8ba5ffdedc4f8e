"""Endurance: everything that is fuzzed, over and over, leaves the server's memory as it was."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzz import streams
from fuzz.conftest import healthy
from fuzz.drafts import drafts
from fuzz.flood import HAS_PROC, Memory, Sample, flood, samples
from fuzz.kinds import KINDS
from fuzz.messages import MESSAGES
from fuzz.mistakes import MISTAKES, mistaken
from fuzz.rows import row_drafts
from fuzz.sizes import scaled
from fuzz.texts import TEXTS
from servers import Server

WARM_UP = 5_000
REQUESTS = scaled(100_000)
CALLERS = 12
GROWTH_MIB = 30.0
# Of one generator.
EACH = 25
# What is longer leaves gaps in the heap, which fill up only after far more requests.
LONG_BYTES = 2**16


@pytest.fixture(scope="module")
def mix() -> list[Sample]:
    """A few of every kind, and right ones as often as all others."""
    strategies = [each().map(lambda pair: pair[0]) for each in TEXTS]
    strategies += [each() for each in (*MESSAGES, *KINDS, streams.mangled, streams.torn)]
    strategies += [mistaken(each).map(lambda pair: pair[0]) for each in MISTAKES]
    found = [sample for strategy in strategies for sample in samples(strategy, EACH)]
    found = [each for each in found if len(each.wire) < LONG_BYTES]
    right = [drafts(), drafts(with_bytes=False), row_drafts()]
    found += [
        sample for each in right for sample in samples(each.map(lambda one: one.request), len(found) // 3)
    ]
    random.Random(0).shuffle(found)
    return found


@pytest.fixture
def fresh(fuzzed_models: Path, tmp_path: Path) -> Iterator[Server]:
    """A server that has seen nothing yet."""
    with healthy(fuzzed_models, tmp_path) as server:
        yield server


@pytest.mark.skipif(not HAS_PROC, reason="no /proc")
def test_memory_does_not_grow(fresh: Server, mix: list[Sample], capsys: pytest.CaptureFixture[str]) -> None:
    """By no more than 30 MiB, however many have asked whatever they like."""
    asyncio.run(flood(fresh.address, mix, WARM_UP, CALLERS))
    before = Memory.of(fresh.process.pid)
    statuses = asyncio.run(flood(fresh.address, mix, REQUESTS, CALLERS))
    after = Memory.of(fresh.process.pid)
    growth = after.resident - before.resident
    with capsys.disabled():
        print(
            f"\n{REQUESTS} requests, {len(mix)} different ones, over {CALLERS} connections, "
            f"answers by status: {dict(sorted(statuses.items()))}"
            f"\nPSS {before.proportional:.1f} -> {after.proportional:.1f} MiB, "
            f"RSS {before.resident:.1f} -> {after.resident:.1f} MiB: "
            f"{growth:+.1f} MiB, {growth * 2**20 / REQUESTS:+.0f} bytes a request"
        )
    assert growth < GROWTH_MIB
