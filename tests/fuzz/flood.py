"""Requests by the hundred thousand over a few connections, and what they leave in a server's memory."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fuzz.asking import TIMEOUT_S, Answer, Request, Stream, answers_in
from fuzz.judging import judge

__all__ = ["HAS_PROC", "Memory", "Sample", "flood", "samples"]

Sample = Request | Stream
# Where the memory of a process is told.
HAS_PROC = Path("/proc/self/smaps_rollup").exists()


def samples(strategy: st.SearchStrategy[Sample], count: int) -> list[Sample]:
    """So many examples of a strategy, the same every time."""
    found: list[Sample] = []

    @settings(max_examples=count, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(strategy)
    def collect(example: Sample) -> None:
        found.append(example)

    collect()
    return found


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a process, in MiB.

    Attributes:
        resident: All of it.
        proportional: Its own, and its share of what it shares.
    """

    resident: float
    proportional: float

    @classmethod
    def of(cls, pid: int) -> Self:
        """What a process has now."""
        lines = [line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]]
        sizes = {words[0]: int(words[1]) / 1024 for words in lines}
        return cls(sizes["Rss:"], sizes["Pss:"])


async def flood(address: str, mix: Sequence[Sample], count: int, callers: int) -> Counter[int]:
    """Answers by status, every one of them judged; 0 counts streams, whose answers nobody reads.

    Args:
        address: Host and port.
        mix: Cycled through.
        count: How many are sent.
        callers: Connections at a time.
    """
    statuses: Counter[int] = Counter()
    queue = itertools.islice(itertools.cycle(mix), count)
    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(_call(address, queue, statuses))
    return statuses


async def _call(address: str, queue: Iterator[Sample], statuses: Counter[int]) -> None:
    connection: Connection | None = None
    try:
        for sample in queue:
            if isinstance(sample, Stream):
                crashing = await Connection.open(address)
                await crashing.send(sample.wire)
                await crashing.close()
                statuses[0] += 1
                continue
            connection = connection or await Connection.open(address)
            await connection.send(sample.wire)
            answer = await connection.answer(is_bodiless=sample.method == b"HEAD")
            judge(sample, answer)
            statuses[answer.status] += 1
            if answer.is_last:
                await connection.close()
                connection = None
    finally:
        if connection is not None:
            await connection.close()


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection that is open until it is closed."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def open(cls, address: str) -> Self:
        """One to that host and port."""
        host, _, port = address.rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def send(self, data: bytes) -> None:
        """All is sent, or the server did not want all."""
        self.writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def answer(self, *, is_bodiless: bool) -> Answer:
        """The one answer that comes next."""
        data = b""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                answers, rest = answers_in(data, is_bodiless=is_bodiless)
                if answers:
                    assert len(answers) == 1 and not rest, (answers, rest[:200])
                    return answers[0]
                part = await self.reader.read(2**16)
                assert part, f"closed without an answer, after {data[:200]!r}"
                data += part

    async def close(self) -> None:
        """At once, whatever is still under way."""
        self.writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()
