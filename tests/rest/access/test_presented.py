"""The key of a request: in one of two headers, once, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infold.errors import KeyRefusedError
from infold.rest.access.presented import secret_of

AUTHORIZATION, OWN = b"authorization", b"x-api-key"


@pytest.mark.parametrize(
    "header",
    [
        (AUTHORIZATION, b"Bearer abc"),
        (AUTHORIZATION, b"bearer abc"),
        (AUTHORIZATION, b"BEARER   abc  "),
        (OWN, b"abc"),
        (OWN, b" abc "),
    ],
)
def test_a_key_in_either_header_is_found(header: tuple[bytes, bytes]) -> None:
    """Whatever the case of its scheme."""
    assert secret_of([(b"host", b"x"), header]) == b"abc"


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ([], "a key is needed"),
        ([(b"cookie", b"abc")], "a key is needed"),
        ([(b"proxy-authorization", b"Bearer abc")], "a key is needed"),
        ([(AUTHORIZATION, b"")], "'Authorization' holds no key"),
        ([(AUTHORIZATION, b"abc")], "'Authorization' holds no key"),
        ([(AUTHORIZATION, b"Basic abc")], "'Authorization' holds no key"),
        ([(AUTHORIZATION, b"Bearerabc")], "'Authorization' holds no key"),
        ([(AUTHORIZATION, b"Bearer")], "the key is empty"),
        ([(AUTHORIZATION, b"Bearer   ")], "the key is empty"),
        ([(OWN, b"  ")], "the key is empty"),
        ([(AUTHORIZATION, b"Bearer a"), (AUTHORIZATION, b"Bearer a")], "there is more than one key"),
        ([(OWN, b"a"), (OWN, b"b")], "there is more than one key"),
    ],
)
def test_everything_else_is_refused(headers: list[tuple[bytes, bytes]], said: str) -> None:
    """With what to send instead, and nothing of what was sent."""
    with pytest.raises(KeyRefusedError) as refused:
        secret_of(headers)
    assert str(refused.value).startswith(said)
    assert "abc" not in str(refused.value)


def test_our_own_header_goes_before_one_that_may_be_for_a_proxy() -> None:
    """Which has taken its own from the same request."""
    assert secret_of([(AUTHORIZATION, b"Basic dXNlcjpwYXNz"), (OWN, b"abc")]) == b"abc"


@given(
    st.lists(st.tuples(st.sampled_from([AUTHORIZATION, OWN, b"host"]), st.binary(max_size=30)), max_size=4)
)
def test_no_header_breaks_it(headers: list[tuple[bytes, bytes]]) -> None:
    """Not even one that is no ASCII."""
    try:
        assert secret_of(headers)
    except KeyRefusedError:
        return
