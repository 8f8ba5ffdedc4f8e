"""Keeps what is loaded in step with what is wanted, and hands out leases.

What is wanted is all that lies on disk, or, where models are loaded by name, what
was asked for. One change is made at a time; whoever asks for the next one waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from infold.errors import InfoldError, LoadError, ModelNotFoundError, RepositoryError
from infold.runtime import Cache, Placement, available_cores
from infold.serving.batcher import Batcher
from infold.serving.catalogue import ALL, Catalogue, Held
from infold.serving.events import Observer, SilentObserver
from infold.serving.golden import check_golden
from infold.serving.lifecycle import Servable, State
from infold.serving.loading import Loaded, load
from infold.serving.preparing import prepare
from infold.serving.presenting import Presented, placed, presented
from infold.serving.repository import Listing, ModelRepository, ModelVersion
from infold.serving.runners import Runners
from infold.serving.shadow_thread import ShadowThread
from infold.serving.shadowing import shadow_of
from infold.serving.sizes import warm_sizes
from infold.serving.trial import Trial
from infold.serving.versions import Load, fallbacks, plan, wanted

__all__ = ["Found", "ModelManager", "is_unchanged"]

log = logging.getLogger(__name__)

# A model as it lies on disk, or why it cannot be read.
Found = Listing | InfoldError


class ModelManager:
    """All servables of one repository.

    Args:
        repository: Where models lie.
        placement: The device that runs them.
        observer: Told of what happens.
        cache: Where outcomes of earlier loads lie; by default nothing outlives this process.
        cores: That all runs together may take; by default all that this process may use.
        processes: That share the load; a model's queue holds that part of its capacity.
        asked: Models to be loaded by name, each with the configuration that overrides what lies
            beside it, or None; by default whatever is on disk.
        rejected: Of each model, versions that are not to be served though they are wanted.
        required: As `Catalogue`.
        trial: Where first loads happen; by default in this process.

    Attributes:
        catalogue: What is loaded.
        is_loading: A thread loads a version, whether somebody waits for it or not.
    """

    def __init__(
        self,
        repository: ModelRepository,
        placement: Placement,
        observer: Observer | None = None,
        cache: Cache | None = None,
        cores: int = 0,
        processes: int = 1,
        asked: Mapping[str, str | None] | None = None,
        rejected: Mapping[str, Collection[int]] | None = None,
        required: Collection[str] = (ALL,),
        trial: Trial | None = None,
    ) -> None:
        self._repository = repository
        self._placement = placement
        self._observer = observer or SilentObserver()
        self._cache = cache or Cache(None)
        self._runners: Runners[Any] = Runners(cores or available_cores())
        self._shadows = ShadowThread(self._runners.nobody_waits)
        self.catalogue = Catalogue(required)
        self.is_loading = False
        self._processes = processes
        self._trial = trial
        self._asked = None if asked is None else dict(asked)
        self._rejected = {name: set(versions) for name, versions in (rejected or {}).items()}
        self._one_change = asyncio.Lock()
        self._leaving: dict[asyncio.Task[None], str] = {}  # with the model's name
        self._is_closed = False

    @property
    def placement(self) -> Placement:
        """The device that runs the models."""
        return self._placement

    @property
    def asked(self) -> Mapping[str, str | None]:
        """Models that were asked for by name, with what overrides their configuration."""
        return dict(self._asked or {})

    @property
    def rejected(self) -> dict[str, list[int]]:
        """Of each model, versions that were rolled back from."""
        return {name: sorted(versions) for name, versions in self._rejected.items() if versions}

    @property
    def longest_run_s(self) -> float:
        """Seconds that the longest of the runs under way has taken so far."""
        return self._runners.longest_s

    async def ask_for_all(self) -> None:
        """Ask for every model on disk, where models are loaded by name.

        Raises:
            RepositoryError, ConfigError: The repository cannot be listed.
        """
        found = await asyncio.to_thread(self._repository.list)
        self._asked = dict.fromkeys(found) | (self._asked or {})
        self._asked.pop(ALL, None)

    async def models_on_disk(self) -> list[str]:
        """Names of all models, loaded or not.

        Raises:
            RepositoryError: The repository cannot be listed.
        """

        def read() -> list[str]:
            return [name for name in self._repository.names() if self._repository.has_version(name)]

        return await asyncio.to_thread(read)

    async def reconcile(self) -> None:
        """Load what is missing or has changed and unload what is not wanted, until nothing is left to do.

        What fails to load is kept as failed with its reason, and tried again once it changes.

        Raises:
            RepositoryError: The repository cannot be listed.
        """
        async with self._one_change:
            for name, listing in (await self._listings()).items():
                await self._settle(name, listing)

    async def look(self, seen: Mapping[str, Found]) -> Mapping[str, Found]:
        """Reconcile what is as it was seen last; all that there is and was known, by the model's name.

        Args:
            seen: What the last look found.

        Raises:
            RepositoryError: The repository cannot be listed.
        """
        async with self._one_change:
            found = await self._listings()
            for name, listing in found.items():
                if is_unchanged(seen.get(name), listing):
                    await self._settle(name, listing)
            return found

    async def load(self, name: str, override: str | None = None) -> None:
        """A model is loaded as it lies on disk now, and again whatever of it was loaded and has changed.

        What was rolled back from may be served again.

        Args:
            name: Of the model.
            override: Replaces the configuration beside it, as Triton's JSON.

        Raises:
            LoadError: It is not on disk, its configuration makes no sense, or a version does not
                load; what was loaded before is served on.
        """
        async with self._one_change:
            self._check_open(name)
            try:
                listing = await asyncio.to_thread(self._repository.listing, name, override)
            except InfoldError as failure:
                raise LoadError(name, str(failure)) from failure
            numbers = [each.number for each in listing.versions]
            if not numbers:
                raise LoadError(name, "there is no version of it in the model repository")
            aspired = wanted(numbers, listing.policy)
            if not aspired:
                raise LoadError(name, f"versions: {listing.policy} wants none of {numbers}, which are there")
            model = self.catalogue.held.get(name)
            if model is not None:  # what has failed may succeed now
                model.tried = {n: v for n, v in model.tried.items() if not model.servables[n].reason}
            self._rejected.pop(name, None)
            await self._settle(name, listing)
            servables = self.catalogue.held[name].servables
            reasons = [f"version {n}: {servables[n].reason}" for n in aspired if servables[n].reason]
            ready = self.catalogue.held[name].ready
            # Whoever starts later is to serve what this one does, not to stumble over what it does not.
            if self._asked is not None and (
                len(reasons) < len(aspired) or (ready and name not in self._asked)
            ):
                self._asked[name] = override
            if reasons:
                raise LoadError(name, "; ".join(reasons))

    async def roll_back(self, name: str, version: int) -> None:
        """A version is served no more; what is wanted without it is loaded beside it first.

        It stays so until the model is loaded by name, or has a newer version.

        Args:
            name: Of the model.
            version: That is bad. Rolling back from it once more changes nothing.

        Raises:
            ModelNotFoundError: No model of that name was ever loaded.
            LoadError: No other version is there and can be loaded; then nothing has changed.
        """
        async with self._one_change:
            self._check_open(name)
            model = self.catalogue.held.get(name)
            if model is None:
                raise ModelNotFoundError(name)
            before = self._rejected.get(name, set())
            if version in before:
                return
            override = None if self._asked is None else self._asked.get(name)
            try:
                listing = await asyncio.to_thread(self._repository.listing, name, override)
            except InfoldError as failure:
                raise LoadError(name, str(failure), "roll back") from failure
            numbers = [each.number for each in listing.versions]
            if not wanted(numbers, listing.policy, {*before, version}):
                detail = f"versions: {listing.policy} wants none of {numbers} but version {version}"
                raise LoadError(name, detail, "roll back")
            self._rejected[name] = {*before, version}
            await self._settle(name, listing)
            if any(each.version.number != version for each in model.ready):
                return
            self._rejected[name] = before
            failed = [f"version {n}: {each.reason}" for n, each in model.servables.items() if each.reason]
            await self._settle(name, listing)
            raise LoadError(name, "; ".join(failed) or "no other version answers", "roll back")

    async def unload(self, name: str) -> None:
        """A model is served no more, once what was asked of it is answered.

        Raises:
            ModelNotFoundError: No model of that name was ever loaded.
        """
        async with self._one_change:
            if self._asked is not None:
                self._asked.pop(name, None)
            self._rejected.pop(name, None)
            model = self.catalogue.held.get(name)
            if model is None:
                raise ModelNotFoundError(name)
            model.refusal = None
            for servable in model.ready:
                self._drain(servable)
            for servable in model.servables.values():
                self._give_up(servable)
            await self._gone(name)
            model.tried.clear()
            if not model.servables:
                del self.catalogue.held[name]

    async def close(self) -> None:
        """Answer what was accepted, then unload everything; what is still being loaded comes to nothing."""
        self.catalogue.is_draining = True
        self.stop_loading()
        for model in self.catalogue.held.values():
            for servable in model.ready:
                self._drain(servable)
        await self._gone()
        self._runners.close()
        self._cache.close()

    def stop_loading(self) -> None:
        """What is being tried ends at once, and nothing is loaded any more."""
        self._is_closed = True
        if self._trial is not None:
            self._trial.close()

    async def _listings(self) -> dict[str, Found]:
        """Of every model that is wanted or known; why, of one that cannot be read."""

        def read() -> dict[str, Found]:
            asked = self._asked
            names = self._repository.names()
            found: dict[str, Found] = {}
            for name in names if asked is None else asked:
                try:
                    listing = self._repository.listing(name, None if asked is None else asked[name])
                except InfoldError as failure:
                    found[name] = failure
                    continue
                if listing.versions or asked is not None:
                    found[name] = listing
            return found

        gone = Listing((), "latest")
        known = list(self.catalogue.held)
        found = await asyncio.to_thread(read)
        return dict(sorted({**dict.fromkeys(known, gone), **found}.items()))

    async def _settle(self, name: str, listing: Found) -> None:
        """Bring one model to what is on disk."""
        model = self.catalogue.held.setdefault(name, Held({}, {}))
        if isinstance(listing, InfoldError):
            if str(listing) != str(model.refusal):
                log.error("model not read", extra={"model": name, "reason": str(listing)})
            model.refusal = listing
            return
        model.refusal = None
        if not listing.versions and self._asked is not None and name in self._asked:
            model.refusal = RepositoryError(self._repository.root / name, "there is no version in it")
        on_disk = {version.number: version for version in listing.versions}
        rejected = self._rejected.get(name, ())
        while True:
            changed = [n for n in model.servables if n in on_disk and model.tried.get(n) != on_disk[n]]
            action = plan(on_disk, model.states, listing.policy, changed, rejected)
            if action is None:
                break
            if isinstance(action, Load):
                await self._load(model, on_disk[action.version])
            else:
                self._drain(model.servables[action.version])
                await self._gone(name)
        kept = wanted(on_disk, listing.policy, rejected)
        if any(model.servables[number].state is not State.READY for number in kept):
            kept += fallbacks(on_disk, listing.policy, rejected)
        for number, servable in model.servables.items():
            if number not in kept:
                self._give_up(servable)
        if not on_disk and not model.ready and model.refusal is None:
            del self.catalogue.held[name]

    async def _load(self, model: Held, version: ModelVersion) -> None:
        model.tried[version.number] = version
        before = model.servables.get(version.number)
        is_replaced = before is not None and before.state is State.READY
        servable = Servable(version)
        if before is None or not is_replaced:
            model.servables[version.number] = servable
            self._tell(servable)
        try:
            loaded, seen = await asyncio.to_thread(self._loaded, version)
        except Exception as failure:  # of whatever kind: it is this version's, and nobody else's
            self._check_open(version.name)
            reason = _reason(failure, version)
            if before is not None and is_replaced:  # what was served before is served on
                before.reason = reason
                log.error("model not reloaded", extra=_about(version) | {"reason": reason})
                return
            servable.to(State.FAILED, reason)
            self._tell(servable)
            return
        self._check_open(version.name)
        if loaded.left_on_cpu:
            log.warning("nodes left on the cpu", extra=_about(version) | {"operators": loaded.left_on_cpu})
        if loaded.left_on_cuda:
            log.info("nodes left on cuda", extra=_about(version) | {"operators": loaded.left_on_cuda})
        servable.attach(seen.signature, self._batcher(version, loaded, seen), seen.reading, loaded.plan.runs)
        servable.to(State.READY)
        model.servables[version.number] = servable
        self._tell(servable)
        if before is not None and is_replaced:
            self._drain(before, is_replaced=True)

    def _check_open(self, name: str) -> None:
        """Raise a `LoadError` if the service has ended, maybe while this model was being loaded."""
        if self._is_closed:
            raise LoadError(name, "the service is going down")

    def _loaded(self, version: ModelVersion) -> tuple[Loaded, Presented]:
        """Takes its time: not on the event loop."""
        self.is_loading = True
        try:
            where, how = placed(version, self._placement), self._trial or prepare
            loaded = load(version, where, self._runners.cores, self._cache, how)
            seen = presented(version, loaded)
            warm_sizes(version, loaded)
            check_golden(version, seen)
            return loaded, seen
        finally:
            self.is_loading = False

    def _batcher(self, version: ModelVersion, loaded: Loaded, seen: Presented) -> Batcher:
        batching = version.config.batching
        share = max(batching.max_rows, batching.capacity_rows // self._processes)
        return Batcher(
            (version.name, version.number),
            seen.signature,
            seen.run,
            replace(batching, capacity_rows=share, pad_to=batching.pad_to or loaded.plan.pad_to),
            loaded.plan,
            self._runners,
            self._observer,
            run_wide=seen.run_wide,
            shadow=shadow_of(
                version, loaded.session.signature, seen.signature, self._shadows, self._observer
            ),
        )

    def _drain(self, servable: Servable, *, is_replaced: bool = False) -> None:
        """Let a servable answer what it was asked, and then go; whose place another has is not told of."""

        async def drain() -> None:
            await servable.drain()
            is_bad = servable.version.number in self._rejected.get(servable.version.name, ())
            servable.to(State.UNLOADED, "rolled back" if is_bad else "")
            if not is_replaced:
                self._tell(servable)

        servable.to(State.DRAINING)
        if not is_replaced:
            self._tell(servable)
        task = asyncio.get_running_loop().create_task(drain())
        self._leaving[task] = servable.version.name
        task.add_done_callback(self._leaving.pop)

    async def _gone(self, name: str | None = None) -> None:
        """Return once what drains is gone, of one model or of all; it goes on if nobody waits any more."""
        leaving = [task for task, model in self._leaving.items() if name in (None, model)]
        if leaving:
            await asyncio.wait(leaving)

    def _give_up(self, servable: Servable) -> None:
        """Nobody wants it any more, if it has failed."""
        if servable.state is State.FAILED:
            servable.to(State.UNLOADED)
            self._tell(servable)

    def _tell(self, servable: Servable) -> None:
        version = servable.version
        self._observer.state_changed(version.name, version.number, servable.state, servable.reason)
        log.log(
            logging.ERROR if servable.state is State.FAILED else logging.INFO,
            "model %s",
            servable.state.value,
            extra=_about(version) | ({"reason": servable.reason} if servable.reason else {}),
        )


def is_unchanged(earlier: Found | None, now: Found) -> bool:
    """A model lies there as it did."""
    if isinstance(now, InfoldError):
        return isinstance(earlier, InfoldError) and str(earlier) == str(now)
    return isinstance(earlier, Listing) and earlier == now


def _reason(failure: Exception, version: ModelVersion) -> str:
    """Why a version does not load; what nobody thought of is logged with its traceback, too."""
    if isinstance(failure, InfoldError):
        return str(failure)
    log.error("load failed", exc_info=failure, extra=_about(version))
    return f"{type(failure).__name__}: {failure}"


def _about(version: ModelVersion) -> dict[str, object]:
    return {"model": version.name, "version": version.number}
