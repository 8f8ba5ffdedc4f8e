"""The trace that a caller's request is part of, as its header says.

Source: W3C Trace Context, level 2: `traceparent`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["TRACEPARENT", "TRACESTATE", "TraceParent", "parent_of"]

TRACEPARENT, TRACESTATE = b"traceparent", b"tracestate"
# What a later version has behind the flags is its own.
FORM = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
SAMPLED = 1


@dataclass(frozen=True, slots=True)
class TraceParent:
    """Where in a trace a caller is.

    Attributes:
        trace_id: Of the trace, 32 hexadecimal digits.
        span_id: Of the caller's own span, 16 of them.
        is_sampled: The caller records the trace.
    """

    trace_id: str
    span_id: str
    is_sampled: bool


def parent_of(values: list[bytes]) -> TraceParent | None:
    """What the `traceparent` headers of a request say; None unless there is one, and it is valid."""
    if len(values) != 1 or (found := FORM.fullmatch(values[0])) is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == b"00" and more is not None:
        return None
    return TraceParent(trace_id.decode(), span_id.decode(), bool(int(flags, 16) & SAMPLED))
