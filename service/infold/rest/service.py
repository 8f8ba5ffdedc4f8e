"""What the routes work on: requests in, replies out, over the models of this process.

Where there are several workers, health and metrics are those of all of them.
"""

from __future__ import annotations

import re

import msgspec
from starlette.types import Receive, Scope

from infold.errors import (
    MalformedBodyError,
    ModelNotFoundError,
    ModelNotReadyError,
    QueueFullError,
    SessionError,
)
from infold.rest import v1, v2
from infold.rest.counting import Snapshot
from infold.rest.metrics import Metrics, page_of
from infold.rest.peers import Peers
from infold.rest.wire import Endpoint, Reply, header, left, read_body
from infold.runtime import Cache, Placement, available_cores
from infold.serving import Asked, ModelManager, ModelRepository, Servable, State, Work, clock
from infold.settings import Settings
from infold.tensors import Array

__all__ = ["Service", "version_number"]


class Service:
    """What the routes work on; where there are several workers, health and metrics are those of all."""

    def __init__(self, settings: Settings, placement: Placement, peers: Peers | None = None) -> None:
        self.settings = settings
        self.peers = peers or Peers()
        self.metrics = Metrics()
        repository, cache = ModelRepository(settings.repository), Cache(settings.cache_folder)
        cores = max(1, available_cores() // settings.workers)
        self.models = ModelManager(repository, placement, self.metrics, cache, cores, settings.workers)
        self.endpoints = (
            Endpoint("/v2/models/{model}/infer", INFER, self.infer),
            Endpoint("/v1/models/{model}:predict", PREDICT, self.predict),
        )
        self._answer_peers()

    async def start(self) -> None:
        """Load every model.

        Raises:
            SessionError: A model does not load; the message names all that do not.
            RepositoryError, ConfigError: The repository cannot be listed.
        """
        await self.models.reconcile()
        failed = [
            f"version {servable.version.number}: {servable.reason}"
            for name in self.models.models()
            for servable in self.models.versions(name)
            if servable.state is State.FAILED
        ]
        if failed:
            raise SessionError(str(self.settings.repository), "; ".join(failed))

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

    async def metrics_page(self) -> bytes:
        """What all workers have counted, summed; one that is down counts with what it told last."""
        answers = await self.peers.gather("metrics", kept=True)
        return page_of([msgspec.convert(each, Snapshot) for each in answers if each is not None])

    def _answer_peers(self) -> None:
        async def ready(_: object) -> bool:
            return self.models.is_ready

        async def model_ready(asked: object) -> bool:
            model, number = msgspec.convert(asked, tuple[str, int])
            try:
                self.models.find(model, number)
            except (ModelNotFoundError, ModelNotReadyError):
                return False
            return True

        async def metrics(_: object) -> Snapshot:
            return self.metrics.snapshot(self.models.load)

        self.peers.on("ready", ready)
        self.peers.on("model ready", model_ready)
        self.peers.on("metrics", metrics)

    async def infer(self, model: str, version: str | None, scope: Scope, receive: Receive) -> Reply:
        """Protocol v2: decode, lease, infer, encode."""
        json_bytes = _json_bytes(scope)
        deadline = self._deadline()
        with self.models.lease(model, version_number(model, version)) as servable:
            _refuse_if_full(servable)
            body = await self._body(scope, receive)
            number, request = servable.version.number, v2.InferRequest({})

            def decode() -> Asked:
                nonlocal request
                request = v2.decode_infer(body, json_bytes, servable.signature)
                return Asked(request.tensors, request.outputs)

            def encode(results: dict[str, Array]) -> Reply:
                return _reply(v2.encode_infer(model, number, request, results))

            text_bytes = len(body) if json_bytes is None else json_bytes
            is_cheap = text_bytes <= CHEAP_BYTES  # tensors are views, however long
            return await servable.answer(Work(decode, encode, is_cheap), deadline, lambda: left(receive))

    async def predict(self, model: str, version: str | None, scope: Scope, receive: Receive) -> Reply:
        """TF-Serving's predict: decode, lease, infer, encode."""
        deadline = self._deadline()
        with self.models.lease(model, version_number(model, version)) as servable:
            _refuse_if_full(servable)
            body = await self._body(scope, receive)
            in_rows = False

            def decode() -> Asked:
                nonlocal in_rows
                tensors, in_rows = v1.decode_predict(bytes(body), servable.signature)
                return Asked(tensors)

            def encode(results: dict[str, Array]) -> Reply:
                return Reply((v1.encode_predict(results, servable.signature, in_rows=in_rows),))

            is_cheap = len(body) <= CHEAP_BYTES
            return await servable.answer(Work(decode, encode, is_cheap), deadline, lambda: left(receive))

    async def _body(self, scope: Scope, receive: Receive) -> bytes | memoryview:
        settings = self.settings
        return await read_body(scope, receive, settings.max_body_bytes, settings.body_timeout_s)

    def _deadline(self) -> float:
        return clock() + self.settings.deadline_s


# JSON of this length is read in the time it takes to wake another thread.
CHEAP_BYTES = 2**14
OCTETS_TYPE = "application/octet-stream"
OCTETS = OCTETS_TYPE.encode()
# Paths of the routes that carry tensors; their groups are model and version.
INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
PREDICT = re.compile(r"/v1/models/([^/:]+)(?:/versions/([^/:]+))?:predict")


def _json_bytes(scope: Scope) -> int | None:
    """How much of an infer request is JSON: None for all, 0 where it is the bytes of a tensor.

    Raises:
        MalformedBodyError: The header that says so makes no sense.
    """
    text = header(scope, b"inference-header-content-length")
    if text is None:
        kind = header(scope, b"content-type")
        return 0 if kind is not None and kind.partition(";")[0].strip().lower() == OCTETS_TYPE else None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise MalformedBodyError(f"{v2.HEADER_LENGTH}: '{text}' is no number of bytes")
    return int(text)


def _reply(response: v2.InferResponse) -> Reply:
    if response.json_bytes is None:
        return Reply(response.parts)
    length = (v2.HEADER_LENGTH.lower().encode(), b"%d" % response.json_bytes)
    return Reply(response.parts, OCTETS, (length,))


def _refuse_if_full(servable: Servable) -> None:
    """Before its body is read: what cannot wait need not be taken in.

    Raises:
        QueueFullError: There is no room.
    """
    if servable.is_full:
        raise QueueFullError(servable.version.config.batching.capacity_rows)


def version_number(name: str, version: str | None) -> int | None:
    """The number that a path gives; None where it gives none.

    Raises:
        ModelNotFoundError: It is no number.
    """
    if version is None:
        return None
    if not (version.isascii() and version.isdigit() and len(version) < 19):
        raise ModelNotFoundError(name, version)
    return int(version)
