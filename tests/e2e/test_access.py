"""Keys, TLS and a second port on a real server, asked over sockets by those who may and those who may not."""

import contextlib
import http.client
import json
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest

from authority import Authority
from command_line import assert_error, infold
from servers import Server, running, serve_fails, slow_model

OCTETS = {"inference-header-content-length": "0"}
INFER = "/v2/models/echo/infer"
LOAD = "/v2/repository/models/echo/load"
# 4 MB, far above what a connection reads in one go and what TLS puts into one record.
LONG = np.arange(1_000_000, dtype=np.float32).tobytes()
SHORT = np.arange(3, dtype=np.float32).tobytes()
WORKERS = pytest.mark.parametrize("workers", ["1", "2"], ids=["alone", "two workers"])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    (root / "echo/1").mkdir(parents=True)
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[1, n] x) => (float[1, n] y) { y = Identity(x) }'
    onnx.save(onnx.parser.parse_model(text), str(root / "echo/1/model.onnx"))
    return root


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextlib.contextmanager
def serving(models: Path, tmp_path: Path, **settings: object) -> Iterator[Server]:
    """A server, whose log in the end holds no failure that nobody expected."""
    environment = {f"INFOLD_{name.upper()}": str(value) for name, value in settings.items()}
    with running(models, tmp_path / "log", INFOLD_CACHE_DIR=str(tmp_path / "cache"), **environment) as server:
        yield server
        text = server.log.read_text()
        assert "Traceback" not in text and "exception" not in text, text[-3000:]


def secured(authority: Authority, **more: object) -> dict[str, object]:
    certificate, key = authority.pair()
    return {"tls_cert": certificate, "tls_key": key, **more}


def asking(url: str, context: ssl.SSLContext | None = None, secret: str | None = None) -> httpx.Client:
    headers = {} if secret is None else {"authorization": f"Bearer {secret}"}
    return httpx.Client(base_url=url, verify=context or True, headers=headers, timeout=20)


def new_key(file: Path, name: str, *scopes: str, **more: object) -> str:
    """A key as an operator makes it."""
    options = [option for scope in scopes for option in ("--scope", scope)]
    options += [part for key, value in more.items() for part in (f"--{key.replace('_', '-')}", str(value))]
    done = infold("key", "new", "--name", name, *options, "--file", file)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def log_of(server: Server, event: str | None = None) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.endswith("}")]
    return [line for line in lines if event in (None, line["event"])]


def until(holds: Callable[[], bool]) -> None:
    """Wait for what the server does in its own time."""
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def second_url(server: Server) -> str:
    """Where metrics and docs are, as the server's line tells."""
    assert server.docs is not None
    return server.docs.removesuffix("/docs")


# -- keys -------------------------------------------------------------------------------------------


@WORKERS
def test_keys_are_made_used_rotated_and_revoked_without_a_restart(
    models: Path, tmp_path: Path, workers: str
) -> None:
    """By the commands that the docs name."""
    file = tmp_path / "keys.toml"
    ci, ops = new_key(file, "ci", "infer"), new_key(file, "ops", "observe", "admin")
    with serving(models, tmp_path, api_keys=file, workers=workers) as server:
        with asking(server.url) as stranger:
            assert stranger.get("/v2/health/ready").status_code == 200
            assert stranger.get("/").status_code == 200
            for path in ("/v2", "/metrics", "/docs", "/openapi.json", "/nowhere"):
                assert stranger.get(path).status_code == 401, path
            assert stranger.post(f"{INFER}?api_key={ci}&key={ci}", content=SHORT).status_code == 401
        with asking(server.url, secret=ci) as caller, asking(server.url, secret=ops) as operator:
            for _ in range(4):
                answer = caller.post(INFER, content=SHORT, headers=OCTETS)
                assert (answer.status_code, answer.content[-len(SHORT) :]) == (200, SHORT)
            assert caller.get("/metrics").status_code == 403
            assert operator.get("/metrics").status_code == 200
            assert operator.get("/docs").status_code == 200
            assert operator.post(INFER, content=SHORT, headers=OCTETS).status_code == 403
            assert operator.post(LOAD).status_code == 403  # nobody may, without --model-control explicit
        new = new_key(file, "ci-2", "infer")
        fresh = [asking(server.url, secret=new) for _ in range(8)]  # on all workers
        until(lambda: all(each.get("/v2").status_code == 200 for each in fresh))
        file.write_text(re.sub(r'\[\[key\]\]\nname = "ci"\n(.+\n)+', "", file.read_text()))
        with contextlib.ExitStack() as stack:
            old = [stack.enter_context(asking(server.url, secret=ci)) for _ in range(8)]
            until(lambda: all(each.get("/v2").status_code == 401 for each in old))
        assert all(each.get("/v2").status_code == 200 for each in fresh)
        for each in fresh:
            each.close()
        text = server.log.read_text()
        assert not [secret for secret in (ci, ops, new) if secret in text]
        assert not re.findall(r"[0-9a-f]{64}", text)


def test_a_refused_body_is_not_read(models: Path, tmp_path: Path) -> None:
    """However long it would be, the answer comes at once and the connection ends."""
    new_key(tmp_path / "keys.toml", "ci", "infer")
    with serving(models, tmp_path, api_keys=tmp_path / "keys.toml") as server:
        host, port = server.address.split(":")
        for size in (100, 200_000, 60_000_000, 3_000_000_000):
            for more in (b"", b"expect: 100-continue\r\n"):
                with socket.create_connection((host, int(port)), timeout=20) as opened:
                    head = b"POST %s HTTP/1.1\r\nhost: x\r\n%scontent-length: %d\r\n\r\n"
                    opened.sendall(head % (INFER.encode(), more, size) + b"x" * 50)
                    answer = b"".join(iter(lambda: opened.recv(4096), b""))
                    assert answer.startswith(b"HTTP/1.1 401 "), answer
                    assert b"connection: close" in answer.lower()


def test_a_refused_request_whose_body_has_come_keeps_its_connection(models: Path, tmp_path: Path) -> None:
    """A caller over its quota need not shake hands again each time."""
    secret = new_key(tmp_path / "keys.toml", "ci", "infer", requests_per_s=0.001)
    with serving(models, tmp_path, api_keys=tmp_path / "keys.toml") as server:
        host, port = server.address.split(":")
        lines = [f"POST {INFER} HTTP/1.1", "host: x", "inference-header-content-length: 0"]
        lines += [f"x-api-key: {secret}", f"content-length: {len(SHORT)}", "", ""]
        request = "\r\n".join(lines).encode() + SHORT
        with (
            socket.create_connection((host, int(port)), timeout=20) as opened,
            opened.makefile("rb") as answers,
        ):
            statuses = []
            for _ in range(4):
                opened.sendall(request)
                statuses.append(read_answer(answers)[0])
        assert statuses == [200, 429, 429, 429]


@pytest.mark.parametrize(
    "lines",
    [
        [b"authorization: Bearer "],
        [b"authorization: Bearer"],
        [b"authorization: \xff\xfe"],
        [b"authorization: Bearer \xc3\xa9\xff"],
        [b"authorization: Bearer " + b"x" * 30_000],
        [b"authorization: Basic aW5mb2xk"],
        [b"x-api-key: \x80"],
        [b"x-api-key:"],
        [b"authorization: Bearer KEY", b"authorization: Bearer KEY"],
        [b"authorization: Bearer KEY", b"Authorization: Bearer other"],
        [b"x-api-key: KEY", b"X-Api-Key: KEY"],
        [b"authorization: Bearer KEYx"],
        [b"authorization: Bearer KE"],
        [b"authorization: Bearer KEY, Bearer KEY"],
    ],
)
def test_what_is_no_key_is_401(keyed: tuple[Server, str], lines: list[bytes]) -> None:
    """Never more than that: no 500, no way in."""
    assert status_of(keyed, lines) == 401


@pytest.mark.parametrize(
    "line",
    [b"authorization: Bearer KEY", b"AUTHORIZATION:bearer   KEY  ", b"X-Api-Key: KEY", b"x-api-key:KEY"],
)
def test_what_is_a_key_is_taken(keyed: tuple[Server, str], line: bytes) -> None:
    """In either header, whatever its case."""
    assert status_of(keyed, [line]) == 200


@pytest.fixture(scope="module")
def keyed(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A server with one key."""
    folder = tmp_path_factory.mktemp("keyed")
    secret = new_key(folder / "keys.toml", "ci", "infer")
    with serving(models, folder, api_keys=folder / "keys.toml") as server:
        yield server, secret


def status_of(keyed: tuple[Server, str], lines: list[bytes]) -> int:
    """Of a request with these header lines, in which the key stands for KEY, and a half of it for KE."""
    server, secret = keyed
    filled = [
        line.replace(b"KEY", secret.encode()).replace(b"KE", secret[: len(secret) // 2].encode())
        if b"KE" in line
        else line
        for line in lines
    ]
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as opened:
        opened.sendall(
            b"\r\n".join([b"GET /v2 HTTP/1.1", b"host: x", *filled, b"connection: close", b"", b""])
        )
        answer = b"".join(iter(lambda: opened.recv(4096), b""))
    return int(answer.split()[1])


def test_a_file_that_is_wrong_stops_the_start_in_one_line(models: Path, tmp_path: Path) -> None:
    """With the place, whether one process finds it or several."""
    file = tmp_path / "keys.toml"
    file.write_text(f'[[key]]\nname = "a"\nsha256 = "{"0" * 64}"\nscopes = ["infr"]\n')
    said = f"infold: {file}: key[0].scopes[0]: 'infr' is none of infer, observe, admin"
    for workers in ("1", "2"):
        done = serve_fails(str(models), "--port", "0", "--api-keys", str(file), "--workers", workers)
        assert done == (2, said)
    nowhere = serve_fails(str(models), "--port", "0", "--tls-cert", str(tmp_path / "none.crt"))
    assert nowhere == (2, f"infold: {tmp_path}/none.crt: cannot be read: No such file or directory")
    half = serve_fails(str(models), "--port", "0", "--tls-client-ca", str(file))
    assert half == (2, "infold: INFOLD_TLS_CLIENT_CA: is of no use without INFOLD_TLS_CERT")


def test_orders_are_written_down_whatever_the_log_level(models: Path, tmp_path: Path) -> None:
    """With the id that the caller was answered with."""
    file = tmp_path / "keys.toml"
    ci, ops = new_key(file, "ci", "infer"), new_key(file, "ops", "admin")
    settings = {"api_keys": file, "model_control": "explicit", "load_models": '["*"]', "log_level": "error"}
    with serving(models, tmp_path, **settings) as server:
        answers = [
            httpx.post(f"{server.url}{LOAD}", headers={"x-api-key": secret}, timeout=20)
            for secret in (ops, ci, "wrong")
        ]
        assert [answer.status_code for answer in answers] == [200, 403, 401]
        until(lambda: len(orders_in(server)) == 3)
        lines = orders_in(server)
        assert [line["key"] for line in lines] == ["ops", "ci", None]
        assert [line["status"] for line in lines] == [200, 403, 401]
        assert [line["request_id"] for line in lines] == [a.headers["x-request-id"] for a in answers]
        assert {(line["action"], line["model"]) for line in lines} == {("load", "echo")}
        assert all(line["client"].startswith("127.0.0.1:") for line in lines)


def orders_in(server: Server) -> list[dict[str, Any]]:
    return [line for line in log_of(server) if line["logger"] == "infold.audit"]


# -- TLS --------------------------------------------------------------------------------------------


@WORKERS
def test_bodies_of_every_length_over_tls(
    models: Path, tmp_path: Path, authority: Authority, workers: str
) -> None:
    """Short, long, and in turns on one connection, which is kept; in whatever pieces they come."""
    with serving(models, tmp_path, **secured(authority, workers=workers)) as server:
        assert server.url.startswith("https://")
        with asking(server.url, authority.trusting()) as client:
            for body in (SHORT, LONG, LONG, SHORT, LONG[:70_000], LONG * 4, SHORT):
                answer = client.post(INFER, content=body, headers=OCTETS)
                assert (answer.status_code, answer.content[-len(body) :] == body) == (200, True)
            assert client.get("/metrics").status_code == 200
            assert client.get("/openapi.json").json()["openapi"]
        connection = http.client.HTTPSConnection(server.address, timeout=20, context=authority.trusting())
        connection.connect()
        first = connection.sock
        for pieces in (1, 3, 700):
            step = -(-len(LONG) // pieces // 4) * 4
            parts = [LONG[at : at + step] for at in range(0, len(LONG), step)]
            headers = OCTETS | {"content-length": str(len(LONG))}
            connection.request("POST", INFER, iter(parts), headers)
            answer_read = connection.getresponse().read()
            assert answer_read.endswith(LONG)
        assert connection.sock is first
        connection.close()


def test_requests_behind_one_another_over_tls(models: Path, tmp_path: Path, authority: Authority) -> None:
    """All written before the first is answered, long ones among them, one refused while it arrives."""

    def post(path: str, body: bytes) -> bytes:
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ninference-header-content-length: 0\r\n"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    with (
        serving(models, tmp_path, **secured(authority)) as server,
        tls_socket(server, authority.trusting()) as opened,
        opened.makefile("rb") as answers,
    ):
        nobody = post("/v2/models/nobody/infer", LONG)
        opened.sendall(post(INFER, SHORT) + post(INFER, LONG[:400_000]) + nobody + post(INFER, SHORT))
        assert [read_answer(answers)[0] for _ in range(4)] == [200, 200, 404, 200]


def read_answer(stream: Any) -> tuple[int, bytes]:
    status = int(stream.readline().split()[1])
    size = 0
    while (line := stream.readline().strip()) != b"":
        name, _, value = line.partition(b": ")
        size = int(value) if name.lower() == b"content-length" else size
    return status, stream.read(size)


@contextlib.contextmanager
def tls_socket(
    server: Server, context: ssl.SSLContext, buffer_bytes: int | None = None
) -> Iterator[ssl.SSLSocket]:
    """A connection; with a small buffer the client's system takes little that the client does not."""
    host, port = server.address.split(":")
    with socket.socket() as plain:
        if buffer_bytes is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        plain.settimeout(20)
        plain.connect((host, int(port)))
        with context.wrap_socket(plain, server_hostname="localhost") as opened:
            yield opened


@WORKERS
def test_what_is_no_tls_harms_nobody(
    models: Path, tmp_path: Path, authority: Authority, workers: str
) -> None:
    """Plain HTTP, noise, silence, half a hello, a reset: the next one is served; each failure is one line."""
    with serving(models, tmp_path, **secured(authority, workers=workers)) as server:
        host, port = server.address.split(":")
        hello = client_hello()
        for sent in (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", bytes(range(256)) * 10, hello[:20], hello, b""):
            for _ in range(3):
                with socket.create_connection((host, int(port)), timeout=20) as opened:
                    opened.sendall(sent)
                    if sent.startswith((b"GET", b"\0")):
                        with contextlib.suppress(ConnectionError):
                            while opened.recv(4096):
                                pass
        old = authority.trusting()
        silent = [socket.create_connection((host, int(port))) for _ in range(20)]
        with asking(server.url, old) as client:
            assert client.post(INFER, content=LONG, headers=OCTETS).status_code == 200
        for each in silent:
            each.close()
        reasons = {line["reason"] for line in log_of(server, "handshake failed")}
        assert "HTTP_REQUEST" in reasons
        assert all(line["level"] == "info" for line in log_of(server, "handshake failed"))


def client_hello() -> bytes:
    """The first message of a client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def test_a_connection_that_breaks_off_in_a_long_body_harms_nobody(
    models: Path, tmp_path: Path, authority: Authority
) -> None:
    """With a farewell, without one, and in the middle of a record."""
    with serving(models, tmp_path, **secured(authority)) as server:
        head = f"POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(LONG)}\r\n\r\n".encode()
        for way in ("farewell", "close", "half a record"):
            with tls_socket(server, authority.trusting()) as opened:
                opened.sendall(head + LONG[:300_000])
                if way == "farewell":
                    with contextlib.suppress(OSError):
                        opened.unwrap()
                elif way == "half a record":
                    socket.socket.send(opened, b"\x17\x03\x03\x40\x00" + b"x" * 100)
        with asking(server.url, authority.trusting()) as client:
            assert client.post(INFER, content=LONG, headers=OCTETS).content.endswith(LONG)


@WORKERS
def test_an_answer_that_is_read_slowly_arrives_and_one_that_is_not_read_is_cut(
    models: Path, tmp_path: Path, authority: Authority, workers: str
) -> None:
    """On a connection that ends with it, too; others are served meanwhile, and it is told."""
    head = f"POST {INFER} HTTP/1.1\r\nhost: x\r\ninference-header-content-length: 0\r\nconnection: close\r\n"
    body = LONG * 5
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    with (
        serving(models, tmp_path, **secured(authority, workers=workers, write_timeout_s=1)) as server,
        tls_socket(server, authority.trusting(), 2**16) as slow,
        tls_socket(server, authority.trusting(), 2**16) as never,
        asking(server.url, authority.trusting()) as other,
    ):
        never.sendall(request)
        slow.sendall(request)
        size = 0
        while data := slow.recv(2**16):
            size += len(data)
            if size % 2**20 < len(data):
                assert other.post(INFER, content=SHORT, headers=OCTETS).status_code == 200
                time.sleep(0.15)
        assert size > len(body)
        assert data == b""
        until(lambda: "write_timeout" in {line["reason"] for line in log_of(server, "connection refused")})
        assert len(log_of(server, "connection refused")) == 1
        came = 0
        with contextlib.suppress(OSError):
            while data := never.recv(2**20):
                came += len(data)
        assert came < len(body)


@WORKERS
def test_a_replaced_certificate_is_shown_and_open_connections_go_on(
    models: Path, tmp_path: Path, authority: Authority, workers: str
) -> None:
    """No restart, no failed request; a broken pair in between is told and not used."""
    with serving(models, tmp_path, **secured(authority, workers=workers)) as server:
        context = authority.trusting()
        first = shown(server, context)
        with asking(server.url, context) as kept:
            assert kept.get("/v2").status_code == 200
            good = (tmp_path / "server.key").read_bytes()
            (tmp_path / "server.key").write_text("broken")
            # Nobody looks before the second is over.
            until(
                lambda: (
                    shown(server, context) == first
                    and bool(log_of(server, "certificates not replaced, the old ones hold"))
                )
            )
            (tmp_path / "server.key").write_bytes(good)
            authority.pair()
            until(lambda: all(shown(server, context) != first for _ in range(6)))
            assert kept.get("/v2").status_code == 200
        assert len(log_of(server, "certificates not replaced, the old ones hold")) <= 4


def shown(server: Server, context: ssl.SSLContext) -> str:
    with tls_socket(server, context) as opened:
        certificate = opened.getpeercert()
    assert certificate is not None
    return str(certificate["serialNumber"])


@WORKERS
def test_only_clients_with_a_certificate_come_in_where_one_is_asked(
    models: Path, tmp_path: Path, authority: Authority, workers: str
) -> None:
    """And the audit says whom it names; probes have the second port."""
    own = authority.both("client", common_name="ops")
    settings = secured(
        authority, tls_client_ca=authority.root(), observe_port=0, model_control="explicit", workers=workers,
        load_models='["*"]',
    )  # fmt: skip
    with serving(models, tmp_path, **settings) as server:
        with asking(server.url, authority.trusting(own)) as known:
            assert known.post(INFER, content=LONG, headers=OCTETS).status_code == 200
            assert known.post(LOAD).status_code == 200
        until(lambda: [line["certificate"] for line in log_of(server, "order given")] == ["ops"])
        with asking(server.url, authority.trusting()) as stranger, pytest.raises(httpx.TransportError):
            stranger.get("/v2/health/live")
        other = Authority(tmp_path / "cache").both("client")
        with asking(server.url, authority.trusting(other)) as liar, pytest.raises(httpx.TransportError):
            liar.get("/v2")
        second = second_url(server)
        with asking(second, authority.trusting()) as probe:
            assert probe.get("/v2/health/ready").status_code == 200
            for path in ("/metrics", "/docs", "/v2/models/stats"):
                assert probe.get(path).status_code == 403
        with asking(second, authority.trusting(own)) as prometheus:
            assert prometheus.get("/metrics").status_code == 200
        until(lambda: bool(log_of(server, "handshake failed")))
        reasons = {line["reason"] for line in log_of(server, "handshake failed")}
        assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in reasons


@WORKERS
def test_a_service_with_tls_ends_as_one_without(tmp_path: Path, authority: Authority, workers: str) -> None:
    """What was accepted is answered; neither idle connections nor half a handshake hold it up."""
    models = slow_model(tmp_path / "models")
    body = {"inputs": [{"name": "n", "shape": [1], "datatype": "INT64", "data": [1_000_000]}]}
    with serving(models, tmp_path, **secured(authority, workers=workers, drain_s=20)) as server:
        idle = [asking(server.url, authority.trusting()) for _ in range(4)]
        for each in idle:
            assert each.get("/v2").status_code == 200
        host, port = server.address.split(":")
        half = [socket.create_connection((host, int(port))) for _ in range(4)]
        with tls_socket(server, authority.trusting()) as busy:
            text = json.dumps(body).encode()
            head = f"POST /v2/models/slow/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(text)}\r\n\r\n"
            busy.sendall(head.encode() + text)
            gauge = 'infold_requests_in_flight{model="slow",version="1"} 1.0'
            until(lambda: gauge in idle[0].get("/metrics").text)
            began = time.monotonic()
            server.process.terminate()
            stream = busy.makefile("rb")
            assert read_answer(stream)[0] == 200
            stream.close()
        assert server.process.wait(20) == 0
        assert time.monotonic() - began < 15
        for each in (*idle, *half):
            each.close()


# -- the second port --------------------------------------------------------------------------------


@WORKERS
@pytest.mark.parametrize("is_secured", [False, True], ids=["plain", "tls"])
def test_each_port_serves_its_own(
    models: Path, tmp_path: Path, authority: Authority, workers: str, is_secured: bool
) -> None:
    """Whatever a client says of itself; health is on both, and what is elsewhere says where."""
    settings: dict[str, object] = {"observe_port": 0, "workers": workers}
    if is_secured:
        settings |= secured(authority)
    context = authority.trusting()
    with serving(models, tmp_path, **settings) as server:
        second = second_url(server)
        with asking(server.url, context) as main, asking(second, context) as other:
            for _ in range(3):
                assert main.post(INFER, content=LONG, headers=OCTETS).status_code == 200
                assert other.get("/metrics").status_code == 200
            for path in ("/", "/v2/health/live", "/v2/health/ready", "/v2/models/echo/ready"):
                assert (main.get(path).status_code, other.get(path).status_code) == (200, 200)
            port = second.rpartition(":")[2]
            for path in (
                "/metrics",
                "/docs",
                "/openapi.json",
                "/v2/models/stats",
                "/docs/assets/swagger-ui.css",
            ):
                refused = main.get(path, headers={"host": f"localhost:{port}", "x-forwarded-port": port})
                assert refused.json() == {"error": f"{path} is served on port {port}, not here"}
                assert refused.status_code == 404
                assert other.get(path).status_code == 200
            assert other.post(INFER, content=SHORT, headers=OCTETS).status_code == 404
            assert other.post(LOAD).status_code == 404
            assert other.get("/v2").status_code == 404
            assert other.post("/v2/repository/index").status_code == 200


def test_a_second_port_that_is_taken_is_one_clear_line(models: Path) -> None:
    """And the first is free again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for workers in ("1", "2"):
            options = ("--port", "0", "--observe-port", str(port), "--workers", workers)
            code, text = serve_fails(str(models), *options)
            text = text.partition(" (")[0]  # Python says the address once more
            assert (code, text) == (
                2,
                f"infold: 127.0.0.1:{port}: cannot listen here: Address already in use",
            )


# -- our own clients --------------------------------------------------------------------------------


def test_health_asks_as_the_service_is_asked(models: Path, tmp_path: Path, authority: Authority) -> None:
    """Over TLS where its environment says so, believing whom it is told to."""
    settings = secured(authority)
    environment = {f"INFOLD_{name.upper()}": str(value) for name, value in settings.items()}
    with serving(models, tmp_path, **settings) as server:
        port = server.url.rpartition(":")[2]
        assert infold("health", "--port", port, **environment).stdout == "ready\n"
        assert infold("health", "--port", port, "--tls").returncode == 0
        assert infold("health", "--port", port, "--ca", authority.root()).returncode == 0
        (tmp_path / "cache").mkdir(exist_ok=True)
        other = Authority(tmp_path / "cache").root("other.pem")
        assert infold("health", "--port", port, "--ca", other).returncode == 1
        plain = infold("health", "--port", port)
        assert (plain.returncode, plain.stdout.startswith("not ready: ")) == (1, True)
        assert "Traceback" not in plain.stderr
        wrong = infold("health", "--port", port, "--ca", tmp_path / "none.pem")
        assert_error(wrong, 2, "none.pem", "holds no certificates")


def test_health_of_a_service_that_asks_for_certificates(
    models: Path, tmp_path: Path, authority: Authority
) -> None:
    """The service's own is shown, another by --cert, and the second port takes none."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        second = free.getsockname()[1]
    settings = secured(authority, tls_client_ca=authority.root())
    environment = {f"INFOLD_{name.upper()}": str(value) for name, value in settings.items()}
    with serving(models, tmp_path, observe_port=second, **settings) as server:
        port = server.url.rpartition(":")[2]
        assert infold("health", "--port", port, **environment).returncode == 0
        assert infold("health", "--port", port, "--tls").returncode == 1
        assert infold("health", "--port", port, "--cert", authority.both("probe")).returncode == 0
        environment |= {"INFOLD_OBSERVE_PORT": str(second), "INFOLD_PORT": port}
        assert infold("health", **environment).returncode == 0


def test_a_bench_over_tls_with_a_key(models: Path, tmp_path: Path, authority: Authority) -> None:
    """Closed and open loop; without the key or the authority it says what is wrong."""
    secret = new_key(tmp_path / "keys.toml", "bench", "infer")
    with serving(models, tmp_path, **secured(authority, api_keys=tmp_path / "keys.toml")) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        quick = ["--seconds", "0.3", "--warmup", "0.1", "--concurrency", "1,4", "--rates", "50"]
        quick += ["--shape", "1,3"]
        key = ("--header", f"Authorization: Bearer {secret}")
        done = infold("bench", url, *quick, *key, "--ca", authority.root(), "--json")
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert len(report["loads"]) == 3
        assert infold("bench", url, *quick, *key, "--insecure", "--quiet").returncode == 0
        assert_error(infold("bench", url, *quick, *key), 1, "cannot be reached", "certificate")
        assert_error(infold("bench", url, *quick, "--insecure"), 1, "401")


def test_a_bench_of_a_folder_serves_it_as_if_nothing_were_set(
    models: Path, tmp_path: Path, authority: Authority
) -> None:
    """What protects the service of this environment is not for a process that is its own caller."""
    new_key(tmp_path / "keys.toml", "ci", "infer")
    settings = secured(authority, api_keys=tmp_path / "keys.toml", observe_port=1)
    environment = {f"INFOLD_{name.upper()}": str(value) for name, value in settings.items()}
    quick = ("--seconds", "0.2", "--warmup", "0", "--concurrency", "1", "--loop", "closed", "--shape", "1,3")
    done = infold("bench", models, *quick, "--quiet", **environment)
    assert done.returncode == 0, done.stderr
