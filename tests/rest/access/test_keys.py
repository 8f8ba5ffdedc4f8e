"""Files of keys: what they may say, and where they are wrong."""

import hashlib
import tomllib
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infold.errors import ConfigError
from infold.rest.access.keys import Key, digest_of, entry_text, new_secret, parse_keys
from infold.rest.access.scopes import GRANTED

A, B = "a" * 64, "B" * 64
PLAIN = f'[[key]]\nname = "ci"\nsha256 = "{A}"\nscopes = ["infer"]\n'
OTHER = f'[[key]]\nname = "ops"\nsha256 = "{B}"\nscopes = ["admin", "infer"]\n'


def wrong(text: str) -> str:
    """What is said of a file."""
    with pytest.raises(ConfigError) as refused:
        parse_keys(text.encode(), "keys.toml")
    return str(refused.value)


def test_a_file_of_keys() -> None:
    """All that a key may have; scopes in the order of the table, and each once."""
    more = 'requests_per_s = 50\nburst = 100\nexpires = 2027-01-01\n[[key]]\nname = "b.2@x-_"\n'
    text = f'# a comment\n{PLAIN}{more}sha256 = "{B}"\nscopes = ["admin", "infer", "infer"]\n'
    ci, other = parse_keys(text.encode(), "keys.toml")
    assert ci == Key("ci", bytes.fromhex(A), (GRANTED[0],), 50.0, 100, date(2027, 1, 1))
    assert other == Key("b.2@x-_", bytes.fromhex(B), (GRANTED[0], GRANTED[2]))


def test_a_key_ends_with_the_beginning_of_its_day() -> None:
    """In UTC, wherever the server is; one without a day never does."""
    (key,) = parse_keys(f'{PLAIN}expires = "2027-01-01"'.encode(), "keys.toml")
    assert key.ends_at == datetime(2027, 1, 1, tzinfo=UTC).timestamp()
    assert parse_keys(PLAIN.encode(), "keys.toml")[0].ends_at == float("inf")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "keys.toml: holds no [[key]]"),
        ("# nothing yet\n", "keys.toml: holds no [[key]]"),
        ("key = 3", "keys.toml: holds no [[key]]"),
        ("key = []", "keys.toml: holds no [[key]]"),
        ("key = [3]", "keys.toml: key[0]: must be a table, [[key]]"),
        (PLAIN + "[[keys]]\n", "keys.toml: keys: unknown; known is [[key]]"),
        ("[[key]\n", "keys.toml: is no TOML:"),
        (PLAIN + "scope = []", "keys.toml: key[0].scope: unknown; known are name, sha256, scopes,"),
        (PLAIN.replace('name = "ci"\n', ""), "keys.toml: key[0].name: is missing"),
        (PLAIN + OTHER.replace("scopes", "#"), "keys.toml: key[1].scopes: is missing"),
        (PLAIN + OTHER.replace('"admin"', '"infr"'), "keys.toml: key[1].scopes[0]: 'infr' is none of"),
        (PLAIN + OTHER.replace('"infer"', "3"), "keys.toml: key[1].scopes[1]: what stands there is none of"),
        (PLAIN + OTHER.replace('"infer"', '"open"'), "keys.toml: key[1].scopes[1]: 'open' is none of infer,"),
        (PLAIN.replace('["infer"]', '"infer"'), "keys.toml: key[0].scopes: must be a list of infer, "),
        (PLAIN.replace('["infer"]', "[]"), "keys.toml: key[0].scopes: must be a list of"),
        (PLAIN.replace('"ci"', '""'), "keys.toml: key[0].name: must be 1 to 64"),
        (PLAIN.replace('"ci"', '"a b"'), "keys.toml: key[0].name: must be 1 to 64"),
        (PLAIN.replace('"ci"', '"a\\nb"'), "keys.toml: key[0].name: must be 1 to 64"),
        (PLAIN.replace('"ci"', f'"{"a" * 65}"'), "keys.toml: key[0].name: must be 1 to 64"),
        (PLAIN.replace('"ci"', "7"), "keys.toml: key[0].name: must be 1 to 64"),
        (PLAIN + PLAIN, "keys.toml: key[1].name: 'ci' is key[0] already"),
        (PLAIN + OTHER.replace(B, A.upper()), "keys.toml: key[1].sha256: is the same as that of key[0]"),
        (PLAIN + "requests_per_s = 0", "keys.toml: key[0].requests_per_s: must be a number above 0"),
        (PLAIN + "requests_per_s = nan", "keys.toml: key[0].requests_per_s: must be a number above 0"),
        (PLAIN + "requests_per_s = inf", "keys.toml: key[0].requests_per_s: must be a number above 0"),
        (PLAIN + "requests_per_s = true", "keys.toml: key[0].requests_per_s: must be a number above 0"),
        (PLAIN + "burst = 3", "keys.toml: key[0].burst: goes with requests_per_s"),
        (PLAIN + "requests_per_s = 1\nburst = 0", "keys.toml: key[0].burst: must be a whole number from 1"),
        (PLAIN + "requests_per_s = 1\nburst = 1.5", "keys.toml: key[0].burst: must be a whole number from 1"),
        (PLAIN + 'expires = "soon"', "keys.toml: key[0].expires: must be a day, as 2027-01-31"),
        (PLAIN + "expires = 2027-01-01T00:00:00Z", "keys.toml: key[0].expires: must be a day"),
        (PLAIN + "expires = 12", "keys.toml: key[0].expires: must be a day"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place(text: str, said: str) -> None:
    """One line that leads there."""
    assert wrong(text).startswith(said)


@pytest.mark.parametrize(
    "value", ["infold_secret-that-was-pasted-here", "A" * 63, "g" * 64, A + "a", A + "\\n"]
)
def test_what_may_be_a_secret_is_never_shown(value: str) -> None:
    """Whoever pastes the key where its digest belongs does not find it in the log."""
    said = wrong(PLAIN.replace(A, value))
    assert said == "keys.toml: key[0].sha256: must be 64 hexadecimal digits, the SHA-256 of the key"
    assert value not in said


def test_a_file_that_is_no_text_is_refused() -> None:
    """As such."""
    with pytest.raises(ConfigError, match=r"keys\.toml: is no UTF-8"):
        parse_keys(b"\xff\xfe", "keys.toml")


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_no_file_breaks_the_reader(content: bytes) -> None:
    """It is refused, or read."""
    with pytest.raises(ConfigError):
        parse_keys(content, "keys.toml")


def test_a_new_key_is_256_random_bits_and_kept_as_its_digest() -> None:
    """With a word in front by which leaked ones are found."""
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    for secret in secrets:
        assert secret.startswith("infold_") and len(secret) == len("infold_") + 43
        assert secret.isascii() and "=" not in secret
    assert digest_of(b"abc") == hashlib.sha256(b"abc").digest()


@given(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", fullmatch=True),
    st.binary(min_size=32, max_size=32),
    st.sets(st.sampled_from(GRANTED), min_size=1),
    st.none() | st.floats(1e-6, 1e6),
    st.none() | st.integers(1, 10**6),
    st.none() | st.dates(),
)
def test_an_entry_says_what_its_key_is(
    name: str, digest: bytes, scopes: set[object], per_s: float | None, burst: int | None, day: date | None
) -> None:
    """Written and read again it is the same."""
    ordered = tuple(scope for scope in GRANTED if scope in scopes)
    key = Key(name, digest, ordered, per_s, burst if per_s is not None else None, day)
    assert parse_keys(entry_text(key).encode(), "keys.toml") == (key,)
    assert list(tomllib.loads(entry_text(key))) == ["key"]


def test_a_key_that_is_printed_shows_no_digest() -> None:
    """Into a log, say."""
    (key,) = parse_keys(PLAIN.encode(), "keys.toml")
    assert A not in repr(key) and "aaaa" not in repr(key)
