"""Keeps a manager in step with a repository that changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from infold.errors import InfoldError
from infold.serving.manager import Found, ModelManager, is_unchanged
from infold.serving.repository import ModelRepository
from infold.serving.watching import Watch

__all__ = ["follow"]

log = logging.getLogger(__name__)

# What has not changed for so long is finished, where changes are told.
SETTLE_S = 2.0


async def follow(manager: ModelManager, repository: ModelRepository, every_s: float, watch: Watch) -> None:
    """Look from time to time, until the service goes down; what is still being written waits until it is not.

    Another folder in the repository's place, with nothing in it, is a volume that has gone, and no
    order to unload everything.

    Args:
        manager: Loads and unloads.
        repository: Where its models lie.
        every_s: From one look to the next; what two looks find the same is finished.
        watch: Shortens that once something has changed.
    """
    seen: Mapping[str, Found] = {}
    is_settled, was_gone, home = True, False, repository.identity()
    while True:
        await watch.sleep(every_s if is_settled else min(every_s, SETTLE_S))
        if manager.catalogue.is_draining:
            return
        here = repository.identity()
        is_away = here is not None and here != home and await asyncio.to_thread(_is_empty, repository)
        if is_away and not was_gone:
            log.error("repository is gone", extra={"served_on": manager.catalogue.models()})
        was_gone = is_away
        if is_away:
            continue
        home = here or home
        try:
            found = await manager.look(seen)
            is_settled = all(is_unchanged(seen.get(name), each) for name, each in found.items())
            seen = found
        except InfoldError as failure:
            log.error("repository not listed", extra={"reason": str(failure)})
        except Exception:  # a mistake of ours must not be the last look
            log.exception("repository not followed")


def _is_empty(repository: ModelRepository) -> bool:
    """There is no model in it."""
    try:
        return not any(repository.has_version(name) for name in repository.names())
    except InfoldError:
        return False
