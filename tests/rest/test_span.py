"""A part of a text answers as the same bytes would."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infold.rest.span import Span

TEXTS = st.text("[]1, ", max_size=30).map(str.encode)


@given(TEXTS, TEXTS, TEXTS, st.sampled_from([b"[", b"]", b"1,"]), st.integers(0, 5))
def test_a_span_is_like_its_bytes(
    before: bytes, part: bytes, after: bytes, sought: bytes, start: int
) -> None:
    """Whatever stands around it."""
    span = Span(before + part + after, len(before), len(before) + len(part))
    assert (len(span), bytes(span), list(span)) == (len(part), part, list(part))
    assert bytes(span.view) == part
    assert span.count(sought) == part.count(sought)
    if start <= len(part):
        assert span.find(sought, start) == part.find(sought, start)


def test_nothing_is_copied() -> None:
    """Its view lies in the whole."""
    whole = b"0123456789"
    assert Span(whole, 2, 5).view.obj is whole
    with pytest.raises(AttributeError):
        Span(whole, 0, 1).more = 1  # type: ignore[attr-defined]
