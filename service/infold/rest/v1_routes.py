"""Routes of TF-Serving's REST dialect that carry no tensors."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from infold.errors import ModelNotFoundError
from infold.rest import v1
from infold.rest.service import Service
from infold.rest.versions import version_asked
from infold.rest.wire import LABEL

__all__ = ["add_v1"]


def add_v1(app: FastAPI, service: Service) -> None:
    """Serve status and metadata of models."""

    async def told(model: str, version: str | None) -> dict[str, Any]:
        number = version_asked(service.models, model, version)
        states = [each for each in await service.states() if each.model == model]
        found = [each for each in states if number in (None, each.version)]
        if not found:
            raise ModelNotFoundError(model, version)
        return v1.model_status(model, found)

    def described(model: str, version: str | None) -> dict[str, Any]:
        servable = service.models.find(model, version_asked(service.models, model, version))
        return v1.model_metadata(model, servable.version.number, servable.signature)

    @app.get("/v1/models/{model}", tags=["v1"])
    async def status(model: str) -> dict[str, Any]:
        """State of every version of a model."""
        return await told(model, None)

    @app.get("/v1/models/{model}/versions/{version}", tags=["v1"])
    async def version_status(model: str, version: str) -> dict[str, Any]:
        """State of one version."""
        return await told(model, version)

    @app.get("/v1/models/{model}/labels/{label}", include_in_schema=False)
    async def label_status(model: str, label: str) -> dict[str, Any]:
        """State of the version that has this label."""
        return await told(model, LABEL + label)

    @app.get("/v1/models/{model}/metadata", tags=["v1"])
    async def metadata(model: str) -> dict[str, Any]:
        """Inputs and outputs of a model, in TensorFlow's words."""
        return described(model, None)

    @app.get("/v1/models/{model}/versions/{version}/metadata", tags=["v1"])
    async def version_metadata(model: str, version: str) -> dict[str, Any]:
        """Inputs and outputs of one version, in TensorFlow's words."""
        return described(model, version)

    @app.get("/v1/models/{model}/labels/{label}/metadata", include_in_schema=False)
    async def label_metadata(model: str, label: str) -> dict[str, Any]:
        """Inputs and outputs of the version that has this label, in TensorFlow's words."""
        return described(model, LABEL + label)
