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

import onnx
import pytest

ROOT = Path(__file__).parents[1]


@dataclass
class Server:
    """A running `infold serve`."""

    process: "subprocess.Popen[str]"
    url: str
    log: Path
    docs: str | None = None

    @property
    def address(self) -> str:
        return self.url.partition("://")[2]

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@contextmanager
def running(repository: Path, log: Path, **environment: str) -> Iterator[Server]:
    """Start `infold serve` on a free port and wait for its line that it serves."""
    with running_with([str(repository), "--port", "0"], log, **environment) as server:
        yield server


@contextmanager
def running_with(arguments: list[str], log: Path, **environment: str) -> Iterator[Server]:
    """Start `infold serve` with these arguments and wait for its line that it serves."""
    command = [sys.executable, "-m", "infold", "serve", *arguments]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | environment
        )
    assert process.stdout is not None
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if found := re.search(r"on (https?://\S+)", line):
                docs = re.search(r"docs at (http\S+)\)", line)
                yield Server(process, found[1], log, docs[1] if docs else None)
                break
        else:
            pytest.fail(f"no server: {lines} {log.read_text()}")
    finally:
        process.stdout.close()
        process.kill()
        process.wait()


def slow_model(root: Path) -> Path:
    """A model that loops as often as it is told."""
    text = """<ir_version: 8, opset_import: ["": 17]>
    slow (int64[1] n) => (float total)
    <bool yes = {1}, float zero = {0}, int64[0] none = {}>
    { count = Squeeze(n)
      total = Loop(count, yes, zero)
        <body = body (int64 i, bool go, float sum) => (bool again, float next)
          <float one = {1}> { again = Identity(go)  next = Add(sum, one) }> }"""
    folder = root / "slow" / "1"
    folder.mkdir(parents=True)
    onnx.save(onnx.parser.parse_model(text), str(folder / "model.onnx"))
    return root


def serve_fails(*arguments: str) -> tuple[int, str]:
    """Exit code and plain lines of an `infold serve` that does not come up."""
    done = subprocess.run(
        [sys.executable, "-m", "infold", "serve", *arguments], capture_output=True, text=True, timeout=60
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert "Traceback" not in done.stderr
    return done.returncode, "\n".join(lines)
