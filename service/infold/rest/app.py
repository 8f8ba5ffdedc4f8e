"""The composition root: settings in, a FastAPI app out.

FastAPI serves what is small and described (health, metadata, docs); the routes
that carry tensors are plain ASGI endpoints inside the same app, since pydantic
on tensor bodies doubles their cost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import Receive, Scope

from infold import __version__
from infold.errors import InfoldError, ModelNotFoundError, ModelNotReadyError, SessionError
from infold.rest import v1, v2
from infold.rest.counting import Snapshot
from infold.rest.docs_page import OPENAPI_VERSION, add_docs_page
from infold.rest.metrics import Metrics, page_of
from infold.rest.openapi import add_tensor_routes
from infold.rest.peers import Peers
from infold.rest.problems import headers_of, status_of
from infold.rest.wire import Edge, Endpoint, read_body
from infold.runtime import Placement, choose_device
from infold.serving import ModelManager, ModelRepository, State
from infold.settings import Settings

__all__ = ["Service", "create_app"]

log = logging.getLogger(__name__)


class Service:
    """What the routes work on; where there are several workers, health and metrics are those of all."""

    def __init__(self, settings: Settings, placement: Placement, peers: Peers | None = None) -> None:
        self.settings = settings
        self.peers = peers or Peers()
        self.metrics = Metrics()
        self.models = ModelManager(ModelRepository(settings.repository), placement, self.metrics)
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
            return self.metrics.snapshot()

        self.peers.on("ready", ready)
        self.peers.on("model ready", model_ready)
        self.peers.on("metrics", metrics)

    async def infer(self, scope: Scope, receive: Receive) -> bytes:
        """Protocol v2: decode, lease, infer, encode."""
        name, version = _addressed(scope)
        deadline = self._deadline()
        with self.models.lease(name, version) as servable:
            body = await read_body(scope, receive, self.settings.max_body_bytes)
            request = v2.decode_infer(body, servable.signature)
            results = await servable.infer(request.tensors, request.outputs, deadline)
            return v2.encode_infer(name, servable.version.number, request, results)

    async def predict(self, scope: Scope, receive: Receive) -> bytes:
        """TF-Serving's predict: decode, lease, infer, encode."""
        name, version = _addressed(scope)
        deadline = self._deadline()
        with self.models.lease(name, version) as servable:
            body = await read_body(scope, receive, self.settings.max_body_bytes)
            tensors, in_rows = v1.decode_predict(body, servable.signature)
            results = await servable.infer(tensors, None, deadline)
            return v1.encode_predict(results, servable.signature, in_rows=in_rows)

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self.settings.deadline_s


def _addressed(scope: Scope) -> tuple[str, int | None]:
    """Model and version of a request's path.

    Raises:
        ModelNotFoundError: The version is no number.
    """
    parameters = scope["path_params"]
    name, version = parameters["model"], parameters.get("version")
    return name, _version(name, version)


def _version(name: str, version: str | None) -> int | None:
    if version is None:
        return None
    if not (version.isascii() and version.isdigit() and len(version) < 19):
        raise ModelNotFoundError(name, version)
    return int(version)


def create_app(settings: Settings, placement: Placement | None = None, peers: Peers | None = None) -> FastAPI:
    """The whole service as an ASGI app; models load when its lifespan starts.

    Args:
        settings: What to serve.
        placement: The device that runs the models; None chooses it here.
        peers: The other workers of the service; None if this process is all of it.

    Raises:
        DeviceError: The device that was asked for is not to be had.
    """
    service = Service(settings, placement or choose_device(settings.device), peers)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.models.close()

    app = FastAPI(
        title="infold",
        version=__version__,
        description="Open Inference Protocol v2 and TF-Serving's predict over onnxruntime.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    _add_tensor_endpoints(app, service)
    _add_health(app, service)
    _add_v2_metadata(app, service)
    _add_v1_status(app, service)
    _add_problem_handlers(app)
    add_docs_page(app)
    app.add_middleware(Edge, metrics=service.metrics)
    app.openapi = _openapi(app, service)  # type: ignore[method-assign]
    return app


def _add_tensor_endpoints(app: FastAPI, service: Service) -> None:
    for path, answer in (
        ("/v2/models/{model}/infer", service.infer),
        ("/v2/models/{model}/versions/{version}/infer", service.infer),
        ("/v1/models/{model}:predict", service.predict),
        ("/v1/models/{model}/versions/{version}:predict", service.predict),
    ):
        app.router.routes.append(Route(path, Endpoint(path, answer), methods=["POST"]))


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/v2/health/live", tags=["health"])
    async def live() -> dict[str, bool]:
        """The process answers."""
        return {"live": True}

    @app.get("/v2/health/ready", tags=["health"])
    async def ready() -> JSONResponse:
        """Every model has a version that answers, and the service is not going down."""
        is_ready = await service.is_ready()
        return JSONResponse({"ready": is_ready}, status_code=200 if is_ready else 503)

    @app.get("/metrics", tags=["health"], response_class=Response)
    async def metrics() -> Response:
        """Prometheus metrics."""
        return Response(await service.metrics_page(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_v2_metadata(app: FastAPI, service: Service) -> None:
    @app.get("/v2", tags=["v2"])
    @app.get("/v2/", include_in_schema=False)
    async def server() -> dict[str, Any]:
        """Name, version and protocol extensions of this server."""
        return {"name": service.settings.server_name, "version": __version__, "extensions": []}

    def describe(model: str, version: str | None) -> dict[str, Any]:
        servable = service.models.find(model, _version(model, version))
        ready = [s.version.number for s in service.models.versions(model) if s.state is State.READY]
        return v2.metadata(model, ready, servable.signature)

    async def readiness(model: str, version: str | None) -> dict[str, Any]:
        await service.check_ready(model, _version(model, version))
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
        return await readiness(model, None)

    @app.get("/v2/models/{model}/versions/{version}/ready", tags=["v2"])
    async def version_ready(model: str, version: str) -> dict[str, Any]:
        """200 while this version answers."""
        return await readiness(model, version)


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
