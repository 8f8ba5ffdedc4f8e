"""Requests that are far more than they may be: compressed, nested, declared, or simply long."""

from __future__ import annotations

import functools
import gzip
import socket
import zlib
from collections.abc import Callable

from faults.questions import BUSY, reason_of
from faults.stage import Stage
from fuzz.asking import Line, Request, infer

__all__ = ["FLOODS", "MAX_BODY_BYTES", "endless_chunks", "long_declared"]

# What the service is told, so that going beyond costs little.
MAX_BODY_BYTES = 4 * 2**20
# What may lie in the buffers of two sockets when the other end reads no more.
BUFFERED_BYTES = 32 * 2**20
HUGE_BYTES = 3 * 2**30
TIMEOUT_S = 60.0
CHUNK = b"100000\r\n" + bytes(2**20) + b"\r\n"
DEPTH = 250_000
GZIP, DEFLATE, TWICE = ((b"content-encoding", each) for each in (b"gzip", b"deflate", b"gzip, gzip"))


@functools.cache
def zeros(size: int, wbits: int = 31) -> bytes:
    """A compressed row of zeros, a thousandth of its length; by default as gzip."""
    stream, piece = zlib.compressobj(9, zlib.DEFLATED, wbits), bytes(2**20)
    parts = [stream.compress(piece[: size - done]) for done in range(0, size, len(piece))]
    return b"".join(parts) + stream.flush()


@functools.cache
def nested() -> bytes:
    """400 MB of zeros, compressed twice."""
    return gzip.compress(zeros(HUGE_BYTES // 8))


def deep(text: bytes = b"[" * DEPTH) -> Request:
    """An infer request whose data is that text."""
    return infer("line", b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":' + text + b"}]}")


# By what is too much of each, with the status that it is refused with.
LARGE = 16 * MAX_BODY_BYTES
REQUESTS: dict[str, tuple[Callable[[], Request], int]] = {
    "decompression bomb: gzip of zeros": (lambda: infer("line", zeros(LARGE), GZIP), 413),
    "decompression bomb: deflate": (lambda: infer("line", zeros(LARGE, 15), DEFLATE), 413),
    "decompression bomb: members": (lambda: infer("line", zeros(2**20) * 64, GZIP), 413),
    "decompression bomb: empty members": (lambda: infer("line", gzip.compress(b"") * 100_000, GZIP), 400),
    "decompression bomb: gzip in gzip": (lambda: infer("line", nested(), GZIP), 400),
    "decompression bomb: twice as it says": (lambda: infer("line", nested(), TWICE), 415),
    "deep JSON": (lambda: deep(b"[" * DEPTH + b"]" * DEPTH), 400),
    "deep JSON without an end": (deep, 400),
    "deep JSON in predict": (
        lambda: Request(b"/v1/models/line:predict", b'{"instances":' + b"[" * DEPTH),
        400,
    ),
}


def too_much(stage: Stage, name: str) -> str:
    """It is refused by its status with a reason, and the next request on the connection is served."""
    request, status = REQUESTS[name]
    host, port = stage.host.address
    with Line(f"{host}:{port}") as line:
        given = line.ask(request())
        assert given.status in (status, *BUSY) and reason_of(given), given
        assert line.ask(Request(b"/v2/health/live", method=b"GET")).status == 200
    return str(given.status)


def long_declared(stage: Stage) -> str:
    """3 GB by its own word: refused before any of it is read."""
    head = b"POST /v2/models/line/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % HUGE_BYTES
    return _poured(stage, head, bytes(2**20))


def endless_chunks(stage: Stage) -> str:
    """3 GB in chunks: read no further than the limit."""
    head = b"POST /v2/models/line/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    return _poured(stage, head, CHUNK)


def _poured(stage: Stage, head: bytes, part: bytes) -> str:
    """A body is sent until nobody takes it any more; what was said of it meanwhile."""
    said, poured = b"", 0
    with socket.create_connection(stage.host.address, timeout=TIMEOUT_S) as pouring:
        try:
            pouring.sendall(head)
            while poured < HUGE_BYTES:
                poured += pouring.send(part)
        except ConnectionError:
            pass
        try:
            while more := pouring.recv(2**16):
                said += more
        except ConnectionError:
            pass  # what is not read on is reset, and with it what was said
    assert poured < MAX_BODY_BYTES + BUFFERED_BYTES, f"{poured} bytes were taken"
    assert not said or said.startswith(b"HTTP/1.1 413 "), said
    return "413" if said else "cut off"


FLOODS: dict[str, Callable[[Stage], str]] = {
    name: functools.partial(too_much, name=name) for name in REQUESTS
}
FLOODS |= {"3 GB declared": long_declared, "3 GB in chunks": endless_chunks}
