"""A small server of protocol v2 for tests: answers `double`, as it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

Reply = tuple[int, bytes, dict[str, str]]
Respond = Callable[[int, bytes, dict[str, str]], Reply]

METADATA = {
    "name": "double",
    "versions": ["1"],
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
}


def doubled(number: int, body: bytes, headers: dict[str, str]) -> Reply:
    """The right answer to a JSON body."""
    del number, headers
    (given,) = json.loads(body)["inputs"]
    output = {**given, "name": "y", "data": [2 * each for each in given["data"]]}
    return 200, json.dumps({"model_name": "double", "outputs": [output]}).encode(), {}


def doubled_in_binary(number: int, body: bytes, headers: dict[str, str]) -> Reply:
    """The right answer to a body of the binary extension, which must be exactly as it is specified."""
    del number
    if headers.get("inference-header-content-length") is None:
        return 400, b'{"error": "no binary extension"}', {}
    length = int(headers["inference-header-content-length"])
    content = json.loads(body[:length])
    (given,) = content["inputs"]
    size = given["parameters"]["binary_data_size"]
    assert content["parameters"] == {"binary_data_output": True} and "data" not in given
    assert size == len(body) - length == 4 * int(np.prod(given["shape"]))
    raw = (2 * np.frombuffer(body[length:], "<f4")).tobytes()
    output = {**given, "name": "y", "parameters": {"binary_data_size": len(raw)}}
    text = json.dumps({"model_name": "double", "outputs": [output]}).encode()
    return 200, text + raw, {"Inference-Header-Content-Length": str(len(text))}


@contextmanager
def stub(respond: Respond, pages: dict[str, Any] | None = None) -> Iterator[str]:
    """A server in a thread of its own; its URL.

    Args:
        respond: Answers POST number n (from 0) with this body and these lower-case headers.
        pages: What GET answers by path; anything else is 404.
    """
    known = {"/v2": {"name": "stub"}, "/v2/models": {"models": ["double"]}, "/v2/models/double": METADATA}
    known = known if pages is None else pages
    lock, count = threading.Lock(), 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            found = known.get(self.path)
            self._send(200 if found is not None else 404, json.dumps(found).encode(), {})

        def do_POST(self) -> None:
            nonlocal count
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v2/repository/index":
                self._send(404, b"", {})
                return
            with lock:
                number, count = count, count + 1
            self._send(*respond(number, body, {n.lower(): v for n, v in self.headers.items()}))

        def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
