"""`infold key` as an operator meets it."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path

import pytest

from command_line import assert_error, infold

PLAIN = ("key", "new", "--name", "ci", "--scope", "infer")


def test_a_key_is_printed_once_with_the_entry_that_knows_it(tmp_path: Path) -> None:
    """Which has its SHA-256 and not the key; twice is two keys."""
    printed = []
    for _ in range(2):
        done = infold(
            *PLAIN, "--scope", "admin", "--requests-per-s", 50, "--burst", 7, "--expires", "2031-02-03"
        )
        assert (done.returncode, done.stderr) == (0, "")
        secret, _, text = done.stdout.partition("\n\n")
        (entry,) = tomllib.loads(text)["key"]
        assert entry.pop("sha256") == hashlib.sha256(secret.encode()).hexdigest()
        assert str(entry.pop("expires")) == "2031-02-03"
        assert entry == {"name": "ci", "scopes": ["infer", "admin"], "requests_per_s": 50, "burst": 7}
        assert secret not in text
        printed.append(secret)
    assert len(set(printed)) == 2


def test_with_a_file_standard_output_is_the_key_alone(tmp_path: Path) -> None:
    """For KEY=$(infold key new ...); the file has it, and has it to itself."""
    file = tmp_path / "keys.toml"
    file.write_text("# ours\n")
    done = infold(*PLAIN, "--file", file)
    secret = done.stdout.removesuffix("\n")
    assert "\n" not in secret and done.stderr == f"key 'ci' added to {file}; it is not shown again\n"
    assert file.read_text().startswith("# ours\n")
    assert hashlib.sha256(secret.encode()).hexdigest() in file.read_text()
    assert secret not in file.read_text()
    assert_error(infold(*PLAIN, "--file", file), 2, "keys.toml: key[0].name: there is a key 'ci' already")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--name", "a b", "--scope", "infer"), "--name: must be 1 to 64"),
        (("--name", "a", "--scope", "infr"), "--scope: 'infr' is none of infer, observe, admin"),
        (("--name", "a", "--scope", "infer", "--requests-per-s", "0"), "--requests-per-s: must be a number"),
        (("--name", "a", "--scope", "infer", "--burst", "3"), "--burst: goes with requests_per_s"),
        (("--name", "a", "--scope", "infer", "--expires", "soon"), "--expires: must be a day, as 2027-01-31"),
    ],
)  # fmt: skip
def test_an_option_that_makes_no_sense_is_named(options: tuple[str, ...], said: str) -> None:
    """And no key is printed that nobody could use."""
    assert_error(infold("key", "new", *options), 2, f"infold: {said}")


def test_keys_are_listed_without_what_is_kept_of_them(tmp_path: Path) -> None:
    """Name, scopes, quota, last day."""
    file = tmp_path / "keys.toml"
    infold(*PLAIN, "--file", file, "--requests-per-s", "2.5")
    infold("key", "new", "--name", "old", "--scope", "observe", "--expires", "2020-01-01", "--file", file)
    done = infold("key", "list", INFOLD_API_KEYS=str(file))
    assert done.stdout == infold("key", "list", "--file", file).stdout
    header, ci, old = done.stdout.splitlines()
    assert header.split() == ["name", "scopes", "quota", "burst", "expires"]
    assert ci.split() == ["ci", "infer", "2.5/s", "-", "-"]
    assert old.split() == ["old", "observe", "-", "-", "2020-01-01", "(over)"]


def test_a_list_of_nothing_is_one_clear_line(tmp_path: Path) -> None:
    """Whether no file is named, or none is there, or it is none."""
    assert_error(infold("key", "list", INFOLD_API_KEYS=""), 2, "--file: is needed, or INFOLD_API_KEYS")
    assert_error(infold("key", "list", "--file", tmp_path / "none"), 2, "none: cannot be read")
    (tmp_path / "text").write_text("hello")
    assert_error(infold("key", "list", "--file", tmp_path / "text"), 2, "text: is no TOML")
