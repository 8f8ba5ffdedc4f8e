"""Keys that hold now: found in constant time, rotated while the service runs, each within its quota."""

import logging
import os
import time
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from infold.errors import ConfigError, KeyRefusedError, QuotaExceededError
from infold.rest.access.keyring import Keyring
from infold.rest.access.keys import Key, digest_of, entry_text
from infold.rest.access.scopes import KeyScope


class Ring:
    """A keyring over a file, with its clocks."""

    def __init__(self, folder: Path, *keys: Key, workers: int = 1) -> None:
        self.now = 0.0
        self.today = time.time() + 100
        self.file = folder / "keys.toml"
        self.put(*keys)
        self.keyring = Keyring(self.file, workers, lambda: self.now, lambda: self.today)

    def put(self, *keys: Key) -> None:
        """The file has these keys, in one step."""
        new = self.file.with_name("new")
        new.write_text("\n".join(map(entry_text, keys)))
        new.replace(self.file)

    def names(self, *secrets: str) -> list[str | None]:
        """Whose they are, a second later."""
        self.now += 1
        return [self.name(secret) for secret in secrets]

    def name(self, secret: str) -> str | None:
        try:
            return self.keyring.find(secret.encode()).key.name
        except KeyRefusedError:
            return None

    def passed(self, secret: str, times: int) -> int:
        """How many of so many requests are within the quota."""
        held = self.keyring.find(secret.encode())
        count = 0
        for _ in range(times):
            try:
                self.keyring.spend(held)
            except QuotaExceededError:
                continue
            count += 1
        return count


def key(name: str, per_s: float | None = None, burst: int | None = None, expires: date | None = None) -> Key:
    """A key whose secret is its name."""
    return Key(name, digest_of(name.encode()), (KeyScope.INFER,), per_s, burst, expires)


def problems(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.reason for record in caplog.records if record.levelno >= logging.ERROR]  # type: ignore[attr-defined]


def test_a_key_is_found_by_its_secret_alone(tmp_path: Path) -> None:
    """Nothing near it, and not its digest."""
    ring = Ring(tmp_path, key("a"), key("b"), key("c"))
    assert ring.names("a", "b", "c") == ["a", "b", "c"]
    digest = digest_of(b"a")
    assert ring.names("", "A", "a ", "ab", digest.hex(), "d", "a\0", "\u00e9") == [None] * 8
    with pytest.raises(KeyRefusedError, match="not known"):
        ring.keyring.find(digest)
    with pytest.raises(KeyRefusedError):
        ring.keyring.find(b"\xff" * 60_000)


def test_keys_are_rotated_while_the_service_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The new one holds within a second, the old one no more once it is gone."""
    caplog.set_level(logging.INFO)
    ring = Ring(tmp_path, key("old"))
    ring.put(key("old"), key("new"))
    assert ring.name("new") is None  # within the same second nobody looks
    assert ring.names("old", "new") == ["old", "new"]
    ring.put(key("new"))
    assert ring.name("old") == "old"
    assert ring.names("old", "new") == [None, "new"]
    replaced = [record.keys for record in caplog.records if record.message == "keys replaced"]  # type: ignore[attr-defined]
    assert replaced == [2, 1]


BROKEN = ["", "no = toml = at all", "[[key]]\n", "key = 1", "\0", "# all gone\n"]


@pytest.mark.parametrize("text", BROKEN)
def test_a_new_file_that_is_broken_changes_nothing_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    """The old keys hold until it is mended, whatever it takes."""
    ring = Ring(tmp_path, key("a"))
    ring.file.write_text(text)
    ring.today = 0.0  # so that it is read again each time
    for _ in range(5):
        assert ring.names("a") == ["a"]
    (reason,) = problems(caplog)
    assert reason.startswith(f"{ring.file}: ")
    ring.put(key("b"))
    assert ring.names("a", "b") == [None, "b"]
    assert len(problems(caplog)) == 1


def test_a_file_that_vanishes_changes_nothing_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """When it is back as it was, that is told too; and if it goes again, again."""
    caplog.set_level(logging.INFO)
    ring = Ring(tmp_path, key("a"))
    kept = ring.file.read_bytes()
    for _ in range(2):
        ring.file.unlink()
        assert ring.names("a") == ring.names("a") == ["a"]
        ring.file.write_bytes(kept)
        assert ring.names("a") == ["a"]
    assert problems(caplog) == [f"{ring.file}: cannot be read: No such file or directory"] * 2
    assert [record.message for record in caplog.records].count("keys are as they were") == 2


def test_a_pipe_in_the_place_of_the_file_holds_up_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Opening it would wait for whoever writes."""
    ring = Ring(tmp_path, key("a"))
    ring.file.unlink()
    os.mkfifo(ring.file)
    assert ring.names("a") == ["a"]
    assert problems(caplog) == [f"{ring.file}: is no file"]
    with pytest.raises(ConfigError, match="is no file"):
        Keyring(ring.file, 1)


def test_a_file_that_is_far_too_long_is_refused(tmp_path: Path) -> None:
    """Somebody has named the wrong one."""
    (tmp_path / "keys.toml").write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(ConfigError, match="is longer than 1048576 bytes"):
        Keyring(tmp_path / "keys.toml", 1)


def test_no_log_line_has_a_key_or_its_digest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not when all is well, and not when it is not."""
    caplog.set_level(logging.DEBUG)
    ring = Ring(tmp_path, key("secret-name", per_s=1))
    ring.put(key("secret-name", per_s=1), key("other"))
    ring.names("secret-name", "wrong-secret")
    ring.file.write_text(entry_text(key("x")).replace("infer", "every"))
    ring.names("secret-name", "wrong-secret")
    text = "".join(map(str, (record.__dict__ for record in caplog.records)))
    assert "secret-name" not in text and "wrong-secret" not in text
    assert digest_of(b"secret-name").hex() not in text and digest_of(b"x").hex() not in text


def test_a_key_expires_with_the_beginning_of_its_day(tmp_path: Path) -> None:
    """While the service runs; no other key does."""
    ring = Ring(tmp_path, key("a", expires=date(2027, 1, 1)), key("b"))
    end = datetime(2027, 1, 1, tzinfo=UTC).timestamp()
    ring.today = end - 0.001
    assert ring.names("a", "b") == ["a", "b"]
    ring.today = end
    assert ring.names("a", "b") == [None, "b"]
    with pytest.raises(KeyRefusedError, match="key 'a' has expired"):
        ring.keyring.find(b"a")


def test_a_quota_is_shared_by_all_who_use_the_key(tmp_path: Path) -> None:
    """So many at once, then so many a second; another key has its own."""
    ring = Ring(tmp_path, key("a", 10, 4), key("b", 2), key("free"))
    ring.now = 50.0
    assert [ring.passed(name, 20) for name in ("a", "b", "free")] == [4, 2, 20]
    ring.now += 0.5
    assert [ring.passed(name, 20) for name in ("a", "b")] == [4, 1]
    with pytest.raises(QuotaExceededError) as refused:
        ring.keyring.spend(ring.keyring.find(b"a"))
    assert refused.value.retry_after_s == pytest.approx(0.1)


def test_each_worker_gives_out_its_part_of_a_quota(tmp_path: Path) -> None:
    """Together they give no more than it says, where it says more than one."""
    ring = Ring(tmp_path, key("a", 40, 8), workers=4)
    ring.now = 50.0
    assert ring.passed("a", 20) == 2
    ring.now += 1
    assert ring.passed("a", 20) == 2
    ring.now += 0.1
    assert ring.passed("a", 20) == 1


def test_a_rotation_gives_nobody_his_quota_back(tmp_path: Path) -> None:
    """Only a key whose quota changed begins anew."""
    ring = Ring(tmp_path, key("a", 1, 5), key("b", 1, 5))
    assert [ring.passed(name, 9) for name in "ab"] == [5, 5]
    ring.put(key("c"), key("a", 1, 5), key("b", 1, 7))
    ring.now = 1.0
    assert [ring.passed(name, 9) for name in "ab"] == [1, 7]


def test_what_is_not_there_at_the_start_stops_it(tmp_path: Path) -> None:
    """An open service instead would be the worst of all."""
    with pytest.raises(ConfigError, match=r"keys\.toml: cannot be read: No such file"):
        Keyring(tmp_path / "keys.toml", 1)
    with pytest.raises(ConfigError, match="is no file"):
        Keyring(tmp_path, 1)
