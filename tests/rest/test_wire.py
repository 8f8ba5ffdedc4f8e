"""Bodies in and answers out, below any socket."""

import gzip
import re
import threading
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from starlette.types import Message, Receive, Scope

from infold.errors import BodyTooLargeError, MalformedBodyError, UnsupportedCodingError
from infold.rest import wire
from infold.rest.reply import Reply
from infold.rest.wire import AT_ONCE_BYTES, LEAST_BYTES, Endpoint, read_body

LIMIT = 2**20
Headers = Sequence[tuple[bytes, bytes]]
GZIP = (b"content-encoding", b"gzip")
LONG = bytes(range(256)) * 500


def asked(*headers: tuple[bytes, bytes]) -> Scope:
    return {"type": "http", "headers": list(headers)}


def arriving(body: bytes) -> Receive:
    """A body in two parts."""
    half = len(body) // 2
    parts = [{"body": body[:half], "more_body": True}, {"body": body[half:], "more_body": False}]

    async def receive() -> Message:
        return {"type": "http.request", **parts.pop(0)}

    return receive


async def read(body: bytes, *headers: tuple[bytes, bytes]) -> bytes:
    return bytes(await read_body(asked(*headers), arriving(body), LIMIT, 10))


@pytest.mark.parametrize("plain", [b"", b"short", LONG])
async def test_a_compressed_body_is_read_as_what_it_was(plain: bytes) -> None:
    """In one coding, in whatever case it is named."""
    assert await read(plain) == plain
    assert await read(plain, (b"content-encoding", b"identity")) == plain
    assert await read(gzip.compress(plain), GZIP) == plain
    assert await read(gzip.compress(plain), (b"content-encoding", b"X-GZIP")) == plain
    assert await read(zlib.compress(plain), (b"content-encoding", b"Deflate")) == plain


async def test_tensors_in_a_body_are_aligned_once_it_is_inflated() -> None:
    """The header that says where they begin counts bytes of that."""
    for json_bytes in (100, 101):
        begin = (b"inference-header-content-length", b"%d" % json_bytes)
        body = await read_body(asked(GZIP, begin), arriving(gzip.compress(LONG)), LIMIT, 10)
        assert body == LONG
        assert (np.frombuffer(body, np.uint8).ctypes.data + json_bytes) % 64 == 0


async def test_a_coding_on_each_of_two_lines_is_two_codings() -> None:
    """The last line does not speak for both."""
    for second in (b"gzip", b"identity"):
        with pytest.raises(UnsupportedCodingError):
            await read(gzip.compress(b"x"), GZIP, (b"content-encoding", second))


@pytest.mark.parametrize("size", [10, 2 * AT_ONCE_BYTES])
async def test_a_broken_body_is_refused_whatever_its_length(size: int) -> None:
    """Also where another thread finds out."""
    with pytest.raises(MalformedBodyError, match="content-encoding"):
        await read(gzip.compress(LONG, 0)[:size], GZIP)


async def test_a_body_above_the_limit_before_it_was_compressed_says_so() -> None:
    """It is not taken for one whose rest is unread."""
    with pytest.raises(BodyTooLargeError, match="decompressed") as refused:
        await read(gzip.compress(bytes(LIMIT + 1)), GZIP)
    assert refused.value.is_decompressed


@pytest.mark.parametrize(
    ("body", "is_at_once"),
    [
        (gzip.compress(b"short"), True),
        (gzip.compress(bytes(LIMIT)), False),
        (gzip.compress(LONG, 0), False),
        (gzip.compress(b"") * 100, False),
    ],
    ids=["short", "short bomb", "long", "members"],
)
async def test_what_takes_a_while_is_inflated_beside_the_event_loop(
    monkeypatch: pytest.MonkeyPatch, body: bytes, is_at_once: bool
) -> None:
    """A thread is woken only for that."""
    found = watched(monkeypatch, "inflate")
    await read(body, GZIP)
    assert found == ([] if is_at_once else [False])


def watched(monkeypatch: pytest.MonkeyPatch, name: str) -> list[bool]:
    """For each call of a function, whether it was on the event loop's thread."""
    calls: list[bool] = []
    real, loop = getattr(wire, name), threading.get_ident()

    def watching(*arguments: Any) -> Any:
        calls.append(threading.get_ident() == loop)
        return real(*arguments)

    monkeypatch.setattr(wire, name, watching)
    return calls


# -- answers ----------------------------------------------------------------------------------------


async def answered(
    parts: Sequence[bytes], *headers: tuple[bytes, bytes], compresses: bool = True
) -> tuple[dict[bytes, bytes], bytes, int]:
    """Headers and body that are sent, and the length that is told the log."""

    async def answer(*_: object) -> Reply:
        return Reply(parts, headers=((b"x-more", b"1"),))

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(dict(message))

    endpoint = Endpoint("/", re.compile("/"), answer, compresses=compresses)
    status, size = await endpoint.serve("m", None, asked(*headers), arriving(b""), send, [])
    assert status == sent[0]["status"] == 200
    return dict(sent[0]["headers"]), b"".join(each["body"] for each in sent[1:]), size


ANY = (b"accept-encoding", b"gzip, deflate")


@pytest.mark.parametrize("size", [LEAST_BYTES, AT_ONCE_BYTES, AT_ONCE_BYTES + 1, 500_000])
async def test_an_answer_is_compressed_for_whoever_accepts_it(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Its length is that of what is sent; a long one is compressed beside the event loop."""
    calls = watched(monkeypatch, "compress")
    plain = (LONG * 10)[:size]
    headers, body, told = await answered([plain[:100], plain[100:]], ANY)
    assert gzip.decompress(body) == plain
    assert headers == {
        b"content-type": b"application/json",
        b"content-length": b"%d" % len(body),
        b"x-more": b"1",
        b"content-encoding": b"gzip",
        b"vary": b"accept-encoding",
    }
    assert told == len(body) < size
    assert calls == [size <= AT_ONCE_BYTES]


async def test_weights_on_several_lines_are_one_list() -> None:
    """As a proxy may leave them."""
    lines = [(b"accept-encoding", b"gzip;q=0.1"), (b"accept-encoding", b"deflate")]
    for order in (lines, lines[::-1]):
        headers, body, _ = await answered([LONG], *order)
        assert headers[b"content-encoding"] == b"deflate"
        assert zlib.decompress(body) == LONG


@pytest.mark.parametrize(
    ("size", "accepted", "compresses"),
    [
        (LEAST_BYTES - 1, b"gzip", True),
        (5000, b"", True),
        (5000, b"identity", True),
        (5000, b"br", True),
        (5000, b"gzip;q=0", True),
        (5000, b"gzip", False),
    ],
)
async def test_an_answer_that_goes_out_as_it_is(size: int, accepted: bytes, compresses: bool) -> None:
    """Too short, not wanted, or switched off."""
    headers, body, told = await answered([LONG[:size]], (b"accept-encoding", accepted), compresses=compresses)
    assert body == LONG[:size]
    assert told == size
    assert not {b"content-encoding", b"vary"} & set(headers)


async def test_a_caller_that_says_nothing_gets_the_answer_as_it_is() -> None:
    """Nor is anything computed for it."""
    headers, body, _ = await answered([LONG])
    assert (body, b"content-encoding" in headers) == (LONG, False)
