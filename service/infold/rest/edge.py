"""The outermost layer: who may come in, one id and one access line a request, and where it goes."""

from __future__ import annotations

import itertools
import logging
import os
import re
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infold.errors import AccessError
from infold.logs import AccessLog, request_id
from infold.rest import deadlines
from infold.rest.access.audit import write_down
from infold.rest.access.scopes import is_order, routed_path
from infold.rest.at_once import Known, Write
from infold.rest.connection import ClientGone, come_body
from infold.rest.metrics import Metrics
from infold.rest.problems import error_body, headers_of, our_words, unknown_body
from infold.rest.reply import REQUEST_ID, of_body
from infold.rest.trace_context import TRACEPARENT
from infold.rest.tracing import begin
from infold.rest.wire import LABEL, Endpoint, header, headers_by_name, respond

if TYPE_CHECKING:
    from infold.rest.access.guard import Guard
    from infold.rest.spans import Spans

__all__ = ["Edge"]

log = logging.getLogger(__name__)

SANE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
# Paths that are longer are looked up each time they come.
LONGEST_KEPT = 512


# Headers that say something of one request alone, or ask for more than an answer to its body.
OF_ONE_REQUEST = frozenset(
    (
        b"content-encoding",
        b"expect",
        b"transfer-encoding",
        b"upgrade",
        REQUEST_ID,
        deadlines.OURS,
        deadlines.ENVOY,
        TRACEPARENT,
    )
)


class Edge:
    """The outermost layer: request id, access line, metrics, and an answer to what nobody caught.

    Requests that carry tensors go straight to their endpoint; the app behind serves the rest.

    Args:
        app: Serves what no endpoint does.
        metrics: Told of each answer.
        endpoints: For POST.
        spans: Makes spans; None where nobody wants them.
        guard: Says who may come in; None lets everybody.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        endpoints: Sequence[Endpoint] = (),
        spans: Spans | None = None,
        guard: Guard | None = None,
    ) -> None:
        self._app = app
        self._spans = spans
        self._guard = guard
        self._metrics = metrics
        self._endpoints = endpoints
        self._access = AccessLog("infold.access")
        self._prefix = os.urandom(10).hex()
        self._count = itertools.count()
        self._find = lru_cache(maxsize=256)(self._look_up)  # few paths come often

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        method, path = scope["method"], scope["path"]
        identity = self._identity(scope)
        token = request_id.set(identity)
        trace = begin(scope, headers_by_name(scope), self._spans)
        route, status, sent_bytes = "unmatched", 0, 0
        is_asked_to_obey = False
        try:
            if self._guard is not None:
                self._guard.check(scope)
            if method == "POST" and (found := self._endpoint(path)) is not None:
                endpoint, model, model_version = found
                route = endpoint.route
                headers = [(REQUEST_ID, identity.encode())]
                status, sent_bytes = await endpoint.serve(model, model_version, scope, receive, send, headers)
            else:
                is_asked_to_obey = is_order(method, routed_path(scope))
                answer = _Answer(send, identity)
                try:
                    await self._app(scope, receive, answer.send)
                finally:
                    route = str(getattr(scope.get("route"), "path", route))
                    status, sent_bytes = answer.status, answer.sent_bytes
        except ClientGone:
            status = 499
        except AccessError as refusal:
            self._metrics.refused(refusal)
            route, is_asked_to_obey = "refused", is_order(method, routed_path(scope))
            status, sent_bytes = await _turned_away(refusal, receive, _Answer(send, identity).send)
        except Exception as failure:
            log.exception("request failed")
            self._metrics.refused(failure)
            if trace is not None:
                trace.failed(failure)
            if status == 0:
                status = 500
                sent_bytes = await respond(_Answer(send, identity).send, 500, (unknown_body(identity),))
        finally:
            seconds = time.perf_counter() - started
            self._metrics.answered(route, method, status or 499, seconds)
            traced = "" if trace is None else trace.trace_id
            self._access.line(method, path, status or 499, seconds, sent_bytes, identity, traced)
            if is_asked_to_obey:
                write_down(scope, status or 499)
            if trace is not None:
                trace.end(method, route, status or 499, seconds)
                trace.leave()
            request_id.reset(token)

    def known(self, scope: Scope) -> Known | None:
        """What the head of a request says of all that begin with it; None where there is more to each."""
        if self._guard is not None or self._spans is not None or scope["method"] != "POST":
            return None
        if not OF_ONE_REQUEST.isdisjoint(headers_by_name(scope)):
            return None
        found = self._endpoint(scope["path"])
        if found is None:
            return None
        endpoint, model, version = found
        return endpoint.known(model, version, scope)

    def answer_at_once(self, known: Known, body: bytes, write: Write, waited_s: float = 0.0) -> bool:
        """True if a request was answered before this returns; False, with nothing done, if not.

        Args:
            known: What its head says.
            body: All of it.
            write: Takes the answer.
            waited_s: Since the request began.
        """
        started = time.perf_counter() - waited_s
        identity = self._new_identity()
        token = request_id.set(identity)
        try:
            answered = known.answer(body, waited_s)
        except Exception:  # nobody foresaw it; the usual way meets it again, and tells of it
            return False
        finally:
            request_id.reset(token)
        if answered is None:
            return False
        status, reply = answered
        body = b"".join(reply.parts)
        own = (REQUEST_ID, identity.encode())
        write(status, [*of_body(reply.content_type, len(body)), own, *reply.headers], body)
        seconds = time.perf_counter() - started
        self._metrics.answered(known.route, "POST", status, seconds)
        self._access.line("POST", known.path, status, seconds, len(body), identity)
        return True

    def _identity(self, scope: Scope) -> str:
        """The request's id: the caller's own if it is sane, else one that never comes again."""
        given = header(scope, REQUEST_ID)
        return given if given and SANE_ID.fullmatch(given) else self._new_identity()

    def _new_identity(self) -> str:
        return f"{self._prefix}{next(self._count):012x}"

    def _endpoint(self, path: str) -> tuple[Endpoint, str, str | None] | None:
        """As `_look_up`; what is long is nobody's to keep."""
        return self._find(path) if len(path) <= LONGEST_KEPT else self._look_up(path)

    def _look_up(self, path: str) -> tuple[Endpoint, str, str | None] | None:
        """The endpoint of a path that carries tensors, with model and version."""
        for endpoint in self._endpoints:
            if found := endpoint.path.fullmatch(path):
                labels = found.groups()[2:]  # a version may have a name instead of a number
                return endpoint, found[1], LABEL + labels[0] if labels and labels[0] else found[2]
        return None


async def _turned_away(refusal: AccessError, receive: Receive, send: Send) -> tuple[int, int]:
    """Answer with a refusal; what is still to come of the request is not waited for."""
    status, text = our_words(refusal, None)
    headers = headers_of(refusal)
    if come_body(receive) is None:
        headers.append((b"connection", b"close"))
    return status, await respond(send, status, (error_body(text),), headers=headers)


class _Answer:
    """Adds the request's id to an answer of the app behind, and remembers what was sent."""

    __slots__ = ("_header", "_send", "sent_bytes", "status")

    def __init__(self, send: Send, identity: str) -> None:
        self._send = send
        self._header = (REQUEST_ID, identity.encode())
        self.status = 0
        self.sent_bytes = 0

    async def send(self, message: Message) -> None:
        """See ASGI."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), self._header]
        else:
            self.sent_bytes += len(message.get("body", b""))
        await self._send(message)
