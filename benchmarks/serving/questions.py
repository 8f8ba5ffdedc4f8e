"""What a server is asked: a whole request for the load generator, and how to judge the answer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from catalogue import NETWORKS, WORK

FOLDER = WORK / "bodies"
WRITER = Path(__file__).with_name("bodies.py")


@dataclass(frozen=True)
class Question:
    """Files for the load generator: a whole request, and the values that must come back."""

    request: Path
    expected: Path
    check: str
    tolerance: float


def prepare(networks: Iterable[str]) -> None:
    """The networks and the bodies are there; made in a process of their own."""
    done = subprocess.run([sys.executable, str(WRITER), *networks], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"the networks could not be made:\n{done.stderr}")


def question(network: str, wrapping: str, path: str, check: str) -> Question:
    """The request for one network, wrapped for a server and posted to a path."""
    content = (FOLDER / f"{network}.{wrapping}.body").read_bytes()
    own: list[tuple[str, str]] = json.loads((FOLDER / f"{network}.{wrapping}.fields").read_text())
    fields = [("Host", "127.0.0.1"), ("Content-Length", str(len(content))), *own]
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n"
    request = FOLDER / f"{network}.{wrapping}.{path.strip('/').replace('/', '-')}.http"
    request.write_bytes(head.encode() + content)
    expected = FOLDER / f"{network}.{wrapping}.expected"
    return Question(request, expected, check, NETWORKS[network].tolerance)
