"""Who may come in, by key, scope, port and certificate: each refusal and its reason."""

from pathlib import Path
from typing import Any

import pytest

from infold.errors import (
    CertificateMissingError,
    ConfigError,
    InfoldError,
    KeyRefusedError,
    OtherPortError,
    QuotaExceededError,
    ScopeMissingError,
)
from infold.rest.access.guard import CERTIFICATE, KEY_NAME, MAIN_PORT, Guard, Ports, guard_of
from infold.rest.access.keyring import Keyring
from infold.rest.access.keys import Key, digest_of, entry_text
from infold.rest.access.scopes import GRANTED, KeyScope
from infold.settings import Settings

MAIN, SECOND = 8080, 9090
PORTS = Ports(MAIN, SECOND)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A key for every scope, called after it, and one for all."""
    keys = [Key(scope, digest_of(scope.encode()), (scope,)) for scope in GRANTED]
    keys.append(Key("all", digest_of(b"all"), GRANTED))
    keys.append(Key("slow", digest_of(b"slow"), GRANTED, 0.001, 1))
    path = tmp_path / "keys.toml"
    path.write_text("\n".join(map(entry_text, keys)))
    return path


def asked(
    what: str, secret: str | None = None, port: int | None = MAIN, certificate: str | None = None
) -> dict[str, Any]:
    """A request as the edge has it."""
    method, _, path = what.partition(" ")
    headers = [] if secret is None else [(b"authorization", f"Bearer {secret}".encode())]
    return {
        "type": "http",
        "method": method,
        "path": path,
        "headers": headers,
        "server": None if port is None else ("127.0.0.1", port),
        "state": {} if certificate is None else {CERTIFICATE: certificate},
    }


def refusal(guard: Guard, scope: dict[str, Any]) -> type[InfoldError] | None:
    try:
        guard.check(scope)
    except InfoldError as failure:
        return type(failure)
    return None


BY_SCOPE = {
    KeyScope.INFER: [
        "POST /v2/models/m/infer",
        "GET /v2",
        "POST /v1/models/m:predict",
        "GET /v2/models/m/ready",
    ],
    KeyScope.OBSERVE: ["GET /metrics", "GET /v2/models/stats", "POST /v2/repository/index", "GET /docs"],
    KeyScope.ADMIN: ["POST /v2/repository/models/m/load", "POST /v2/repository/models/m/unload"],
}
OPEN = ["GET /", "GET /v2/health/live", "GET /v2/health/ready", "HEAD /v2/health/ready"]


def test_a_key_opens_what_its_scopes_are_for_and_nothing_else(file: Path) -> None:
    """Every key against every scope."""
    guard = Guard(Keyring(file, 1))
    for scope, some in BY_SCOPE.items():
        for what in some:
            assert refusal(guard, asked(what)) is KeyRefusedError
            assert refusal(guard, asked(what, "wrong")) is KeyRefusedError
            assert refusal(guard, asked(what, "all")) is None
            for other in GRANTED:
                expected = None if other is scope else ScopeMissingError
                assert refusal(guard, asked(what, other)) is expected, (what, other)


def test_health_takes_no_key_and_looks_at_none(file: Path) -> None:
    """Probes have none; and a wrong one harms nobody."""
    guard = Guard(Keyring(file, 1))
    for what in OPEN:
        assert [refusal(guard, asked(what, each)) for each in (None, "wrong", "slow", "slow")] == [None] * 4


def test_an_unknown_path_takes_any_key(file: Path) -> None:
    """A stranger does not even learn what there is not."""
    guard = Guard(Keyring(file, 1))
    for what in ("GET /nowhere", "DELETE /v2/models/m", "GET /v2/health/live/", "OPTIONS /metrics"):
        assert refusal(guard, asked(what)) is KeyRefusedError
        assert [refusal(guard, asked(what, each)) for each in GRANTED] == [None] * 3


def test_the_missing_scope_is_named(file: Path) -> None:
    """And what the key has, whose name the audit then knows."""
    scope = asked(BY_SCOPE[KeyScope.ADMIN][0], "infer")
    with pytest.raises(ScopeMissingError, match="this takes the scope 'admin'; key 'infer' has infer"):
        Guard(Keyring(file, 1)).check(scope)
    assert scope[KEY_NAME] == "infer"


def test_a_key_over_its_quota_is_told_when_to_come_again(file: Path) -> None:
    """What its scope does not reach costs it nothing."""
    guard = Guard(Keyring(file, 1))
    assert refusal(guard, asked("GET /metrics", "slow")) is None
    with pytest.raises(QuotaExceededError) as refused:
        guard.check(asked("GET /metrics", "slow"))
    assert refused.value.retry_after_s == pytest.approx(1000, abs=1)


def test_a_key_in_the_address_opens_nothing(file: Path) -> None:
    """It would be in every log on the way."""
    scope = asked("GET /metrics") | {"query_string": b"api_key=all&key=all&access_token=all"}
    assert refusal(Guard(Keyring(file, 1)), scope) is KeyRefusedError


def test_a_long_path_is_judged_as_a_short_one(file: Path) -> None:
    """It is only not remembered."""
    guard = Guard(Keyring(file, 1))
    long = f"POST /v2/repository/models/{'m' * 5000}/load"
    assert refusal(guard, asked(long, "infer")) is ScopeMissingError
    assert refusal(guard, asked(long, "admin")) is None


def test_each_port_serves_its_own_and_both_health() -> None:
    """The other port is named."""
    guard = Guard(None, PORTS)
    for scope, some in BY_SCOPE.items():
        for what in some:
            own, other = (SECOND, MAIN) if scope is KeyScope.OBSERVE else (MAIN, SECOND)
            assert refusal(guard, asked(what, port=own)) is None
            if what.endswith("/ready"):
                assert refusal(guard, asked(what, port=other)) is None
                continue
            with pytest.raises(OtherPortError, match=f"{what.split()[1]} is served on port {own}, not here"):
                guard.check(asked(what, port=other))
    for what in OPEN:
        assert [refusal(guard, asked(what, port=port)) for port in (MAIN, SECOND)] == [None, None]


def test_a_connection_that_tells_no_port_is_the_main_ones() -> None:
    """Of a test, or a server that does not say."""
    guard = Guard(None, PORTS)
    assert refusal(guard, asked("GET /metrics", port=None)) is OtherPortError
    assert refusal(guard, asked("GET /v2", port=None)) is None


def test_a_page_from_the_second_port_knows_the_first() -> None:
    """Where its examples go."""
    scope = asked("GET /openapi.json", port=SECOND)
    Guard(None, PORTS).check(scope)
    assert scope[MAIN_PORT] == MAIN


def test_a_key_is_asked_before_the_port(file: Path) -> None:
    """A stranger does not learn where to look."""
    guard = Guard(Keyring(file, 1), PORTS)
    assert refusal(guard, asked("GET /metrics")) is KeyRefusedError
    assert refusal(guard, asked("GET /metrics", "infer")) is ScopeMissingError
    assert refusal(guard, asked("GET /metrics", "observe")) is OtherPortError
    assert refusal(guard, asked("GET /metrics", "observe", SECOND)) is None


def test_the_second_port_shows_nothing_but_health_without_a_certificate_where_one_is_asked() -> None:
    """The handshake lets probes in that have none."""
    guard = Guard(None, PORTS, asks_certificates=True)
    for what in OPEN:
        assert refusal(guard, asked(what, port=SECOND)) is None
    for what in ("GET /metrics", "GET /docs", "GET /nowhere", "GET /v2/models/m/ready"):
        assert refusal(guard, asked(what, port=SECOND)) is CertificateMissingError
        stateless = asked(what, port=SECOND)
        del stateless["state"]
        assert refusal(guard, stateless) is CertificateMissingError
        assert refusal(guard, asked(what, port=SECOND, certificate="prometheus")) is None
    assert refusal(guard, asked("GET /v2")) is None  # the main port's handshake has asked


def test_nothing_asked_for_is_no_guard(file: Path, tmp_path: Path) -> None:
    """Then a request costs one look at an attribute."""
    assert guard_of(Settings()) is None
    assert guard_of(Settings(tls_cert=tmp_path / "c")) is None
    assert isinstance(guard_of(Settings(api_keys=file)), Guard)
    assert isinstance(guard_of(Settings(observe_port=9090)), Guard)
    with pytest.raises(ConfigError, match="none"):
        guard_of(Settings(api_keys=tmp_path / "none.toml"))
