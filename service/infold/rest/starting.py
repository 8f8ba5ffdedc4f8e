"""What is told at the start of what the machine gives, and defaults that follow from it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from infold.runtime.cgroups import memory_limit
from infold.runtime.cores import cores_of_process
from infold.runtime.memory import host_bytes, machine_bytes
from infold.settings import Settings

__all__ = ["fitted", "room_for_bodies", "running_line", "tell_unused_name"]

log = logging.getLogger(__name__)

# Of all memory, what bodies may have by default: tensors are made of them, and models want the rest.
IN_FLIGHT_PART = 4
MACHINE = Path("/")


def room_for_bodies(settings: Settings, root: Path = MACHINE) -> int:
    """Bytes that all bodies in flight may have: what was set, or what follows from the memory there is.

    Args:
        settings: As they were read.
        root: Where `sys` and `proc` lie; another place in tests.
    """
    if "max_in_flight_bytes" in settings.model_fields_set:
        return settings.max_in_flight_bytes
    return min(settings.max_in_flight_bytes, machine_bytes(root) // IN_FLIGHT_PART)


def fitted(settings: Settings, root: Path = MACHINE) -> Settings:
    """The settings, but that a default for which there is too little memory is lowered; the log says so.

    What was set is kept.

    Args:
        settings: As they were read.
        root: As `room_for_bodies`.
    """
    wanted, there, room = settings.max_in_flight_bytes, machine_bytes(root), room_for_bodies(settings, root)
    facts = {"max_in_flight_bytes": room, "memory_bytes": there}
    if room > there:
        log.warning("bodies may take more memory than there is", extra=facts)
    if room >= wanted:
        return settings
    log.info("less room for bodies than by default", extra=facts)
    return settings.model_copy(update={"max_in_flight_bytes": room})


def running_line(device: str, workers: int, root: Path = MACHINE) -> str:
    """The line that tells what models run on.

    Args:
        device: It, and why.
        workers: Processes that share the cores.
        root: As `fitted`.
    """
    cores, limit = cores_of_process(root), memory_limit(root)
    each = cores.each(workers)
    words = [f"infold runs models on {device}", f"{each} core{'s' if each > 1 else ''}"]
    if workers > 1:
        words[-1] += " a worker"
    if cores.why:
        words[-1] += f" ({cores.why})"
    if limit is not None and limit.value < host_bytes():
        words.append(f"{limit.value / 2**20:.0f} MiB of memory")
    return ", ".join(words)


def tell_unused_name(settings: Settings, served: Sequence[str]) -> None:
    """A line in the log where the name that one model was to have is nobody's."""
    if settings.model_name and served and settings.model_name not in served:
        facts = {"model_name": settings.model_name, "models": served}
        log.warning("model name not used", extra=facts | {"reason": "they have folders of their own"})
