"""Bodies that are compressed, or say so."""

from __future__ import annotations

import gzip
import zlib
from functools import cache

from hypothesis import strategies as st

from fuzz.asking import Request, infer, predict
from fuzz.damage import damaged
from fuzz.drafts import Draft, drafts

__all__ = ["compressed", "compressed_drafts"]

RIGHT = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}'
# The last but one is a bomb: above the limit on bodies once it is unpacked.
RAW = [RIGHT, b"", b"[" * 10**6, b" " * 30 * 2**20, RIGHT + b" " * 10**6]
WAYS = ["gzip", "zlib", "bare", "twice", "not at all"]
NAMES = [b"gzip", b"deflate", b"x-gzip", b"br", b"zstd", b"identity", b"gzip, gzip", b"GZIP", b"", b"a" * 900]


@cache
def _packed(which: int, way: str) -> bytes:
    raw = RAW[which]
    match way:
        case "gzip":
            return gzip.compress(raw, mtime=0)
        case "zlib":
            return zlib.compress(raw)
        case "bare":  # without the header that `deflate` of HTTP has
            return zlib.compress(raw, wbits=-15)
        case "twice":
            return gzip.compress(gzip.compress(raw, mtime=0), mtime=0)
    return raw[: 2**20]


@st.composite
def compressed(draw: st.DrawFn) -> Request:
    """Bodies damaged, doubled, far larger once unpacked, or in encodings nobody has heard of."""
    body = _packed(draw(st.sampled_from(range(len(RAW)))), draw(st.sampled_from(WAYS)))
    headers = [(b"content-encoding", draw(st.sampled_from(NAMES)))]
    if draw(st.booleans()):
        accepted = draw(st.sampled_from([*NAMES, b"*;q=0", b"gzip;q=x", b"gzip;q=0"]))
        headers.append((b"accept-encoding", accepted))
    if draw(st.booleans()):
        headers.append((b"inference-header-content-length", b"%d" % draw(st.integers(0, 2**20))))
    ask = draw(st.sampled_from([infer, predict]))
    return ask("echo_float", damaged(draw, body), *headers)


@st.composite
def compressed_drafts(draw: st.DrawFn) -> tuple[Draft, Request]:
    """A right request, and the same compressed rightly."""
    draft = draw(drafts(with_bytes=draw(st.booleans())))
    right = draft.request
    body, name = right.body or b"", draw(st.sampled_from([b"gzip", b"deflate"]))
    packed = zlib.compress(body) if name == b"deflate" else gzip.compress(body, mtime=0)
    return draft, Request(right.target, packed, headers=(*right.headers, (b"content-encoding", name)))
