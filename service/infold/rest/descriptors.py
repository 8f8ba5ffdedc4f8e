"""How many connections a process has descriptors for."""

from __future__ import annotations

import logging
import resource

__all__ = ["connections_within", "fitting_connections", "raised_limit"]

log = logging.getLogger(__name__)

# For files of models, sockets and pipes of our own, and connections that are being turned away.
RESERVED = 256


def connections_within(wanted: int, descriptors: int) -> int:
    """How many connections that many descriptors are enough for, at least one and at most as wanted."""
    return max(1, min(wanted, descriptors - min(RESERVED, descriptors // 4)))


def raised_limit(wanted: int) -> int:
    """The most descriptors that this process may have from now on: as wanted, or as near as it is let.

    A limit that is higher already stays.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    aim = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (aim, hard))
    except (ValueError, OSError):  # some systems have a lower limit than they say
        return soft
    return aim


def fitting_connections(wanted: int) -> int:
    """How many connections this process may hold, once its limit of descriptors is raised for them."""
    limit = raised_limit(wanted + RESERVED)
    fitting = connections_within(wanted, limit)
    if fitting < wanted:
        facts = {"wanted": wanted, "connections": fitting, "descriptors": limit}
        log.warning("fewer connections than wanted", extra=facts)
    return fitting
