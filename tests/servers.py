"""A real server process on a real socket."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@dataclass
class Server:
    """A running `infold serve`."""

    process: "subprocess.Popen[str]"
    url: str
    log: Path

    @property
    def address(self) -> str:
        return self.url.removeprefix("http://")

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@contextmanager
def running(repository: Path, log: Path, **environment: str) -> Iterator[Server]:
    """Start `infold serve` on a free port and wait for its line that it serves."""
    command = [sys.executable, "-m", "infold", "serve", str(repository), "--port", "0"]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | environment
        )
    assert process.stdout is not None
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if found := re.search(r"on (http://\S+)", line):
                yield Server(process, found[1], log)
                break
        else:
            pytest.fail(f"no server: {lines} {log.read_text()}")
    finally:
        process.stdout.close()
        process.kill()
        process.wait()
