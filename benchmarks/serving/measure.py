"""Starts one server, asks it, and makes sure that nothing of it is left.

Servers run one at a time, each in a session of its own, so that its processes can be found and
ended whatever they do.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import machine
from catalogue import WORK
from load import Load, load_command, read_load
from questions import Question, question

from servers import Server

PATIENCE_S = 90.0  # until a server must be ready


class ServerError(Exception):
    """A server did not start or does not answer; becomes the reason in its row."""

    def __init__(self, reason: str, wrong: int = 0) -> None:
        super().__init__(reason)
        self.wrong = wrong


@dataclass(frozen=True)
class Measured:
    """One spell of load on one server, and what the machine did meanwhile."""

    load: Load
    usage: machine.Usage
    pss_mib: float

    @property
    def answers_per_cpu_s(self) -> float:
        """Right answers for a CPU second of all the server's processes."""
        return self.load.all_answers / max(self.usage.server_cpu_s, 1e-9)


class Running:
    """A server that runs as long as the `with` block."""

    def __init__(self, server: Server, networks: Sequence[str], body: str) -> None:
        self.server, self.networks, self.body = server, list(networks), body
        self.port = free_port()
        self.ready_s = 0.0
        self._log = WORK / "run" / "server.log"

    def __enter__(self) -> Self:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self.server.arguments(self.networks, self.port),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._log.parent,
                env=self.server.surroundings(self.networks[0], self.body, self.port),
                start_new_session=True,
            )
        try:
            for network in self.networks:
                self._wait_until_ready(network, started + PATIENCE_S)
            self.ready_s = time.perf_counter() - started
            for network in self.networks:
                self._smoke(network)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def question(self, network: str) -> Question:
        """What this server is asked."""
        wire = self.server.wires[self.body]
        return question(network, wire.wrapping, wire.path.format(network=network), wire.check)

    def measure(
        self, network: str, connections: int, seconds: float, warmup: float, rate: float = 0
    ) -> Measured:
        """One spell of load."""
        return self.together([(network, connections)], seconds, warmup, rate)[0]

    def together(
        self, asked: Sequence[tuple[str, int]], seconds: float, warmup: float, rate: float = 0
    ) -> list[Measured]:
        """A spell of load on each of several networks at the same time."""
        before = machine.Moment.now(self.processes())
        commands = [
            load_command(self.question(network), self.port, connections, seconds, warmup, rate)
            for network, connections in asked
        ]
        started = [subprocess.Popen(each, stdout=subprocess.PIPE, text=True) for each in commands]
        # The memory is that under load, but the look at it must not disturb a short measurement.
        time.sleep(warmup + 0.8 * seconds)
        pss = machine.pss_mib(self.processes() - {each.pid for each in started})
        texts = [each.communicate(timeout=seconds + warmup + 60)[0] for each in started]
        after = machine.Moment.now(self.processes())
        if failed := [each for each in started if each.returncode]:
            raise ServerError(f"the load generator ended with {failed[0].returncode}")
        loads = [read_load(text) for text in texts]
        usage = machine.Usage.between(before, after, sum(each.cpu_seconds for each in loads))
        return [Measured(each, usage, pss) for each in loads]

    def processes(self) -> set[int]:
        """All that are its own: this process starts nothing else beside it, and adopts orphans."""
        return machine.descendants(os.getpid())

    def pss_mib(self) -> float:
        """Its memory now."""
        return machine.pss_mib(self.processes())

    def _wait_until_ready(self, network: str, deadline: float) -> None:
        said = "did not listen"
        while time.perf_counter() < deadline:
            if (code := self._process.poll()) is not None:
                raise ServerError(f"ended with {code} at the start: {self._last_words()}")
            try:
                status, text = self._ask("GET", self.server.ready, b"", {})
                said = f"{self.server.ready} said {status}"
                if status == 200:
                    status, text = self._post(network)
                    if status == 200:
                        return
                    said = f"answered {status}: {text[:160]}"
                    if 400 <= status < 500 and status not in (404, 429):
                        raise ServerError(said)  # it will not come to like the request
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.02)
        raise ServerError(f"not ready in time: {said}; {self._last_words()}")

    def _post(self, network: str) -> tuple[int, str]:
        head, _, content = self.question(network).request.read_bytes().partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        return self._ask("POST", first.split()[1], content, dict(line.split(": ", 1) for line in lines))

    def _ask(self, method: str, path: str, content: bytes, headers: dict[str, str]) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path, content or None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")

    def _smoke(self, network: str) -> None:
        command = load_command(self.question(network), self.port, 2, 0.3, 0)
        load = read_load(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        if load.wrong or load.errors or not load.all_answers:
            raise ServerError(
                f"smoke check: {load.all_answers} right, {load.wrong} wrong, {load.errors} broken "
                f"connections, statuses {load.statuses}",
                load.wrong,
            )

    def _last_words(self) -> str:
        lines = [each.strip(" │╭╮╰╯─") for each in self._log.read_text(errors="replace").splitlines()]
        return next((line for line in reversed(lines) if line), "(no output)")[-200:]

    def _end(self) -> None:
        """All of its processes end, politely where they can."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        # Whatever it started and left behind is a child of ours by now, in whichever group.
        deadline = time.perf_counter() + 10
        while (left := self.processes()) and time.perf_counter() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                if pid != self._process.pid:
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(pid, os.WNOHANG)
            self._process.poll()
            time.sleep(0.02)


def free_port() -> int:
    """A port with two free ones after it, which some peers take as well."""
    while True:
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                for following in (port + 1, port + 2):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", following))
            except (OSError, OverflowError):
                continue
            return port
