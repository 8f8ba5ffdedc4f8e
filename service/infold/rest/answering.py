"""From the body of a request to its answer, for every form of request that carries tensors."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Receive, Scope

from infold.errors import (
    BodyTimeoutError,
    DeadlineExceededError,
    InfoldError,
    MalformedBodyError,
    OverloadedError,
)
from infold.logs import request_id
from infold.rest import tracing, v2
from infold.rest.at_once import AtOnce
from infold.rest.deadlines import timeout_of
from infold.rest.in_flight import InFlight
from infold.rest.messages import infer_work, predict_work
from infold.rest.metrics import Metrics, ModelCounts
from infold.rest.replies import infer_reply, predict_reply
from infold.rest.reply import Reply
from infold.rest.stages import server_timing
from infold.rest.uploads import Form, Upload, form_of, refuse_if_unfit, tensors_of
from infold.rest.versions import version_asked
from infold.rest.wire import LABEL, header, headers_by_name, left, read_body
from infold.serving import Asked, Catalogue, Servable, Work, clock
from infold.settings import Settings
from infold.tensors import Array

__all__ = ["Answering"]


class Answering:
    """Leases a version, reads a request for it, answers, and counts how that went.

    Args:
        models: All that are loaded.
        settings: Of the service.
        metrics: Told of every request.
        in_flight: Holds the bodies of requests.
    """

    def __init__(self, models: Catalogue, settings: Settings, metrics: Metrics, in_flight: InFlight) -> None:
        self._models = models
        self._settings = settings
        self._metrics = metrics
        self._in_flight = in_flight
        self._has_halves = not settings.triton_compat

    async def infer(self, model: str, version: str | None, scope: Scope, receive: Receive) -> Reply:
        """Protocol v2: decode, lease, infer, encode."""
        began, json_bytes = clock(), _json_bytes(scope)
        form = _form(scope) if json_bytes is None else Form.JSON
        if form in UPLOADS:
            return await self._upload(model, version, form, scope, receive, infer_reply)
        with self._models.lease(model, version_asked(self._models, model, version)) as servable:
            body, deadline = await self._body(servable, began, scope, receive)
            work = infer_work(servable, body, json_bytes, halves=self._has_halves)
            return await self._answer(servable, work, began, deadline, receive)

    async def predict(self, model: str, version: str | None, scope: Scope, receive: Receive) -> Reply:
        """TF-Serving's predict: decode, lease, infer, encode."""
        began, form = clock(), _form(scope)
        if form is not Form.JSON:
            return await self._upload(model, version, form, scope, receive, predict_reply)
        with self._models.lease(model, version_asked(self._models, model, version)) as servable:
            body, deadline = await self._body(servable, began, scope, receive)
            return await self._answer(servable, predict_work(servable, body), began, deadline, receive)

    def infer_at_once(self, model: str, version: str | None, scope: Scope) -> AtOnce | None:
        """As `infer`, of requests of whose bodies nothing has come yet."""
        json_bytes, halves = _json_bytes(scope), self._has_halves
        if json_bytes is None and _form(scope) in UPLOADS:
            return None
        return self._at_once(
            model, version, lambda servable, body: infer_work(servable, body, json_bytes, halves=halves)
        )

    def predict_at_once(self, model: str, version: str | None, scope: Scope) -> AtOnce | None:
        """As `predict`, of requests of whose bodies nothing has come yet."""
        return None if _form(scope) in UPLOADS else self._at_once(model, version, predict_work)

    def _at_once(
        self, model: str, version: str | None, work_of: Callable[[Servable, bytes], Work[Reply]]
    ) -> AtOnce | None:
        """What answers bodies for a model, or leaves them to the usual way, which may wait for something."""
        number = version_asked(self._models, model, version)
        if version is not None and version.startswith(LABEL):
            return None  # it may soon be another one's

        def reply_to(body: bytes, waited_s: float) -> Reply | None:
            began = clock() - waited_s
            servable = self._models.find(model, number)
            if number is None and servable.version.config.canary.share < 1:
                return None
            work = work_of(servable, body)
            try:
                reply = servable.answer_at_once(work)
            except BaseException as failure:
                self._counts(servable).refused.add(clock() - began)
                _name(failure, servable)
                raise
            if reply is not None:
                self._count(servable, work, reply, began, waited_s)
            return reply

        def is_likely() -> bool:
            try:
                return self._models.find(model, number).is_quick
            except InfoldError:
                return False

        return AtOnce(reply_to, is_likely)

    async def _upload(
        self,
        model: str,
        version: str | None,
        form: Form,
        scope: Scope,
        receive: Receive,
        reply: Callable[[Servable, dict[str, Array], str | None], Reply],
    ) -> Reply:
        """A body without a message around it: of pictures the classes are told, if the model has some."""
        began = clock()
        upload = Upload(form, header(scope, b"content-type") or "")
        with self._models.lease(model, version_asked(self._models, model, version)) as servable:
            reading, signature = servable.reading, servable.signature
            body, deadline = await self._body(servable, began, scope, receive, form)
            told = None if form is Form.ARRAY else reading.class_output

            def decode() -> Asked:
                tensors = tensors_of(upload, body, signature, reading)
                return Asked(tensors, None if told is None else (told,))

            work = Work(decode, lambda results: reply(servable, results, told), is_cheap=False)
            return await self._answer(servable, work, began, deadline, receive)

    async def _answer(
        self, servable: Servable, work: Work[Reply], began: float, deadline: float, receive: Receive
    ) -> Reply:
        """Answer a request and count how that went."""
        read_s = clock() - began
        work.identity = request_id.get()
        try:
            reply = await servable.answer(work, deadline, lambda: left(receive))
        except BaseException as failure:
            self._counts(servable).refused.add(clock() - began)
            _name(failure, servable)
            raise
        self._count(servable, work, reply, began, read_s)
        if (trace := tracing.current.get()) is not None:
            trace.answered(servable.version.name, servable.version.number, read_s, work.took)
        return reply

    def _count(
        self, servable: Servable, work: Work[Reply], reply: Reply, began: float, read_s: float
    ) -> None:
        """A request was answered; whoever asked is told where the time went."""
        counts = self._counts(servable)
        counts.answered.add(clock() - began)
        counts.stages.answered(read_s, work.took)
        if reply.nulls:
            counts.nulls.count += reply.nulls
        reply.headers = (*reply.headers, server_timing(read_s, work.took))

    async def _body(
        self, servable: Servable, began: float, scope: Scope, receive: Receive, form: Form = Form.JSON
    ) -> tuple[bytes | memoryview, float]:
        """The body of a request, and when its answer is due; one that is not taken in counts as refused."""
        settings, timeout_s = self._settings, 0.0
        try:
            refuse_if_unfit(form, servable.signature, servable.reading)
            timeout_s = timeout_of(headers_by_name(scope), settings.deadline_s)
            servable.check_room(began + timeout_s)
            within_s = min(timeout_s, settings.body_timeout_s)
            in_flight = self._in_flight
            body = await read_body(scope, receive, settings.max_body_bytes, within_s, in_flight)
        except BaseException as failure:
            self._counts(servable).refused.add(clock() - began)
            if isinstance(failure, OverloadedError):
                failure.retry_after_s = servable.retry_after_s
            elif isinstance(failure, BodyTimeoutError) and timeout_s < settings.body_timeout_s:
                late = DeadlineExceededError(timeout_s)
                _name(late, servable)
                raise late from failure
            _name(failure, servable)
            raise
        return body, began + timeout_s

    def _counts(self, servable: Servable) -> ModelCounts:
        return self._metrics.of_model(servable.version.name, servable.version.number)


UPLOADS = (Form.PICTURE, Form.PICTURES, Form.ARRAY)


def _json_bytes(scope: Scope) -> int | None:
    """How much of an infer request is JSON, as its header says; None, which is all, without one.

    Raises:
        MalformedBodyError: The header that says so makes no sense.
    """
    if b"inference-header-content-length" not in headers_by_name(scope):
        return None
    text = header(scope, b"inference-header-content-length") or ""
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise MalformedBodyError(f"{v2.HEADER_LENGTH}: '{text}' is no number of bytes")
    return int(text)


def _form(scope: Scope) -> Form:
    return form_of(header(scope, b"content-type"))


def _name(failure: BaseException, servable: Servable) -> None:
    """Say whose request it was that failed so; of errors that nobody foresaw, too."""
    vars(failure)["asked_of"] = servable.version.name, servable.version.number
