"""Keys of a `model.toml` are set; what its owner wrote beside them stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infold.errors import ConfigError, TargetError
from infold.runtime import Batching, ModelConfig, SessionConfig, read_config
from infold.runtime.config_edit import Changes, add_disabled_optimizers, set_keys

PLAN: Changes = {"session": {"runs": 2, "wide": "never"}, "batching": {"join": "always", "max_rows": 8}}


def after(folder: Path, text: str, changes: Changes = PLAN) -> str:
    """The file's text after the changes."""
    path = folder / "model.toml"
    path.write_bytes(text.encode())
    set_keys(path, changes)
    assert list(folder.iterdir()) == [path]
    return path.read_bytes().decode()


def test_a_missing_file_is_made(tmp_path: Path) -> None:
    """With nothing in it but what was asked for; what was read back is returned."""
    path = tmp_path / "model.toml"
    config = set_keys(path, PLAN)
    assert path.read_text() == (
        '[session]\nruns = 2\nwide = "never"\n\n[batching]\njoin = "always"\nmax_rows = 8\n'
    )
    assert config == ModelConfig(
        "latest", Batching(max_rows=8, join="always"), SessionConfig(runs=2, wide="never")
    )


def test_everything_else_stays_line_by_line(tmp_path: Path) -> None:
    """Comments above, behind and between; sections in any order; keys that are set keep their place."""
    before = (
        '# ours\nversions = "all"   # both\n\n'
        "[batching]   # rows\n  max_rows=32  # a # in a comment\n# not yet: max_rows = 4\n"
        "capacity_rows = 99\n\n"
        "# of the session\n[ session ]\ndisabled_optimizers = [\n  'A#B',  # why\n]\n\n# the end\n"
    )
    assert after(tmp_path, before) == (
        '# ours\nversions = "all"   # both\n\n'
        "[batching]   # rows\n  max_rows = 8  # a # in a comment\n# not yet: max_rows = 4\n"
        "capacity_rows = 99\n"
        'join = "always"\n\n'
        "# of the session\n[ session ]\ndisabled_optimizers = [\n  'A#B',  # why\n]\n"
        'runs = 2\nwide = "never"\n\n# the end\n'
    )


def test_setting_the_same_again_changes_nothing(tmp_path: Path) -> None:
    """Not even a line end."""
    once = after(tmp_path, "[session]\r\nruns = 7 # runs\r\n")
    assert once.startswith("[session]\r\nruns = 2 # runs\r\n") and "\n" not in once.replace("\r\n", "")
    assert after(tmp_path, once) == once


def test_a_value_of_several_lines_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """And what comes behind it stays."""
    path = tmp_path / "model.toml"
    path.write_text('[session]\n"disabled_optimizers" = [\n  "A",\n  "B",\n] # two\nruns = 3\n')
    add_disabled_optimizers(path, ["B", "C"])
    assert path.read_text() == '[session]\ndisabled_optimizers = ["A", "B", "C"] # two\nruns = 3\n'


@pytest.mark.parametrize("text", ["session.runs = 3\n", "session = { runs = 3 }\n"])
def test_another_spelling_is_refused_not_damaged(tmp_path: Path, text: str) -> None:
    """The line says what to write by hand."""
    path = tmp_path / "model.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"cannot be edited; set session.runs = 2, session.wide"):
        set_keys(path, PLAN)
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[batching]\npad_to = [16]\n", r"batching.pad_to: \[16\] are not all between 1 and max_rows = 8"),
        ("[session]\nruns = ", "not valid TOML"),
        ("[session]\nrun = 1\n", "unknown; known are"),
        ("session = 1\n", "must be a table"),
    ],
)
def test_what_makes_no_sense_is_never_written(tmp_path: Path, text: str, problem: str) -> None:
    """Neither before nor after the change."""
    path = tmp_path / "model.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=problem):
        set_keys(path, PLAN)
    assert path.read_text() == text


def test_the_file_is_judged_on_top_of_what_it_overrides(tmp_path: Path) -> None:
    """A version's file may rely on its model's."""
    path = tmp_path / "model.toml"
    base = ModelConfig(batching=Batching(max_rows=512, capacity_rows=512))
    config = set_keys(path, {"batching": {"max_rows": 300}}, base)
    assert config.batching == Batching(max_rows=300, capacity_rows=512)
    with pytest.raises(ConfigError, match=r"batching.capacity_rows"):
        set_keys(path, {"batching": {"max_rows": 300}})


def test_a_place_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    """Which names the file."""
    with pytest.raises(TargetError, match=r"gone/model.toml: No such file or directory"):
        set_keys(tmp_path / "gone" / "model.toml", PLAN)


def test_permissions_and_links_stay(tmp_path: Path) -> None:
    """The file is replaced, its place is not."""
    real = tmp_path / "real.toml"
    real.write_text("")
    real.chmod(0o640)
    link = tmp_path / "model.toml"
    os.symlink(real, link)
    set_keys(link, PLAN)
    assert link.is_symlink() and real.stat().st_mode & 0o777 == 0o640
    assert read_config(real).session.runs == 2
