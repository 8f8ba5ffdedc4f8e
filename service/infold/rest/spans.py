"""Spans of requests for an OpenTelemetry collector, exported in the background.

One span a request, with one below it for each stage that it went through, laid end
to end. What the collector does not take in time is dropped: no request waits for it.
This module needs the SDK and is imported only where spans are wanted. The SDK's
global providers stay as they are, or other libraries would begin to trace too.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
    set_span_in_context,
)
from starlette.types import Scope

from infold import __version__
from infold.logs import request_id
from infold.rest.trace_context import TRACESTATE, TraceParent
from infold.rest.tracing import Trace

__all__ = ["Spans", "exporting_to"]

log = logging.getLogger(__name__)

# What is not sent by then, when the service ends, is lost.
FLUSH_S = 5.0
METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
LONGEST_PATH = 512
# What W3C asks for at least; what does not fit is left out, as it allows.
LONGEST_STATE = 512


def exporting_to(address: str) -> SpanProcessor:
    """What sends spans to a collector, from a thread of its own, over OTLP in protobuf.

    Args:
        address: Where it takes traces.
    """
    return BatchSpanProcessor(OTLPSpanExporter(endpoint=address))


class Spans:
    """Decides whose request has a span, and makes it.

    Args:
        share: Of requests with tensors that are part of no trace.
        processor: Takes spans that are over.
    """

    def __init__(self, share: float, processor: SpanProcessor) -> None:
        self._share = share
        self._provider = TracerProvider(ALWAYS_ON, _resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("infold", __version__)

    def begin(self, parent: TraceParent | None, scope: Scope) -> Trace | None:
        """A trace with a span for this request; None if it is to have none.

        A caller's decision is followed. Who brings none is asked by chance, and only with tensors:
        probes and scrapes come all the time, and tell nothing.
        """
        if parent is not None:
            context = _context_of(parent, scope) if parent.is_sampled else None
        else:
            is_chosen = scope["method"] == "POST" and random.random() < self._share
            context = Context() if is_chosen else None
        if context is None:
            return None
        began_ns = time.time_ns()
        span = self._tracer.start_span(scope["method"], context, SpanKind.SERVER, start_time=began_ns)
        # Where OTEL_SDK_DISABLED is set, the SDK gives out spans that are none.
        return _SpannedTrace(self._tracer, span, scope, began_ns) if span.is_recording() else None

    async def close(self) -> None:
        """What is over is sent, or given up after `FLUSH_S`."""
        closing = threading.Thread(target=self._provider.shutdown, name="infold-spans", daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, FLUSH_S)
        if closing.is_alive():
            log.warning("spans not sent", extra={"waited_s": FLUSH_S})


class _SpannedTrace(Trace):
    """A trace whose request has a span."""

    def __init__(self, tracer: Tracer, span: Span, scope: Scope, began_ns: int) -> None:
        super().__init__(f"{span.get_span_context().trace_id:032x}", began_ns)
        self._tracer, self._span = tracer, span
        # Not the scope itself, which holds the body: a timer's context may keep this for a while.
        self._url = {"url.path": scope["path"][:LONGEST_PATH], "url.scheme": scope.get("scheme", "http")}

    def end(self, method: str, route: str, status: int, seconds: float) -> None:
        """See `Trace`."""
        span = self._span
        known = method if method in METHODS else "_OTHER"
        if route != "unmatched":
            span.update_name(f"{known} {route}")
            span.set_attribute("http.route", route)
        span.set_attributes(
            {
                "http.request.method": known,
                "http.response.status_code": status,
                **self._url,
                "infold.request_id": request_id.get(),
            }
        )
        if self.model:
            span.set_attribute("infold.model", self.model)
            span.set_attribute("infold.version", self.version)
        if self.took is not None:
            span.set_attribute("infold.rows", self.took.rows)
        if self.reason:
            span.set_attribute("error.type", self.reason)
        if status >= 500:
            span.set_status(StatusCode.ERROR)
        self._add_stages()
        span.end(self.began_ns + _ns(seconds))

    def _add_stages(self) -> None:
        below, at = set_span_in_context(self._span, Context()), self.began_ns
        for stage, seconds in self.stages():
            child = self._tracer.start_span(stage, below, start_time=at)
            at += _ns(seconds)
            child.end(at)


def _context_of(parent: TraceParent, scope: Scope) -> Context:
    """The caller's span, for ours to be below it."""
    states = [str(value, "latin-1") for name, value in scope["headers"] if name == TRACESTATE]
    if sum(map(len, states)) > LONGEST_STATE:
        states = []
    caller = SpanContext(
        int(parent.trace_id, 16),
        int(parent.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
        trace_state=TraceState.from_header(states),
    )
    return set_span_in_context(NonRecordingSpan(caller), Context())


def _resource() -> Resource:
    """Who we are; what OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say comes first."""
    told = Resource.create()
    ours = {"service.version": __version__}
    if str(told.attributes.get("service.name", "")).startswith("unknown_service"):
        ours["service.name"] = "infold"
    return told.merge(Resource(ours))


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
