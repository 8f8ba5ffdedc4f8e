"""The `traceparent` header, as W3C says it is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infold.rest.trace_context import TraceParent, parent_of

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
VALID = f"00-{TRACE}-{SPAN}-01"


def parsed(*values: str) -> TraceParent | None:
    return parent_of([value.encode("latin-1") for value in values])


@pytest.mark.parametrize(
    ("value", "is_sampled"),
    [
        (VALID, True),
        (VALID[:-2] + "00", False),
        (VALID[:-2] + "03", True),
        (VALID[:-2] + "fe", False),
        (VALID[:-2] + "ff", True),
        ("01" + VALID[2:], True),
        ("fe" + VALID[2:], True),
        ("01" + VALID[2:] + "-what-the-future-brings", True),
        ("cc" + VALID[2:] + "-", True),
    ],
)
def test_a_valid_header_is_taken(value: str, is_sampled: bool) -> None:
    """Of flags only the one that we know counts; a later version may have more behind them."""
    assert parsed(value) == TraceParent(TRACE, SPAN, is_sampled)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        "ff" + VALID[2:],
        "0" + VALID[2:],
        "0X" + VALID[2:],
        VALID.upper(),
        VALID.replace("a", "A"),
        VALID.replace("a", "g"),
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}0-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-001",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-",
        f"00-{TRACE}{SPAN}-01",
        VALID + "-",
        VALID + "-more",
        "01" + VALID[2:] + "more",
        "01" + VALID[2:-1],
        f" {VALID}",
        f"{VALID} ",
        f"{VALID}\n",
        f"{VALID},{VALID}",
        VALID.replace("-", "_"),
        VALID.replace("0", "\u0660".encode().decode("latin-1")),
        "\xff" * 55,
    ],
)
def test_what_is_not_valid_is_as_good_as_none(value: str) -> None:
    """Whoever sends it gets an answer, and no trace."""
    assert parsed(value) is None


def test_a_header_that_comes_twice_is_none() -> None:
    """Nobody knows which is meant, even if both say the same."""
    assert parsed() is None
    assert parsed(VALID, VALID) is None


HEX = "0123456789abcdef"


@given(
    st.text(HEX, min_size=32, max_size=32),
    st.text(HEX, min_size=16, max_size=16),
    st.integers(0, 255),
    st.integers(0, 255),
)
def test_every_header_of_the_form_is_read_as_it_was_made(
    trace: str, span: str, flags: int, version: int
) -> None:
    """But for ids of zeros, and the version that there will never be."""
    found = parsed(f"{version:02x}-{trace}-{span}-{flags:02x}")
    if version == 255 or not int(trace, 16) or not int(span, 16):
        assert found is None
    else:
        assert found == TraceParent(trace, span, bool(flags % 2))


@given(st.binary(max_size=80))
def test_any_bytes_are_read_without_a_fuss(value: bytes) -> None:
    """What is found is plain enough for a line of JSON."""
    found = parent_of([value])
    assert found is None or set(found.trace_id + found.span_id) <= set(HEX)
