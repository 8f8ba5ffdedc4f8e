"""Compressed bodies: what a request's was before, and an answer's made shorter.

Pure: who calls decides on which thread. Inflating takes no more memory than the
limit and a few pieces, and a body that is refused leaves none behind.

Source: RFC 9110 sections 8.4 and 12.5.3 (codings and how they are chosen), RFC 1950 to
1952 (zlib, deflate, gzip).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from infold.errors import BodyTooLargeError, MalformedBodyError, UnsupportedCodingError
from infold.rest.room import room_for

__all__ = ["Coding", "Wish", "coding_of", "compress", "inflate", "inflate_at_once", "wish_of"]


class Coding(StrEnum):
    """What is served, the preferred one first: a gzip stream can be mistaken for nothing else."""

    GZIP = "gzip"
    DEFLATE = "deflate"


CODINGS = {"gzip": Coding.GZIP, "x-gzip": Coding.GZIP, "deflate": Coding.DEFLATE}

# What zlib is told: the window's width, and by its sign or an offset what stands around the stream.
GZIP, ZLIB, RAW = 31, 15, -15

# Inflated in less time than it takes to wake another thread.
AT_ONCE_BYTES = 2**16
# Read and written at a time: zlib copies what it has not read yet.
SLICE_BYTES = 2**15
PIECE_BYTES = 2**18
# Deflate gives no more than 258 bytes for two bits.
MOST_RATIO = 1032
# An empty one is 20 bytes and takes far longer than to inflate those; bgzip makes one of 64 KiB.
MOST_MEMBERS = 2**14

# The quickest: a caller waits for its answer, and nobody keeps it.
LEVEL = 1
# Longer answers are tried on a part of them first.
TRIED_BYTES = 2**16
SAMPLE_BYTES = 2**13
# Numbers that look random shrink to nine tenths, which no network needs and any CPU feels.
WORTH = 7 / 8


def coding_of(listed: str) -> Coding | None:
    """The coding that a request's body comes in; None where it comes as it is.

    Args:
        listed: Its `Content-Encoding`.

    Raises:
        UnsupportedCodingError: It is none that is served, or there are several.
    """
    names = [name for part in listed.split(",") if (name := part.strip().lower())]
    if not names or names == ["identity"]:
        return None
    if len(names) == 1 and names[0] in CODINGS:
        return CODINGS[names[0]]
    raise UnsupportedCodingError(listed, list(Coding))


def inflate_at_once(body: bytes | memoryview, coding: Coding, limit_bytes: int) -> bytes | None:
    """What a short body was before; None where finding out takes a while.

    Raises:
        MalformedBodyError: It is no whole stream of that coding.
        BodyTooLargeError: It was longer than the limit.
    """
    stream = zlib.decompressobj(_form(coding, body))
    try:
        found = stream.decompress(body, AT_ONCE_BYTES)
    except zlib.error as broken:
        raise _no_stream(coding, broken) from None
    if stream.unconsumed_tail or stream.unused_data or len(found) == AT_ONCE_BYTES:
        return None
    if not stream.eof:
        raise _no_stream(coding, TOO_SHORT)
    if len(found) > limit_bytes:
        raise BodyTooLargeError(limit_bytes, is_decompressed=True)
    return found


def inflate(
    body: bytes | memoryview,
    coding: Coding,
    limit_bytes: int,
    tensors_at: int = 0,
    grows: Callable[[int], None] = lambda size: None,
) -> memoryview:
    """What a body was before, in memory of its own that is aligned from `tensors_at` on.

    Args:
        body: As it came.
        coding: Of it; a deflate stream may come without zlib's header and checksum.
        limit_bytes: Most it may have been.
        tensors_at: Where in it tensors begin.
        grows: Told how long it is so far, before it is; may raise.

    Raises:
        MalformedBodyError: It is no whole stream of that coding, or something follows it.
        BodyTooLargeError: It was longer than the limit.
    """
    room = room_for(min(limit_bytes, len(body) * MOST_RATIO), tensors_at)
    end = 0
    try:
        for piece in _pieces(memoryview(body), coding):
            start, end = end, end + len(piece)
            if end > limit_bytes:
                raise BodyTooLargeError(limit_bytes, is_decompressed=True)
            grows(end)
            room[start:end] = piece
        return room[:end]
    finally:
        del room  # an error that somebody keeps would keep it


def _pieces(body: memoryview, coding: Coding) -> Iterator[bytes]:
    """What it was, a piece of at most `PIECE_BYTES` at a time."""
    stream, members = zlib.decompressobj(_form(coding, body)), 1
    for start in range(0, len(body), SLICE_BYTES):
        data: bytes | memoryview = body[start : start + SLICE_BYTES]
        has_more = True  # of what it has read already
        while data or has_more:
            if stream.eof:
                if coding is not Coding.GZIP:
                    raise _no_stream(coding, "something follows its end")
                stream, members = zlib.decompressobj(GZIP), members + 1
                if members > MOST_MEMBERS:
                    raise _no_stream(coding, f"it has more than {MOST_MEMBERS} members")
            try:
                piece = stream.decompress(data, PIECE_BYTES)
            except zlib.error as broken:
                raise _no_stream(coding, broken, members) from None
            yield piece
            has_more = len(piece) == PIECE_BYTES and not stream.eof
            data = stream.unused_data if stream.eof else stream.unconsumed_tail
    if not stream.eof:
        raise _no_stream(coding, TOO_SHORT, members)


TOO_SHORT = "it ends too early"


def _form(coding: Coding, body: bytes | memoryview) -> int:
    """What stands around a stream, as zlib is told."""
    if coding is Coding.GZIP:
        return GZIP
    # No encoder begins a raw stream so: it would be a stored block with garbage in its padding.
    has_header = len(body) < 2 or (body[0] & 15 == 8 and (body[0] << 8 | body[1]) % 31 == 0)
    return ZLIB if has_header else RAW


def _no_stream(coding: Coding, why: object, member: int = 1) -> MalformedBodyError:
    reason = str(why).rpartition("decompressing data: ")[2]
    at = f"member {member}: " if member > 1 else ""
    return MalformedBodyError(f"content-encoding: the body is no whole {coding} stream: {at}{reason}")


@dataclass(frozen=True, slots=True)
class Wish:
    """How a caller would have the answer.

    Attributes:
        coding: In this one.
        is_must: And not as it is.
    """

    coding: Coding
    is_must: bool = False


def wish_of(accepted: str) -> Wish | None:
    """How an answer is best compressed for a caller; None where it is not to be.

    Where the weights are equal a compressed answer is preferred, and gzip to deflate.
    Elements that make no sense count as not acceptable. Whoever refuses everything is sent the
    answer as it is.

    Args:
        accepted: The request's `Accept-Encoding`.
    """
    weights: dict[str, float] = {}
    for element in accepted.lower().split(","):
        name, _, parameter = element.partition(";")
        name = name.strip()
        weights[CODINGS.get(name, name)] = _weight(parameter)
    others = weights.get("*", 0.0)
    best = max(Coding, key=lambda coding: weights.get(coding, others))
    weight = weights.get(best, others)
    if weight == 0 or weight < weights.get("identity", 0.0):
        return None
    return Wish(best, weights.get("identity", weights.get("*", 1.0)) == 0)


def _weight(parameter: str) -> float:
    """The q of an element; 0 where it is none."""
    name, _, value = parameter.strip().partition("=")
    if not name:
        return 1.0
    is_number = value.isascii() and value.replace(".", "", 1).isdigit() and len(value) < 6
    return float(value) if name == "q" and is_number and float(value) <= 1 else 0.0


def compress(parts: Sequence[bytes | memoryview], wish: Wish) -> list[bytes] | None:
    """A shorter body in parts; None where it would not be worth it.

    Args:
        parts: Of the body.
        wish: How it is wanted.
    """
    longest = max(parts, key=len)
    if len(longest) > TRIED_BYTES and not wish.is_must:
        start = (len(longest) - SAMPLE_BYTES) // 2
        if len(zlib.compress(longest[start : start + SAMPLE_BYTES], LEVEL)) > SAMPLE_BYTES * WORTH:
            return None
    stream = zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP if wish.coding is Coding.GZIP else ZLIB)
    pieces = [*map(stream.compress, parts), stream.flush()]
    return [piece for piece in pieces if piece]
