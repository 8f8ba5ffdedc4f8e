"""The composition root: settings in, a FastAPI app out.

FastAPI serves what is small and described (health, metadata, docs); the routes
that carry tensors are plain ASGI endpoints inside the same app, since pydantic
on tensor bodies doubles their cost.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from infold import __version__
from infold.errors import (
    InfoldError,
    MalformedBodyError,
    ModelNotFoundError,
    QueueFullError,
    SessionError,
)
from infold.rest import v1, v2
from infold.rest.docs_page import OPENAPI_VERSION, add_docs_page
from infold.rest.metrics import Metrics
from infold.rest.openapi import add_tensor_routes
from infold.rest.problems import headers_of, status_of
from infold.rest.wire import Edge, Endpoint, Reply, header, left, read_body
from infold.runtime import Cache, Placement, choose_device
from infold.serving import Asked, ModelManager, ModelRepository, Servable, State, Work, clock
from infold.settings import Settings
from infold.tensors import Array

__all__ = ["Service", "create_app"]

log = logging.getLogger(__name__)


class Service:
    """What the routes work on."""

    def __init__(self, settings: Settings, placement: Placement) -> None:
        self.settings = settings
        self.metrics = Metrics()
        repository, cache = ModelRepository(settings.repository), Cache(settings.cache_folder)
        self.models = ModelManager(repository, placement, self.metrics, cache)

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

    async def infer(self, model: str, version: str | None, scope: Scope, receive: Receive) -> Reply:
        """Protocol v2: decode, lease, infer, encode."""
        json_bytes = _json_bytes(scope)
        deadline = self._deadline()
        with self.models.lease(model, _version(model, version)) as servable:
            _refuse_if_full(servable)
            body = await read_body(scope, receive, self.settings.max_body_bytes, json_bytes or 0)
            number, request = servable.version.number, v2.InferRequest({})

            def decode() -> Asked:
                nonlocal request
                request = v2.decode_infer(body, json_bytes, servable.signature)
                return Asked(request.tensors, request.outputs)

            def encode(results: dict[str, Array]) -> Reply:
                return _reply(v2.encode_infer(model, number, request, results))

            is_cheap = json_bytes is not None or len(body) <= CHEAP_BYTES
            return await servable.answer(Work(decode, encode, is_cheap), deadline, lambda: left(receive))

    async def predict(self, model: str, version: str | None, scope: Scope, receive: Receive) -> Reply:
        """TF-Serving's predict: decode, lease, infer, encode."""
        deadline = self._deadline()
        with self.models.lease(model, _version(model, version)) as servable:
            _refuse_if_full(servable)
            body = await read_body(scope, receive, self.settings.max_body_bytes)
            assert not isinstance(body, memoryview)
            in_rows = False

            def decode() -> Asked:
                nonlocal in_rows
                tensors, in_rows = v1.decode_predict(body, servable.signature)
                return Asked(tensors)

            def encode(results: dict[str, Array]) -> Reply:
                return Reply((v1.encode_predict(results, servable.signature, in_rows=in_rows),))

            is_cheap = len(body) <= CHEAP_BYTES
            return await servable.answer(Work(decode, encode, is_cheap), deadline, lambda: left(receive))

    def _deadline(self) -> float:
        return clock() + self.settings.deadline_s


# JSON of this length is read in the time it takes to wake another thread.
CHEAP_BYTES = 2**14
OCTETS = b"application/octet-stream"
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
        return 0 if header(scope, b"content-type") == OCTETS.decode() else None
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


def _version(name: str, version: str | None) -> int | None:
    if version is None:
        return None
    if not (version.isascii() and version.isdigit() and len(version) < 19):
        raise ModelNotFoundError(name, version)
    return int(version)


class App(FastAPI):
    """FastAPI with our edge around all of it: its own layers cost a tenth of a small request."""

    edge: Edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        await self.edge(scope, receive, send)

    async def behind_the_edge(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What FastAPI itself does with a request."""
        await super().__call__(scope, receive, send)


def create_app(settings: Settings, placement: Placement | None = None) -> FastAPI:
    """The whole service as an ASGI app; models load when its lifespan starts.

    Raises:
        DeviceError: The device that was asked for is not to be had.
    """
    service = Service(settings, placement or choose_device(settings.device))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.models.close()

    app = App(
        title="infold",
        version=__version__,
        description="Open Inference Protocol v2 and TF-Serving's predict over onnxruntime.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    infer = Endpoint("/v2/models/{model}/infer", INFER, service.infer)
    predict = Endpoint("/v1/models/{model}:predict", PREDICT, service.predict)
    for path, endpoint in (
        ("/v2/models/{model}/infer", infer),
        ("/v2/models/{model}/versions/{version}/infer", infer),
        ("/v1/models/{model}:predict", predict),
        ("/v1/models/{model}/versions/{version}:predict", predict),
    ):
        app.router.routes.append(Route(path, endpoint, methods=["POST"]))
    _add_health(app, service)
    _add_v2_metadata(app, service)
    _add_v1_status(app, service)
    _add_problem_handlers(app)
    add_docs_page(app)
    app.edge = Edge(app.behind_the_edge, service.metrics, (infer, predict))
    app.openapi = _openapi(app, service)  # type: ignore[method-assign]
    return app


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/v2/health/live", tags=["health"])
    async def live() -> dict[str, bool]:
        """The process answers."""
        return {"live": True}

    @app.get("/v2/health/ready", tags=["health"])
    async def ready() -> JSONResponse:
        """Every model has a version that answers, and the service is not going down."""
        is_ready = service.models.is_ready
        return JSONResponse({"ready": is_ready}, status_code=200 if is_ready else 503)

    @app.get("/metrics", tags=["health"], response_class=Response)
    async def metrics() -> Response:
        """Prometheus metrics."""
        return Response(service.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_v2_metadata(app: FastAPI, service: Service) -> None:
    @app.get("/v2", tags=["v2"])
    @app.get("/v2/", include_in_schema=False)
    async def server() -> dict[str, Any]:
        """Name, version and protocol extensions of this server."""
        return {
            "name": service.settings.server_name,
            "version": __version__,
            "extensions": ["binary_tensor_data"],
        }

    def describe(model: str, version: str | None) -> dict[str, Any]:
        servable = service.models.find(model, _version(model, version))
        ready = [s.version.number for s in service.models.versions(model) if s.state is State.READY]
        return v2.metadata(model, ready, servable.signature)

    def readiness(model: str, version: str | None) -> dict[str, Any]:
        service.models.find(model, _version(model, version))
        return {"name": model, "ready": True}

    @app.get("/v2/models", tags=["v2"])
    async def models() -> dict[str, list[str]]:
        """Names of all models."""
        return {"models": service.models.models()}

    @app.get("/v2/models/{model}", tags=["v2"])
    async def metadata(model: str) -> dict[str, Any]:
        """Inputs and outputs of a model."""
        return describe(model, None)

    @app.get("/v2/models/{model}/versions/{version}", tags=["v2"])
    async def version_metadata(model: str, version: str) -> dict[str, Any]:
        """Inputs and outputs of one version."""
        return describe(model, version)

    @app.get("/v2/models/{model}/ready", tags=["v2"])
    async def model_ready(model: str) -> dict[str, Any]:
        """200 while the model answers."""
        return readiness(model, None)

    @app.get("/v2/models/{model}/versions/{version}/ready", tags=["v2"])
    async def version_ready(model: str, version: str) -> dict[str, Any]:
        """200 while this version answers."""
        return readiness(model, version)


def _add_v1_status(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models/{model}", tags=["v1"])
    async def status(model: str) -> dict[str, Any]:
        """State of every version of a model."""
        return v1.model_status(model, service.models.versions(model))


def _add_problem_handlers(app: FastAPI) -> None:
    @app.exception_handler(InfoldError)
    async def known(_: Request, failure: InfoldError) -> JSONResponse:
        headers = {key.decode(): value.decode() for key, value in headers_of(failure)}
        return JSONResponse({"error": str(failure)}, status_of(failure), headers)

    @app.exception_handler(HTTPException)
    async def routing(request: Request, failure: HTTPException) -> JSONResponse:
        detail = failure.detail
        if failure.status_code == 404:
            detail = f"there is no {request.url.path} here; /docs lists what there is"
        elif failure.status_code == 405:
            detail = f"{request.method} is not allowed on {request.url.path}"
        return JSONResponse({"error": detail}, failure.status_code, failure.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, failure: RequestValidationError) -> JSONResponse:
        first = failure.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return JSONResponse({"error": f"{place}: {first['msg']}"}, 400)


def _openapi(app: FastAPI, service: Service) -> Callable[[], dict[str, Any]]:
    def build() -> dict[str, Any]:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            openapi_version=OPENAPI_VERSION,
            description=app.description,
            routes=app.routes,
        )
        return add_tensor_routes(schema, service.models)

    return build
