"""A key is added to a file that somebody else wrote, in one step, whatever happens."""

import os
import threading
from pathlib import Path

import pytest

from infold.errors import ConfigError, TargetError
from infold.rest.access import key_file
from infold.rest.access.key_file import add_key
from infold.rest.access.keys import Key, digest_of, parse_keys
from infold.rest.access.scopes import KeyScope


def key(name: str) -> Key:
    return Key(name, digest_of(name.encode()), (KeyScope.INFER,))


def names(path: Path) -> list[str]:
    return [each.name for each in parse_keys(path.read_bytes(), "keys.toml")]


def test_a_new_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Whatever the umask says."""
    before = os.umask(0)
    try:
        add_key(tmp_path / "keys.toml", key("a"))
    finally:
        os.umask(before)
    assert names(tmp_path / "keys.toml") == ["a"]
    assert (tmp_path / "keys.toml").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["keys.toml"]


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\r\n", "  # the last word"])
def test_everything_that_stood_there_stays(tmp_path: Path, end: str) -> None:
    """Comments, order, spelling, the mode; with or without a line break at the end."""
    path = tmp_path / "keys.toml"
    add_key(path, key("a"))
    text = f"# who may\n{path.read_text()}# before the end{end}"
    path.write_bytes(text.encode())
    path.chmod(0o640)
    add_key(path, key("b"))
    assert path.read_bytes().decode().startswith(text)
    assert names(path) == ["a", "b"]
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("text", ["", "\n", "# none yet\n\n  # really", "# none yet"])
def test_a_file_without_keys_gets_its_first(tmp_path: Path, text: str) -> None:
    """It makes no service, but it is a beginning."""
    path = tmp_path / "keys.toml"
    path.write_text(text)
    add_key(path, key("a"))
    assert path.read_text().startswith(text)
    assert names(path) == ["a"]


def test_a_name_that_is_taken_is_refused_and_nothing_written(tmp_path: Path) -> None:
    """The audit could not tell them apart."""
    path = tmp_path / "keys.toml"
    add_key(path, key("a"))
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"key\[0\]\.name: there is a key 'a' already"):
        add_key(path, Key("a", digest_of(b"other"), (KeyScope.INFER,)))
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["[[key]]\n", "key = [", "[[key]]\nname = 'a", "other = 1\n", "key = 1"])
def test_a_broken_file_is_refused_and_left_as_it_is(tmp_path: Path, text: str) -> None:
    """Somebody is at it, or it is another one."""
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        add_key(path, key("a"))
    assert path.read_text() == text


def test_a_link_stays_one(tmp_path: Path) -> None:
    """What it leads to is replaced."""
    (tmp_path / "real").mkdir()
    link = tmp_path / "keys.toml"
    link.symlink_to(tmp_path / "real/keys.toml")
    add_key(link, key("a"))
    assert link.is_symlink()
    assert names(tmp_path / "real/keys.toml") == ["a"]


def test_a_disk_that_is_full_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing beside it."""
    path = tmp_path / "keys.toml"
    add_key(path, key("a"))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(key_file.os, "fsync", full)
    with pytest.raises(TargetError, match=r"keys\.toml: No space left on device"):
        add_key(path, key("b"))
    assert names(path) == ["a"]
    assert [each.name for each in tmp_path.iterdir()] == ["keys.toml"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """In one line."""
    with pytest.raises(TargetError, match=r"none/keys\.toml: No such file or directory"):
        add_key(tmp_path / "none/keys.toml", key("a"))


def test_keys_that_are_added_at_once_are_all_there(tmp_path: Path) -> None:
    """Nobody replaces what another has just written."""
    path = tmp_path / "keys.toml"
    wanted = [f"k{number}" for number in range(12)]
    threads = [threading.Thread(target=add_key, args=(path, key(name))) for name in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(names(path)) == sorted(wanted)
