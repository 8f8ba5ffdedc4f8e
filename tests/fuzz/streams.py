"""What is sent as HTTP and is none, or hardly: bytes for a connection of their own."""

from __future__ import annotations

from hypothesis import strategies as st

from fuzz.asking import Request, Stream, infer, predict

__all__ = ["STREAMS", "mangled", "torn"]

BODY = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}'
INFER = b"POST /v2/models/echo_float/infer HTTP/1.1\r\nhost: fuzz\r\n"
CHUNKED = INFER + b"transfer-encoding: chunked\r\n\r\n"
LIVE = Request(b"/v2/health/live", method=b"GET").wire


def _posted(*headers: bytes, body: bytes = BODY) -> bytes:
    return INFER + b"".join(each + b"\r\n" for each in headers) + b"\r\n" + body


def _got(target: bytes, *headers: bytes, version: bytes = b"HTTP/1.1", verb: bytes = b"GET") -> bytes:
    return b"%s %s %s\r\n" % (verb, target, version) + b"".join(each + b"\r\n" for each in headers) + b"\r\n"


LENGTH = b"content-length: %d" % len(BODY)
CHUNK = b"%x\r\n%s\r\n" % (len(BODY), BODY)

# By what is odd about each.
STREAMS: dict[str, bytes] = {
    # lengths
    "a length that is too long": _posted(b"content-length: 9000"),
    "a length that is too short": _posted(b"content-length: 3"),
    "a length of nothing": _posted(b"content-length:"),
    "two lengths": _posted(LENGTH, b"content-length: 3"),
    "one length twice": _posted(LENGTH, LENGTH),
    "a list of lengths": _posted(LENGTH + b", %d" % len(BODY)),
    "a negative length": _posted(b"content-length: -1"),
    "a hexadecimal length": _posted(b"content-length: 0x46"),
    "a length beyond 64 bits": _posted(b"content-length: " + b"9" * 30),
    "a length of many digits": _posted(b"content-length: " + b"0" * 5000 + b"70"),
    "a length above the limit": _posted(b"content-length: 999999999999"),
    "length and chunks": _posted(LENGTH, b"transfer-encoding: chunked", body=CHUNK + b"0\r\n\r\n"),
    "no length": _posted(),
    # chunks
    "chunks": CHUNKED + CHUNK + b"0\r\n\r\n",
    "chunks of a byte": CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n",
    "many chunks": CHUNKED + b"1\r\n \r\n" * 50_000 + CHUNK + b"0\r\n\r\n",
    "chunks beyond the limit": CHUNKED + (b"100000\r\n" + b" " * 2**20 + b"\r\n") * 5 + b"0\r\n\r\n",
    "a chunk whose length is no number": CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
    "a chunk of negative length": CHUNKED + b"-1\r\n{}\r\n0\r\n\r\n",
    "a chunk beyond 64 bits": CHUNKED + b"f" * 20 + b"\r\n{}\r\n0\r\n\r\n",
    "a chunk with a long extension": CHUNKED + b"2;a=" + b"b" * 100_000 + b"\r\n{}\r\n0\r\n\r\n",
    "a chunk longer than it says": CHUNKED + b"2\r\n{}more\r\n0\r\n\r\n",
    "chunks without an end": CHUNKED + CHUNK,
    "trailers": CHUNKED + CHUNK + b"0\r\ncontent-length: 3\r\nx: y\r\n\r\n",
    "chunks that end by a line feed": CHUNKED + b"2\n{}\n0\n\n",
    "chunked twice": _posted(b"transfer-encoding: chunked, chunked", body=CHUNK + b"0\r\n\r\n"),
    "gzip, chunked": _posted(b"transfer-encoding: gzip, chunked", body=CHUNK + b"0\r\n\r\n"),
    "an unknown transfer encoding": _posted(b"transfer-encoding: x"),
    "chunked, hidden": _posted(b"transfer-encoding:\x0bchunked", body=CHUNK + b"0\r\n\r\n"),
    # expectations, upgrades, connections
    "expect": _posted(LENGTH, b"expect: 100-continue"),
    "expect, and nothing comes": _posted(LENGTH, b"expect: 100-continue", body=b""),
    "expect something else": _posted(LENGTH, b"expect: 200-ok"),
    "a websocket": _got(b"/v2", b"upgrade: websocket", b"connection: upgrade", b"sec-websocket-version: 13"),
    "h2c": _got(b"/v2", b"upgrade: h2c", b"connection: upgrade, http2-settings", b"http2-settings: AAMAAABk"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 500,
    "HTTP/0.9": b"GET /v2\r\n",
    "HTTP/1.0": _got(b"/v2", version=b"HTTP/1.0"),
    "HTTP/1.0, kept alive": _got(b"/v2", b"connection: keep-alive", version=b"HTTP/1.0") + LIVE,
    "HTTP/9.9": _got(b"/v2", version=b"HTTP/9.9"),
    "a connection of two minds": _got(b"/v2", b"connection: close, keep-alive", b"connection: x"),
    # several at once
    "two in one": LIVE + _posted(LENGTH),
    "fifty in one": LIVE * 50 + _posted(LENGTH),
    "one and noise": LIVE + b"\0\1\2 noise\r\n\r\n",
    "a post and noise": _posted(LENGTH) + b"}\r\n\r\n",
    "empty lines before": b"\r\n\r\n\r\n" + LIVE,
    # headers
    "no host": _got(b"/v2"),
    "two hosts": _got(b"/nothing", b"host: a", b"host: b"),
    "a host that is none": _got(b"/nothing", b"host: [::1"),
    "a host of bytes": _got(b"/v2/models/", b"host: \xff\xfe/../?#@"),
    "a header without a colon": _got(b"/v2", b"host"),
    "a header without a name": _got(b"/v2", b": x"),
    "a space in a header's name": _got(b"/v2", b"host : x"),
    "a folded header": _got(b"/v2", b"host: x", b"a: b", b" c"),
    "NUL in a header": _got(b"/v2", b"a: b\0c"),
    "bytes in a header": _got(b"/v2", b"a: \x80\xff", b"x-request-id: \xff"),
    "line feeds only": b"GET /v2 HTTP/1.1\nhost: x\n\n",
    "carriage returns only": b"GET /v2 HTTP/1.1\rhost: x\r\r",
    "many headers": _got(b"/v2", *(b"h%d: x" % each for each in range(2000))),
    "a long header": _got(b"/v2", b"h: " + b"x" * 100_000),
    "headers without an end": b"GET /v2 HTTP/1.1\r\n" + b"h: x\r\n" * 2000,
    # the first line
    "a path of bytes": _got(b"/v2/models/\xff\xfe"),
    "a long path": _got(b"/v2/models/" + b"x" * 60_000),
    "a path beyond 64 KiB": _got(b"/v2/models/" + b"x" * 100_000),
    "no path": b"GET  HTTP/1.1\r\n\r\n",
    "a space in the path": _got(b"/v2/models/a b"),
    "a whole address": _got(b"http://example.com/v2"),
    "a whole address that is none": _got(b"http://[::1/v2"),
    "a star": _got(b"*", verb=b"OPTIONS"),
    "connect": _got(b"example.com:443", verb=b"CONNECT"),
    "a fragment": _got(b"/v2#x"),
    "another scheme": _got(b"file:///etc/passwd"),
    "a verb of our own": _got(b"/v2", verb=b"FETCH"),
    "a verb of WebDAV": _got(b"/v2/models/echo_float/infer", b"content-length: 0", verb=b"PROPFIND"),
    "a long verb": _got(b"/v2", verb=b"G" * 100_000),
    "a verb in small letters": _got(b"/v2", verb=b"get"),
    "nothing": b"",
    "NUL": b"\0" * 1000,
}

SOUND = [
    LIVE,
    infer("echo_float", BODY).wire,
    CHUNKED + CHUNK + b"0\r\n\r\n",
    predict("echo_float", b'{"instances":[[1,2]]}', (b"expect", b"100-continue")).wire,
    infer("echo_float", BODY + b" " * 70_000, (b"connection", b"close")).wire,
    infer("echo_float", BODY + b" " * 300_000).wire,
]
PIECES = [
    b"\r\n",
    b"\r\n\r\n",
    b"\0",
    b":",
    b" ",
    b"\n",
    b"\xff",
    b"content-length: 1\r\n",
    b"0",
    b"9" * 20,
    b"%00",
    b"/",
]
PIECES += [
    b"transfer-encoding: chunked\r\n",
    b"expect: 100-continue\r\n",
    b"connection: close\r\n",
    b"HTTP/1.0",
]


@st.composite
def mangled(draw: st.DrawFn) -> Stream:
    """A few sound requests in a row, with pieces cut out or put in."""
    chosen = draw(st.lists(st.sampled_from(range(len(SOUND))), min_size=1, max_size=3))
    data = b"".join(SOUND[each] for each in chosen)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, min(len(data), 400)))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=3))
        data = data[:start] + piece + data[start + draw(st.sampled_from([0, 0, 1, len(piece), 20])) :]
    return Stream(data)


@st.composite
def torn(draw: st.DrawFn) -> Stream:
    """The beginning of a sound request, from a client that leaves there."""
    data = SOUND[draw(st.sampled_from(range(len(SOUND))))]
    return Stream(data[: draw(st.integers(0, len(data) - 1))])
