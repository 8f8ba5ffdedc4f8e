"""HTTP: the skin over the serving floor.

The app is loaded when it is asked for: the supervisor lives here, too, and must
stay light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infold.rest.app import create_app

__all__ = ["create_app"]


def __getattr__(name: str) -> object:
    if name != "create_app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from infold.rest.app import create_app

    return create_app
