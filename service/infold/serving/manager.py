"""Keeps what is loaded in step with what is on disk, and hands out leases."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

from infold.errors import InfoldError, ModelNotFoundError, ModelNotReadyError
from infold.runtime import Cache, Placement, available_cores
from infold.serving.batcher import Batcher
from infold.serving.events import Observer, SilentObserver
from infold.serving.lifecycle import Servable, State
from infold.serving.loading import Loaded, load
from infold.serving.repository import ModelRepository, ModelVersion
from infold.serving.runners import Runners
from infold.serving.versions import Load, plan

__all__ = ["ModelManager"]

log = logging.getLogger(__name__)


class ModelManager:
    """All servables of one repository.

    Args:
        repository: Where models lie.
        placement: The device that runs them.
        observer: Told of what happens.
        cache: Where outcomes of earlier loads lie; by default nothing outlives this process.
        cores: That all runs together may take; by default all that this process may use.
        processes: That share the load; a model's queue holds that part of its capacity.
    """

    def __init__(
        self,
        repository: ModelRepository,
        placement: Placement,
        observer: Observer | None = None,
        cache: Cache | None = None,
        cores: int = 0,
        processes: int = 1,
    ) -> None:
        self._repository = repository
        self._placement = placement
        self._observer = observer or SilentObserver()
        self._cache = cache or Cache(None)
        self._runners: Runners[Any] = Runners(cores or available_cores())
        self._servables: dict[str, dict[int, Servable]] = {}
        self._processes = processes
        self._is_draining = False

    @property
    def placement(self) -> Placement:
        """The device that runs the models."""
        return self._placement

    @property
    def is_ready(self) -> bool:
        """Every model has a version that answers, and the service is not going down."""
        return not self._is_draining and all(
            any(servable.state is State.READY for servable in versions.values())
            for versions in self._servables.values()
        )

    @property
    def load(self) -> dict[tuple[str, int], tuple[int, int]]:
        """Requests in flight and rows that wait, of each model and version that is loaded."""
        return {
            (name, number): (servable.in_flight, servable.waiting_rows)
            for name, versions in self._servables.items()
            for number, servable in versions.items()
            if servable.state in (State.READY, State.DRAINING)
        }

    def models(self) -> list[str]:
        """Names of all models, sorted."""
        return sorted(self._servables)

    def versions(self, name: str) -> list[Servable]:
        """All versions of a model, oldest first.

        Raises:
            ModelNotFoundError: There is no such model.
        """
        if name not in self._servables:
            raise ModelNotFoundError(name)
        return [servable for _, servable in sorted(self._servables[name].items())]

    def find(self, name: str, version: int | None = None) -> Servable:
        """The version asked for, or the newest that is ready.

        Raises:
            ModelNotFoundError: No such model or version.
            ModelNotReadyError: It is there, but cannot answer.
        """
        versions = self._servables.get(name)
        if versions is None:
            raise ModelNotFoundError(name)
        if version is not None:
            servable = versions.get(version)
            if servable is None or servable.state is State.UNLOADED:
                raise ModelNotFoundError(name, version)
        else:
            ready = [number for number, each in versions.items() if each.state is State.READY]
            servable = versions[max(ready or versions)]
        if servable.state is not State.READY:
            raise ModelNotReadyError(name, servable.version.number, servable.state)
        return servable

    def lease(self, name: str, version: int | None = None) -> Servable:
        """As `find`, to be held at once in a `with`, so that it is not unloaded meanwhile.

        Raises:
            As `find`.
        """
        return self.find(name, version)

    async def reconcile(self) -> None:
        """Load what is missing and unload what is not wanted, until nothing is left to do.

        A version that fails to load is kept as FAILED with its reason and not tried again.

        Raises:
            RepositoryError, ConfigError: The repository cannot be listed.
        """
        found = await asyncio.to_thread(self._repository.list)
        for name in sorted({*found, *self._servables}):
            on_disk = {version.number: version for version in found.get(name, ())}
            policy = self._repository.policy(name)
            held = self._servables.setdefault(name, {})
            while action := plan(on_disk, {n: s.state for n, s in held.items()}, policy):
                if isinstance(action, Load):
                    await self._load(on_disk[action.version])
                else:
                    await self._unload(held[action.version])
            if not on_disk and not any(s.state is State.READY for s in held.values()):
                del self._servables[name]

    async def close(self) -> None:
        """Answer what was accepted, then unload everything."""
        self._is_draining = True
        ready = [s for held in self._servables.values() for s in held.values() if s.state is State.READY]
        await asyncio.gather(*(self._unload(servable) for servable in ready))
        self._runners.close()
        self._cache.close()

    def begin_drain(self) -> None:
        """Turn not ready, so that load balancers look elsewhere; requests are still answered."""
        self._is_draining = True

    async def _load(self, version: ModelVersion) -> None:
        servable = Servable(version)
        self._servables[version.name][version.number] = servable
        self._tell(servable)
        try:
            loaded = await asyncio.to_thread(load, version, self._placement, self._runners.cores, self._cache)
        except InfoldError as failure:
            servable.to(State.FAILED, str(failure))
            self._tell(servable)
            return
        if loaded.left_on_cpu:
            log.warning(
                "nodes left on the cpu",
                extra={
                    "model": version.name,
                    "version": version.number,
                    "operators": loaded.left_on_cpu,
                },
            )
        servable.attach(loaded.session.signature, self._batcher(version, loaded))
        servable.to(State.READY)
        self._tell(servable)

    def _batcher(self, version: ModelVersion, loaded: Loaded) -> Batcher:
        batching = version.config.batching
        share = max(batching.max_rows, batching.capacity_rows // self._processes)
        return Batcher(
            (version.name, version.number),
            loaded.session.signature,
            loaded.session.run,
            replace(batching, capacity_rows=share),
            loaded.plan,
            self._runners,
            self._observer,
            run_wide=loaded.wide.run if loaded.wide is not None else None,
        )

    async def _unload(self, servable: Servable) -> None:
        servable.to(State.DRAINING)
        self._tell(servable)
        await servable.drain()
        servable.to(State.UNLOADED)
        self._tell(servable)

    def _tell(self, servable: Servable) -> None:
        version = servable.version
        self._observer.state_changed(version.name, version.number, servable.state, servable.reason)
        log.log(
            logging.ERROR if servable.state is State.FAILED else logging.INFO,
            "model %s",
            servable.state.value,
            extra={"model": version.name, "version": version.number}
            | ({"reason": servable.reason} if servable.reason else {}),
        )
