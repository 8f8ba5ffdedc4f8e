"""Compressed bodies, in every form they come in, whole and broken, and how an answer is wanted."""

import gc
import gzip
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infold.errors import BodyTooLargeError, MalformedBodyError, UnsupportedCodingError
from infold.rest.compression import (
    AT_ONCE_BYTES,
    MOST_MEMBERS,
    PIECE_BYTES,
    SLICE_BYTES,
    TRIED_BYTES,
    Coding,
    Wish,
    coding_of,
    compress,
    inflate,
    inflate_at_once,
    wish_of,
)

LIMIT = 2**26


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return stream.compress(data) + stream.flush()


def in_members(data: bytes) -> bytes:
    """Gzip as some tools write it: several streams, empty ones among them."""
    return b"".join(map(gzip.compress, (data[:3], b"", data[3:])))


Form = tuple[Coding, Callable[[bytes], bytes]]
FORMS: dict[str, Form] = {
    "gzip": (Coding.GZIP, gzip.compress),
    "members": (Coding.GZIP, in_members),
    "stored": (Coding.GZIP, lambda data: gzip.compress(data, 0)),
    "zlib": (Coding.DEFLATE, zlib.compress),
    "small window": (Coding.DEFLATE, lambda data: zlib.compress(data, 1, 9)),
    "raw": (Coding.DEFLATE, raw_deflate),
}
forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
TEXT = b"".join(b'{"number":%d},' % number for number in range(30))


def outcome(body: bytes, coding: Coding, limit_bytes: int = LIMIT) -> bytes:
    """What a body was before; both ways of finding out say the same, if the quick one says anything."""
    try:
        found = bytes(inflate(body, coding, limit_bytes))
    except (MalformedBodyError, BodyTooLargeError) as refused:
        try:
            assert inflate_at_once(body, coding, limit_bytes) is None
        except (MalformedBodyError, BodyTooLargeError) as sooner:
            assert (type(sooner), str(sooner)) == (type(refused), str(refused))
        raise
    assert inflate_at_once(body, coding, limit_bytes) in (None, found)
    return found


# -- whole ------------------------------------------------------------------------------------------


@forms
@given(data=st.binary(max_size=300), times=st.sampled_from([1, 1, 50, 5000]))
@settings(deadline=None)
def test_a_body_is_what_it_was_before(form: Form, data: bytes, times: int) -> None:
    """In every form, short and long."""
    coding, press = form
    assert outcome(press(data * times), coding) == data * times


@forms
@pytest.mark.parametrize("size", [SLICE_BYTES, PIECE_BYTES, AT_ONCE_BYTES, 3 * PIECE_BYTES])
@pytest.mark.parametrize("more", [-1, 0, 1, 25])
@pytest.mark.parametrize("kind", ["zeros", "noise"])
def test_lengths_around_those_that_are_read_at_once(form: Form, size: int, more: int, kind: str) -> None:
    """Where a stream, a slice and a piece end together or nearly so, and where nothing shrinks."""
    coding, press = form
    data = bytes(size + more) if kind == "zeros" else np.random.default_rng(1).bytes(size + more)
    assert outcome(press(data), coding) == data


def test_what_shrinks_most_still_fits() -> None:
    """Memory is taken for the most that deflate can give."""
    zeros = bytes(20_000_000)
    body = raw_deflate(zeros)
    assert len(zeros) > 1028 * len(body)
    assert inflate(body, Coding.DEFLATE, LIMIT) == zeros


@pytest.mark.parametrize("tensors_at", [0, 1, 77, 64, 1000, 10**9])
def test_tensors_are_aligned_in_an_inflated_body(tensors_at: int) -> None:
    """Wherever they begin, though it may be nowhere."""
    data = np.random.default_rng(2).bytes(5000)
    for _ in range(5):
        body = inflate(gzip.compress(data), Coding.GZIP, LIMIT, tensors_at)
        assert body == data
        tensors = np.frombuffer(body, np.uint8)
        assert (tensors.ctypes.data + tensors_at) % 64 == 0


def test_what_takes_a_while_is_not_inflated_at_once() -> None:
    """Neither many bytes nor many members."""
    assert inflate_at_once(gzip.compress(bytes(AT_ONCE_BYTES - 1)), Coding.GZIP, LIMIT) is not None
    assert inflate_at_once(gzip.compress(bytes(AT_ONCE_BYTES)), Coding.GZIP, LIMIT) is None
    assert inflate_at_once(gzip.compress(b"x") * 2, Coding.GZIP, LIMIT) is None


# -- broken -----------------------------------------------------------------------------------------


@forms
def test_a_stream_that_ends_too_early_is_refused(form: Form) -> None:
    """Wherever it ends, unless a member of gzip ends there."""
    coding, press = form
    body = press(TEXT)
    ends = {len(gzip.compress(TEXT[:3])), len(gzip.compress(TEXT[:3]) + gzip.compress(b""))}
    for length in set(range(len(body))) - (ends if press is in_members else set()):
        with pytest.raises(
            MalformedBodyError,
            match=r"^content-encoding: the body is no whole (gzip|deflate) stream: (member .: )?it ends",
        ):
            outcome(body[:length], coding)


@pytest.mark.parametrize("form", [FORMS["gzip"], FORMS["members"], FORMS["zlib"]])
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_wrong_bit_is_never_taken_for_the_truth(form: Form, position: float, bit: int) -> None:
    """The checksums see it; one in what nobody reads (a file's time, say) changes nothing."""
    coding, press = form
    body = bytearray(press(TEXT))
    body[int(position * len(body))] ^= 1 << bit
    try:
        assert outcome(bytes(body), coding) == TEXT
    except MalformedBodyError as refused:
        assert str(refused).startswith("content-encoding: the body is no whole ")


@forms
@pytest.mark.parametrize("rest", [b"\0", b"x", b"\x1f\x8b", bytes(AT_ONCE_BYTES)])
def test_something_behind_the_end_is_refused(form: Form, rest: bytes) -> None:
    """Were it ignored, there would be two readings of one body."""
    coding, press = form
    with pytest.raises(MalformedBodyError, match=r"^content-encoding: "):
        outcome(press(TEXT) + rest, coding)


@pytest.mark.parametrize("coding", Coding)
@given(body=st.binary(max_size=200))
def test_garbage_is_refused_and_nothing_worse(coding: Coding, body: bytes) -> None:
    """Some of it may be a stream by chance."""
    try:
        outcome(body, coding)
    except MalformedBodyError as refused:
        assert str(refused).startswith(f"content-encoding: the body is no whole {coding} stream: ")


def test_why_a_stream_is_refused() -> None:
    """In zlib's words, without its numbers."""
    wrong = bytearray(gzip.compress(TEXT))
    wrong[-8] ^= 1
    with pytest.raises(MalformedBodyError, match=r"no whole gzip stream: incorrect data check$"):
        outcome(bytes(wrong), Coding.GZIP)
    with pytest.raises(MalformedBodyError, match=r"no whole gzip stream: incorrect header check$"):
        outcome(zlib.compress(TEXT), Coding.GZIP)
    with pytest.raises(MalformedBodyError, match=r"no whole deflate stream: something follows its end$"):
        outcome(zlib.compress(TEXT) * 2, Coding.DEFLATE)


def test_a_stream_that_needs_a_dictionary_is_refused() -> None:
    """Nobody has agreed on one."""
    stream = zlib.compressobj(zdict=b"number")
    with pytest.raises(MalformedBodyError, match=r"no whole deflate stream"):
        outcome(stream.compress(TEXT) + stream.flush(), Coding.DEFLATE)


# -- too large --------------------------------------------------------------------------------------


@forms
@pytest.mark.parametrize("size", [10, 100_000])
def test_the_limit_is_kept_to_the_byte(form: Form, size: int) -> None:
    """What has exactly so many is taken."""
    coding, press = form
    body = press(bytes(size))
    assert len(outcome(body, coding, size)) == size
    with pytest.raises(BodyTooLargeError, match=rf"^the decompressed .* exceeds .* {size - 1} bytes$"):
        outcome(body, coding, size - 1)


def zeros_of_a_gigabyte() -> bytes:
    """A raw deflate stream; each block stands for itself."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = stream.compress(bytes(2**20)) + stream.flush(zlib.Z_FULL_FLUSH)
    return block * 1024 + stream.flush()


BOMBS = {
    "raw": (Coding.DEFLATE, zeros_of_a_gigabyte()),
    "gzip": (Coding.GZIP, b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + zeros_of_a_gigabyte() + bytes(8)),
    "members": (Coding.GZIP, gzip.compress(bytes(2**20)) * 1024),
}


@contextmanager
def measured() -> Iterator[None]:
    gc.disable()
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()
        gc.enable()


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_gigabyte_of_zeros_takes_no_more_memory_than_the_limit(bomb: tuple[Coding, bytes]) -> None:
    """But for a few pieces; and none while somebody keeps its refusal, traceback and all."""
    coding, body = bomb
    limit = 8 * 2**20
    with measured():
        with pytest.raises(BodyTooLargeError) as refused:
            inflate(body, coding, limit)
        left, most = tracemalloc.get_traced_memory()
    assert refused.value.__traceback__ is not None
    assert most < limit + 4 * PIECE_BYTES
    assert left < 2 * PIECE_BYTES


def test_a_small_body_takes_little_memory_whatever_the_limit() -> None:
    """What it can have been at most is known from its length."""
    body = gzip.compress(TEXT)
    with measured():
        assert bytes(inflate(body, Coding.GZIP, 2**40)) == TEXT
        _, most = tracemalloc.get_traced_memory()
    assert most < 2 * 1032 * len(body)


def test_members_that_hold_nothing_come_to_an_end() -> None:
    """A body full of them would keep a core busy for its length in bytes."""
    empty = gzip.compress(b"")
    assert inflate(empty * MOST_MEMBERS, Coding.GZIP, LIMIT) == b""
    with pytest.raises(MalformedBodyError, match=rf"more than {MOST_MEMBERS} members$"):
        inflate(empty * (MOST_MEMBERS + 1), Coding.GZIP, LIMIT)


# -- codings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listed", "coding"),
    [
        ("", None),
        ("identity", None),
        ("Identity", None),
        (" , ", None),
        ("gzip", Coding.GZIP),
        (" GZip\t", Coding.GZIP),
        ("x-gzip", Coding.GZIP),
        (",gzip,", Coding.GZIP),
        ("deflate", Coding.DEFLATE),
        ("DEFLATE", Coding.DEFLATE),
    ],
)
def test_the_coding_of_a_request(listed: str, coding: Coding | None) -> None:
    """In any case, with whatever a list may have around it."""
    assert coding_of(listed) is coding


@pytest.mark.parametrize(
    "listed", ["br", "zstd", "gzip, gzip", "gzip, identity", "gzip;q=1", "gzipped", "x-deflate", "*"]
)
def test_a_coding_that_is_not_served(listed: str) -> None:
    """By its own name, with those that are."""
    with pytest.raises(UnsupportedCodingError) as refused:
        coding_of(listed)
    assert str(refused.value) == f"content-encoding '{listed}' is not served; one of gzip, deflate is"
    assert refused.value.served == ("gzip", "deflate")


GZIP, DEFLATE = Wish(Coding.GZIP), Wish(Coding.DEFLATE)


@pytest.mark.parametrize(
    ("accepted", "wish"),
    [
        ("", None),
        ("identity", None),
        ("br, zstd", None),
        ("gzip", GZIP),
        ("deflate", DEFLATE),
        ("gzip, deflate", GZIP),
        ("deflate, gzip", GZIP),
        ("X-GZip", GZIP),
        ("gzip, deflate, br, zstd", GZIP),
        ("gzip;q=0.5, deflate", DEFLATE),
        ("gzip;q=0.5, deflate;q=0.501", DEFLATE),
        ("gzip ; q=0.2 , deflate ; Q=0.3", DEFLATE),
        ("gzip;q=0", None),
        ("gzip;q=0.000, deflate;q=0", None),
        ("gzip;q=0, deflate", DEFLATE),
        ("*", GZIP),
        ("*;q=0.1", GZIP),
        ("*;q=0", None),
        ("gzip;q=0, *", DEFLATE),
        ("*;q=0.5, gzip;q=0.1", DEFLATE),
        ("identity, gzip;q=0.5", None),
        ("identity;q=0.5, gzip", GZIP),
        ("identity, gzip", GZIP),
        ("gzip;q=2", None),
        ("gzip;q=", None),
        ("gzip;q=x", None),
        ("gzip;q=-1", None),
        ("gzip;q=1e-1", None),
        ("gzip;q=nan", None),
        ("gzip;level=1", None),
        (",,gzip,,", GZIP),
        ("identity;q=0", None),
        ("*;q=0, identity;q=0", None),
        ("gzip, identity;q=0", Wish(Coding.GZIP, is_must=True)),
        ("gzip, *;q=0", Wish(Coding.GZIP, is_must=True)),
        ("*, identity;q=0", Wish(Coding.GZIP, is_must=True)),
        ("gzip, *;q=0, identity;q=0.1", GZIP),
    ],
)
def test_how_an_answer_is_wanted(accepted: str, wish: Wish | None) -> None:
    """By weight; gzip where weights are equal; never what is weighted 0."""
    assert wish_of(accepted) == wish


@given(accepted=st.text(st.characters(max_codepoint=255), max_size=50))
def test_any_header_can_be_read(accepted: str) -> None:
    """Whoever writes nonsense gets an answer all the same."""
    wish_of(accepted)


# -- answers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", Coding)
@given(parts=st.lists(st.binary(max_size=200), min_size=1, max_size=4), times=st.sampled_from([1, 500]))
def test_an_answer_is_what_it_was_once_inflated(coding: Coding, parts: list[bytes], times: int) -> None:
    """By any client's reader; deflate has zlib's header, which all of them know."""
    pieces = compress([memoryview(part * times) for part in parts], Wish(coding, is_must=True))
    assert pieces is not None
    assert all(pieces)
    read = gzip.decompress if coding is Coding.GZIP else zlib.decompress
    assert read(b"".join(pieces)) == b"".join(part * times for part in parts)


def test_long_noise_goes_out_as_it_is_unless_that_is_refused() -> None:
    """Short noise is compressed: that costs nobody anything."""
    noise = np.random.default_rng(3).normal(size=TRIED_BYTES).astype(np.float32)
    parts = [b"{}", noise.data.cast("B")]
    assert compress(parts, GZIP) is None
    assert compress([b"{}", parts[1][:TRIED_BYTES]], GZIP) is not None
    pieces = compress(parts, Wish(Coding.GZIP, is_must=True))
    assert pieces is not None
    assert gzip.decompress(b"".join(pieces)) == b"{}" + noise.tobytes()


def test_what_shrinks_is_compressed_however_long() -> None:
    """Text, and tensors with zeros in them."""
    relu = np.maximum(np.random.default_rng(4).normal(size=10**5), 0).astype(np.float32).tobytes()
    for parts in ([TEXT * 1000], [b"{}", relu]):
        pieces = compress(parts, DEFLATE)
        assert pieces is not None
        assert sum(map(len, pieces)) < 0.7 * sum(map(len, parts))
