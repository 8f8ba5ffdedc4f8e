"""The load generator of the serving benchmark against a server that misbehaves on request."""

import asyncio
import json
import os
import shutil
import struct
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SOURCES = Path(__file__).parents[2] / "benchmarks" / "serving"
VALUES = (1.5, -2.25, 1e-3)
RIGHT = json.dumps({"shape": [1, 3], "data": [VALUES]}).encode()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled load generator."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None or not Path("/proc/self").exists():
        pytest.skip("needs Linux and a C compiler")
    path = tmp_path_factory.mktemp("load") / "load"
    parts = [str(SOURCES / f"{each}.c") for each in ("load", "answer", "options")]
    warnings = ["-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, "-std=c11", "-O2", *warnings, "-o", str(path), *parts, "-lm"], check=True)
    return path


def answer(body: bytes, status: int = 200, *fields: str) -> bytes:
    """An answer with its length."""
    lines = [f"HTTP/1.1 {status} Said", f"content-length: {len(body)}", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(body: bytes) -> bytes:
    """An answer in chunks of five bytes."""
    parts = [body[at : at + 5] for at in range(0, len(body), 5)]
    coded = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + coded + b"0\r\n\r\n"


@dataclass
class Tally:
    """What the server saw."""

    port: int
    requests: int = 0


@asynccontextmanager
async def serving(reply: Callable[[int], bytes], delay_s: float = 0, parts: int = 1) -> AsyncIterator[Tally]:
    """A server that gives `reply(n)` to the n-th request, in some parts."""
    tally = Tally(0)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
                tally.requests += 1
                text = reply(tally.requests)
                await asyncio.sleep(delay_s)
                step = -(-len(text) // parts)
                for at in range(0, len(text), step):
                    writer.write(text[at : at + step])
                    await writer.drain()
                    await asyncio.sleep(0)
                if b"connection: close" in text:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    tally.port = server.sockets[0].getsockname()[1]
    async with server:
        yield tally


async def load(program: Path, folder: Path, port: int, check: str = 'json:"data":', **options: Any) -> Any:
    """What the generator says after a short run."""
    body = b"x" * 300_000  # more than a socket's buffer takes at once
    head = f"POST /infer HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\n\r\n"
    (folder / "request").write_bytes(head.encode() + body)
    (folder / "expected").write_bytes(struct.pack("<3f", *VALUES))
    told = {"connections": 3, "seconds": 0.4, "warmup": 0.1} | options
    words = [word for key, value in told.items() for word in (f"--{key}", str(value))]
    files = ["--request", str(folder / "request"), "--expect", str(folder / "expected"), "--check", check]
    process = await asyncio.create_subprocess_exec(
        program, "--port", str(port), *files, *words, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(out)


@pytest.mark.parametrize("form", [answer, chunked])
@pytest.mark.parametrize("parts", [1, 4])
async def test_every_answer_is_counted(
    program: Path, tmp_path: Path, form: Callable[[bytes], bytes], parts: int
) -> None:
    """The server and the generator agree, in any framing and however it is cut."""
    async with serving(lambda _: form(RIGHT), parts=parts) as tally:
        told = await load(program, tmp_path, tally.port)
    assert told["all_answers"] == tally.requests > 10
    assert 0 < told["answers"] <= told["all_answers"]
    assert told["statuses"] == {"200": told["answers"]}
    assert (told["wrong"], told["errors"]) == (0, 0)
    assert 0 < told["p50_ms"] <= told["p90_ms"] <= told["p99_ms"] <= told["max_ms"]


async def test_binary_values_are_the_end_of_the_body(program: Path, tmp_path: Path) -> None:
    """A header in front of them does not matter."""
    body = b'{"some": "header"}' + struct.pack("<3f", *VALUES)
    async with serving(lambda _: answer(body)) as tally:
        told = await load(program, tmp_path, tally.port, "binary")
    assert told["all_answers"] == tally.requests > 10
    assert told["wrong"] == 0


@pytest.mark.parametrize(
    "data", [[1.5, -2.25, 0.5], [1.5, -2.25], [*VALUES, 0.0], [1.5, -2.25, float("nan")], "no numbers"]
)
async def test_a_wrong_answer_is_found(program: Path, tmp_path: Path, data: object) -> None:
    """One in five: another value, too few, too many, none."""
    wrong = json.dumps({"data": data}).encode()
    async with serving(lambda number: answer(RIGHT if number % 5 else wrong)) as tally:
        told = await load(program, tmp_path, tally.port)
    assert told["wrong"] == tally.requests // 5 > 1
    assert told["all_answers"] == tally.requests - told["wrong"]


async def test_refusals_are_counted_by_status(program: Path, tmp_path: Path) -> None:
    """They are no answers, nor wrong; those that say when to come back are told apart."""
    refusals = (answer(b"full", 503, "Retry-After: 1"), answer(b"full", 503), answer(b"much", 429))

    def reply(number: int) -> bytes:
        return answer(RIGHT) if number % 2 else refusals[number // 2 % 3]

    async with serving(reply) as tally:
        told = await load(program, tmp_path, tally.port, warmup=0)
    assert set(told["statuses"]) == {"200", "429", "503"}
    assert told["statuses"]["200"] == told["answers"]
    assert abs(2 * told["retry_after"] - told["statuses"]["503"]) <= 2
    assert (told["wrong"], told["errors"]) == (0, 0)


async def test_a_connection_that_is_closed_is_made_anew(program: Path, tmp_path: Path) -> None:
    """Announced it is no error, in the middle of an answer it is."""
    polite, rude = answer(RIGHT, 200, "connection: close"), b"HTTP/1.1 200 OK\r\nconnection: close\r\ncont"
    async with serving(lambda number: polite if number % 2 else rude) as tally:
        told = await load(program, tmp_path, tally.port)
    assert told["all_answers"] > 3
    assert told["errors"] > 3
    assert told["wrong"] == 0


async def test_an_open_loop_keeps_its_rate(program: Path, tmp_path: Path) -> None:
    """As many arrive as were asked for, however quick the server is."""
    async with serving(lambda _: answer(RIGHT)) as tally:
        told = await load(program, tmp_path, tally.port, rate=100, seconds=1, connections=8, seed=1)
    assert 60 <= told["answers"] <= 140  # four standard deviations
    assert told["all_answers"] == tally.requests
    assert told["unanswered"] == 0


async def test_an_open_loop_counts_the_wait_for_a_connection(program: Path, tmp_path: Path) -> None:
    """A server at half the rate of arrivals falls behind, and the latency says so."""
    async with serving(lambda _: answer(RIGHT), delay_s=0.04) as tally:
        told = await load(program, tmp_path, tally.port, rate=50, seconds=0.8, connections=1, drain=0.1)
    assert told["late"] > 5
    assert told["max_ms"] > 200
    assert told["unanswered"] > 5
