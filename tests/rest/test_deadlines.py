"""How long a request may take, as its headers say."""

from __future__ import annotations

import pytest

from infold.errors import InvalidInputError
from infold.rest.deadlines import timeout_of
from infold.rest.problems import status_of

OURS, ENVOY = b"x-request-timeout-ms", b"x-envoy-expected-rq-timeout-ms"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 30),
        ({OURS: b"250"}, 0.25),
        ({ENVOY: b"1500"}, 1.5),
        ({OURS: b"250", ENVOY: b"100"}, 0.1),
        ({OURS: b"100", ENVOY: b"250"}, 0.1),
        ({OURS: b"60000"}, 30),
        ({OURS: b"1"}, 0.001),
        ({OURS: b"0"}, 30),
        ({OURS: b"0", ENVOY: b"20"}, 0.02),
        ({OURS: b"9" * 15}, 30),
        ({b"x-other": b"soon"}, 30),
    ],
)
def test_the_smallest_of_all_counts(headers: dict[bytes, bytes], seconds: float) -> None:
    """Milliseconds; 0 is none, as with the parameter of a request."""
    assert timeout_of(headers, 30) == seconds


@pytest.mark.parametrize("name", [OURS, ENVOY])
@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"soon",
        b"-1",
        b"+1",
        b"1.5",
        b"1e3",
        b" 1",
        b"1s",
        b"1,2",
        b"0x10",
        b"9" * 16,
        "²".encode("latin-1"),
    ],
)
def test_nonsense_is_refused_by_the_name_of_its_header(name: bytes, text: bytes) -> None:
    """400; guessing would cost somebody an answer."""
    with pytest.raises(InvalidInputError) as refused:
        timeout_of({name: text}, 30)
    assert status_of(refused.value) == 400
    assert (
        str(refused.value)
        == f"{name.decode()}: '{text.decode('latin-1')}' is no whole number of milliseconds"
    )


def test_a_long_text_comes_back_in_part() -> None:
    """Whoever sends much is not sent it again."""
    with pytest.raises(InvalidInputError) as refused:
        timeout_of({OURS: b"x" * 10_000}, 30)
    assert len(str(refused.value)) < 200
