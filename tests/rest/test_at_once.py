"""Requests answered where they come in: no caller can tell, and no count.

Each test talks to a connection of ours over a real socket, in this process, where it can be seen which
way a request took.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from uvicorn.server import ServerState

from infold.rest.access.keys import Key, digest_of, entry_text, new_secret
from infold.rest.access.scopes import KeyScope
from infold.rest.answering import Answering
from infold.rest.edge import Edge
from infold.rest.server import config_of
from infold.rest.service import Service, edge_of
from infold.runtime import choose_device
from infold.settings import Settings

MODEL = """<ir_version: 8, opset_import: ["": 17]>
    m (float[batch, 2] x) => (float[batch, 2] y) {{ y = {} (x, x) }}"""
WIDE = """<ir_version: 8, opset_import: ["": 17]>
    m (float[batch, 2] x) => (float[batch, 8192] y) <int64[2] shape = {1, 4096}> { y = Tile(x, shape) }"""
QUICK, SLOW = '[session]\ninline = "always"\n', '[session]\ninline = "never"\n'
INFER = "/v2/models/double/infer"


def message(*values: float, **more: object) -> bytes:
    tensor = {"name": "x", "shape": [len(values) // 2, 2], "datatype": "FP32", "data": list(values)}
    return json.dumps({"inputs": [tensor], **more}).encode()


def request(body: bytes, *headers: str, path: str = INFER, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: here", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def write(root: Path, name: str, text: str, toml: str, version: int = 1) -> None:
    folder = root / name / str(version)
    folder.mkdir(parents=True)
    onnx.save(onnx.parser.parse_model(text), str(folder / "model.onnx"))
    (folder.parent / "model.toml").write_text(toml)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    write(root, "double", MODEL.format("Add"), QUICK)
    write(root, "square", MODEL.format("Mul"), SLOW)
    write(root, "wide", WIDE, QUICK)
    return root


class Stand:
    """A service behind a socket.

    Attributes:
        edge: Its outermost layer.
        usual: Paths of the requests that took the usual way.
    """

    def __init__(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        self.service = service
        self.usual: list[str] = []
        self.clients: list[Client] = []
        self.server: asyncio.Server | None = None

        async def behind(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})

        usual_way = Edge.__call__

        async def seen(edge: Edge, scope: Any, receive: Any, send: Any) -> None:
            self.usual.append(scope["path"])
            await usual_way(edge, scope, receive, send)

        monkeypatch.setattr(Edge, "__call__", seen)
        self.config = config_of(edge_of(service, behind), service.settings, service.bounds)
        self.config.load()
        self.state = ServerState()

    async def open(self, keep_alive_s: float = 60) -> None:
        def connect() -> asyncio.Protocol:
            made: Any = self.config.http_protocol_class
            connection = made(config=self.config, server_state=self.state, app_state={})
            connection.timeout_keep_alive = keep_alive_s
            return connection  # type: ignore[no-any-return]

        if self.server is not None:
            self.server.close()
        self.server = await asyncio.get_running_loop().create_server(connect, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def connect(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        return client

    async def close(self) -> None:
        for client in self.clients:
            client.writer.close()
            with contextlib.suppress(ConnectionError):
                await client.writer.wait_closed()
        assert self.server is not None
        self.server.close()
        await self.service.close()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def answer(self) -> tuple[int, list[tuple[str, str]], bytes]:
        """Status, headers as they came, and body."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        first, *lines = head.decode().split("\r\n")[:-2]
        headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
        body = await self.reader.readexactly(int(dict(headers)["content-length"]))
        return int(first.split()[1]), headers, body

    async def ask(self, *pieces: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """Send a request in these pieces, each by itself, and wait for its answer."""
        for piece in pieces:
            self.writer.write(piece)
            await asyncio.sleep(0.005 if len(pieces) > 1 else 0)
        return await self.answer()


async def stand_of(models: Path, patch: pytest.MonkeyPatch, **settings: Any) -> Stand:
    made = Settings(repository=models, cache_dir=models.parent / "cache", **settings)
    service = Service(made, choose_device(made.device, made.gpu_id, made.gpu_memory_bytes))
    await service.start()
    stand = Stand(service, patch)
    await stand.open()
    return stand


@pytest.fixture
async def stand(models: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stand]:
    made = await stand_of(models, monkeypatch)
    yield made
    await made.close()


def comparable(answer: tuple[int, list[tuple[str, str]], bytes]) -> object:
    """All of an answer but what is another one each time."""
    status, headers, body = answer
    changing = {"x-request-id": r"[0-9a-f]{32}", "server-timing": r"(\w+;dur=[0-9.]+(, )?){6}"}
    for name, value in headers:
        assert re.fullmatch(changing.get(name, ".*"), value)
    return status, [(name, "" if name in changing else value) for name, value in headers], body


BINARY_HEAD = json.dumps(
    {
        "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}],
        "parameters": {"binary_data_output": True},
    }
).encode()
HALVES = np.array([0.5, -2], np.float32).tobytes()
OF_BYTES = f"Inference-Header-Content-Length: {len(BINARY_HEAD)}"
ASKED = {
    "plain": request(message(1, 2)),
    "rows": request(message(1, 2, 3, 4, 5, 6)),
    "with an id": request(message(1, 2, id="mine")),
    "an output by name": request(message(1, 2, outputs=[{"name": "y"}])),
    "of a version": request(message(1, 2), path="/v2/models/double/versions/1/infer"),
    "bytes": request(BINARY_HEAD + HALVES, OF_BYTES),
    "nothing but bytes": request(HALVES, "Inference-Header-Content-Length: 0"),
    "predict": request(b'{"instances": [[1, 2], [3, 4]]}', path="/v1/models/double:predict"),
    "null": request(message(3e38, 2)),
    "a long answer": request(message(1, 2), path="/v2/models/wide/infer"),
    "compressed": request(message(1, 2), "Accept-Encoding: gzip", path="/v2/models/wide/infer"),
    "short, compressed": request(message(1, 2), "Accept-Encoding: gzip, deflate"),
    "of no length that fits": request(message(1, 2, 3)),
    "no JSON": request(b"{"),
    "no body": request(b""),
    "too large a number": request(message(1e39, 2)),
}


@pytest.mark.parametrize("what", ASKED)
async def test_the_answer_is_the_same_either_way(stand: Stand, what: str) -> None:
    """To the byte, and header by header; what is wrong with a request is told in the same words."""
    client = await stand.connect()
    usual = await client.ask(ASKED[what])
    at_once = await client.ask(ASKED[what])
    assert comparable(at_once) == comparable(usual)
    assert len(stand.usual) == 1


async def test_what_was_learned_on_one_connection_holds_on_others(stand: Stand) -> None:
    """And their first request needs no parser at all."""
    first, second = await stand.connect(), await stand.connect()
    await first.ask(request(message(1, 2)))
    assert (await second.ask(request(message(3, 4))))[2].endswith(b"[6.0,8.0]}]}")
    assert stand.usual == [INFER]


async def test_all_is_counted_as_if_it_had_taken_the_usual_way(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each number on the page but the seconds, of answers and of errors."""
    told = []
    for knows_heads in (False, True):
        stand = await stand_of(models, monkeypatch)
        if not knows_heads:
            monkeypatch.setattr("infold.rest.known_heads.KnownHeads.find", lambda self, data: None)
        client = await stand.connect()
        for asked in ASKED.values():
            for _ in range(3):
                await client.ask(asked)
        assert (len(stand.usual) == 3 * len(ASKED)) is not knows_heads
        (snapshot,) = await stand.service.snapshots()
        told.append(snapshot)
        await stand.close()
        monkeypatch.undo()
    usual, both = told
    without_seconds = {
        name: rows
        for name, rows in usual["counters"].items()
        if "seconds" not in name and "_run_" not in name
    }
    for name, rows in without_seconds.items():
        ours = sorted((labels, value) for labels, value in both["counters"][name] if labels[-1:] != ["input"])
        if name == "infold_batches":
            ours = [(labels, value) for labels, value in ours if labels[-1] == "count"]
            rows = [(labels, value) for labels, value in rows if labels[-1] == "count"]
        assert ours == sorted((list(labels), value) for labels, value in rows), name
    for name, histograms in usual["histograms"].items():
        counted = {tuple(labels): sum(counts) for labels, counts, _ in histograms}
        assert {tuple(labels): sum(counts) for labels, counts, _ in both["histograms"][name]} == counted, name


OF_ONE = {
    "x-request-id": "mine",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "x-request-timeout-ms": "2000",
    "expect": "100-continue",
}


@pytest.mark.parametrize("name", OF_ONE)
async def test_headers_that_mean_one_request_are_read_each_time(stand: Stand, name: str) -> None:
    """Its own id comes back, and its own deadline holds."""
    client = await stand.connect()
    for count in (1, 2, 3):
        _, headers, _ = await client.ask(request(message(1, 2), f"{name}: {OF_ONE[name]}"))
        assert name != "x-request-id" or dict(headers)[name] == "mine"
        assert len(stand.usual) == count


async def test_a_request_in_any_two_pieces_is_answered(stand: Stand) -> None:
    """At once if its head was in the first one, and else by the usual way from its first byte on."""
    client, asked = await stand.connect(), request(message(1, 2))
    head = asked.index(b"\r\n\r\n") + 4
    expected = comparable(await client.ask(asked))
    assert comparable(await client.ask(asked)) == expected
    for cut in range(1, len(asked)):
        before = len(stand.usual)
        assert comparable(await client.ask(asked[:cut], asked[cut:])) == expected, cut
        assert len(stand.usual) - before == (cut < head), cut
        assert comparable(await client.ask(asked)) == expected, cut
    assert len(stand.usual) == head, "the whole ones were answered at once"


async def test_many_pieces_are_one_request(stand: Stand) -> None:
    """However little each of them is."""
    client, asked = await stand.connect(), request(message(1, 2))
    expected = comparable(await client.ask(asked))
    for size in (1, 7, 60):
        pieces = [asked[at : at + size] for at in range(0, len(asked), size)]
        assert comparable(await client.ask(*pieces)) == expected


async def test_a_head_that_came_by_itself_is_learned_too(stand: Stand) -> None:
    """As clients send it that never join it with its body."""
    client, asked = await stand.connect(), request(message(1, 2))
    head = asked.index(b"\r\n\r\n") + 4
    answers = [comparable(await client.ask(asked[:head], asked[head:])) for _ in range(4)]
    assert answers == answers[:1] * 4
    assert (await client.ask(asked))[0] == 200
    assert len(stand.usual) == 1


async def test_nobody_waits_for_a_body_that_is_not_answered_at_once(stand: Stand) -> None:
    """A model that takes longer is told of its requests when their heads are here."""
    client, asked = await stand.connect(), request(message(1, 2), path="/v2/models/square/infer")
    head = asked.index(b"\r\n\r\n") + 4
    for count in (1, 2, 3):
        client.writer.write(asked[:head])
        await asyncio.sleep(0.02)
        assert len(stand.usual) == count
        assert (await client.ask(asked[head:]))[0] == 200


async def learned(stand: Stand) -> tuple[Client, bytes, int]:
    """A client whose head is known, a request of it, and where that ends."""
    client, asked = await stand.connect(), request(message(1, 2))
    for _ in range(2):
        await client.ask(asked)
    stand.usual.clear()
    return client, asked, asked.index(b"\r\n\r\n") + 4


@pytest.mark.parametrize("more", [0, 10])
async def test_a_body_that_does_not_come_is_waited_for_as_usual(
    models: Path, monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    """408 in its time, and the connection ends."""
    stand = await stand_of(models, monkeypatch, body_timeout_s=0.4)
    client, asked, head = await learned(stand)
    status, _, body = await client.ask(asked[: head + more])
    assert (status, b"0.4 s" in body, stand.usual) == (408, True, [INFER])
    assert await client.reader.read() == b""
    await stand.close()


async def test_a_body_that_comes_late_is_answered(stand: Stand) -> None:
    """By the usual way; the next one at once."""
    client, asked, head = await learned(stand)
    client.writer.write(asked[:head])
    await asyncio.sleep(0.2)
    assert (await client.ask(asked[head:]))[2].endswith(b"[2.0,4.0]}]}")
    assert (await client.ask(asked))[2].endswith(b"[2.0,4.0]}]}")
    assert stand.usual == [INFER]


async def test_a_request_that_has_begun_is_answered_while_the_process_goes_down(stand: Stand) -> None:
    """Its head was here before."""
    client, asked, head = await learned(stand)
    client.writer.write(asked[:head])
    await asyncio.sleep(0.01)
    stand.service.begin_drain()
    for connection in stand.state.connections:
        connection.shutdown()  # as uvicorn does of each
    status, headers, _ = await client.ask(asked[head:])
    assert (status, dict(headers)["connection"]) == (200, "close")


async def test_a_client_that_leaves_behind_a_head_leaves_nothing(stand: Stand) -> None:
    """No task, no timer that fires into a closed connection."""
    client, asked, head = await learned(stand)
    client.writer.write(asked[:head])
    await asyncio.sleep(0.01)
    client.writer.transport.abort()
    await asyncio.sleep(0.1)
    assert (stand.usual, len(stand.state.connections)) == ([], 0)


async def test_waiting_for_a_body_counts_as_reading(stand: Stand) -> None:
    """In what its caller is told, too."""
    client, asked, head = await learned(stand)
    client.writer.write(asked[:head])
    await asyncio.sleep(0.03)
    _, headers, _ = await client.ask(asked[head:])
    assert stand.usual == []
    assert float(dict(headers)["server-timing"].partition("read;dur=")[2].split(",")[0]) >= 20


async def test_several_requests_in_one_piece_are_answered_in_their_order(stand: Stand) -> None:
    """With a half behind them, too."""
    client = await stand.connect()
    asked = [request(message(number, number)) for number in range(5)]
    await client.ask(asked[0])
    client.writer.write(b"".join(asked) + asked[1][:30])
    for number in range(5):
        assert (await client.answer())[2].endswith(b"[%.1f,%.1f]}]}" % (2 * number, 2 * number))
    assert (await client.ask(asked[1][30:]))[2].endswith(b"[2.0,2.0]}]}")
    assert (await client.ask(asked[2]))[2].endswith(b"[4.0,4.0]}]}")


async def test_behind_an_answer_that_is_not_ready_nobody_is_first(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A known request that comes meanwhile waits for its turn."""
    client = await stand.connect()
    await client.ask(request(message(1, 2)))
    quick = Answering._answer

    async def slow(*given: Any) -> Any:
        await asyncio.sleep(0.1)
        return await quick(*given)

    monkeypatch.setattr(Answering, "_answer", slow)
    client.writer.write(request(message(3, 3), path="/v2/models/square/infer"))
    await asyncio.sleep(0.03)
    client.writer.write(request(message(1, 2)))
    assert (await client.answer())[2].endswith(b"[9.0,9.0]}]}")
    assert (await client.answer())[2].endswith(b"[2.0,4.0]}]}")


async def test_a_connection_that_is_to_be_closed_is_closed_each_time(stand: Stand) -> None:
    """Such a head means that, too."""
    for count in (1, 2, 3):
        client = await stand.connect()
        _, headers, _ = await client.ask(request(message(1, 2), "Connection: close"))
        assert (dict(headers)["connection"], await client.reader.read()) == ("close", b"")
        assert len(stand.usual) == count


async def test_what_is_no_request_is_refused_behind_one_that_was_answered_at_once(stand: Stand) -> None:
    """The parser has seen nothing of it, and is where it was."""
    client = await stand.connect()
    for _ in range(2):
        await client.ask(request(message(1, 2)))
    status, _, _ = await client.ask(b"nonsense\r\n\r\n")
    assert (status, await client.reader.read()) == (400, b"")


async def test_a_slow_model_takes_the_usual_way(stand: Stand) -> None:
    """Nobody else waits on the event loop for it."""
    client = await stand.connect()
    for count in (1, 2, 3):
        await client.ask(request(message(1, 2), path="/v2/models/square/infer"))
        assert len(stand.usual) == count


async def test_a_head_means_no_more_than_it_says(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest version answers, and after the last one nobody."""
    stand = await stand_of(models, monkeypatch, admin=True)
    client = await stand.connect()
    for _ in range(2):
        assert json.loads((await client.ask(request(message(3, 3))))[2])["model_version"] == "1"
    write(models, "double", MODEL.format("Mul"), QUICK, version=2)
    await stand.service.control.load("double", None)
    assert (await client.ask(request(message(3, 3))))[2].endswith(b"[9.0,9.0]}]}")
    assert len(stand.usual) == 1
    await stand.service.control.unload("double")
    status, _, body = await client.ask(request(message(3, 3)))
    assert (status, b"double" in body) == (404, True)
    await stand.close()


async def test_a_canary_gets_its_share_in_turn(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No request is owed twice."""
    (models / "double" / "model.toml").write_text(QUICK)
    write(
        models,
        "double",
        MODEL.format("Mul"),
        'versions = "latest:2"\n' + QUICK + "[canary]\nshare = 0.25\n",
        2,
    )
    stand = await stand_of(models, monkeypatch)
    client = await stand.connect()
    answers = Counter([(await client.ask(request(message(3, 3))))[2][-11:] for _ in range(20)])
    assert sorted(answers.values()) == [5, 15]
    await stand.close()


async def test_without_room_for_its_body_a_request_is_refused_as_usual(stand: Stand) -> None:
    """503, and when to ask again."""
    client = await stand.connect()
    for _ in range(2):
        await client.ask(request(message(1, 2)))
    stand.service.bounds.in_flight.limit_bytes = 10
    status, headers, _ = await client.ask(request(message(1, 2)))
    assert (status, "retry-after" in dict(headers)) == (503, True)


async def test_a_process_that_goes_down_ends_the_connection_with_the_answer(stand: Stand) -> None:
    """Whoever asks over it again asks somebody else."""
    client = await stand.connect()
    for _ in range(2):
        await client.ask(request(message(1, 2)))
    stand.service.begin_drain()
    _, headers, _ = await client.ask(request(message(1, 2)))
    assert dict(headers)["connection"] == "close"
    assert await client.reader.read() == b""


async def test_a_connection_that_is_used_stays_open_and_then_is_closed(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However its requests were answered; the timer counts from the last of them."""
    stand = await stand_of(models, monkeypatch)
    await stand.open(keep_alive_s=0.4)
    client, fresh = await stand.connect(), await stand.connect()
    for _ in range(8):
        await client.ask(request(message(1, 2)))
        await asyncio.sleep(0.1)
    await fresh.ask(request(message(1, 2)))
    assert len(stand.usual) == 1, "the second one had none by the usual way"
    began = asyncio.get_running_loop().time()
    assert await asyncio.wait_for(client.reader.read(), 5) == b""
    assert await asyncio.wait_for(fresh.reader.read(), 5) == b""
    assert asyncio.get_running_loop().time() - began < 3
    await stand.close()


async def test_headers_that_stop_halfway_are_not_waited_for_after_an_answer_at_once(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time for them begins with their first byte, not with the connection."""
    stand = await stand_of(models, monkeypatch, header_timeout_s=0.5)
    client = await stand.connect()
    for _ in range(4):
        await client.ask(request(message(1, 2)))
        await asyncio.sleep(0.2)
    assert len(stand.usual) == 1
    fresh = await stand.connect()
    await fresh.ask(request(message(1, 2)))
    await asyncio.sleep(0.7)
    assert (await fresh.ask(request(message(1, 2))))[0] == 200
    assert len(stand.usual) == 1
    client.writer.write(b"POST /v2")
    assert (await client.answer())[0] == 408
    await stand.close()


async def test_who_needs_a_key_is_asked_for_it_each_time(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head that was let in once is not let in for ever."""
    keys, secret = models.parent / "keys.toml", new_secret()
    keys.write_text(entry_text(Key("tester", digest_of(secret.encode()), (KeyScope.INFER,))))
    keys.chmod(0o600)
    stand = await stand_of(models, monkeypatch, api_keys=keys)
    client = await stand.connect()
    for count in (1, 2, 3):
        status, _, _ = await client.ask(request(message(1, 2), f"Authorization: Bearer {secret}"))
        assert (status, len(stand.usual)) == (200, count)
    await stand.close()


async def test_an_error_that_nobody_foresaw_is_told_by_the_usual_way(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, with its traceback; the next request is answered at once again."""
    client = await stand.connect()
    await client.ask(request(message(1, 2)))

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("of nobody")

    with monkeypatch.context() as patch:
        patch.setattr("infold.rest.v2.encode_infer", broken)
        status, _, _ = await client.ask(request(message(1, 2)))
    assert status == 500
    assert [record.message for record in caplog.records if record.exc_info] == ["request failed"]
    await client.ask(request(message(1, 2)))
    assert len(stand.usual) == 2


async def test_both_ways_write_the_same_line(stand: Stand, caplog: pytest.LogCaptureFixture) -> None:
    """One an answer, with the same facts."""
    lines: list[dict[str, Any]] = []
    write_line = "infold.logs.AccessLog.line"
    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.INFO):
        patch.setattr(write_line, lambda self, *facts: lines.append(dict(enumerate(facts))))
        client = await stand.connect()
        for _ in range(2):
            await client.ask(request(message(1, 2)))
        await asyncio.sleep(0.01)
    usual, at_once = lines
    changing = (3, 5)  # seconds and the id
    assert {key: value for key, value in usual.items() if key not in changing} == {
        key: value for key, value in {**at_once, 6: ""}.items() if key not in changing
    }
