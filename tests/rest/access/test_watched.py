"""Files that are looked at seldom, and whose changes are never missed."""

import os
from pathlib import Path

from infold.rest.access.watched import EVERY_S, SETTLED_S, Watched


class Clock:
    """Two clocks: one for when to look, one as files have it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.today = 0.0

    def watch(self, *paths: Path) -> Watched:
        """Files, the youngest of which is long settled."""
        self.today = max((path.stat().st_ctime for path in paths if path.exists()), default=0.0) + 100
        return Watched(paths, lambda: self.now, lambda: self.today)

    def pass_s(self, seconds: float = EVERY_S) -> None:
        self.now += seconds
        self.today += seconds


def test_a_file_is_looked_at_once_a_second_at_most(tmp_path: Path) -> None:
    """However often it is asked about."""
    file, clock = tmp_path / "f", Clock()
    file.write_text("one")
    watched = clock.watch(file)
    assert watched.may_have_changed()
    file.write_text("three")
    assert not watched.may_have_changed()
    clock.pass_s(EVERY_S / 2)
    assert not watched.may_have_changed()
    clock.pass_s()
    assert watched.may_have_changed()
    clock.pass_s(100)
    assert not watched.may_have_changed()


def test_every_kind_of_change_shows(tmp_path: Path) -> None:
    """Written in place, replaced, gone, come back, by way of a link, with the old time put back."""
    file, link, clock = tmp_path / "f", tmp_path / "link", Clock()
    file.write_text("one")
    link.symlink_to(file)
    watched = clock.watch(link)

    def changed() -> bool:
        clock.pass_s()
        return watched.may_have_changed()

    assert watched.may_have_changed() and not changed()
    times = file.stat()
    file.write_text("two")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert file.stat().st_size == times.st_size and changed()
    clock.pass_s(100)
    changed()
    assert not changed()
    (tmp_path / "new").write_text("two")
    (tmp_path / "new").replace(file)
    assert changed()
    clock.pass_s(100)
    changed()
    file.unlink()
    assert changed() and not changed()
    file.write_text("back")
    assert changed()


def test_one_of_several_is_enough(tmp_path: Path) -> None:
    """A certificate and its key are replaced one after the other."""
    files, clock = [tmp_path / "a", tmp_path / "b"], Clock()
    for file in files:
        file.write_text("x")
    watched = clock.watch(*files)
    assert watched.may_have_changed()
    clock.pass_s()
    assert not watched.may_have_changed()
    files[1].write_text("xy")
    clock.pass_s()
    assert watched.may_have_changed()


def test_a_file_that_was_written_just_now_may_be_written_again_unseen(tmp_path: Path) -> None:
    """The clock of files ticks slowly: until one has been left alone, it counts as changed."""
    file, clock = tmp_path / "f", Clock()
    file.write_text("one")
    watched = clock.watch(file)
    clock.today = file.stat().st_ctime + 0.001
    assert watched.may_have_changed()
    clock.pass_s()
    assert watched.may_have_changed()
    clock.pass_s(SETTLED_S)
    assert watched.may_have_changed()  # one last time, since it has been left alone
    clock.pass_s()
    assert not watched.may_have_changed()


def test_a_file_that_is_not_there_is_no_news_for_ever(tmp_path: Path) -> None:
    """It is looked for once a second, and told once."""
    clock = Clock()
    watched = clock.watch(tmp_path / "nothing")
    assert watched.may_have_changed()
    clock.pass_s()
    assert not watched.may_have_changed()
