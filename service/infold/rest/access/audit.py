"""A line in the log for whoever gives orders, or tries to: who, from where, what, and what came of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from infold.rest.access.guard import CERTIFICATE, KEY_NAME
from infold.rest.access.scopes import action_of, model_of, routed_path

if TYPE_CHECKING:
    from starlette.types import Scope

__all__ = ["AUDIT", "address_of", "write_down"]

AUDIT = "infold.audit"

log = logging.getLogger(AUDIT)

LONGEST = 256


def address_of(client: Sequence[object] | None) -> str | None:
    """The other end of a connection, as a URL would have it; None where nobody knows."""
    if not client:
        return None
    host, port = str(client[0]), client[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def write_down(scope: Scope, status: int) -> None:
    """One line, whatever the log's level; while the request's id is known.

    Args:
        scope: Of a request that is an order.
        status: Of its answer; 499 where nobody was left to be answered.
    """
    path = routed_path(scope)
    model = model_of(path)
    log.info(
        "order given" if status < 400 else "order refused",
        extra={
            "key": scope.get(KEY_NAME),
            "certificate": scope.get("state", {}).get(CERTIFICATE),
            "client": address_of(scope.get("client")),
            "action": action_of(path)[:LONGEST],
            "model": None if model is None else model[:LONGEST],
            "status": status,
        },
    )
