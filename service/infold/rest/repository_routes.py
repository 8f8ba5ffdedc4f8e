"""Routes of the protocol's model repository extension: what there is, load, unload; and roll back.

Source: Triton's docs/protocol/extension_model_repository.md; rolling back is infold's own.
"""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import Response

from infold.errors import InvalidInputError, MalformedBodyError
from infold.rest.service import Service
from infold.rest.v2_models import index
from infold.rest.versions import version_asked
from infold.rest.wire import read_body

__all__ = ["add_repository"]

LONGEST_BYTES = 2**20
INDEX = "/v2/repository/index"
LOAD = "/v2/repository/models/{model}/load"
UNLOAD = "/v2/repository/models/{model}/unload"
ROLL_BACK = "/v2/repository/models/{model}/rollback"


class _Index(msgspec.Struct):
    ready: bool = False


class _Order(msgspec.Struct):
    parameters: dict[str, Any] = {}


class _RollBack(msgspec.Struct, forbid_unknown_fields=True):
    version: str | int | None = None


def add_repository(app: FastAPI, service: Service) -> None:
    """Serve the index, and load and unload by name; `infold` has one repository, whatever it is called."""

    async def read(request: Request, kind: type[Any]) -> Any:
        settings = service.settings
        scope, in_flight = request.scope, service.bounds.in_flight
        try:
            body = await read_body(scope, request.receive, LONGEST_BYTES, settings.body_timeout_s, in_flight)
            return msgspec.json.decode(body, type=kind) if bytes(body).strip() else kind()
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as broken:
            raise MalformedBodyError(f"request: {broken}") from None
        finally:
            in_flight.give_back(scope)

    @app.post("/v2/repository/{repository}/index", tags=["repository"], include_in_schema=False)
    @app.post(INDEX, tags=["repository"], openapi_extra=_body(ready="boolean"))
    async def list_models(request: Request) -> list[dict[str, str]]:
        """Every model and version with its state."""
        asked = await read(request, _Index)
        on_disk = [] if asked.ready else await service.manager.models_on_disk()
        return index(on_disk, await service.states(), only_ready=asked.ready)

    @app.post("/v2/repository/{repository}/models/{model}/load", include_in_schema=False)
    @app.post(LOAD, tags=["repository"], response_class=Response, openapi_extra=_body(parameters="object"))
    async def load(request: Request, model: str) -> Response:
        """The model is loaded as it lies on disk now, once this answers."""
        asked = await read(request, _Order)
        config = None
        for key, value in asked.parameters.items():
            if key != "config":
                raise InvalidInputError(f"parameters.{key}", "is not served: models come from the repository")
            if not isinstance(value, str):
                raise InvalidInputError("parameters.config", "must be a string that holds JSON")
            config = value
        await service.control.load(model, config)
        return Response()

    @app.post("/v2/repository/{repository}/models/{model}/unload", include_in_schema=False)
    @app.post(UNLOAD, tags=["repository"], response_class=Response, openapi_extra=_body(parameters="object"))
    async def unload(request: Request, model: str) -> Response:
        """The model is served no more, once this answers."""
        await read(request, _Order)
        await service.control.unload(model)
        return Response()

    @app.post(ROLL_BACK, tags=["repository"], openapi_extra=_body(version="string"))
    async def roll_back(request: Request, model: str) -> dict[str, str]:
        """The newest version, or the one named, is served no more, and what the policy wants without it is.

        It stays so until the model is loaded by name or the service is started anew.
        """
        asked = await read(request, _RollBack)
        number = None if asked.version is None else version_asked(service.models, model, str(asked.version))
        rejected, serving = await service.control.roll_back(model, number)
        return {"name": model, "version": str(serving), "rejected": str(rejected)}


def _body(**keys: str) -> dict[str, Any]:
    """The description of a body that may be left out, of keys and their types."""
    properties = {key: {"type": kind} for key, kind in keys.items()}
    schema = {"type": "object", "properties": properties}
    return {"requestBody": {"content": {"application/json": {"schema": schema, "example": {}}}}}
