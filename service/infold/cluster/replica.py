"""One replica: infold's own service for one model, in a process of Ray's, asked without a socket."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from infold import logs
from infold.cluster.arguments import settings_of
from infold.cluster.inside import ask_inside
from infold.cluster.one_model import OneModel, Wish
from infold.cluster.pulling import Pulled, is_url
from infold.cluster.questions import Answer, Question, Told
from infold.errors import ConfigError, InfoldError
from infold.rest.edge import Edge
from infold.rest.metrics import Metrics
from infold.rest.server import described_late
from infold.rest.service import Service
from infold.rest.starting import fitted
from infold.runtime import available_cores, choose_device
from infold.runtime.options import Device
from infold.settings import Settings

__all__ = ["ModelReplica", "Task", "cores_of"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Task:
    """What a replica is for; a change of it starts other replicas.

    Attributes:
        model: Its name.
        repository: A path, or a URL.
        settings: Of infold, by name.
        device: That runs the model.
    """

    model: str
    repository: str
    settings: Mapping[str, Any]
    device: str = Device.CPU


def cores_of(num_cpus: float) -> int:
    """Cores that runs may take: what the replica has reserved, and never more than there are."""
    return max(1, min(available_cores(), math.ceil(num_cpus)))


class ModelReplica:
    """A model's service: it starts with the first `reconfigure`, and follows each one after.

    Args:
        task: What it is for.
        num_cpus: What it has reserved; None asks Ray.
    """

    def __init__(self, task: Task, num_cpus: float | None = None) -> None:
        cores = cores_of(_reserved_cores() if num_cpus is None else num_cpus)
        self._task = task
        known = settings_of(task.settings)
        logs.configure(known.log_level)
        logging.getLogger("infold.access").disabled = True  # the ingress has the line of each request
        self._pulled = _pulled(task, known)
        root = Path(task.repository) if self._pulled is None else self._pulled.root
        placement = choose_device(Device(task.device), known.gpu_id, known.gpu_memory_bytes)
        # Who may come in is asked once, where callers come in.
        settings = settings_of(
            {name: said for name, said in task.settings.items() if name not in ("api_keys", "cors_origins")},
            repository=root,
            device=placement.device,
            api_keys=None,
            cors_origins=(),
        )
        settings = fitted(settings.model_copy(update={"required_models": (task.model,)}))
        self._repository = OneModel(root, task.model, settings.finished_marker)
        self._service = Service(settings, placement, repository=self._repository, cores=cores)
        behind = described_late(self._service)
        # What callers see is counted by the ingress: what is counted here is never told.
        self._app = Edge(behind, Metrics(), self._service.endpoints, self._service.spans)
        self._one_change = asyncio.Lock()
        self._has_started = False

    async def reconfigure(self, config: Mapping[str, Any] | None) -> None:
        """The versions that are wished for are served, as they lie in the repository now.

        What was served before is served on where that fails once the replica has started: a bad
        version is no reason to stop a good one.

        Args:
            config: The deployment's `user_config`.

        Raises:
            InfoldError: The replica cannot start.
        """
        async with self._one_change:
            try:
                wish = Wish.of(config)
                if self._pulled is not None:
                    await asyncio.to_thread(self._pulled.pull, self._task.model)
                before, self._repository.wish = self._repository.wish, wish
                if self._has_started:
                    try:
                        await self._service.manager.load(self._task.model)
                    except InfoldError:
                        self._repository.wish = before
                        raise
                else:
                    await self._service.start()
                    self._has_started = True
            except InfoldError as failure:
                if not self._has_started:
                    # Errors of ours do not all survive the way to another process; words do.
                    raise RuntimeError(str(failure)) from None
                facts = {"model": self._task.model, "reason": str(failure)}
                log.error("not reconfigured", extra=facts)

    async def ask(self, question: Question, body: bytes) -> Answer:
        """The service's answer."""
        return await ask_inside(self._app, question, body)

    async def tell(self) -> Told:
        """What this replica has counted and knows."""
        (metrics,) = await self._service.snapshots()
        return Told(
            is_ready=await self._service.is_ready(),
            metrics=metrics,
            states=msgspec.to_builtins(self._service.models.states()),
            on_disk=await asyncio.to_thread(self._names),
        )

    async def check_health(self) -> None:
        """Return if the model answers.

        Raises:
            RuntimeError: No version of it does, or a run is stuck; Ray replaces the replica.
        """
        if self._has_started and not await self._service.is_ready():
            raise RuntimeError(f"model '{self._task.model}': no version answers, or a run is stuck")

    async def close(self) -> None:
        """What was accepted is answered, and the model unloaded."""
        self._service.begin_drain()
        await self._service.close()

    def _names(self) -> list[str]:
        try:
            if self._pulled is not None:
                return list(self._repository.names())
            return [n for n in super(OneModel, self._repository).names() if self._repository.has_version(n)]
        except InfoldError:
            return []


def _pulled(task: Task, settings: Settings) -> Pulled | None:
    if not is_url(task.repository):
        return None
    if settings.cache_folder is None:
        raise ConfigError("settings.cache_dir", f"'{settings.cache_dir}' is nowhere: this user has no home")
    return Pulled(task.repository, settings.cache_folder, settings.finished_marker)


def _reserved_cores() -> float:
    import ray

    return float(ray.get_runtime_context().get_assigned_resources().get("CPU", 0))
