"""The server under test, and the one that takes its place: whoever asks finds out here where it is."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Self

from faults.excuses import Kill, Stop

__all__ = ["WORKERS", "Host"]

WORKERS = 2
START_S, STOP_S = 60.0, 60.0


class Host:
    """`infold serve` with two workers, whose log goes through a pipe into a file.

    A pipe, so that a limit on the size of files can stand for a full disk without silencing the log.

    Args:
        repository: That is served.
        folder: For the log and the cache.
        environment: Settings of the service.

    Attributes:
        log: All that it has said, whichever of the servers it was.
        kills: Workers that were killed.
        stops: Servers that were told to go.
        changed: Set while a server is there.
    """

    def __init__(self, repository: Path, folder: Path, environment: Mapping[str, str]) -> None:
        self.log = folder / "server.log"
        self.kills: list[Kill] = []
        self.stops: list[Stop] = []
        self.changed = threading.Event()
        self._repository = repository
        self._environment = {"INFOLD_CACHE_DIR": str(folder / "cache"), **environment}
        self._process: subprocess.Popen[bytes] | None = None
        self._pump: threading.Thread | None = None
        self._address = ("", 0)
        self._pids: dict[int, int] = {}
        self._events: list[str] = []

    def __enter__(self) -> Self:
        """It answers."""
        self.start()
        return self

    def __exit__(self, *failure: object) -> None:
        """It is gone, however it was."""
        if self._process is not None:
            self._process.kill()
            self._gone()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the server that is there now."""
        return self._address

    @property
    def url(self) -> str:
        """The same for clients that want one."""
        return "http://{}:{}".format(*self._address)

    @property
    def workers(self) -> dict[int, int]:
        """Processes of those that were started last, by their number."""
        return dict(self._pids)

    @property
    def processes(self) -> list[int]:
        """The supervisor and its workers."""
        return [self.pid, *self.workers.values()]

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        assert self._process is not None
        return self._process.pid

    @property
    def time_told(self) -> datetime:
        """The time of day in the last line of its log."""
        with self.log.open("rb") as log:
            log.seek(-min(10_000, self.log.stat().st_size), os.SEEK_END)
            line = log.read().splitlines()[-2]  # the last one may not be whole
        return datetime.fromisoformat(str(json.loads(line)["time"]))

    def count(self, event: str) -> int:
        """How often something was said of a worker, by all servers together."""
        return self._events.count(event)

    def start(self) -> None:
        """Start a server and wait until it answers."""
        self._pids = {}
        command = [sys.executable, "-m", "infold", "serve", str(self._repository), "--port", "0"]
        process = subprocess.Popen(
            [*command, "--workers", str(WORKERS)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | self._environment,
        )
        self._process = process
        self._pump = threading.Thread(target=self._keep_log, args=(process,), daemon=True)
        self._pump.start()
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(rb"on http://([^:]+):(\d+)", line):
                self._address = found[1].decode(), int(found[2])
                self.changed.set()
                return
        raise AssertionError(f"no server: {self.log.read_text()[-3000:]}")

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        assert self._process is not None
        at = time.monotonic()
        self.changed.clear()
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(STOP_S)
        self.stops.append(Stop(at, time.monotonic()))
        self._gone()
        return code

    def kill_a_worker(self, worker: int) -> None:
        """SIGKILL to one of them."""
        self.kills.append(Kill(worker, time.monotonic()))
        os.kill(self.workers[worker], signal.SIGKILL)

    def _gone(self) -> None:
        assert self._process is not None and self._pump is not None
        process, self._process = self._process, None
        process.wait()
        self._pump.join(STOP_S)  # the log ends with the last of its processes
        assert process.stdout is not None
        process.stdout.close()

    def _keep_log(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        with process.stderr as said, self.log.open("ab", buffering=0) as log:
            for line in said:
                if b'"event":"worker ' in line:
                    with contextlib.suppress(ValueError):
                        self._hear(json.loads(line))
                log.write(line)

    def _hear(self, said: dict[str, object]) -> None:
        if said["event"] == "worker started":
            self._pids[int(str(said["worker"]))] = int(str(said["pid"]))
        self._events.append(str(said["event"]))
