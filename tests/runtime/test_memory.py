"""How much memory there is: the machine's, or what a container is given of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from infold.runtime.memory import machine_bytes

MIB = 2**20


@pytest.mark.parametrize(
    ("files", "mib"),
    [
        ({"sys/fs/cgroup/memory.max": str(64 * MIB)}, 64),
        ({"sys/fs/cgroup/memory.max": "max", "sys/fs/cgroup/pod/memory.max": str(32 * MIB)}, 32),
        ({"sys/fs/cgroup/memory.max": str(16 * MIB), "sys/fs/cgroup/pod/memory.max": "max"}, 16),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": str(8 * MIB)}, 8),
    ],
)
def test_the_tightest_limit_counts(tmp_path: Path, files: dict[str, str], mib: int) -> None:
    """Of its own cgroup and all above it, in both forms that Linux has."""
    for name, text in {"proc/self/cgroup": "0::/pod\n", **files}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert machine_bytes(tmp_path) == mib * MIB


def test_without_a_limit_it_is_the_machine_s(tmp_path: Path) -> None:
    """Nonsense in a file is no limit."""
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("much")
    assert machine_bytes(tmp_path) == machine_bytes(tmp_path / "nowhere") > 64 * MIB
