"""What callers reach: who may come in, how long a body may be, and whose replica answers.

It knows nothing of Ray. A body is read here and not looked at; a replica's answer goes back
as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infold.cluster.failures import FixedModelsError
from infold.cluster.inside import NOBODY
from infold.cluster.questions import Answer, Deployed, Headers, Question
from infold.cluster.routing import Kind, Target, target_of
from infold.cluster.whole import Whole
from infold.errors import DeadlineExceededError, InfoldError, ModelNotFoundError
from infold.logs import request_id
from infold.rest.access.cors import open_to
from infold.rest.access.guard import guard_of
from infold.rest.access.scopes import routed_path
from infold.rest.bounds import Bounds
from infold.rest.connection import ClientGone
from infold.rest.counting import Snapshot
from infold.rest.deadlines import OURS, timeout_of
from infold.rest.edge import Edge
from infold.rest.metrics import Metrics
from infold.rest.problems import Problems, error_body, headers_of, our_words
from infold.rest.triton_compat import triton_words
from infold.rest.wire import headers_by_name, read_body, respond
from infold.serving import clock
from infold.settings import Settings

__all__ = ["Ingress"]

# After its deadline a request is waited for so much longer: its replica knows better why it is late.
SLACK_S = 0.25


class Ingress:
    """The application's ASGI app.

    Args:
        settings: Of all models.
        of_model: Settings of each model, by its name.
        deployed: The replicas of each model, by its name.
        may_sleep: Models that may have no replica while nobody asks.

    Attributes:
        whole: Answers for the application as a whole.
    """

    def __init__(
        self,
        settings: Settings,
        of_model: Mapping[str, Settings],
        deployed: Mapping[str, Deployed],
        may_sleep: frozenset[str] = frozenset(),
    ) -> None:
        self._settings = settings
        self._of_model = of_model
        self._deployed = deployed
        self._in_flight = Bounds.of(settings).in_flight
        self.metrics = Metrics()
        self.whole = Whole(settings, deployed, may_sleep)
        self._problems: Problems = triton_words if settings.triton_compat else our_words
        edge = Edge(self._answer, self.metrics, guard=guard_of(settings))
        self._app: ASGIApp = open_to(settings.cors_origins, edge)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return

        async def without_id(message: Message) -> None:
            if message["type"] == "http.response.start":  # Ray's proxy adds the same one itself
                message["headers"] = [each for each in message["headers"] if each[0] != b"x-request-id"]
            await send(message)

        await self._app(scope, receive, without_id)

    def snapshot(self) -> Snapshot:
        """What this ingress has counted."""
        return self.metrics.snapshot({}, self._in_flight.held_bytes)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What is behind the edge."""
        path = routed_path(scope)
        target = target_of(scope["method"], path)
        scope["route"] = SimpleNamespace(path=target.route)
        # Bodies go on as they come, compressed or not.
        plain = [each for each in scope["headers"] if each[0] != b"content-encoding"]
        request = {"type": "http", "method": scope["method"], "path": path, "headers": plain}
        try:
            answer = await self._of(target, path, scope, request, receive)
        except InfoldError as failure:
            self.metrics.refused(failure)
            status, text = self._problems(failure, target.model)
            await respond(send, status, (error_body(text),), headers=headers_of(failure))
            return
        finally:
            self._in_flight.give_back(request)
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _of(self, target: Target, path: str, scope: Scope, request: Scope, receive: Receive) -> Answer:
        if target.kind is Kind.ORDER:
            raise FixedModelsError
        if target.kind not in (Kind.MODEL, Kind.ANY):
            body = b"" if target.kind is not Kind.INDEX else await self._body(request, receive, 30.0)
            return await self.whole.answer(target, body)
        model = target.model if target.kind is Kind.MODEL else min(self._deployed)
        if model is None or model not in self._deployed:
            raise ModelNotFoundError(str(model))
        return await self._ask(model, path, scope, request, receive)

    async def _ask(self, model: str, path: str, scope: Scope, request: Scope, receive: Receive) -> Answer:
        """A replica's answer, within the time that the request has."""
        began, settings = clock(), self._of_model[model]
        timeout_s = timeout_of(headers_by_name(request), settings.deadline_s)
        body = b""
        if scope["method"] not in ("GET", "HEAD"):
            body = await self._body(request, receive, min(timeout_s, settings.body_timeout_s), settings)
        left_s = timeout_s - (clock() - began)
        # The id is the one in the access line, and the time what is left of it.
        headers: Headers = [each for each in scope["headers"] if each[0] not in (b"x-request-id", OURS)]
        headers.append((b"x-request-id", request_id.get().encode()))
        headers.append((OURS, b"%d" % max(1, left_s * 1000)))
        question = Question(scope["method"], path, scope.get("query_string", b""), headers)
        try:
            async with asyncio.timeout(max(0.0, left_s) + SLACK_S):
                answer = await self._deployed[model].ask(question, body)
        except TimeoutError as late:
            raise DeadlineExceededError(clock() - began) from late
        if answer.status == NOBODY:
            raise ClientGone
        return answer

    async def _body(
        self, request: Scope, receive: Receive, timeout_s: float, settings: Settings | None = None
    ) -> bytes:
        limit_bytes = (settings or self._settings).max_body_bytes
        return bytes(await read_body(request, receive, limit_bytes, timeout_s, self._in_flight))


async def _live(receive: Receive, send: Send) -> None:
    """The lifespan of an app that has nothing to start: its replicas start by themselves."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
