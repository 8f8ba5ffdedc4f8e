"""Routes of the Open Inference Protocol v2 that carry no tensors."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.responses import Response

from infold import __version__
from infold.errors import ModelNotFoundError
from infold.rest import v2_models
from infold.rest.service import Service
from infold.rest.statistics import statistics
from infold.rest.triton_model_config import model_config_json
from infold.rest.versions import version_asked
from infold.serving import State

__all__ = ["add_v2"]

EXTENSIONS = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
]


def add_v2(app: FastAPI, service: Service) -> None:
    """Serve metadata, readiness, configuration and statistics."""
    _add_server(app, service)
    _add_statistics(app, service)  # before the models, or "stats" would be one
    _add_models(app, service)


def _add_server(app: FastAPI, service: Service) -> None:
    @app.get("/v2", tags=["v2"])
    @app.get("/v2/", include_in_schema=False)
    async def server() -> dict[str, Any]:
        """Name, version and protocol extensions of this server."""
        return {"name": service.settings.name, "version": __version__, "extensions": EXTENSIONS}

    @app.get("/v2/models", tags=["v2"])
    async def models() -> dict[str, list[str]]:
        """Names of all models."""
        return {"models": service.models.models()}


def _add_models(app: FastAPI, service: Service) -> None:
    def describe(model: str, version: str | None) -> dict[str, Any]:
        servable = service.models.find(model, version_asked(service.models, model, version))
        ready = [s.version.number for s in service.models.versions(model) if s.state is State.READY]
        return v2_models.metadata(model, ready, servable.signature)

    async def readiness(model: str, version: str | None) -> Any:
        await service.check_ready(model, version_asked(service.models, model, version))
        return Response() if service.settings.triton_compat else {"name": model, "ready": True}

    @app.get("/v2/models/{model}", tags=["v2"])
    async def metadata(model: str) -> dict[str, Any]:
        """Inputs and outputs of a model."""
        return describe(model, None)

    @app.get("/v2/models/{model}/versions/{version}", tags=["v2"])
    async def version_metadata(model: str, version: str) -> dict[str, Any]:
        """Inputs and outputs of one version."""
        return describe(model, version)

    def configured(model: str, version: str | None) -> dict[str, Any]:
        servable = service.models.find(model, version_asked(service.models, model, version))
        found = servable.version
        return model_config_json(
            model,
            found.config.versions,
            servable.signature,
            found.config,
            found.triton.labels if found.triton is not None else None,
            found.triton,
            runs=servable.runs,
            device=service.manager.placement.device,
            gpu_id=service.manager.placement.gpu_id,
        )

    @app.get("/v2/models/{model}/config", tags=["v2"])
    async def configuration(model: str) -> dict[str, Any]:
        """How a model is served, as Triton's model configuration says it."""
        return configured(model, None)

    @app.get("/v2/models/{model}/versions/{version}/config", tags=["v2"])
    async def version_configuration(model: str, version: str) -> dict[str, Any]:
        """How one version is served, as Triton's model configuration says it."""
        return configured(model, version)

    @app.get("/v2/models/{model}/ready", tags=["v2"], response_model=None)
    async def model_ready(model: str) -> Any:
        """200 while the model answers."""
        return await readiness(model, None)

    @app.get("/v2/models/{model}/versions/{version}/ready", tags=["v2"], response_model=None)
    async def version_ready(model: str, version: str) -> Any:
        """200 while this version answers."""
        return await readiness(model, version)


def _add_statistics(app: FastAPI, service: Service) -> None:
    async def told(model: str | None, version: str | None) -> dict[str, Any]:
        number = None if model is None else version_asked(service.models, model, version)
        found = [
            (name, servable.version.number)
            for name in (service.models.models() if model is None else [model])
            for servable in service.models.versions(name)
            if servable.state in (State.READY, State.DRAINING) and number in (None, servable.version.number)
        ]
        if model is not None and not found:
            raise ModelNotFoundError(model, version)
        return statistics(await service.snapshots(), found)

    @app.get("/v2/models/stats", tags=["v2"])
    async def all_statistics() -> dict[str, Any]:
        """What all models have been asked and how long that took."""
        return await told(None, None)

    @app.get("/v2/models/{model}/stats", tags=["v2"])
    async def model_statistics(model: str) -> dict[str, Any]:
        """What a model has been asked and how long that took."""
        return await told(model, None)

    @app.get("/v2/models/{model}/versions/{version}/stats", tags=["v2"])
    async def version_statistics(model: str, version: str) -> dict[str, Any]:
        """What one version has been asked and how long that took."""
        return await told(model, version)
