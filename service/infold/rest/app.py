"""The composition root: settings in, a FastAPI app out.

FastAPI serves what is small and described (health, metadata, docs); the routes
that carry tensors are plain ASGI endpoints inside the same app, since pydantic
on tensor bodies doubles their cost.
"""

from __future__ import annotations

import logging
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
)
from infold.rest import v1, v2
from infold.rest.docs_page import OPENAPI_VERSION, add_docs_page
from infold.rest.openapi import add_tensor_routes
from infold.rest.peers import Peers
from infold.rest.problems import headers_of, status_of
from infold.rest.service import Service, version_number
from infold.rest.wire import Edge
from infold.runtime import Placement, choose_device
from infold.serving import State
from infold.settings import Settings

__all__ = ["App", "create_app"]

log = logging.getLogger(__name__)


class App(FastAPI):
    """FastAPI with our edge around all of it: its own layers cost a tenth of a small request."""

    edge: Edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        await self.edge(scope, receive, send)

    async def behind_the_edge(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What FastAPI itself does with a request."""
        await super().__call__(scope, receive, send)


def create_app(settings: Settings, placement: Placement | None = None, peers: Peers | None = None) -> App:
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

    app = App(
        title="infold",
        version=__version__,
        description="Open Inference Protocol v2 and TF-Serving's predict over onnxruntime.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    infer, predict = service.endpoints
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
    app.openapi = _openapi(app, service)  # type: ignore[method-assign]  # as FastAPI says to
    return app


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
        return {
            "name": service.settings.server_name,
            "version": __version__,
            "extensions": ["binary_tensor_data"],
        }

    def describe(model: str, version: str | None) -> dict[str, Any]:
        servable = service.models.find(model, version_number(model, version))
        ready = [s.version.number for s in service.models.versions(model) if s.state is State.READY]
        return v2.metadata(model, ready, servable.signature)

    async def readiness(model: str, version: str | None) -> dict[str, Any]:
        await service.check_ready(model, version_number(model, version))
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
