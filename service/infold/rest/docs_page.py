"""/docs without a content delivery network: a server on a closed network shows it too."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles
from swagger_ui_bundle import swagger_ui_path

__all__ = ["OPENAPI_VERSION", "add_docs_page"]

# The newest that the packaged Swagger UI (4.15) renders.
OPENAPI_VERSION = "3.0.3"
ASSETS = "/docs/assets"


def add_docs_page(app: FastAPI) -> None:
    """Serve Swagger UI at /docs from the installed package."""
    app.mount(ASSETS, StaticFiles(directory=swagger_ui_path))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=f"{app.title} {app.version}",
            swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{ASSETS}/favicon-32x32.png",
        )
