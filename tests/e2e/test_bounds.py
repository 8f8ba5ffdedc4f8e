"""Clients that are slow, too many or too much, over real sockets: they are refused in words, others are not.

Every server here has limits that a test can reach in a moment.
"""

import contextlib
import dataclasses
import gzip
import json
import os
import re
import resource
import shutil
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest

from graphs import model as model_of
from infold.rest.bounds import RESERVED
from infold.runtime import available_cores
from servers import Server, running, slow_model

SECOND = "1"
MAX_BODY, MAX_IN_FLIGHT, MOST = 4_000_000, 8_000_000, 12
X = np.arange(4, dtype=np.float32).tobytes()
LIVE = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"
OCTETS = b"inference-header-content-length: 0"


@pytest.fixture(scope="module")
def models(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bounds")
    for name in ("double", "echo_uint8", "echo_fp32"):
        shutil.copytree(repository / name, root / name)
    for name, ends, computed in (
        ("zeros", "(int64[1] n) => (float[m] y)", "y = ConstantOfShape(n)"),
        ("total", "(float[n] x) => (float y)", "y = ReduceSum<keepdims = 0>(x)"),
    ):
        folder = root / name / "1"
        folder.mkdir(parents=True)
        onnx.save(model_of(f"{name} {ends} {{ {computed} }}"), str(folder / "model.onnx"))
    return slow_model(root)


@pytest.fixture(scope="module")
def shared(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with limited(models, tmp_path_factory.mktemp("log") / "log") as started:
        yield started


def limited(models: Path, log: Path, **environment: str) -> contextlib.AbstractContextManager[Server]:
    """A server with small limits."""
    limits = {
        "INFOLD_HEADER_TIMEOUT_S": SECOND,
        "INFOLD_WRITE_TIMEOUT_S": SECOND,
        "INFOLD_BODY_TIMEOUT_S": "60",  # longer than a client here waits
        "INFOLD_MAX_CONNECTIONS": str(MOST),
        "INFOLD_MAX_BODY_BYTES": str(MAX_BODY),
        "INFOLD_MAX_IN_FLIGHT_BYTES": str(MAX_IN_FLIGHT),
        "INFOLD_DRAIN_S": "2",
    }
    return running(models, log, **(limits | environment))


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    """In good health afterwards, and calm."""
    yield shared
    until(lambda: is_live(shared))
    text = shared.log.read_text()
    assert "exception" not in text.lower(), text[-3000:]
    for line in text.splitlines():
        assert json.loads(line)["level"] in ("info", "warning"), line


def is_live(server: Server) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{server.url}/v2/health/ready", timeout=20).status_code == 200
    return False


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait for what the server does in its own time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


class Client:
    """A plain socket."""

    def __init__(self, server: Server, receive_bytes: int = 0) -> None:
        host, port = server.address.split(":")
        self.socket = socket.socket()
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(30)
        self.socket.connect((host, int(port)))
        self.rest = b""

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *failure: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def drip(self, data: bytes) -> None:
        """A byte at a time, until it is not taken any more."""
        with contextlib.suppress(ConnectionError):
            for start in range(len(data)):
                self.send(data[start : start + 1])
                time.sleep(0.05)

    def read(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer."""
        while b"\r\n\r\n" not in self.rest:
            self._more()
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        while len(self.rest) < int(headers["content-length"]):
            self._more()
        size = int(headers["content-length"])
        body, self.rest = self.rest[:size], self.rest[size:]
        return int(first.split()[1]), headers, body

    def _more(self) -> None:
        data = self.socket.recv(2**16)
        assert data, self.rest
        self.rest += data

    @property
    def is_closed(self) -> bool:
        """Nothing more comes."""
        with contextlib.suppress(ConnectionError):
            return not self.rest and self.socket.recv(1) == b""
        return True

    def reset(self) -> None:
        """Leave without a farewell."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def post(
    model: str, body: bytes, *headers: bytes, length: int | None = -1, route: str = "/v2/models/%s/infer"
) -> bytes:
    lines = [b"POST %s HTTP/1.1" % (route % model).encode(), b"host: x", OCTETS, *headers]
    if length is not None:
        lines.append(b"content-length: %d" % (len(body) if length < 0 else length))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def error(answer: tuple[int, dict[str, str], bytes]) -> str:
    """The text of a refusal."""
    status, headers, body = answer
    assert status >= 400
    assert headers["content-type"] == "application/json"
    text: str = json.loads(body)["error"]
    return text


# -- headers that take their time ------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"G", LIVE[:-1], LIVE[:20], b"\r\n", b"\r\n\r\n\r\n"])
def test_headers_that_never_end_are_408_and_the_connection_is_closed(server: Server, sent: bytes) -> None:
    """Also where nothing ever comes: a connection is for a request."""
    with Client(server) as client:
        client.send(sent)
        answer = client.read()
        assert error(answer) == "the request's headers did not come within 1 s"
        assert (answer[0], answer[1]["connection"]) == (408, "close")
        assert client.is_closed


def test_headers_that_come_byte_by_byte_are_408(server: Server) -> None:
    """However steadily: what counts is when they are complete."""
    with Client(server) as client:
        client.drip(LIVE[:-2] + b"x: y\r\n" * 20)
        assert client.read()[0] == 408
        assert client.is_closed


@pytest.mark.parametrize(
    "before", [LIVE, post("double", X), post("nobody", X), post("echo_fp32", X * 20_000)]
)
@pytest.mark.parametrize("sent", [LIVE[:-2], b"\r\n", b"P"])
def test_the_same_for_the_next_request_on_a_connection(server: Server, before: bytes, sent: bytes) -> None:
    """From its first byte; a line feed between two requests is one."""
    with Client(server) as client:
        client.send(before)
        assert client.read()[0] in (200, 404)
        client.send(sent)
        assert client.read()[0] == 408
        assert client.is_closed


def test_the_next_request_that_begins_in_one_piece_with_one_before(server: Server) -> None:
    """Its beginning waits for its end no longer than any other."""
    with Client(server) as client:
        client.send(LIVE + LIVE[:20])
        assert client.read()[0] == 200
        assert client.read()[0] == 408
        assert client.is_closed


def test_a_request_behind_one_that_takes_a_while_is_not_refused_before_that_is_answered(
    server: Server,
) -> None:
    """Whoever is sent a 408 would take it for the answer to the first."""
    endless = np.array([10**9], np.int64).tobytes()
    with Client(server) as client:
        client.send(post("slow", endless, b"x-request-timeout-ms: 2500") + LIVE[:20])
        assert client.read()[0] == 504
        client.send(LIVE[20:])
        assert client.read()[0] == 200


def test_a_connection_that_is_idle_between_requests_is_kept(server: Server) -> None:
    """For longer than headers may take."""
    with Client(server) as client:
        client.send(LIVE)
        assert client.read()[0] == 200
        time.sleep(2.5)
        client.send(LIVE)
        assert client.read()[0] == 200


# -- bodies that take their time ---------------------------------------------------------------------


def test_the_deadline_of_a_request_covers_the_reading_of_its_body(server: Server) -> None:
    """504, not 408: it is the caller's own time that is over."""
    for body in (X, bytes(100_000)):
        with Client(server) as client:
            client.send(post("double", body, b"x-request-timeout-ms: 200")[:-3])
            answer = client.read()
            assert (answer[0], answer[1]["connection"]) == (504, "close")
            assert error(answer).startswith("the deadline passed after 0.2")
            assert client.is_closed


@pytest.mark.parametrize("header", [b"x-request-timeout-ms", b"X-Envoy-Expected-Rq-Timeout-Ms"])
def test_a_deadline_by_header_ends_a_run(server: Server, header: bytes) -> None:
    """In milliseconds; the connection stays."""
    loops = np.array([10**9], np.int64).tobytes()
    with Client(server) as client:
        client.send(post("slow", loops, header + b": 300"))
        assert error(client.read()).startswith("the deadline passed after 0.3")
        client.send(LIVE)
        assert client.read()[0] == 200
    until(lambda: in_flight(server) == 0)


def test_a_deadline_that_makes_no_sense_is_400_by_its_name(server: Server) -> None:
    """Before the body is read."""
    with Client(server) as client:
        client.send(post("double", X, b"x-request-timeout-ms: soon"))
        answer = client.read()
        assert answer[0] == 400
        assert error(answer) == "x-request-timeout-ms: 'soon' is no whole number of milliseconds"
        client.send(post("double", X, b"x-request-timeout-ms: 20000"))
        assert client.read()[0] == 200


# -- answers that nobody reads -----------------------------------------------------------------------


def ask_for(count: int) -> bytes:
    body = {
        "inputs": [{"name": "n", "shape": [1], "datatype": "INT64", "data": [count]}],
        "parameters": {"binary_data_output": True},
    }
    text = json.dumps(body).encode()
    return post("zeros", text, b"x: y", length=len(text)).replace(OCTETS + b"\r\n", b"")


def test_clients_that_never_read_a_large_answer_are_cut_off(server: Server) -> None:
    """And what was kept for them is free again: the next ones take no more memory than the first."""

    def ask_and_never_read() -> None:
        deaf = [Client(server, 4096) for _ in range(3)]
        for each in deaf:
            each.send(ask_for(10_000_000))
        until(lambda: all(is_reset(each) for each in deaf))
        for each in deaf:
            each.socket.close()

    ask_and_never_read()
    assert told(server, "write_timeout") >= 1
    before = resident(server)
    for _ in range(3):
        ask_and_never_read()
    assert resident(server) < before + 80  # MiB, the third part of what was asked for each time


@pytest.mark.parametrize("last", [b"connection: close", b"x: y"])
def test_a_client_that_stops_reading_near_the_end_is_cut_off_too(server: Server, last: bytes) -> None:
    """A connection that is to be closed once all is read would stay for ever."""
    with Client(server, 4096) as client:
        client.send(ask_for(4_000_000).replace(b"x: y", last))
        assert client.socket.recv(1000)
        until(lambda: is_reset(client))


def test_a_client_that_reads_on_is_waited_for(server: Server) -> None:
    """For longer than it may pause: the last byte comes, and is the right one."""
    with Client(server, 2**17) as client:
        client.send(ask_for(5_000_000))
        seen = 0
        for _ in range(30):
            part = client.socket.recv(2**17)
            seen += len(part)
            time.sleep(0.1)
        client.rest = b""
        while seen < 20_000_000:
            part = client.socket.recv(2**16)
            assert part, seen
            seen += len(part)


def is_reset(client: Client) -> bool:
    """Cut off; what has come stays unread. Linux tells without reading."""
    failure = client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if failure:
        return True
    with contextlib.suppress(OSError):
        state = client.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        return state == 7  # closed
    return False


# -- too much ----------------------------------------------------------------------------------------


def test_three_gigabytes_are_refused_before_they_are_sent(server: Server) -> None:
    """The connection is closed, and no memory was taken."""
    with Client(server) as client:
        client.send(post("echo_uint8", b"", length=3 * 2**30))
        answer = client.read()
        assert (answer[0], answer[1]["connection"]) == (413, "close")
        assert client.is_closed


@pytest.mark.skipif(sys.platform != "linux", reason="others forget what they were sent once they are refused")
def test_who_sends_three_gigabytes_without_asking_reads_why_they_are_refused(server: Server) -> None:
    """It finds the connection closed while it sends, and the answer in its socket."""
    with Client(server) as client, contextlib.suppress(ConnectionError):
        client.send(post("echo_uint8", b"", length=3 * 2**30))
        for _ in range(3 * 2**10):
            client.send(bytes(2**20))
    with Client(server) as client:
        client.send(LIVE)
        assert client.read()[0] == 200


def test_no_more_bytes_are_in_flight_than_may_be(server: Server) -> None:
    """What is declared counts while it comes; who is refused may try again, on the same connection."""
    body = bytes(MAX_BODY)
    slow = [Client(server) for _ in range(2)]
    for each in slow:
        each.send(post("echo_uint8", body)[:1000])
    with Client(server) as client:
        until(lambda: overloaded(client, body[:100_000]))
        client.send(post("echo_uint8", body[:100_000]))
        answer = client.read()
        assert (answer[0], answer[1]["retry-after"]) == (503, "1")
        assert (
            error(answer)
            == f"the requests in flight would exceed the maximum allowed {MAX_IN_FLIGHT} bytes together"
        )
        assert answer[1].get("connection") != "close"
        slow.pop().reset()
        until(lambda: not overloaded(client, body[:100_000]))
    for each in slow:
        each.socket.close()


def overloaded(client: Client, body: bytes) -> bool:
    client.send(post("nobody_yet", b""))
    assert client.read()[0] == 404
    client.send(post("echo_uint8", body))
    return client.read()[0] == 503


def end(way: str, client: Client, body: bytes) -> None:
    """A request that ends in one of all the ways that there are."""
    late, zipped = b"x-request-timeout-ms: 50", b"content-encoding: gzip"
    requests = {
        "answered": post("echo_fp32", body),
        "refused when read": post("double", body),
        "of no model": post("nobody", body),
        "late": post("echo_fp32", body, late)[:-9],
        "chunked": chunked(body),
        "compressed": post("echo_fp32", gzip.compress(body, 1), zipped),
        "compressed, broken": post("echo_fp32", gzip.compress(body, 1)[:-9], zipped),
        "reset": post("echo_fp32", body)[:-9],
        "reset, chunked": chunked(body)[:-9],
        "reset while it runs": post("slow", np.array([10**9], np.int64).tobytes()),
        "reset when it is read": post("echo_fp32", body),
    }
    client.send(requests[way])
    if way.startswith("reset"):
        client.reset()
    else:
        client.read()


WAYS_OUT = [
    "answered", "refused when read", "of no model", "late", "chunked", "compressed", "compressed, broken",
    "reset", "reset, chunked", "reset while it runs", "reset when it is read",
]  # fmt: skip


def chunked(body: bytes) -> bytes:
    parts = [body[start : start + 50_000] for start in range(0, len(body), 50_000)]
    coded = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    return post("echo_fp32", coded, b"transfer-encoding: chunked", length=None)


@pytest.mark.parametrize("way", WAYS_OUT)
def test_whatever_becomes_of_a_request_its_bytes_are_given_back(server: Server, way: str) -> None:
    """After more of them than there is room for, there is room."""
    body = bytes(MAX_BODY - 100)
    for _ in range(2 * MAX_IN_FLIGHT // MAX_BODY + 1):
        with Client(server) as client:
            end(way, client, body)
    with Client(server) as first, Client(server) as second:

        def fits() -> bool:
            first.send(post("echo_fp32", body)[: len(body)])  # declared, and nearly all of it there
            second.send(post("echo_fp32", body))
            is_free = second.read()[0] == 200
            first.send(post("echo_fp32", body)[len(body) :])
            return first.read()[0] == 200 and is_free

        until(fits)


def test_a_compressed_body_counts_by_what_it_becomes(models: Path, tmp_path: Path) -> None:
    """A bomb takes no more than its share, and the rest of the room stays usable."""
    with limited(models, tmp_path / "log") as server, contextlib.ExitStack() as stack:
        holder, client = (stack.enter_context(Client(server)) for _ in range(2))
        holder.send(post("echo_uint8", bytes(MAX_BODY))[:1000])
        bomb = gzip.compress(bytes(MAX_BODY), 9)
        other = stack.enter_context(Client(server))
        other.send(post("echo_uint8", bytes(MAX_BODY - 100_000))[:1000])
        client.send(post("nobody", b""))
        client.read()
        client.send(post("echo_fp32", bomb, b"content-encoding: gzip"))
        answer = client.read()
        assert answer[0] == 503
        assert "in flight" in error(answer)
        client.send(post("double", X))
        assert client.read()[0] == 200


def test_an_idle_connection_keeps_nothing_of_its_last_body(models: Path, tmp_path: Path) -> None:
    """Memory for a few bodies at a time is enough for any number of connections that had one."""
    body = np.ones(8_000_000, np.float32).tobytes()
    limits = {"INFOLD_MAX_BODY_BYTES": "40000000", "INFOLD_MAX_IN_FLIGHT_BYTES": "80000000"}
    with limited(models, tmp_path / "log", **limits) as server, contextlib.ExitStack() as stack:

        def ask() -> None:
            client = stack.enter_context(Client(server))
            client.send(post("total", body))
            assert client.read()[0] == 200

        for _ in range(2):
            ask()
        before = resident(server)
        for _ in range(8):
            ask()
        assert resident(server) < before + 64  # MiB, of 244 that came


def test_chunks_beyond_the_limit_close_the_connection(server: Server) -> None:
    """They count as they come: part of the body was read, and nobody will read the rest."""
    holders = [Client(server) for _ in range(2)]
    holders[0].send(post("echo_uint8", bytes(MAX_BODY))[:1000])
    holders[1].send(post("echo_uint8", bytes(MAX_BODY - 200_000))[:1000])
    with Client(server) as client:
        until(lambda: overloaded(client, bytes(300_000)))
    with Client(server) as client:
        client.send(chunked(bytes(400_000)))
        answer = client.read()
        assert (answer[0], answer[1]["connection"]) == (503, "close")
    for each in holders:
        each.reset()


def test_a_body_that_nobody_wants_does_not_keep_its_connection_for_ever(server: Server) -> None:
    """It is refused at once, and what follows of it is thrown away, not kept."""
    with Client(server) as client:
        request = post("nobody", bytes(MAX_BODY))
        client.send(request[:100_000])
        assert client.read()[0] == 404
        client.send(request[100_000:] + LIVE)
        assert client.read()[0] == 200


# -- too many ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_connection_above_the_limit_is_told_so_and_closed(
    models: Path, tmp_path: Path, workers: str
) -> None:
    """Whether or not it has sent something; those that are there are served, and their places given on."""
    with (
        limited(models, tmp_path / "log", INFOLD_WORKERS=workers, INFOLD_HEADER_TIMEOUT_S="20") as server,
        contextlib.ExitStack() as stack,
    ):
        held = [stack.enter_context(Client(server)) for _ in range(MOST)]
        for each in held:
            each.send(LIVE)
            assert each.read()[0] == 200
        for sent in (b"", LIVE, post("echo_uint8", bytes(MAX_BODY))[:200_000]):
            with Client(server) as client:
                with contextlib.suppress(ConnectionError):
                    client.send(sent)
                answer = client.read()
                assert (answer[0], answer[1]["retry-after"], answer[1]["connection"]) == (503, "1", "close")
                assert error(answer).startswith("too many connections: the maximum allowed is ")
                assert client.is_closed
        held[0].send(post("double", X))
        assert held[0].read()[0] == 200
        for each in held[1:]:
            each.reset()
        until(lambda: is_live(server))
        assert server.stop() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_probe_of_the_second_port_is_answered_while_the_main_port_is_full(
    models: Path, tmp_path: Path, workers: str
) -> None:
    """Or a flood would end the service by its probes; that port has an end, too."""
    patient = {"INFOLD_HEADER_TIMEOUT_S": "60"}
    with (
        limited(
            models, tmp_path / "log", INFOLD_WORKERS=workers, INFOLD_OBSERVE_PORT="0", **patient
        ) as server,
        contextlib.ExitStack() as stack,
    ):
        assert server.docs is not None
        second = dataclasses.replace(server, url=server.docs.removesuffix("/docs"))
        for _ in range(MOST):
            stack.enter_context(Client(server)).send(LIVE[:-2])
        with Client(server) as client:
            assert client.read()[0] == 503
        for path in ("/v2/health/live", "/v2/health/ready", "/metrics"):
            assert httpx.get(f"{second.url}{path}", timeout=20).status_code == 200
        # Workers do not deal these out evenly: of so many one at least comes to one that is full.
        crowd = [stack.enter_context(Client(second)) for _ in range(RESERVED * int(workers) + 1)]
        for each in crowd:
            each.send(LIVE)
        assert {each.read()[0] for each in crowd} == {200, 503}


def test_hundreds_above_the_limit_leave_nothing_behind(server: Server) -> None:
    """They come at once, and most of them do not even read their refusal."""
    before = descriptors(server)
    for _ in range(3):
        crowd = []
        for _ in range(200):
            with contextlib.suppress(ConnectionError):
                crowd.append(Client(server))
                crowd[-1].send(LIVE)
        for each in crowd[::2]:
            each.reset()
        for each in crowd[1::2]:
            each.socket.close()
    until(lambda: is_live(server))
    until(lambda: descriptors(server) <= before + 1)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="no prlimit")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_service_out_of_descriptors_waits_for_some_and_goes_on(
    models: Path, tmp_path: Path, workers: str
) -> None:
    """It neither ends nor spins: the time it spends is a small part of the time that passes."""
    with limited(
        models,
        tmp_path / "log",
        INFOLD_WORKERS=workers,
        INFOLD_MAX_CONNECTIONS="1000",
        INFOLD_HEADER_TIMEOUT_S="20",
    ) as server:
        until(lambda: is_live(server))
        for pid in processes(server):
            taken = len(os.listdir(f"/proc/{pid}/fd"))
            resource.prlimit(
                pid, resource.RLIMIT_NOFILE, (taken + 4, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
            )
        crowd = []
        for _ in range(50):
            with contextlib.suppress(OSError):
                crowd.append(Client(server))
        before = sum(map(ticks, processes(server)))
        time.sleep(2)
        assert sum(map(ticks, processes(server))) - before < 0.5 * os.sysconf("SC_CLK_TCK")
        for each in crowd:
            each.reset()
        until(lambda: is_live(server))
        assert server.stop() == 0


def test_the_service_takes_the_descriptors_that_its_limit_needs(models: Path, tmp_path: Path) -> None:
    """Its soft limit is raised, as far as the hard one lets it."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, before[1]))  # is inherited
    try:
        with limited(models, tmp_path / "log", INFOLD_MAX_CONNECTIONS="1000") as server:
            assert is_live(server)
            soft, hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
            assert soft == min(1256, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# -- no time -----------------------------------------------------------------------------------------


def test_a_request_that_cannot_be_answered_in_time_is_refused_at_the_door(
    models: Path, tmp_path: Path
) -> None:
    """Before its body is read, with the length of the queue; who has the time waits, and is answered."""
    short, endless = (np.array([count], np.int64).tobytes() for count in (50_000, 10**9))
    with (
        limited(
            models, tmp_path / "log", INFOLD_MAX_CONNECTIONS="1000", INFOLD_HEADER_TIMEOUT_S="60"
        ) as server,
        contextlib.ExitStack() as stack,
    ):
        client, *crowd = (stack.enter_context(Client(server)) for _ in range(5))
        for _ in range(10):  # so that it is known how long they take
            client.send(post("slow", short))
            assert client.read()[0] == 200
        busy = [stack.enter_context(Client(server)) for _ in range(available_cores())]
        for each in busy:
            each.send(post("slow", endless))
        until(lambda: in_flight(server) == len(busy))
        until(lambda: queued(server) == 0)
        for each in crowd:
            each.send(post("slow", short))
        until(lambda: queued(server) == len(crowd))
        client.send(post("slow", b"", b"x-request-timeout-ms: 1", b"expect: 100-continue", length=80_000))
        answer = client.read()
        assert answer[0] == 504
        assert error(answer).startswith("those that wait take about ")
        assert 1 <= int(answer[1]["retry-after"]) <= 60
        for each in busy:
            each.reset()
        assert [each.read()[0] for each in crowd] == [200] * len(crowd)


# -- what the server says of itself ------------------------------------------------------------------


def told(server: Server, reason: str) -> int:
    """How often the log tells of refusals for a reason."""
    return len(re.findall(rf'"reason":"{reason}"', server.log.read_text()))


def of_metrics(server: Server, family: str) -> float:
    with httpx.Client(base_url=server.url, timeout=20) as client:
        lines = client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(family + "{"))


def in_flight(server: Server) -> float:
    return of_metrics(server, "infold_requests_in_flight")


def queued(server: Server) -> float:
    return of_metrics(server, "infold_queue_rows")


def resident(server: Server) -> float:
    """MiB of memory; 0 where that cannot be told."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{server.process.pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0]) / 1024
    return 0


def descriptors(server: Server) -> int:
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{server.process.pid}/fd"))
    return 0


def processes(server: Server) -> list[int]:
    """The one that was started and its workers."""
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    return [server.process.pid, *(line["pid"] for line in lines if line["event"] == "worker started")]


def ticks(pid: int) -> int:
    """Time that a process has had a core."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return int(user) + int(system)


def test_what_is_held_in_flight_is_on_the_page_of_metrics(server: Server) -> None:
    """While a body is on its way, and no more once its client has left."""

    def held() -> float:
        page = httpx.get(f"{server.url}/metrics").text
        return float(re.search(r"^infold_in_flight_bytes (\S+)$", page, re.MULTILINE)[1])

    until(lambda: held() == 0)
    slow = Client(server)
    slow.send(post("double", bytes(1000), length=2000))
    until(lambda: held() == 2000)
    slow.reset()
    until(lambda: held() == 0)
