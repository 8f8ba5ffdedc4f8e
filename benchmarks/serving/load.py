"""The load generator load.c: compiling it, its command line and what it prints."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from catalogue import WORK
from questions import Question

SOURCES = [str(Path(__file__).with_name(f"{each}.c")) for each in ("load", "answer", "options")]
PROGRAM = WORK / "load"


@dataclass(frozen=True)
class Load:
    """What the load generator printed; see load.c."""

    answers: int
    wrong: int
    errors: int
    statuses: dict[str, int]
    retry_after: int
    seconds: float
    answers_per_s: float
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    all_answers: int
    late: int
    unanswered: int
    cpu_seconds: float

    @property
    def refused(self) -> int:
        """Answers other than 200."""
        return sum(count for status, count in self.statuses.items() if status != "200")


def compile_load() -> None:
    """The load generator lies in build/serving."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        sys.exit("the load generator is written in C: install a compiler (cc), or name one in CC")
    WORK.mkdir(parents=True, exist_ok=True)
    command = [compiler, "-std=c11", "-O2", "-o", str(PROGRAM), *SOURCES, "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"the load generator did not compile:\n{done.stderr}")


def load_command(
    asked: Question, port: int, connections: int, seconds: float, warmup: float, rate: float = 0
) -> list[str]:
    """The command line of the load generator."""
    words: dict[str, object] = {
        "port": port,
        "request": asked.request,
        "expect": asked.expected,
        "check": asked.check,
        "tolerance": asked.tolerance,
        "connections": connections,
        "seconds": seconds,
        "warmup": warmup,
        "rate": rate,
        "seed": time.time_ns() % 1_000_000,
    }
    return [str(PROGRAM), *(word for key, value in words.items() for word in (f"--{key}", str(value)))]


def read_load(text: str) -> Load:
    """The generator's one line."""
    told: dict[str, Any] = json.loads(text)
    return Load(**{each.name: told[each.name] for each in fields(Load)})
