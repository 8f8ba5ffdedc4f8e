"""The trace that a request is part of: its id in the log, and a span for a collector.

The id is taken from the caller's header whether spans are exported or not. What is
exported is made, once the request is over, of numbers that are there anyway; a
request that is part of no trace costs a look for the header.
"""

from __future__ import annotations

import time
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.types import Scope

from infold import logs
from infold.errors import ConfigError, reason_of
from infold.rest.stages import STAGES
from infold.rest.trace_context import TRACEPARENT, parent_of
from infold.serving import Took
from infold.settings import Settings

if TYPE_CHECKING:
    from infold.rest.spans import Spans

__all__ = ["Trace", "begin", "current", "spans_of"]

PLACE = "INFOLD_TRACE_ENDPOINT"
# Where a collector takes traces, if its address says nothing else.
PATH = "/v1/traces"

# The one whose request is answered in this context; None for nearly all.
current: ContextVar[Trace | None] = ContextVar("infold_trace", default=None)


class Trace:
    """What is known of a request that is part of a trace.

    Attributes:
        trace_id: 32 hexadecimal digits.
        began_ns: When the request came, in Unix time.
        model: Whose request it is, once that is known.
        version: Of that model.
        read_s: What reading its body took.
        took: What came then; None unless it was answered.
        reason: Why it was not answered; empty if it was.
    """

    def __init__(self, trace_id: str, began_ns: int) -> None:
        self.trace_id = trace_id
        self.began_ns = began_ns
        self.model, self.version = "", 0
        self.read_s = 0.0
        self.took: Took | None = None
        self.reason = ""
        self._tokens: tuple[Token[str], Token[Trace | None]] | None = None

    def answered(self, model: str, version: int, read_s: float, took: Took) -> None:
        """Its answer is on the way."""
        self.model, self.version, self.read_s, self.took = model, version, read_s, took

    def failed(self, failure: BaseException) -> None:
        """It is not answered; the error itself, which holds the request's frames, is not kept."""
        self.reason = reason_of(failure)
        if (asked_of := getattr(failure, "asked_of", None)) is not None:
            self.model, self.version = asked_of[0], asked_of[1] or 0

    def stages(self) -> list[tuple[str, float]]:
        """Seconds of each stage that there was, in the order that is usual."""
        if self.took is None:
            return []
        times = (self.read_s, *self.took[1:])
        return [(stage, seconds) for stage, seconds in zip(STAGES, times, strict=True) if seconds > 0]

    def enter(self) -> None:
        """From here on it is the current one, and every line of the log has its id."""
        self._tokens = logs.trace_id.set(self.trace_id), current.set(self)

    def leave(self) -> None:
        """What comes next in this context is not part of it."""
        if self._tokens is not None:
            logs.trace_id.reset(self._tokens[0])
            current.reset(self._tokens[1])

    def end(self, method: str, route: str, status: int, seconds: float) -> None:
        """The request is over; if it has a span, that is, too."""


def begin(scope: Scope, headers: dict[bytes, bytes], spans: Spans | None) -> Trace | None:
    """The trace that a request is part of, entered; None if it is part of none.

    Args:
        scope: Of the request.
        headers: Its own, by name.
        spans: Makes spans; None where nobody wants them.
    """
    parent = None
    if TRACEPARENT in headers:
        parent = parent_of([value for name, value in scope["headers"] if name == TRACEPARENT])
    elif spans is None and not logs.trace_id.get():
        return None
    trace = None if spans is None else spans.begin(parent, scope)
    if trace is None and parent is not None:
        trace = Trace(parent.trace_id, time.time_ns())
    if trace is not None:
        trace.enter()
    elif logs.trace_id.get():
        # It came in one piece with an earlier request, whose answer it was begun from.
        logs.trace_id.set("")
        current.set(None)
    return trace


def spans_of(settings: Settings) -> Spans | None:
    """What makes spans, as the settings say; None where nobody wants them.

    Raises:
        ConfigError: The endpoint is no address, or OpenTelemetry is not installed.
    """
    if not settings.trace_endpoint:
        return None
    address = _address(settings.trace_endpoint)
    try:
        from infold.rest.spans import Spans, exporting_to
    except ImportError as missing:
        detail = f"spans need OpenTelemetry: pip install 'infold[otel]' ({missing})"
        raise ConfigError(PLACE, detail) from missing
    return Spans(settings.trace_share, exporting_to(address))


def _address(endpoint: str) -> str:
    """Where traces are sent to.

    Raises:
        ConfigError: It is no address.
    """
    try:
        parts = urlsplit(endpoint)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise ConfigError(PLACE, f"'{endpoint}' is no http or https address")
    return endpoint.rstrip("/") + PATH if parts.path in ("", "/") and not parts.query else endpoint
