"""Long bodies and short answers, over sockets that are used in every way they can be.

After each test the server's log is free of exceptions: what a client does is nobody's failure.
"""

import contextlib
import json
import shutil
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from infold.rest.connection import LONG_BYTES
from servers import Server, running, slow_model

LIMIT = 1_000_000
OCTETS = b"inference-header-content-length: 0\r\n"
X = np.arange(4, dtype=np.float32).tobytes()
LONG = np.arange(LONG_BYTES // 2, dtype=np.float32).tobytes()


@pytest.fixture(scope="module")
def models(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("connection")
    for name in ("double", "echo_fp32", "echo_uint8"):
        shutil.copytree(repository / name, root / name)
    return slow_model(root)


@pytest.fixture(scope="module")
def shared(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("log") / "server.log"
    with running(models, log, INFOLD_MAX_BODY_BYTES=str(LIMIT), INFOLD_DRAIN_S="5") as started:
        yield started


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    """In good health afterwards, and without anything in its log that nobody expected."""
    yield shared
    with httpx.Client(base_url=shared.url, timeout=20) as client:
        assert client.get("/v2/health/ready").status_code == 200
    assert_calm(shared)


def assert_calm(server: Server) -> None:
    text = server.log.read_text()
    assert "exception" not in text.lower(), text[-3000:]
    for line in text.splitlines():
        assert json.loads(line)["level"] in ("info", "warning"), line


def until(condition: Callable[[], bool]) -> None:
    """Wait for what the server does in its own time."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def post(
    model: str, body: bytes, *headers: bytes, version: bytes = b"1.1", length: bytes | None = None
) -> bytes:
    lines = [
        b"POST /v2/models/%s/infer HTTP/%s" % (model.encode(), version),
        b"host: x",
        b"inference-header-content-length: 0",
        *headers,
    ]
    if length != b"":
        lines.append(b"content-length: " + (length or b"%d" % len(body)))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class Client:
    """A plain socket that reads answers one after another."""

    def __init__(self, server: Server) -> None:
        host, port = server.address.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self.rest = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer."""
        while b"\r\n\r\n" not in self.rest:
            self._more()
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        length = int(headers["content-length"])
        while len(self.rest) < length:
            self._more()
        body, self.rest = self.rest[:length], self.rest[length:]
        return int(first.split()[1]), headers, body

    def _more(self) -> None:
        data = self.socket.recv(2**16)
        assert data, self.rest
        self.rest += data

    @property
    def is_closed(self) -> bool:
        """Nothing more comes, and that is told at once."""
        with contextlib.suppress(ConnectionError):
            return not self.rest and self.socket.recv(1) == b""
        return True

    def reset(self) -> None:
        """Leave without a farewell."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    opened = Client(server)
    yield opened
    opened.socket.close()


@pytest.mark.parametrize("size", [LONG_BYTES - 4, LONG_BYTES, LONG_BYTES + 4, LIMIT])
@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_bodies_around_the_length_that_is_long(client: Client, size: int, pieces: int) -> None:
    """Whether they come with their headers or behind them; and the next request on the connection."""
    body = (np.arange(size) % 251).astype(np.uint8).tobytes()
    header = (
        b'{"inputs":[{"name":"x","shape":[1,%d],"datatype":"UINT8","parameters":{"binary_data_size":%d}}]'
    )
    header = header % (size - 200, size - 200) + b',"parameters":{"binary_data_output":true}}'
    whole = header.ljust(200) + body[: size - 200]
    request = post("echo_uint8", whole, b"inference-header-content-length: 200")
    for _ in range(2):
        start = 0
        for piece in range(pieces):
            end = len(request) * (piece + 1) // pieces
            client.send(request[start:end])
            start = end
        status, _, answer = client.read()
        assert (status, answer[-(size - 200) :] == body[: size - 200]) == (200, True)


def test_one_byte_above_the_limit_is_refused_and_the_connection_closed(client: Client) -> None:
    """Nothing of it is read."""
    client.send(post("echo_uint8", b"", length=b"%d" % (LIMIT + 1)))
    status, headers, _ = client.read()
    assert (status, headers["connection"]) == (413, "close")
    assert client.is_closed


def test_a_long_body_refused_while_it_arrives_leaves_the_connection_usable(client: Client) -> None:
    """The answer comes before the body has; the next request is read from its first byte."""
    for _ in range(2):
        request = post("nobody", LONG)
        client.send(request[:1000])
        assert client.read()[0] == 404
        client.send(request[1000:50_000])
        client.send(request[50_000:] + post("double", X))
        status, _, answer = client.read()
        assert (status, b"double" in answer) == (200, True)
        client.send(post("echo_fp32", LONG))
        assert client.read()[2].endswith(LONG)


def test_a_long_body_refused_at_once_with_the_next_requests_behind_it(client: Client) -> None:
    """All in one piece, long ones among them."""
    client.send(post("nobody", LONG) + post("double", X) + post("nobody", LONG) + post("echo_fp32", LONG))
    assert [client.read()[0] for _ in range(4)] == [404, 200, 404, 200]


def test_long_requests_behind_one_that_takes_a_while(client: Client) -> None:
    """They wait their turn in the usual way."""
    loops = np.array([200_000], np.int64).tobytes()
    client.send(post("slow", loops) + post("echo_fp32", LONG) + post("double", X) + post("nobody", LONG))
    client.send(post("echo_fp32", LONG))
    answers = [client.read() for _ in range(5)]
    assert [status for status, _, _ in answers] == [200, 200, 200, 404, 200]
    assert answers[1][2].endswith(LONG)
    assert answers[4][2].endswith(LONG)


def test_a_long_request_that_takes_a_while_with_others_behind_it(client: Client) -> None:
    """Its body is all there; the next is parsed while it runs."""
    loops = np.array([200_000], np.int64).tobytes()
    header = b'{"inputs":[{"name":"n","shape":[1],"datatype":"INT64","parameters":{"binary_data_size":8}}]}'
    whole = header.ljust(LONG_BYTES) + loops
    request = post("slow", whole, b"inference-header-content-length: %d" % LONG_BYTES)
    client.send(request[:100])
    client.send(request[100:] + post("double", X) + post("echo_fp32", LONG))
    assert [client.read()[0] for _ in range(3)] == [200, 200, 200]


@pytest.mark.parametrize(
    ("version", "header"),
    [(b"1.0", b"x-nothing: 1"), (b"1.1", b"connection: close"), (b"1.1", b"Connection: Close")],
)
@pytest.mark.parametrize("model", ["echo_fp32", "nobody"])
def test_a_connection_that_is_not_kept(client: Client, version: bytes, header: bytes, model: str) -> None:
    """It is closed behind the answer, whether or not the long body was wanted."""
    client.send(post(model, LONG, header, version=version))
    status, headers, answer = client.read()
    assert status == (200 if model == "echo_fp32" else 404)
    assert headers["connection"] == "close"
    assert model == "nobody" or answer.endswith(LONG)
    assert client.is_closed


@pytest.mark.parametrize("chunk", [1000, 70_000, len(LONG)])
def test_a_long_body_in_chunks(client: Client, chunk: int) -> None:
    """Its length is not known before."""
    parts = [LONG[start : start + chunk] for start in range(0, len(LONG), chunk)]
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    for _ in range(2):
        client.send(post("echo_fp32", body, b"transfer-encoding: chunked", length=b""))
        assert client.read()[2].endswith(LONG)


@pytest.mark.parametrize(
    "lines",
    [
        b"content-length: 100000\r\ncontent-length: 100000",
        b"content-length: 100000\r\ncontent-length: 100001",
        b"content-length: +100000",
        b"content-length: -100000",
        b"content-length: 100 000",
        b"content-length: 0x186a0",
        b"content-length: 100000, 100000",
        b"content-length: 100000\r\ntransfer-encoding: chunked",
        b"content-length: " + b"9" * 30,
    ],
)
def test_a_length_that_makes_no_sense_is_refused(client: Client, lines: bytes) -> None:
    """400, and no guess at where the next request begins."""
    client.send(post("echo_fp32", b"", lines, length=b"") + b"\0" * 100_000)
    assert client.read()[0] in (400, 413)
    assert client.is_closed


@pytest.mark.parametrize("length", [b"  %d", b"%d  ", b"\t%d\t", b"000%d"])
def test_a_length_with_spaces_or_zeros_is_the_same_length(client: Client, length: bytes) -> None:
    """As the standard has it."""
    for _ in range(2):
        client.send(post("echo_fp32", LONG, length=length % len(LONG)))
        assert client.read()[2].endswith(LONG)


def test_a_client_that_waits_for_leave_to_send(client: Client) -> None:
    """It gets it where its body is read, and no more than once; a refusal instead where it is not."""
    for _ in range(2):
        request = post("echo_fp32", LONG, b"expect: 100-continue")
        head = len(request) - len(LONG)
        client.send(request[:head])
        until(lambda: client.socket.recv(25, socket.MSG_PEEK) == b"HTTP/1.1 100 Continue\r\n\r\n")
        client.socket.recv(25)
        client.send(request[head:])
        assert client.read()[2].endswith(LONG)
    client.send(post("nobody", b"", b"expect: 100-continue", length=b"%d" % len(LONG)))
    assert client.read()[0] == 404


def test_an_upgrade_is_not_taken_for_a_long_body(client: Client) -> None:
    """Nor does asking for one do harm."""
    client.send(post("echo_fp32", LONG, b"connection: upgrade", b"upgrade: h2c"))
    status, _, _ = client.read()
    assert status in (200, 400)


REQUEST = post("echo_fp32", LONG)
STAGES = [0, 10, 80, REQUEST.index(b"\r\n\r\n") + 4, REQUEST.index(b"\r\n\r\n") + 5, 40_000, len(REQUEST) - 1]


@pytest.mark.parametrize("end", ["closes", "resets", "says it is done"])
@pytest.mark.parametrize("model", ["echo_fp32", "nobody"])
def test_a_client_that_leaves_at_any_stage(server: Server, model: str, end: str) -> None:
    """Nobody waits for the rest, and nothing of it is left behind."""
    request = post(model, LONG)
    for stage in [*STAGES, len(request), len(request) + 40_000]:
        client = Client(server)
        client.send((request + request)[:stage])
        match end:
            case "closes":
                client.socket.close()
            case "resets":
                client.reset()
            case _:
                client.socket.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionError):
                    while client.socket.recv(2**16):
                        continue
                client.socket.close()
    until(lambda: in_flight(server) == 0)


def in_flight(server: Server) -> int:
    """Requests that the server knows of, whatever became of their clients."""
    with httpx.Client(base_url=server.url, timeout=20) as client:
        lines = client.get("/metrics").text.splitlines()
    return int(
        sum(float(line.split()[-1]) for line in lines if line.startswith("infold_requests_in_flight{"))
    )


def events(server: Server, identity: str) -> list[tuple[str, int]]:
    found = [json.loads(line) for line in server.log.read_text().splitlines()]
    ended = [line for line in found if "status" in line]  # a run may be told of before its request ends
    return [(line["event"], line["status"]) for line in ended if line.get("request_id") == identity]


@pytest.mark.parametrize("stage", ["body", "run", "answer"])
def test_a_client_that_left_is_told_so_in_the_log(server: Server, stage: str) -> None:
    """Status 499 where nobody was left to answer."""
    client = Client(server)
    header = b"x-request-id: left-" + stage.encode()
    if stage == "body":
        client.send(post("echo_fp32", LONG, header)[:40_000])
    elif stage == "run":
        client.send(post("slow", np.array([10**9], np.int64).tobytes(), header))
        until(lambda: in_flight(server) == 1)
    else:
        client.send(post("echo_fp32", LONG, header))
    if stage != "answer":
        client.reset()
        until(lambda: bool(events(server, f"left-{stage}")))
        assert events(server, f"left-{stage}") == [("client left", 499)]
    else:
        until(lambda: bool(events(server, f"left-{stage}")))
        client.reset()
        assert events(server, f"left-{stage}") == [("request answered", 200)]
    until(lambda: in_flight(server) == 0)


@pytest.mark.parametrize("ending", ["goes on", "leaves", "stays silent"])
def test_sigterm_while_a_long_body_is_arriving(models: Path, tmp_path: Path, ending: str) -> None:
    """It is answered if it comes in time; in any case the server ends, with 0."""
    with running(models, tmp_path / "log", INFOLD_DRAIN_S="2") as server:
        client = Client(server)
        request = post("echo_fp32", LONG)
        client.send(request[:50_000])
        refused = Client(server)
        refused.send(post("nobody", LONG)[:50_000])
        assert refused.read()[0] == 404
        server.process.terminate()
        until(lambda: not accepts(server))
        assert refused.is_closed
        if ending == "goes on":
            client.send(request[50_000:])
            status, headers, answer = client.read()
            assert (status, headers["connection"]) == (200, "close")
            assert answer.endswith(LONG)
        elif ending == "leaves":
            client.reset()
        assert server.process.wait(20) == 0
        client.socket.close()
        refused.socket.close()
        if ending != "stays silent":
            assert_calm(server)
        assert '"path":"/v2/models/echo_fp32/infer"' in server.log.read_text()


def accepts(server: Server) -> bool:
    with contextlib.suppress(ConnectionError):
        Client(server).socket.close()
        return True
    return False
