"""What has been tried against servers of models, tried against this one; docs/attacks.md is the list.

Beside the repository lie what must never be served and what must never be told.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import onnx
import pytest

from fuzz.asking import Answer, Line, Request, Stream, infer, json_length
from fuzz.flood import HAS_PROC, Memory
from fuzz.judging import refusal
from graphs import model
from servers import ROOT, Server, running
from shelves import Shelf

CANARY = "canary-7f3a-whoever-reads-this-has-come-too-far"
X = {"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2]}
RIGHT = json.dumps({"inputs": [X]}).encode()
GROWTH_MIB = 40.0
LIMIT = 2**20


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """One model, `m`; and outside of the repository another one that loads, and a secret."""
    root = tmp_path_factory.mktemp("attacked")
    outside = Shelf(root)
    outside.put("outside", 1, 7)
    (root / "secret.txt").write_text(CANARY)
    (root / "secret.bin").write_bytes(CANARY.encode().ljust(64))
    inside = Shelf(root / "models")
    inside.put("m", 1, 2)
    inside.configure("m", "version_labels = { stable = 1 }\n")
    return inside


@pytest.fixture(scope="module")
def attacked(shelf: Shelf) -> Iterator[Server]:
    """A server that loads what it is told to."""
    environment = {
        "INFOLD_MODEL_CONTROL": "explicit",
        "INFOLD_LOAD_MODELS": '["m"]',
        "INFOLD_MAX_BODY_BYTES": str(LIMIT),
    }
    with running(shelf.root, shelf.root.parent / "log", **environment) as server:
        yield server


@pytest.fixture
def line(attacked: Server) -> Iterator[Line]:
    """A connection to it; in the end it serves what it did, nothing else, and has told nothing."""
    before = files_of(attacked)
    with Line(attacked.address) as opened:
        yield opened
        answer = opened.ask(infer("m", RIGHT))
        assert answer.status == 200 and json.loads(answer.body)["outputs"][0]["data"] == [2, 4]
        assert models_of(opened) == ["m"]
    assert files_of(attacked) == before
    text = attacked.log.read_text()
    assert "Traceback" not in text
    assert CANARY not in text


def files_of(server: Server) -> dict[str, tuple[int, int]]:
    """Everything around the repository, its log apart: sizes and times."""
    root = server.log.parent
    found = [path for path in root.rglob("*") if path.is_file() and path != server.log]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def models_of(line: Line) -> list[str]:
    found: list[str] = json.loads(line.ask(Request(b"/v2/models", method=b"GET")).body)["models"]
    return found


def assert_refused(answer: Answer, *statuses: int) -> None:
    """With a reason, and without a word of what nobody may read."""
    assert answer.status in statuses, answer
    text = refusal(answer)
    assert CANARY not in text and "root:" not in text


# -- names ------------------------------------------------------------------------------------------

DOTS = {
    "plain": b"../outside",
    "a slash encoded": b"..%2foutside",
    "all encoded": b"%2e%2e%2foutside",
    "encoded twice": b"%252e%252e%252foutside",
    "encoded thrice": b"%25252e%25252e%25252foutside",
    "half encoded twice": b"..%252foutside",
    "behind a model": b"m%2f..%2f..%2foutside",
    "a backslash": b"..%5coutside",
    "a backslash encoded twice": b"..%255coutside",
    "a backslash and a slash": b"..%5c%2foutside",
    "NUL behind": b"..%2foutside%00",
    "NUL between": b"..%00%2foutside",
    "NUL behind a model": b"m%00",
    "NUL and a suffix": b"..%2foutside%00.onnx",
    "overlong, two bytes": b"%c0%ae%c0%ae%c0%afoutside",
    "overlong, three bytes": b"%e0%80%ae%e0%80%ae%e0%80%afoutside",
    "overlong, four bytes": b"%f0%80%80%ae%f0%80%80%ae%f0%80%80%afoutside",
    "surrogates": b"%ed%a0%80..%2foutside",
    "one-dot leaders": quote("\u2024\u2024/outside").encode(),
    "a two-dot leader": quote("\u2025/outside").encode(),
    "full width": quote("\uff0e\uff0e\uff0foutside").encode(),
    "small full stops": quote("\ufe52\ufe52\u2215outside").encode(),
    "a path parameter": b"..;%2foutside",
    "a space": b"..%20%2foutside",
    "a line feed": b"..%0a%2foutside",
    "stops that lead nowhere": b".%2f.%2f.%2f",
    "the repository itself": b"%2e",
    "what it lies in": b"%2e%2e",
    "home": b"~",
    "a device": b"%2fdev%2fzero",
    "a descriptor": b"%2fproc%2fself%2ffd%2f0",
    "UNC": b"%5c%5chost%5cshare",
    "a drive": b"c:%5coutside",
    "a URL": b"file:%2f%2f%2fetc%2fpasswd",
    "a bucket": b"s3:%2f%2fbucket%2fmodel",
    "a name of the right length": b"a" * 129,
    "a long name": b"a" * 5000,
}
ROUTES = {
    "metadata": (b"GET", b"/v2/models/%s"),
    "ready": (b"GET", b"/v2/models/%s/ready"),
    "config": (b"GET", b"/v2/models/%s/config"),
    "stats": (b"GET", b"/v2/models/%s/stats"),
    "infer": (b"POST", b"/v2/models/%s/infer"),
    "load": (b"POST", b"/v2/repository/models/%s/load"),
    "unload": (b"POST", b"/v2/repository/models/%s/unload"),
    "v1": (b"GET", b"/v1/models/%s"),
    "v1 metadata": (b"GET", b"/v1/models/%s/metadata"),
    "predict": (b"POST", b"/v1/models/%s:predict"),
}


@pytest.mark.parametrize("way", DOTS)
def test_no_name_leads_out_of_the_repository(line: Line, shelf: Shelf, way: str) -> None:
    """On no route, and nothing is loaded by the attempt."""
    for method, path in ROUTES.values():
        body = None if method == b"GET" else RIGHT if b"infer" in path else b"{}"
        assert_refused(line.ask(Request(path % DOTS[way], body, method)), 400, 404, 405)


def test_an_absolute_path_is_no_name(line: Line, shelf: Shelf) -> None:
    """However its slashes are written."""
    outside = str(shelf.root.parent / "outside")
    for name in (quote(outside, safe=""), quote(quote(outside, safe=""), safe=""), f"/{outside}"):
        for method, path in ROUTES.values():
            body = None if method == b"GET" else b"{}"
            assert_refused(line.ask(Request(path % name.encode(), body, method)), 400, 404, 405)


ODD_VERSIONS = [
    *b"-1 +1 1.0 1e0 0 0x1 1_0 1;2 1%00 1%20 %201 1%0a %2e %2e%2e * 2 1%2f..%2f..%2foutside%2f1".split(),
    b"1%2f..",
    b"..%2f1%2f..%2f..%2foutside%2f1",
    b"9" * 400,
    b"18446744073709551617",
    b"4294967297",
    quote("\uff11").encode(),
    quote("\u0661").encode(),
    quote("\u00b9").encode(),
]


@pytest.mark.parametrize("version", ODD_VERSIONS)
def test_a_version_is_a_plain_number_or_nothing(line: Line, version: bytes) -> None:
    """Nothing but ASCII digits is a number, none wraps around to 1, and none is a path."""
    where = [
        b"/v2/models/m/versions/%s",
        b"/v2/models/m/versions/%s/ready",
        b"/v2/models/m/versions/%s/config",
    ]
    where += [b"/v2/models/m/versions/%s/stats", b"/v1/models/m/versions/%s"]
    for path in where:
        assert_refused(line.ask(Request(path % version, method=b"GET")), 400, 404)
    for path in (b"/v2/models/m/versions/%s/infer", b"/v1/models/m/versions/%s:predict"):
        assert_refused(line.ask(Request(path % version, RIGHT)), 400, 404)


ODD_LABELS = [
    *b"%2e%2e ..%2f..%2f..%2fsecret.txt stable%00 %20stable stable%20 STABLE 1 @stable __proto__ %".split(),
    b"..%252f..%252fsecret.txt",
    b"s" * 5000,
    quote("st\u0430ble").encode(),
]


@pytest.mark.parametrize("label", ODD_LABELS)
def test_a_label_is_one_that_was_given(line: Line, label: bytes) -> None:
    """By its very letters."""
    assert_refused(line.ask(Request(b"/v1/models/m/labels/%s" % label, method=b"GET")), 400, 404)
    predict = Request(b"/v1/models/m/labels/%s:predict" % label, b'{"inputs":[1,2]}')
    assert_refused(line.ask(predict), 400, 404)


def test_a_label_is_no_version(line: Line) -> None:
    """What stands for one inside is not taken from outside."""
    for path in (b"/v2/models/m/versions/@stable/infer", b"/v2/models/m/versions/%40stable/infer"):
        answer = line.ask(Request(path, RIGHT))
        assert answer.status in (200, 404)
        if answer.status == 200:  # the same version by another of its names
            assert json.loads(answer.body)["model_version"] == "1"


# -- orders -----------------------------------------------------------------------------------------


def outputs(**more: object) -> dict[str, object]:
    """A configuration that fits the model, but for what is said of its output."""
    tensor = {"data_type": "TYPE_FP32", "dims": [2]}
    return {
        "max_batch_size": 0,
        "input": [{"name": "x", **tensor}],
        "output": [{"name": "y", **tensor, **more}],
    }


def warmed_by(file: str) -> dict[str, object]:
    """A configuration that reads a file and runs the model on it."""
    tensor = {"data_type": "TYPE_FP32", "dims": [2], "input_data_file": file}
    return outputs() | {"model_warmup": [{"name": "w", "batch_size": 1, "inputs": {"x": tensor}}]}


def reading_overrides(root: Path) -> list[dict[str, object]]:
    """Configurations that want a file from outside the model's own folder read."""
    paths = ["../../secret.txt", "../../../secret.txt", f"{root}/secret.txt", "/etc/passwd"]
    paths += [
        "x/../../../secret.txt",
        "..",
        "",
        ".",
        "/dev/zero",
        "/proc/self/environ",
        "a\0b",
        "..\\secret.txt",
    ]
    wants: list[dict[str, object]] = []
    for path in filter(None, paths):
        wants += [outputs(label_filename=path), warmed_by(path), {"default_model_filename": path}]
    wants += [{"default_model_filename": "../../../outside/1/model.onnx"}]
    wants += [{"default_model_filename": f"{root}/outside/1/model.onnx"}]
    wants += [{"name": "../outside"}, {"name": f"{root}/outside"}, {"cc_model_filenames": {"7.5": "../x"}}]
    wants += [{"model_operations": {"op_library_filename": [f"{root}/secret.bin"]}}]
    wants += [{"model_repository_agents": {"agents": [{"name": "checksum"}]}}, {"backend": "python"}]
    return wants


def test_a_load_reads_nothing_from_outside(line: Line, shelf: Shelf) -> None:
    """Whatever its configuration names: labels, inputs to warm up with, graphs, libraries."""
    for config in reading_overrides(shelf.root.parent):
        body = json.dumps({"parameters": {"config": json.dumps(config)}}).encode()
        answer = line.ask(Request(b"/v2/repository/models/m/load", body))
        assert_refused(answer, 400)
        assert refusal(answer).startswith("failed to load 'm', "), answer


FILES = [
    "file:1/model.onnx",
    "file:2/model.onnx",
    "file:../outside/1/model.onnx",
    "file:../../x.pth",
    "file:/etc/cron.d/x",
    "file:1/../../../secret.txt",
    "file:1\\..\\x",
    "file:",
    "file:\0",
    "FILE:1/model.onnx",
    "file:model.toml",
]


@pytest.mark.parametrize("key", FILES)
@pytest.mark.parametrize("has_config", [False, True])
def test_a_load_writes_nothing(line: Line, shelf: Shelf, key: str, has_config: bool) -> None:
    """Files in a call are refused, alone and beside a configuration, before anything is done with them."""
    content = base64.b64encode((shelf.root / "m/1/model.onnx").read_bytes()).decode()
    parameters = {key: content} | ({"config": "{}"} if has_config else {})
    for model_name in (b"m", b"new"):
        order = Request(
            b"/v2/repository/models/%s/load" % model_name, json.dumps({"parameters": parameters}).encode()
        )
        assert_refused(line.ask(order), 400)


# -- what lies in the repository ----------------------------------------------------------------------


def with_weights_at(location: str, length: int = 8) -> bytes:
    """A model whose factor lies in a file of its own."""
    proto = model(
        "g (float[2] x) => (float[2] y) { y = Mul (x, factor) }", {"factor": np.array([3, 3], np.float32)}
    )
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return proto.SerializeToString()


OUTSIDE_WEIGHTS = [
    "../../../secret.bin",
    "../1/../../../secret.bin",
    "{root}/secret.bin",
    "/etc/passwd",
    "/dev/zero",
    "/proc/self/environ",
    "sub/../../../../secret.bin",
    "./../../../secret.bin",
    "..\\..\\..\\secret.bin",
    "nothing.bin",
    "",
    ".",
]


@pytest.mark.parametrize("location", OUTSIDE_WEIGHTS)
def test_weights_come_from_the_models_own_folder(
    attacked: Server, line: Line, shelf: Shelf, location: str
) -> None:
    """A graph that names a file elsewhere is not loaded."""
    place = location.replace("{root}", str(shelf.root.parent))
    shelf.put("hostile", 1, graph=with_weights_at(place))
    try:
        assert_refused(line.ask(Request(b"/v2/repository/models/hostile/load", b"")), 400)
    finally:
        line.ask(Request(b"/v2/repository/models/hostile/unload", b""))
        shelf.take("hostile")


@pytest.mark.parametrize("target", ["../../../secret.bin", "/dev/zero", "/etc/passwd", "FIFO", "weights.bin"])
def test_weights_are_a_plain_file(line: Line, shelf: Shelf, target: str) -> None:
    """No link that leads out, no device, no pipe that nobody writes to, no link that leads to itself."""
    folder = shelf.put("hostile", 1, graph=with_weights_at("weights.bin"))
    if target == "FIFO":
        os.mkfifo(folder / "weights.bin")
    else:
        (folder / "weights.bin").symlink_to(target)
    try:
        assert_refused(line.ask(Request(b"/v2/repository/models/hostile/load", b"")), 400)
    finally:
        line.ask(Request(b"/v2/repository/models/hostile/unload", b""))
        shelf.take("hostile")


def test_weights_of_an_impossible_length_are_refused(line: Line, shelf: Shelf) -> None:
    """Beyond their file, beyond 64 bits, below nothing."""
    for length in (10**6, 2**63 - 1, 2**63, 2**64, -1):
        folder = shelf.put("hostile", 1, graph=with_weights_at("weights.bin", length))
        (folder / "weights.bin").write_bytes(bytes(8))
        try:
            assert_refused(line.ask(Request(b"/v2/repository/models/hostile/load", b"")), 400)
        finally:
            line.ask(Request(b"/v2/repository/models/hostile/unload", b""))
            shelf.take("hostile")


# -- headers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [b"-1", b"-9223372036854775808", b"9223372036854775808", b"1_0", b"+5", b"0x5"]
)
@pytest.mark.parametrize("name", [b"inference-header-content-length", b"Inference-Header-Content-LENGTH"])
def test_a_length_of_json_that_is_none_is_refused(line: Line, name: bytes, value: bytes) -> None:
    """Negative, beyond 64 bits, or no number as everybody else writes it."""
    assert_refused(line.ask(infer("m", RIGHT, (name, value))), 400)


@pytest.mark.parametrize("beyond", [1, 2**31, 2**32, 2**62])
def test_a_length_of_json_beyond_its_body_is_refused(line: Line, beyond: int) -> None:
    """By a byte or by far, and also where a 32-bit number would wrap around to the right one."""
    assert_refused(line.ask(infer("m", RIGHT, json_length(len(RIGHT) + beyond))), 400)


def test_headers_with_underscores_mean_nothing(line: Line) -> None:
    """Some proxies write them so; here they are other headers, which nobody asks for."""
    odd = [
        (b"inference_header_content_length", b"10"),
        (b"content_length", b"3"),
        (b"content_encoding", b"gzip"),
        (b"transfer_encoding", b"chunked"),
        (b"content_type", b"image/png"),
    ]
    for each in odd:
        assert line.ask(infer("m", RIGHT, each)).status == 200, each


RESERVED = [
    (b"triton_enable_empty_final_response", b"true"),
    (b"triton-grpc-error", b"true"),
    (b"sequence_id", b"7"),
    (b"priority", b"-1"),
    (b"timeout", b"0"),
    (b"binary_data_output", b"true"),
    (b"parameters", b'{"triton_x": 1}'),
    (b"x-http-method-override", b"DELETE"),
    (b"x-original-url", b"/v2/repository/models/m/unload"),
    (b"x-rewrite-url", b"/v2/repository/models/m/unload"),
    (b"x-forwarded-prefix", b"/../.."),
]


@pytest.mark.parametrize("header", RESERVED)
def test_no_header_stands_for_a_parameter_or_another_path(line: Line, header: tuple[bytes, bytes]) -> None:
    """The answer is the one without it."""
    plain, other = line.ask(infer("m", RIGHT)), line.ask(infer("m", RIGHT, header))
    assert (other.status, other.body) == (plain.status, plain.body)


@pytest.mark.parametrize("count", [100, 5000])
def test_more_headers_than_anybody_has(attacked: Server, line: Line, count: int) -> None:
    """Answered or refused, and others are served."""
    headers = tuple((b"h%d" % each, b"x" * 20) for each in range(count))
    found = line.tell(Stream(infer("m", RIGHT, *headers).wire))
    assert [each.status for each in found] in ([200], [400], [431])


# -- numbers ------------------------------------------------------------------------------------------


WRAPPED = [
    [2**62, 4],
    [2**62 + 1, 4],
    [2**63, 2],
    [2**63 + 1, 2],
    [2**32, 2**32],
    [2**32 + 1, 2**32],
    [2**31 + 1, 2],
    [2**64 + 2],
    [2**32 + 2],
    [-2],
    [-1, -2],
    [1] * 5000,
]


@pytest.mark.parametrize("shape", WRAPPED, ids=lambda shape: str(shape)[:30])
def test_a_shape_whose_size_wraps_around_is_refused(line: Line, shape: list[int]) -> None:
    """To nothing, or to just what is sent; as JSON and as bytes."""
    for data in ([], [1], [1, 2], [1, 2, 3, 4]):
        body = json.dumps({"inputs": [X | {"shape": shape, "data": data}]}).encode()
        assert_refused(line.ask(infer("m", body)), 400)
        blob = np.array(data, np.float32).tobytes()
        entry = {
            "name": "x",
            "shape": shape,
            "datatype": "FP32",
            "parameters": {"binary_data_size": len(blob)},
        }
        text = json.dumps({"inputs": [entry]}).encode()
        assert_refused(line.ask(infer("m", text + blob, json_length(len(text)))), 400)


# -- floods -------------------------------------------------------------------------------------------


def test_orders_and_questions_nested_250_000_deep_are_refused(line: Line) -> None:
    """What is inferred is tried elsewhere."""
    deep = b"[" * 250_000 + b"]" * 250_000
    config = json.dumps({"parameters": {"config": deep.decode()}}).encode()
    for body in (deep, b'{"parameters":' + deep + b"}", b'{"parameters":{"config":' + deep + b"}}", config):
        assert_refused(line.ask(Request(b"/v2/repository/models/m/load", body)), 400)
        assert_refused(line.ask(Request(b"/v2/repository/models/m/unload", deep)), 400)
    assert_refused(line.ask(Request(b"/v2/repository/index", b'{"ready":' + deep + b"}")), 400)


@pytest.mark.skipif(not HAS_PROC, reason="no /proc")
def test_a_flood_of_chunks_takes_no_memory_and_stops_nobody(attacked: Server, line: Line) -> None:
    """A request in chunks of one byte each, up to the limit; others are answered meanwhile."""
    head = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    padded = RIGHT.rjust(LIMIT // 4)
    before = Memory.of(attacked.process.pid)
    host, _, port = attacked.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as flooding:
        flooding.sendall(head)
        for start in range(0, len(padded), 2**14):
            flooding.sendall(b"".join(b"1\r\n%c\r\n" % byte for byte in padded[start : start + 2**14]))
            assert line.ask(infer("m", RIGHT)).status == 200
        flooding.sendall(b"0\r\n\r\n")
        assert flooding.recv(100).startswith(b"HTTP/1.1 200 ")
    assert Memory.of(attacked.process.pid).resident - before.resident < GROWTH_MIB


@pytest.mark.skipif(not HAS_PROC, reason="no /proc")
def test_bodies_that_are_refused_compressed_are_forgotten(attacked: Server, line: Line) -> None:
    """Too long, cut, damaged: nothing of two hundred of them is kept."""
    gzipped = (b"content-encoding", b"gzip")
    bomb = gzip.compress(bytes(64 * LIMIT), 9)
    whole = gzip.compress(np.random.default_rng(0).bytes(LIMIT // 2))
    damaged = whole[:1000] + bytes(8) + whole[1008:]
    for _ in range(5):
        line.ask(infer("m", bomb, gzipped))
    before = Memory.of(attacked.process.pid)
    for _ in range(50):
        for body, statuses in ((bomb, [413]), (whole[:-9], [400]), (damaged, [400]), (whole, [400])):
            assert_refused(line.ask(infer("m", body, gzipped)), *statuses)
    assert Memory.of(attacked.process.pid).resident - before.resident < GROWTH_MIB


# -- what is told -------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "2"])
def test_secrets_of_the_environment_are_told_nowhere(shelf: Shelf, tmp_path: Path, workers: str) -> None:
    """Neither on start nor later, neither in the log nor on a page, also where everything is logged."""
    names = ["AWS_SECRET_ACCESS_KEY", "DATABASE_URL", "HF_TOKEN", "INFOLD_UNKNOWN", "SSLKEYLOGFILE_PASSWORD"]
    environment = dict.fromkeys(names, CANARY) | {"INFOLD_LOG_LEVEL": "debug", "INFOLD_WORKERS": workers}
    pages = b"/ /v2 /v2/models /v2/models/m /v2/models/m/config /v2/models/stats /metrics".split()
    pages += b"/openapi.json /docs".split()
    with running(shelf.root, tmp_path / "log", **environment) as server:
        with Line(server.address) as line:
            for page in pages:
                answer = line.ask(Request(page, method=b"GET"))
                assert answer.status == 200 and CANARY.encode() not in answer.body, page
            line.ask(Request(b"/nowhere", method=b"GET"))
            line.ask(infer("m", b"{"))
        assert server.stop() == 0
        assert CANARY not in server.log.read_text()


def test_a_start_that_fails_tells_no_secret(tmp_path: Path) -> None:
    """Only what is wrong."""
    environment = os.environ | {"AWS_SECRET_ACCESS_KEY": CANARY, "INFOLD_DEADLINE_S": "soon"}
    command = [sys.executable, "-m", "infold", "serve", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 2
    assert CANARY not in done.stdout + done.stderr


# -- readers that leave ---------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("gone", ["stdout", "stderr", "both"])
def test_nobody_reads_what_it_says(shelf: Shelf, workers: str, gone: str) -> None:
    """A log that has nobody at its end is no reason to die: it answers on, and ends as it should."""
    command = [sys.executable, "-m", "infold", "serve", str(shelf.root), "--port", "0", "--workers", workers]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            address = next(
                found[1] for said in process.stdout if (found := re.search(r"on http://(\S+)", said))
            )
            if gone in ("stdout", "both"):
                process.stdout.close()
            if gone in ("stderr", "both"):
                process.stderr.close()
            with Line(address) as line:
                for _ in range(20):
                    assert line.ask(infer("m", RIGHT)).status == 200
                    assert line.ask(infer("m", b"{")).status == 400
                    assert line.ask(Request(b"/v2/models/m", method=b"GET")).status == 200
            process.terminate()
            if gone == "stdout":
                process.stderr.read()
            assert process.wait(30) == 0
        finally:
            process.kill()


# -- the list -------------------------------------------------------------------------------------------

PAGE = (ROOT / "docs/attacks.md").read_text()


def test_the_list_names_tests_that_exist() -> None:
    """Of every attack one that tries it; and every test of this file is in it."""
    named = re.findall(r"`([a-z0-9_/]+\.py)::(\w+)`", PAGE)
    assert len(named) > 30
    for path, name in named:
        assert re.search(rf"^(async )?def {name}\(", (ROOT / "tests" / path).read_text(), re.MULTILINE), name
    own = re.findall(r"^def (test_\w+)\(", Path(__file__).read_text(), re.MULTILINE)
    told = {name for path, name in named if path == "e2e/test_attacks.py"}
    assert set(own) - told == {"test_the_list_names_tests_that_exist"}
