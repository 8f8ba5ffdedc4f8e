"""What the routes work on: the models of this process, and what answers requests for them.

Where there are several workers, health and metrics are those of all of them.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.types import ASGIApp

from infold.errors import (
    ModelNotFoundError,
    ModelNotReadyError,
    RepositoryError,
    SessionError,
)
from infold.rest import tracing
from infold.rest.access.cors import open_to
from infold.rest.access.guard import guard_of
from infold.rest.answering import Answering
from infold.rest.bounds import Bounds
from infold.rest.control import Control, asked_at_start, rejected_at_start
from infold.rest.counting import Snapshot
from infold.rest.edge import Edge
from infold.rest.metrics import Metrics
from infold.rest.peers import Peers
from infold.rest.problems import Problems, our_words
from infold.rest.starting import tell_unused_name
from infold.rest.triton_compat import triton_words
from infold.rest.v2_models import least_far
from infold.rest.wire import Endpoint
from infold.runtime import Cache, Placement
from infold.runtime.cores import cores_of_process
from infold.serving import (
    ALL,
    ModelManager,
    ModelRepository,
    ModelState,
    State,
    Trial,
    Watch,
    follow,
)
from infold.settings import ModelControl, Settings

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
        answering = Answering(self.models, settings, self.metrics, self.bounds.in_flight)
        way = self.problems, settings.compress_responses, self.bounds.in_flight, self.refused
        infer, predict = answering.infer, answering.predict
        self.endpoints = (
            Endpoint("/v2/models/{model}/infer", INFER, infer, *way, at_once=answering.infer_at_once),
            Endpoint("/v1/models/{model}:predict", PREDICT, predict, *way, at_once=answering.predict_at_once),
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
# Paths of the routes that carry tensors; their groups are model and version.
INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
PREDICT = re.compile(r"/v1/models/([^/:]+)(?:/versions/([^/:]+)|/labels/([^/:]+))?:predict")
