"""/docs without a content delivery network: a server on a closed network shows it too."""

from __future__ import annotations

import re

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from swagger_ui_bundle import swagger_ui_path

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
        address = str(request.base_url).rstrip("/")
        if SANE_ADDRESS.fullmatch(address):
            text = text.replace(SERVER.encode(), address.encode())
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
