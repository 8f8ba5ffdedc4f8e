"""Routes for probes and for Prometheus."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from infold.rest.exposition import CONTENT_TYPE, page_of
from infold.rest.service import Service
from infold.rest.triton_metrics import triton_page

__all__ = ["add_health"]


def add_health(app: FastAPI, service: Service) -> None:
    """Serve liveness, readiness and metrics."""
    is_empty = service.settings.triton_compat  # Triton tells it by the status alone

    @app.get("/", include_in_schema=False)
    async def alive() -> dict[str, str]:
        """What KServe's v1 asks of a server."""
        return {"status": "alive"}

    @app.get("/v2/health/live", tags=["health"])
    async def live() -> Response:
        """The process answers."""
        return Response() if is_empty else JSONResponse({"live": True})

    @app.get("/v2/health/ready", tags=["health"])
    async def ready() -> Response:
        """Every model has a version that answers, and the service is not going down."""
        is_ready = await service.is_ready()
        status = 200 if is_ready else 503
        return Response(None, status) if is_empty else JSONResponse({"ready": is_ready}, status)

    @app.get("/metrics", tags=["health"], response_class=Response)
    async def metrics() -> Response:
        """Prometheus metrics, summed over all workers."""
        snapshots = await service.snapshots()
        page = page_of(snapshots)
        if service.settings.triton_metrics:
            page += triton_page(snapshots)
        return Response(page, media_type=CONTENT_TYPE)
