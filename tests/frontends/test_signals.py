"""A conversion that is ended leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for children in /proc"),
]


def alive(marker: str) -> bool:
    """Whether a process has that word in its command line."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in entry.read_bytes():
                return True
        except OSError:
            continue
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_an_ended_conversion_takes_its_child_and_its_files_along(
    tmp_path: Path, number: signal.Signals
) -> None:
    """Whichever way it ends, its child ends too; where it is told beforehand, its files go."""
    (tmp_path / "slow.py").write_text("import time, pathlib\ndef net():\n"
        "    pathlib.Path('started').touch()\n    time.sleep(60)\n")  # fmt: skip
    temporary, target = tmp_path / "temporary", tmp_path / "target"
    temporary.mkdir()
    target.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    command = [
        sys.executable,
        "-m",
        "infold",
        "convert",
        "slow:net",
        str(target / "x.onnx"),
        "--shape",
        "1,3",
    ]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive(str(temporary))
    process.send_signal(number)
    code = process.wait(20)
    deadline = time.monotonic() + 10
    while alive(str(temporary)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(str(temporary))
    if number is not signal.SIGKILL:
        assert code == 128 + number
        assert not list(temporary.iterdir())
        assert not list(target.iterdir())
