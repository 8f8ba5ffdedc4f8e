"""Heads that came before are found by their bytes, and by nothing less."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from infold.rest.known_heads import LONGEST_BYTES, KnownHeads

HEAD = b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n"
bodies = st.binary(max_size=40)


def knowing(data: bytes, body_bytes: int, most: int = 8) -> KnownHeads[str]:
    heads: KnownHeads[str] = KnownHeads(most)
    heads.learn(data, body_bytes, "meant")
    return heads


def test_what_follows_a_known_head_is_the_body() -> None:
    """Whatever it is, if it is as long as the head says."""
    heads = knowing(HEAD + b"1234", 4)
    assert heads.find(HEAD + b"1234") == ("meant", b"1234")
    assert heads.find(HEAD + b"\r\n\r\n") == ("meant", b"\r\n\r\n")


@given(bodies)
def test_a_body_of_another_length_is_not_that_request(body: bytes) -> None:
    """It came in part, or with the next one."""
    found = knowing(HEAD + b"1234", 4).find(HEAD + body)
    assert found == (("meant", body) if len(body) == 4 else None)


@given(bodies)
def test_a_request_has_begun_while_its_body_is_too_short(body: bytes) -> None:
    """Not once it is here: nobody waits for more of it."""
    heads = knowing(HEAD + b"1234", 4)
    assert heads.begun(HEAD + body) == ("meant" if len(body) < 4 else None)
    assert heads.begun(HEAD[:-1]) is None


@given(st.integers(0, len(HEAD) - 1), st.integers(1, 255))
def test_a_head_that_differs_in_one_byte_is_unknown(place: int, by: int) -> None:
    """Also in one that would mean the same."""
    changed = bytearray(HEAD)
    changed[place] ^= by
    assert knowing(HEAD + b"1234", 4).find(bytes(changed) + b"1234") is None


@given(st.binary(max_size=400))
def test_nothing_is_found_in_what_nobody_has_sent_before(data: bytes) -> None:
    """Nor does it raise."""
    assert knowing(HEAD + b"1234", 4).find(data) is None
    assert KnownHeads[str]().find(data) is None


def test_two_requests_in_one_piece_teach_nothing() -> None:
    """Where the first one ends is not what is asked."""
    heads = knowing(HEAD + b"1234" + HEAD + b"1234", 4)
    assert len(heads) == 0


def test_long_heads_are_not_kept() -> None:
    """The memory they take is bounded."""
    padded = HEAD.replace(b"host", b"x: " + b"y" * LONGEST_BYTES + b"\r\nhost")
    assert len(knowing(padded + b"1234", 4)) == 0


@given(st.lists(st.integers(0, 20), max_size=60), st.integers(1, 8))
def test_no_more_are_kept_than_may_be_and_those_are_the_last(learned: list[int], most: int) -> None:
    """The oldest is forgotten first."""
    heads: KnownHeads[int] = KnownHeads(most)
    kept: list[int] = []
    for number in learned:
        data = b"POST /%d HTTP/1.1\r\n\r\n" % number
        if heads.find(data) is None:
            heads.learn(data, 0, number)
            kept = [*kept, number][-most:]
    assert len(heads) == len(kept)
    for number in range(21):
        expected = (number, b"") if number in kept else None
        assert heads.find(b"POST /%d HTTP/1.1\r\n\r\n" % number) == expected
