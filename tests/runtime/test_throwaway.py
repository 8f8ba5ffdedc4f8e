"""A child for one order: whatever it does, its parent goes on, and it is gone."""

from __future__ import annotations

import hashlib
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from infold.runtime import throwaway
from infold.runtime.throwaway import Ending, Throwaway

READ = (
    "import sys, os, time; "
    "order = sys.stdin.buffer.read(int.from_bytes(sys.stdin.buffer.read(4), 'little')); "
)
LONG_S = 60.0


def is_there(pid: int) -> bool:
    """A process of that number runs, and is no zombie."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def has_ended(watched: int) -> bool:
    """A process ends soon, which is told by a descriptor of it."""
    with os.fdopen(watched) as process:
        return bool(select.select([process], [], [], 20)[0])


def worked(
    entry: str, order: bytes = b"", timeout_s: float = LONG_S, last: Callable[[bytes], bool] | None = None
) -> tuple[Ending | None, list[bytes]]:
    """How a child ended, and what it said; it is gone."""
    said: list[bytes] = []

    def hear(line: bytes) -> bool:
        said.append(line)
        return line == b"done" if last is None else last(line)

    child = Throwaway(entry)
    ending = child.work(order, timeout_s, hear)
    assert not is_there(child.pid)
    return ending, said


def test_an_order_is_done_and_the_child_is_gone() -> None:
    """Of any length; lines are heard as they come."""
    order = os.urandom(3_000_000)
    entry = (
        READ
        + "import hashlib; print('begun', flush=True); print(hashlib.sha256(order).hexdigest()); "
        + "print('done')"
    )
    ending, said = worked(entry, order)
    assert ending is None
    assert said == [b"begun", hashlib.sha256(order).hexdigest().encode(), b"done"]


def test_a_child_that_has_done_it_is_not_waited_for() -> None:
    """It may hang in the end of some library."""
    assert worked(READ + "print('done', flush=True); time.sleep(1000)")[0] is None


@pytest.mark.parametrize(
    ("entry", "cause"),
    [
        ("os.kill(os.getpid(), 11)", "ended by SIGSEGV"),
        ("os.kill(os.getpid(), 40)", "ended by signal 40"),
        ("os.abort()", "ended by SIGABRT"),
        ("sys.exit(3)", "ended with exit code 3"),
        ("os._exit(0)", "ended with exit code 0"),
        ("raise ValueError('no')", "ended with exit code 1"),
        ("os.closerange(0, 3); os.kill(os.getpid(), 11)", "ended by SIGSEGV"),
    ],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_child_that_dies_says_how(entry: str, cause: str, when: str) -> None:
    """Be it while it reads its order or while it obeys."""
    before = "import sys, os; " if when == "before" else READ
    ending, said = worked(before + entry, bytes(1_000_000))
    assert ending is not None
    assert (ending.cause, ending.is_late, said) == (cause, False, [])
    if "ValueError" in entry:
        assert ending.said.splitlines()[-1] == "ValueError: no"


@pytest.mark.parametrize(
    "entry",
    [
        "import time; time.sleep(1000)",
        READ + "time.sleep(1000)",
        READ + "os.close(2); time.sleep(1000)",
        READ + "exec('while True: pass')",
        READ + "exec('while True: os.write(2, bytes(65536))')",
        READ + "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)",
        READ + "os.fork(); time.sleep(1000)",
    ],
)
def test_a_child_that_takes_too_long_is_ended(entry: str) -> None:
    """With all that it started; also where it never reads its order, or talks without an end."""
    ending, _ = worked(entry, bytes(1_000_000), timeout_s=0.5)
    assert ending is not None
    assert ending.is_late
    assert ending.cause == "ended by SIGKILL"
    assert len(ending.said) <= throwaway.KEPT_BYTES


@pytest.mark.parametrize("piece", ["b'x' * 65536", "b'x\\n' * 30000"])
def test_a_child_that_says_too_much_is_ended(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line or in many."""
    monkeypatch.setattr(throwaway, "MOST_BYTES", 200_000)
    monkeypatch.setattr(throwaway, "EXIT_S", 0.1)
    ending, said = worked(READ + f"exec('while True: os.write(1, {piece})')")
    assert ending is not None
    assert not ending.is_late
    assert sum(map(len, said)) < 300_000


def test_a_grandchild_that_holds_the_pipes_is_ended_too() -> None:
    """The child is dead, and its pipes are open all the same."""
    watched: list[int] = []

    def watch(line: bytes) -> bool:
        watched.append(os.pidfd_open(int(line)))
        return False

    entry = "pid = os.fork(); pid and (print(pid, flush=True), os._exit(1)); time.sleep(1000)"
    ending, _ = worked(READ + entry, timeout_s=0.7, last=watch)
    assert ending is not None
    assert has_ended(*watched)


def test_a_child_is_ended_from_another_thread() -> None:
    """Whoever waits for it is told."""
    child, begun = Throwaway(READ + "print('begun', flush=True); time.sleep(1000)"), threading.Event()

    def hear(_: bytes) -> bool:
        begun.set()
        return False

    def end() -> None:
        assert begun.wait(LONG_S)
        child.end()

    ender = threading.Thread(target=end)
    ender.start()
    ending = child.work(b"", LONG_S, hear)
    ender.join()
    assert ending is not None
    assert ending.cause == "ended by SIGKILL"
    assert child.end() == -signal.SIGKILL  # again, and nothing else is hit


PARENT = """
import sys
from infold.runtime.throwaway import Throwaway
child = Throwaway(sys.argv[1])
print(child.pid, flush=True)
child.work(b"", 1000, lambda line: print(line.decode(), flush=True))
"""
CONFINED = "from infold.runtime.confinement import confine, end_with; import sys, os, time; "


@pytest.mark.parametrize(
    "entry",
    [
        CONFINED + "confine(int(sys.argv[1])); print('ready', flush=True); time.sleep(1000)",
        CONFINED
        + "sys.stdin.buffer.read(4); end_with(sys.stdin.buffer); "
        + "print('ready', flush=True); time.sleep(1000)",
    ],
    ids=["by the system", "by the pipe"],
)
def test_a_child_does_not_outlive_its_parent(entry: str) -> None:
    """However that ends; each of two ways is enough."""
    command = [sys.executable, "-c", PARENT, entry]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert parent.stdout.readline() == "ready\n"
        assert is_there(pid)
        watched = os.pidfd_open(pid)
        parent.kill()
        assert has_ended(watched)


def test_a_child_gives_way_and_goes_first_and_leaves_no_core() -> None:
    """As far as a process may decide that for itself."""
    entry = CONFINED + (
        "sys.stdin.buffer.read(4); confine(int(sys.argv[1])); import resource; "
        "print(os.nice(0), open('/proc/self/oom_score_adj').read().strip(), "
        "*resource.getrlimit(resource.RLIMIT_CORE), os.getpgid(0) == os.getpid()); print('done')"
    )
    _, said = worked(entry)
    niceness = min(19, os.nice(0) + 10)
    assert said[0].decode() == f"{niceness} 1000 0 0 True"


MEMORY = """
import sys
from infold.runtime.confinement import bound_memory
sys.stdin.buffer.read(4)
print(bound_memory({asked}, {files}), flush=True)
try:
    held = bytes({take})
    print("held")
except MemoryError:
    print("refused")
try:
    with open("{file}", "wb") as file:
        file.write(bytes({write}))
    print("written")
except OSError as failure:
    print(failure.strerror)
print("done")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux bounds the memory of a process")
@pytest.mark.parametrize(("mib", "says"), [(20, ["held", "written"]), (100, ["refused", "File too large"])])
def test_a_child_takes_no_more_memory_than_it_is_told(tmp_path: Path, mib: int, says: list[str]) -> None:
    """Beyond what the interpreter has; nor does it write larger files."""
    size = mib * 2**20
    entry = MEMORY.format(asked=64 * 2**20, files=0, take=size, write=f"{size}", file=tmp_path / "f")
    if mib == 100:
        entry = entry.replace("file.write(bytes(", "file.truncate((")
    _, said = worked(entry)
    assert [each.decode() for each in said[1:3]] == says
    assert int(said[0]) == 64 * 2**20


def test_the_bound_is_by_the_size_of_the_files_unless_it_is_told() -> None:
    """At least what small models take, at most what the machine has."""
    entry = "from infold.runtime import confinement as c; import sys; sys.stdin.buffer.read(4); "
    entry += "c.machine_bytes = lambda: 40 * 2**30; "
    entry += "print(*(c.bound_memory(0, size) // 2**30 for size in (0, 2**20, 2**30, 2**40))); print('done')"
    assert worked(entry)[1][0] == b"4 4 8 40"
