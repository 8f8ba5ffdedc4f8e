"""What the routes work on: requests in, replies out, over the models of this process.

Where there are several workers, health and metrics are those of all of them.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from starlette.types import ASGIApp, Receive, Scope

from infold.errors import (
    BodyTimeoutError,
    DeadlineExceededError,
    InfoldError,
    MalformedBodyError,
    ModelNotFoundError,
    ModelNotReadyError,
    OverloadedError,
    RepositoryError,
    SessionError,
)
from infold.logs import request_id
from infold.rest import tracing, v2
from infold.rest.access.cors import open_to
from infold.rest.access.guard import guard_of
from infold.rest.at_once import AtOnce
from infold.rest.bounds import Bounds
from infold.rest.control import Control, asked_at_start, rejected_at_start
from infold.rest.counting import Snapshot
from infold.rest.deadlines import timeout_of
from infold.rest.edge import Edge
from infold.rest.messages import infer_work, predict_work
from infold.rest.metrics import Metrics, ModelCounts
from infold.rest.peers import Peers
from infold.rest.problems import Problems, our_words
from infold.rest.replies import infer_reply, predict_reply
from infold.rest.reply import Reply
from infold.rest.stages import server_timing
from infold.rest.starting import tell_unused_name
from infold.rest.triton_compat import triton_words
from infold.rest.uploads import Form, Upload, form_of, refuse_if_unfit, tensors_of
from infold.rest.v2_models import least_far
from infold.rest.wire import LABEL, Endpoint, header, headers_by_name, left, read_body
from infold.runtime import Cache, Placement
from infold.runtime.cores import cores_of_process
from infold.serving import (
    ALL,
    Asked,
    ModelManager,
    ModelRepository,
    ModelState,
    Servable,
    State,
    Trial,
    Watch,
    Work,
    clock,
    follow,
)
from infold.settings import ModelControl, Settings
from infold.tensors import Array

__all__ = ["Service", "edge_of"]


class Service:
    """What the routes work on; where there are several workers, health and metrics are those of all.

    Args:
        settings: What to serve.
        placement: The device that runs the models.
        peers: The other workers; None if this process is all of it.
        repository: Where models lie; by default where the settings say.
        cores: That runs may take in this process; by default its part of those that it may use.
    """

    def __init__(
        self,
        settings: Settings,
        placement: Placement,
        peers: Peers | None = None,
        repository: ModelRepository | None = None,
        cores: int = 0,
    ) -> None:
        self.settings = settings
        self.peers = peers or Peers()
        self.bounds = Bounds.of(settings)
        self.metrics = Metrics(self.bounds.refused)
        self.spans = tracing.spans_of(settings)
        self._repository = repository or ModelRepository(
            settings.repository, settings.finished_marker, settings.model_name
        )
        cache = Cache(settings.cache_folder)
        cores = cores or cores_of_process().each(settings.workers)
        self.manager = ModelManager(
            self._repository,
            placement,
            self.metrics,
            cache,
            cores,
            settings.workers,
            asked_at_start(settings, self.peers),
            rejected_at_start(self.peers),
            settings.required_models,
            Trial(settings.load_timeout_s, settings.load_memory_bytes) if settings.load_trial else None,
        )
        self.models = self.manager.catalogue
        is_allowed = settings.admin or settings.model_control is ModelControl.EXPLICIT
        self.control = Control(self.manager, self.peers, is_allowed=is_allowed)
        self.problems: Problems = triton_words if settings.triton_compat else our_words
        self._has_halves = not settings.triton_compat
        way = self.problems, settings.compress_responses, self.bounds.in_flight, self.refused
        self.endpoints = (
            Endpoint("/v2/models/{model}/infer", INFER, self.infer, *way, at_once=self.infer_at_once),
            Endpoint("/v1/models/{model}:predict", PREDICT, self.predict, *way, at_once=self.predict_at_once),
        )
        self._following: asyncio.Future[Any] | None = None
        self._has_started = False
        self._answer_peers()

    async def start(self) -> None:
        """Load every model that is wanted from the start; a version that fails is told of in the log.

        Raises:
            SessionError: A model that is required has no version that loads; names all reasons.
            RepositoryError, ConfigError: The repository, or such a model of it, cannot be read.
        """
        if ALL in self.manager.asked:
            await self.manager.ask_for_all()
        await self.manager.reconcile()
        missing = self.models.missing()
        for name in missing:
            model = self.models.held.get(name)
            if model is None:
                raise RepositoryError(self.settings.repository / name, "is required, and is no model")
            if model.refusal is not None:
                raise model.refusal
        failed = [
            f"version {each.version}: {each.reason}"
            for each in self.models.states()
            if each.state is State.FAILED and each.model in missing
        ]
        if missing:
            raise SessionError(str(self.settings.repository), "; ".join(failed))
        self._has_started = True
        tell_unused_name(self.settings, self.models.models())
        if self.settings.model_control is ModelControl.POLL:
            watch = Watch(self.settings.repository)
            self._following = asyncio.gather(
                watch.run(),
                follow(self.manager, self._repository, self.settings.poll_s, watch),
                return_exceptions=True,
            )

    def begin_drain(self) -> None:
        """Nothing new is accepted; a start that is not over comes to nothing."""
        self.models.begin_drain()
        self.bounds.is_leaving = True
        if not self._has_started:
            self.manager.stop_loading()

    async def close(self) -> None:
        """Answer what was accepted, then unload everything."""
        if self._following is not None:
            self._following.cancel()
        await self.manager.close()
        if self.spans is not None:
            await self.spans.close()

    def refused(self, failure: BaseException) -> None:
        """A request got this instead of an answer."""
        self.metrics.refused(failure)
        if (trace := tracing.current.get()) is not None:
            trace.failed(failure)

    async def is_ready(self) -> bool:
        """Every worker is there, has a version of every model, and is not going down."""
        return all(await self.peers.gather("ready"))

    async def check_ready(self, model: str, version: int | None) -> None:
        """Return if every worker answers for this model.

        Raises:
            ModelNotFoundError: No such model or version.
            ModelNotReadyError: A worker cannot answer for it.
        """
        number = self.models.find(model, version).version.number
        if not all(await self.peers.gather("model ready", [model, number])):
            raise ModelNotReadyError(model, number, State.LOADING)

    async def snapshots(self) -> list[Snapshot]:
        """What each worker has counted; one that is down counts with what it told last."""
        answers = await self.peers.gather("metrics", kept=True)
        return [msgspec.convert(each, Snapshot) for each in answers if each is not None]

    async def states(self) -> list[ModelState]:
        """Of all versions, in the worker that is least far with each."""
        answers = await self.peers.gather("states")
        return least_far([msgspec.convert(each, list[ModelState]) for each in answers if each is not None])

    def _answer_peers(self) -> None:
        async def ready(_: object) -> bool:
            # A run that nobody waits for any more is ended; one that goes on is stuck, and so is its queue.
            is_stuck = self.manager.longest_run_s > self.settings.deadline_s + STUCK_S
            return self.models.is_ready and not is_stuck

        async def model_ready(asked: object) -> bool:
            model, number = msgspec.convert(asked, tuple[str, int])
            try:
                self.models.find(model, number)
            except (ModelNotFoundError, ModelNotReadyError):
                return False
            return True

        async def metrics(_: object) -> Snapshot:
            return self.metrics.snapshot(self.models.load, self.bounds.in_flight.held_bytes)

        async def states(_: object) -> object:
            return msgspec.to_builtins(self.models.states())

        self.peers.on("ready", ready)
        self.peers.on("states", states)
        self.peers.on("model ready", model_ready)
        self.peers.on("metrics", metrics)

    async def infer(self, model: str, version: str | None, scope: Scope, receive: Receive) -> Reply:
        """Protocol v2: decode, lease, infer, encode."""
        began, json_bytes = clock(), _json_bytes(scope)
        form = _form(scope) if json_bytes is None else Form.JSON
        if form in UPLOADS:
            return await self._upload(model, version, form, scope, receive, infer_reply)
        with self.models.lease(model, self.version(model, version)) as servable:
            body, deadline = await self._body(servable, began, scope, receive)
            work = infer_work(servable, body, json_bytes, halves=self._has_halves)
            return await self._answer(servable, work, began, deadline, receive)

    async def predict(self, model: str, version: str | None, scope: Scope, receive: Receive) -> Reply:
        """TF-Serving's predict: decode, lease, infer, encode."""
        began, form = clock(), _form(scope)
        if form is not Form.JSON:
            return await self._upload(model, version, form, scope, receive, predict_reply)
        with self.models.lease(model, self.version(model, version)) as servable:
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
        number = self.version(model, version)
        if version is not None and version.startswith(LABEL):
            return None  # it may soon be another one's

        def reply_to(body: bytes, waited_s: float) -> Reply | None:
            began = clock() - waited_s
            servable = self.models.find(model, number)
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
                return self.models.find(model, number).is_quick
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
        with self.models.lease(model, self.version(model, version)) as servable:
            reading, signature = servable.reading, servable.signature
            body, deadline = await self._body(servable, began, scope, receive, form)
            told = None if form is Form.ARRAY else reading.class_output

            def decode() -> Asked:
                tensors = tensors_of(upload, body, signature, reading)
                return Asked(tensors, None if told is None else (told,))

            work = Work(decode, lambda results: reply(servable, results, told), is_cheap=False)
            return await self._answer(servable, work, began, deadline, receive)

    def version(self, model: str, text: str | None) -> int | None:
        """The number that a path gives, by itself or as a label; None where it gives none.

        Raises:
            ModelNotFoundError: It is no number, or no label of the model.
        """
        if text is None:
            return None
        if text.startswith(LABEL):
            return self.models.labelled(model, text.removeprefix(LABEL))
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise ModelNotFoundError(model, text)
        return int(text)

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
        settings, timeout_s = self.settings, 0.0
        try:
            refuse_if_unfit(form, servable.signature, servable.reading)
            timeout_s = timeout_of(headers_by_name(scope), settings.deadline_s)
            servable.check_room(began + timeout_s)
            within_s = min(timeout_s, settings.body_timeout_s)
            in_flight = self.bounds.in_flight
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
        return self.metrics.of_model(servable.version.name, servable.version.number)


def edge_of(service: Service, behind: ASGIApp, listeners: Sequence[socket.socket] = ()) -> ASGIApp:
    """The whole service as an ASGI app.

    Args:
        service: What it works on.
        behind: Serves what carries no tensors.
        listeners: Where it listens, the main port first; empty where somebody else does.

    Raises:
        ConfigError: A setting that says who may come in makes no sense.
    """
    guard = guard_of(service.settings, listeners)
    edge = Edge(behind, service.metrics, service.endpoints, service.spans, guard)
    return open_to(service.settings.cors_origins, edge)


# Beyond the deadline of whoever waits for it, a run that still goes on is stuck.
STUCK_S = 10.0
UPLOADS = (Form.PICTURE, Form.PICTURES, Form.ARRAY)
# Paths of the routes that carry tensors; their groups are model and version.
INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
PREDICT = re.compile(r"/v1/models/([^/:]+)(?:/versions/([^/:]+)|/labels/([^/:]+))?:predict")


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
