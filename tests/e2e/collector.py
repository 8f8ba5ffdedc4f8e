"""An OpenTelemetry collector that keeps what it is sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

Span = dict[str, Any]


class Collector:
    """What came to it.

    Attributes:
        url: Its address, without a path.
        paths: Of all requests.
        is_down: Answers 503 from now on.
    """

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.is_down = False
        self._bodies: list[bytes] = []
        self._came = threading.Condition()
        self.url = ""

    def take(self, path: str, body: bytes) -> None:
        """One request."""
        with self._came:
            self.paths.append(path)
            self._bodies.append(body)
            self._came.notify_all()

    def spans(self, at_least: int = 0) -> list[Span]:
        """All that came, once there are so many."""
        with self._came:
            assert self._came.wait_for(lambda: len(self._read()) >= at_least, 20), self._read()
            return self._read()

    def _read(self) -> list[Span]:
        found = []
        for body in self._bodies:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                (service,) = [
                    each.value.string_value
                    for each in resource.resource.attributes
                    if each.key == "service.name"
                ]
                for scope in resource.scope_spans:
                    found += [_plain(span) | {"service": service} for span in scope.spans]
        return found


def _plain(span: Any) -> Span:
    attributes = {}
    for each in span.attributes:
        kind = each.value.WhichOneof("value")
        attributes[each.key] = getattr(each.value, kind)
    return {
        "name": span.name,
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "kind": span.kind,
        "begin": span.start_time_unix_nano,
        "end": span.end_time_unix_nano,
        "attributes": attributes,
    }


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if not collector.is_down:
                collector.take(self.path, body)
            self.send_response(503 if collector.is_down else 200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield collector
        server.shutdown()
