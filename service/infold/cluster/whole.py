"""What the application answers as a whole: health, metrics and lists, gathered from every replica."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import orjson

from infold import __version__
from infold.cluster.questions import Answer, Deployed, Question, Told, json_answer, text_answer
from infold.cluster.routing import Kind, Target
from infold.errors import InfoldError, MalformedBodyError, ModelNotFoundError, QueueFullError
from infold.rest.counting import Snapshot
from infold.rest.exposition import CONTENT_TYPE, page_of
from infold.rest.statistics import statistics
from infold.rest.triton_metrics import triton_page
from infold.rest.v2_models import index, least_far
from infold.rest.v2_routes import EXTENSIONS
from infold.serving import ModelState, State
from infold.settings import Settings

__all__ = ["Whole"]

# What one replica is given to say that it is there.
ANSWER_S = 2.0


class Whole:
    """Answers for all models together.

    Args:
        settings: Of all models.
        deployed: The replicas of each model, by its name.
        may_sleep: Models that may have no replica while nobody asks.

    Attributes:
        of_ingresses: Gives what every ingress has counted; None where nobody has said.
    """

    def __init__(
        self, settings: Settings, deployed: Mapping[str, Deployed], may_sleep: frozenset[str]
    ) -> None:
        self._settings = settings
        self._deployed = deployed
        self._may_sleep = may_sleep
        self.of_ingresses: Callable[[], Awaitable[list[Snapshot]]] | None = None

    async def answer(self, target: Target, body: bytes) -> Answer:
        """The answer to a request that is for no single replica.

        Raises:
            MalformedBodyError, ModelNotFoundError: The request asks for what makes no sense.
        """
        match target.kind:
            case Kind.ALIVE:
                return json_answer({"status": "alive"})
            case Kind.LIVE:
                return self._health({"live": True}, 200)
            case Kind.READY:
                is_ready = await self.is_ready()
                return self._health({"ready": is_ready}, 200 if is_ready else 503)
            case Kind.SERVER:
                server = {"name": self._settings.name, "version": __version__, "extensions": EXTENSIONS}
                return json_answer(server)
            case Kind.MODELS:
                return json_answer({"models": sorted(self._deployed)})
            case Kind.METRICS:
                return text_answer(await self._metrics(), CONTENT_TYPE.encode())
            case Kind.STATISTICS:
                return json_answer(await self._statistics(target))
            case Kind.INDEX:
                return json_answer(await self._index(body))
            case _:
                return json_answer(await self._openapi())

    async def is_ready(self) -> bool:
        """Every model has a replica that answers, but for those that may sleep."""
        needed = [name for name in self._deployed if name not in self._may_sleep]
        return all(await asyncio.gather(*map(self._answers, needed)))

    async def _answers(self, name: str) -> bool:
        """Some replica of the model does; where one is stuck, Ray tells nothing of the others either."""
        if any(each["is_ready"] for each in await self._deployed[name].tell()):
            return True
        try:
            async with asyncio.timeout(ANSWER_S):
                question = Question("GET", f"/v2/models/{name}/ready")
                return (await self._deployed[name].ask(question, b"")).status == 200
        except QueueFullError:  # so many ask that it must be there
            return True
        except (InfoldError, TimeoutError):
            return False

    def _health(self, told: dict[str, bool], status: int) -> Answer:
        """Triton tells it by the status alone."""
        return (
            Answer(status, [(b"content-length", b"0")], b"")
            if self._settings.triton_compat
            else (json_answer(told, status))
        )

    async def _told(self, model: str | None = None) -> list[Told]:
        names = self._deployed if model is None else [model]
        found = await asyncio.gather(*(self._deployed[name].tell() for name in names))
        return [each for of_model in found for each in of_model]

    async def _metrics(self) -> bytes:
        snapshots = [each["metrics"] for each in await self._told()]
        if self.of_ingresses is not None:
            snapshots += await self.of_ingresses()
        page = page_of(snapshots)
        return page + triton_page(snapshots) if self._settings.triton_metrics else page

    async def _statistics(self, target: Target) -> dict[str, Any]:
        if target.model is not None and target.model not in self._deployed:
            raise ModelNotFoundError(target.model)
        told = await self._told(target.model)
        asked = None if target.version is None else target.version
        found = [
            (each.model, each.version)
            for each in _states(told)
            if each.version is not None
            and each.state in (State.READY, State.DRAINING)
            and asked in (None, str(each.version))
        ]
        if asked is not None and not found:
            raise ModelNotFoundError(str(target.model), asked)
        return statistics([each["metrics"] for each in told], found)

    async def _index(self, body: bytes) -> list[dict[str, str]]:
        try:
            asked = orjson.loads(body) if body.strip() else {}
            only_ready = bool(asked.get("ready", False))
        except (ValueError, AttributeError):
            raise MalformedBodyError("request: must be a JSON object") from None
        told = await self._told()
        on_disk = set() if only_ready else {name for each in told for name in each["on_disk"]}
        return index(sorted(on_disk | set(self._deployed)), _states(told), only_ready=only_ready)

    async def _openapi(self) -> dict[str, Any]:
        """The documents of all models as one; a model that does not answer is left out."""

        async def of(name: str) -> dict[str, Any]:
            try:
                async with asyncio.timeout(10):
                    answer = await self._deployed[name].ask(Question("GET", "/openapi.json"), b"")
                found: dict[str, Any] = orjson.loads(answer.body) if answer.status == 200 else {}
            except (InfoldError, TimeoutError):
                found = {}
            return found

        documents = await asyncio.gather(*map(of, sorted(set(self._deployed) - self._may_sleep)))
        return merged([each for each in documents if each])


def merged(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """OpenAPI documents of services that differ in their models, as that of one."""
    if not documents:
        return {"openapi": "3.1.0", "info": {"title": "infold", "version": __version__}, "paths": {}}
    whole = documents[0]
    for other in documents[1:]:
        whole["paths"] = other["paths"] | whole["paths"]
        schemas = other.get("components", {}).get("schemas", {})
        parts = whole.setdefault("components", {})
        parts["schemas"] = schemas | parts.get("schemas", {})
        known = {each["name"] for each in whole.get("tags", ())}
        more = [each for each in other.get("tags", ()) if each["name"] not in known]
        if more:
            whole["tags"] = [*whole.get("tags", ()), *more]
    return whole


def _states(told: list[Told]) -> list[ModelState]:
    return least_far([msgspec.convert(each["states"], list[ModelState]) for each in told])
