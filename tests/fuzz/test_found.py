"""What fuzzing has found, each as small as it gets; what is marked is not mended yet.

`strict` means: whoever mends one is told to take its mark away, and to let the generators
draw such things (where they are spared, a comment there says so).
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fuzz.asking import Line, Request, Stream, infer, json_length, predict
from fuzz.conftest import MAX_BODY_BYTES, settings
from fuzz.flood import HAS_PROC, Memory
from fuzz.judging import judge, refusal
from servers import Server, running

GROWTH_MIB = 30.0

told = pytest.mark.skipif(not HAS_PROC, reason="no /proc")


@pytest.fixture
def failing(fuzzed_models: Path, tmp_path: Path) -> Iterator[Server]:
    """A server of its own for each, since it may fail."""
    with running(fuzzed_models, tmp_path / "server.log", **settings(tmp_path)) as server:
        yield server


def connected(server: Server) -> socket.socket:
    host, _, port = server.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=20)


@pytest.fixture
def asked(failing: Server) -> Iterator[Line]:
    with Line(failing.address) as line:
        yield line


# -- failures of ours -------------------------------------------------------------------------------


def test_a_shape_whose_size_has_thousands_of_digits(asked: Line) -> None:
    """500: Python does not write numbers of more than 4300 digits."""
    length = "1" + "0" * 4000
    entry = f'{{"name":"x","shape":[{length},{length}],"datatype":"FP32","data":[1]}}'
    request = infer("echo_float", f'{{"inputs":[{entry}]}}'.encode())
    judge(request, asked.ask(request))


DEEP = {
    "infer": (infer, '{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,%s]}]}'),
    "rows": (predict, '{"instances":[1,%s]}'),
    "columns": (predict, '{"inputs":{"x":[1,%s]}}'),
}


@pytest.mark.parametrize("form", DEEP)
def test_a_depth_near_the_limit_of_the_interpreter(asked: Line, form: str) -> None:
    """500: a RecursionError where the first reader has just come through and the next one has not."""
    ask, text = DEEP[form]
    for depth in range(850, 1050):
        request = ask("echo_float", (text % ("[" * depth + "]" * depth)).encode())
        judge(request, asked.ask(request))


def test_a_client_that_leaves_while_two_of_its_requests_wait(failing: Server, asked: Line) -> None:
    """A failure in the log: of the two only the last is told, and the answer to the first goes nowhere."""
    entry = '{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}'
    not_cheap = infer("echo_float", f'{{"inputs":[{entry}]}}'.encode() + b" " * 30_000)
    for _ in range(10):
        with connected(failing) as leaving:
            leaving.sendall(not_cheap.wire * 2)
        assert asked.ask(not_cheap).status == 200
    assert "Traceback" not in failing.log.read_text()


def test_a_client_that_leaves_in_the_middle_of_an_order(failing: Server, asked: Line) -> None:
    """A failure in the log: outside of infer and predict nobody expects `ClientGone`."""
    index = Request(b"/v2/repository/index", b'{"ready":true}')
    for _ in range(3):
        assert asked.tell(Stream(index.wire[:-3])) == []
        assert asked.ask(index).status == 200
    assert "Traceback" not in failing.log.read_text()


def test_an_order_with_a_long_name_of_a_file(failing: Server, asked: Line) -> None:
    """A failure in the log: the system has no names that long."""
    config = json.dumps({"default_model_filename": "a" * 5000})
    body = json.dumps({"parameters": {"config": config}}).encode()
    answer = asked.ask(Request(b"/v2/repository/models/spare/load", body))
    assert answer.status == 400
    assert "Traceback" not in failing.log.read_text()


def test_what_triton_calls_unsupported_is_no_failure_in_the_log(fuzzed_models: Path, tmp_path: Path) -> None:
    """With `triton_compat` a coding that is not served is 501, and so a failure with its traceback."""
    environment = settings(tmp_path) | {"INFOLD_TRITON_COMPAT": "true"}
    with (
        running(fuzzed_models, tmp_path / "server.log", **environment) as server,
        Line(server.address) as line,
    ):
        answer = line.ask(infer("echo_float", b"", (b"content-encoding", b"br")))
        assert answer.status == 501
        assert "Traceback" not in server.log.read_text()


def python_2() -> Request:
    """An array whose shape is written as Python 2 did."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2L), }\n"
    body = b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + bytes(8)
    return infer("echo_float", body, (b"content-type", b"application/x-npy"))


def signalling_nan() -> Request:
    """A BF16 that ml_dtypes warns of, wanted as JSON."""
    entry = {"name": "x", "shape": [1, 1], "datatype": "BF16", "parameters": {"binary_data_size": 2}}
    text = json.dumps({"inputs": [entry]}).encode()
    return infer("echo_bfloat16", text + b"\x81\x7f", json_length(len(text)))


@pytest.mark.parametrize("request_of", [python_2, signalling_nan], ids=lambda each: each.__name__)
def test_every_line_of_the_log_is_json(
    failing: Server, asked: Line, request_of: Callable[[], Request]
) -> None:
    """Warnings of libraries are lines of their own; `logging.captureWarnings` would have them."""
    request = request_of()
    judge(request, asked.ask(request))
    assert all(line.startswith("{") for line in failing.log.read_text().splitlines())


# -- answers that are not right ---------------------------------------------------------------------


@pytest.mark.parametrize("number", ["1e400", "1" + "0" * 400])
def test_a_number_too_large_for_any_type_is_named(asked: Line, number: str) -> None:
    """It is said to be no JSON, which it is, and its place is not told."""
    entry = f'{{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,{number}]}}'
    answer = asked.ask(infer("echo_float", f'{{"inputs":[{entry}]}}'.encode()))
    assert "inputs[0].data[1]" in refusal(answer)


def test_what_is_no_http_is_refused_as_json_too(asked: Line) -> None:
    """It was refused in plain text."""
    (answer,) = asked.tell(Stream(b"GET /v2 HTTP/9.9\r\n\r\n"))
    assert refusal(answer)


def test_a_refusal_is_short_however_long_what_it_refuses(asked: Line) -> None:
    """A name of a megabyte comes back, and a path of 60 kB goes to the log as well."""
    entry = {"name": "y" * 10**6, "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
    answer = asked.ask(infer("echo_float", json.dumps({"inputs": [entry]}).encode()))
    assert len(answer.body) < 2_000


# -- memory -----------------------------------------------------------------------------------------


def grown_mib(server: Server, before: Memory) -> float:
    """What a server has more than it had."""
    return Memory.of(server.process.pid).resident - before.resident


def long_request(*, is_right: bool) -> Request:
    """Almost as long as the limit."""
    count = MAX_BODY_BYTES // 12
    data = ",".join(["0.12345678"] * count)
    entry = f'{{"name":"x","shape":[1,{count + (not is_right)}],"datatype":"FP32","data":[{data}]}}'
    return infer("echo_float", f'{{"inputs":[{entry}]}}'.encode())


@told
def test_long_bodies_that_are_refused_are_forgotten(failing: Server, asked: Line) -> None:
    """20 MiB of each body of 4 stay until the cyclic collector comes, which may take hundreds of requests.

    The exception's traceback holds the frame of `Batcher.answer`, whose future holds the exception.
    """
    request = long_request(is_right=False)
    assert [asked.ask(request).status for _ in range(4)] == [400] * 4
    before = Memory.of(failing.process.pid)
    for _ in range(10):
        asked.ask(request)
    assert grown_mib(failing, before) < GROWTH_MIB


@told
def test_long_bodies_that_do_not_end_are_forgotten(failing: Server, asked: Line) -> None:
    """All that has come of one stays until the cyclic collector comes.

    `ClientGone` lies in the future of its `LongBody`, and its traceback holds the frame that read the body;
    connection, scope and body hold each other besides.
    """
    whole = long_request(is_right=True).wire
    assert asked.tell(Stream(whole[:-9])) == []
    before = Memory.of(failing.process.pid)
    for _ in range(20):
        assert asked.tell(Stream(whole[:-9])) == []
    assert grown_mib(failing, before) < GROWTH_MIB


@told
@pytest.mark.parametrize("place", ["path", "header", "trailer"])
def test_there_is_a_limit_to_what_comes_before_a_body(failing: Server, place: str) -> None:
    """A path, a header or a trailer may have any length: all of it is kept until it ends."""
    starts = {
        "path": b"GET /v2/",
        "header": b"GET /v2 HTTP/1.1\r\nx: ",
        "trailer": b"POST /v2/models/echo_float/infer HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: ",
    }
    before = Memory.of(failing.process.pid)
    with Line(failing.address) as other, connected(failing) as endless:
        try:
            endless.sendall(starts[place])
            for _ in range(40):
                endless.sendall(b"x" * 2**20)
        except ConnectionError:
            pass  # refused, as it should be
        assert other.ask(Request(b"/v2/health/live", method=b"GET")).status == 200
        assert grown_mib(failing, before) < GROWTH_MIB


@told
def test_requests_that_nobody_reads_the_answers_of_wait_in_the_socket(failing: Server) -> None:
    """One reading of the socket is kept, some 30 times as large as it was sent, and no second one."""
    before = Memory.of(failing.process.pid)
    some = Request(b"/v2", method=b"GET").wire * 10_000
    with Line(failing.address) as other, connected(failing) as deaf:
        deaf.settimeout(2)
        try:
            for _ in range(60):
                deaf.sendall(some)
        except (ConnectionError, TimeoutError):
            pass  # not read, as it should be
        assert other.ask(Request(b"/v2/health/live", method=b"GET")).status == 200
        assert grown_mib(failing, before) < 2 * GROWTH_MIB


@told
def test_paths_that_lead_nowhere_are_forgotten(failing: Server, asked: Line) -> None:
    """The last 256 paths are kept, however long: with what they led to, and quoted for the log."""
    before = Memory.of(failing.process.pid)
    for number in range(300):
        asked.ask(Request(b"/v2/models/%d" % number + b"x" * 60_000 + b"%f0%9f%98%80/infer", b"{}"))
    assert grown_mib(failing, before) < GROWTH_MIB
