"""What the cgroups of this process let it have: CPU time and memory, in v1 and v2, however they are mounted.

A limit may stand in the process's own cgroup or in any above it, and the tightest counts. Which folder
is whose is told by two files: `/proc/self/mountinfo` says which part of a hierarchy is to be seen
where, `/proc/self/cgroup` where in the hierarchy this process is. In a container without a cgroup
namespace the two name the same long path, and the mount is the process's own folder.

Source: man cgroups(7), cgroup_namespaces(7), proc_pid_mountinfo(5); the kernel's cgroup-v2 and
cgroup-v1/memory documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Bound", "cgroup_folders", "cpu_quota", "memory_limit", "memory_used"]

MACHINE = Path("/")
PERIOD_US = 100_000
# The kernel's word for no limit in v1: the largest number of whole pages.
NO_LIMIT_BYTES = 2**62
# Where hierarchies lie where nobody says so: v2 has no controllers of its own.
USUAL = {
    "sys/fs/cgroup": (),
    "sys/fs/cgroup/unified": (),
    "sys/fs/cgroup/cpu": ("cpu",),
    "sys/fs/cgroup/cpu,cpuacct": ("cpu", "cpuacct"),
    "sys/fs/cgroup/memory": ("memory",),
}


@dataclass(frozen=True, slots=True)
class Bound:
    """A limit or an amount, and the file that says so.

    Attributes:
        value: Cores, or bytes.
        file: Which one.
    """

    value: float
    file: Path


@dataclass(frozen=True, slots=True)
class _Mount:
    """A hierarchy, or a part of one, that is to be seen.

    Attributes:
        point: Where.
        home: Which cgroup lies there.
        options: Names of its controllers, among others; None of v2.
    """

    point: Path
    home: str
    options: frozenset[str] | None


def cpu_quota(root: Path = MACHINE) -> Bound | None:
    """CPU time in cores that this process and its neighbours in its cgroup may have; None for no limit.

    Args:
        root: Where `sys` and `proc` lie; another place in tests.
    """
    found = []
    for folder in cgroup_folders("cpu", root):
        words = _words(folder / "cpu.max")  # `50000 100000`, or `max 100000`
        file = folder / "cpu.max"
        if not words:
            file = folder / "cpu.cfs_quota_us"
            words = [*_words(file)[:1], *_words(folder / "cpu.cfs_period_us")[:1]]
        numbers = [int(each) if each.isdigit() else 0 for each in (*words, str(PERIOD_US))[:2]]
        if words and all(numbers):
            found.append(Bound(numbers[0] / numbers[1], file))
    return min(found, key=lambda each: each.value, default=None)


def memory_limit(root: Path = MACHINE) -> Bound | None:
    """Bytes that this process and its neighbours in its cgroup may have; None for no limit.

    Args:
        root: As `cpu_quota`.
    """
    found = []
    for folder in cgroup_folders("memory", root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            found += [Bound(int(each), folder / name) for each in _words(folder / name)[:1] if each.isdigit()]
        # In v1 it knows of cgroups above, too, that are not to be seen from here.
        above = _stat(folder).get("hierarchical_memory_limit", NO_LIMIT_BYTES)
        found.append(Bound(above, folder / "memory.stat"))
    limits = [each for each in found if 0 < each.value < NO_LIMIT_BYTES]
    return min(limits, key=lambda each: each.value, default=None)


def memory_used(root: Path = MACHINE) -> Bound | None:
    """Bytes that count against the limit now, without files that the kernel can forget; None if unknown.

    Args:
        root: As `cpu_quota`.
    """
    limit = memory_limit(root)
    folders = [limit.file.parent] if limit is not None else reversed(cgroup_folders("memory", root))
    for folder in folders:
        for name, forgettable in (
            ("memory.current", "inactive_file"),
            ("memory.usage_in_bytes", "total_inactive_file"),
        ):
            words = _words(folder / name)
            if words and words[0].isdigit():
                used = int(words[0]) - _stat(folder).get(forgettable, 0)
                return Bound(max(used, 0), folder / name)
    return None


def cgroup_folders(controller: str, root: Path = MACHINE) -> list[Path]:
    """This process's own cgroup and all above it that are to be seen, the highest of each hierarchy first.

    Args:
        controller: `cpu` or `memory`; where it has a hierarchy of its own (v1), that one and v2's.
        root: As `cpu_quota`.
    """
    own = _own_paths(root)
    found: list[Path] = []
    for mount in _mounts(root):
        if mount.options is not None and controller not in mount.options:
            continue
        parts = _below(mount.home, own.get("" if mount.options is None else controller, "/"))
        found += [mount.point.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
    return found


def _below(home: str, own: str) -> list[str]:
    """The way from the cgroup that is mounted to this process's own; empty where it is that, or hidden."""
    above = [part for part in home.split("/") if part]
    parts = [part for part in own.split("/") if part and part != ".."]
    if ".." in above:  # above the namespace, whose path from there nobody tells
        return []
    return parts[len(above) :] if parts[: len(above)] == above else []


def _own_paths(root: Path) -> dict[str, str]:
    """Where in each hierarchy this process is, by controller; v2 has none and is the empty name."""
    found: dict[str, str] = {}
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number.isdigit():
            found.update(dict.fromkeys(names.split(","), path))
    return found


def _mounts(root: Path) -> Iterator[_Mount]:
    found = [mount for line in _lines(root / "proc/self/mountinfo") if (mount := _mount(line, root))]
    if found:
        yield from found
        return
    for place, controllers in USUAL.items():
        yield _Mount(root / place, "/", frozenset(controllers) if controllers else None)


def _mount(line: str, root: Path) -> _Mount | None:
    """What a line of mountinfo says of cgroups: ids, device, home, point, ... - kind, source, options."""
    front, _, back = line.partition(" - ")
    place, kind = front.split(), back.split()
    if len(place) < 5 or not kind or kind[0] not in ("cgroup", "cgroup2"):
        return None
    home, point = (_unescaped(each) for each in place[3:5])
    options = frozenset(kind[2].split(",")) if len(kind) > 2 else frozenset()
    return _Mount(root / point.lstrip("/"), home, None if kind[0] == "cgroup2" else options)


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _stat(folder: Path) -> dict[str, int]:
    pairs = (line.split() for line in _lines(folder / "memory.stat"))
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _words(path: Path) -> list[str]:
    return [word for line in _lines(path) for word in line.split()]


def _lines(path: Path) -> list[str]:
    """Of a file that may not be there, or may not be ours to read."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
