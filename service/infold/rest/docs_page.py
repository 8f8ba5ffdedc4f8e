"""/docs without a content delivery network: a server on a closed network shows it too."""

from __future__ import annotations

import re

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response
from starlette.datastructures import URL
from starlette.staticfiles import StaticFiles
from swagger_ui_bundle import swagger_ui_path

from infold.rest.access.guard import MAIN_PORT
from infold.rest.model_example import SERVER
from infold.rest.openapi import Document

__all__ = ["OPENAPI_VERSION", "add_docs_page"]

# The newest that the packaged Swagger UI (4.15) renders.
OPENAPI_VERSION = "3.0.3"
OPENAPI_URL = "/openapi.json"
ASSETS = "/docs/assets"
PAGE = {
    "docExpansion": "list",
    "filter": True,  # by model
    "tryItOutEnabled": True,  # one click sends the example
    "displayRequestDuration": True,
    "defaultModelsExpandDepth": 0,
    "defaultModelExpandDepth": 6,
}
# What may stand in a command line as it is; a Host header can hold anything.
SANE_ADDRESS = re.compile(r"https?://[A-Za-z0-9._:\[\]-]+(/[A-Za-z0-9._~/-]*)?")


def add_docs_page(app: FastAPI, document: Document) -> None:
    """Serve the OpenAPI document, and Swagger UI at /docs from the installed package."""
    app.mount(ASSETS, StaticFiles(directory=swagger_ui_path))

    @app.get(OPENAPI_URL, include_in_schema=False)
    async def openapi(request: Request) -> Response:
        text = await document.text()
        address = str(_address_of(request)).rstrip("/")
        if SANE_ADDRESS.fullmatch(address):
            text = text.replace(SERVER.encode(), address.encode())
            if MAIN_PORT in request.scope:  # else the page calls where it came from
                text = b'{"servers":[{"url":"%s"}],' % address.encode() + text[1:]
        return Response(text, media_type="application/json")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=OPENAPI_URL,
            title=f"{app.title} {app.version}",
            swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{ASSETS}/favicon-32x32.png",
            swagger_ui_parameters=PAGE,
        )


def _address_of(request: Request) -> URL:
    """Where the calls go that the page shows: to the main port, also where the page comes from another."""
    port = request.scope.get(MAIN_PORT)
    return request.base_url if port is None else request.base_url.replace(port=port)
