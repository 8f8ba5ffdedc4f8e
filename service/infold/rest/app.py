"""The composition root: settings in, a FastAPI app out.

FastAPI serves what is small and described (health, metadata, docs); the routes
that carry tensors are plain ASGI endpoints inside the same app, since pydantic
would look at every number of a tensor.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from infold import __version__
from infold.errors import InfoldError
from infold.logs import request_id
from infold.rest.docs_page import OPENAPI_VERSION, add_docs_page
from infold.rest.health_routes import add_health
from infold.rest.openapi import Document
from infold.rest.peers import Peers
from infold.rest.problems import Problems, error_body, headers_of, unknown_body
from infold.rest.repository_routes import add_repository
from infold.rest.service import Service, edge_of
from infold.rest.starting import fitted
from infold.rest.unserved import add_unserved
from infold.rest.v1_routes import add_v1
from infold.rest.v2_routes import add_v2
from infold.runtime import Placement, choose_device
from infold.settings import Settings

__all__ = ["App", "create_app", "described_app"]

log = logging.getLogger(__name__)

JSON = "application/json"


class App(FastAPI):
    """FastAPI with our edge around all of it: requests that carry tensors skip its own layers."""

    edge: ASGIApp

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
    service = Service(
        fitted(settings),
        placement or choose_device(settings.device, settings.gpu_id, settings.gpu_memory_bytes),
        peers,
    )
    app = described_app(service)
    app.edge = edge_of(service, app.behind_the_edge)
    return app


def described_app(service: Service) -> App:
    """FastAPI's part of the app, which is all but its edge.

    Args:
        service: What the routes work on.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.close()

    app = App(
        title="infold",
        version=__version__,
        description="Open Inference Protocol v2 and TF-Serving's predict over onnxruntime.",
        lifespan=lifespan,
        openapi_url=None,
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
        ("/v1/models/{model}/labels/{label}:predict", predict),
    ):
        app.router.routes.append(Route(path, endpoint, methods=["POST"]))
    add_health(app, service)
    add_v2(app, service)
    add_repository(app, service)
    add_v1(app, service)
    add_unserved(app)
    _add_problem_handlers(app, service.problems)
    document = Document(lambda: _own_openapi(app), service.models)
    add_docs_page(app, document)
    app.openapi = document.build  # type: ignore[method-assign]  # as FastAPI says to
    return app


def _add_problem_handlers(app: FastAPI, problems: Problems) -> None:
    @app.exception_handler(InfoldError)
    async def known(request: Request, failure: InfoldError) -> Response:
        headers = {key.decode(): value.decode() for key, value in headers_of(failure)}
        status, text = problems(failure, request.path_params.get("model"))
        return Response(error_body(text), status, headers, JSON)

    @app.exception_handler(HTTPException)
    async def routing(request: Request, failure: HTTPException) -> Response:
        detail = failure.detail
        if failure.status_code == 404:
            detail = f"there is no {request.url.path} here; /docs lists what there is"
        elif failure.status_code == 405:
            detail = f"{request.method} is not allowed on {request.url.path}"
        return Response(error_body(str(detail)), failure.status_code, failure.headers, JSON)

    @app.exception_handler(Exception)
    async def unknown(_: Request, failure: Exception) -> Response:
        del failure  # raised on, to the edge, which logs it
        return Response(unknown_body(request_id.get()), 500, None, JSON)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, failure: RequestValidationError) -> Response:
        first = failure.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return Response(error_body(f"{place}: {first['msg']}"), 400, None, JSON)


def _own_openapi(app: FastAPI) -> dict[str, Any]:
    return get_openapi(
        title=app.title,
        version=app.version,
        openapi_version=OPENAPI_VERSION,
        description=app.description,
        routes=app.routes,
    )
