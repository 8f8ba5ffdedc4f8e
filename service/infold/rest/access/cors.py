"""Pages of other origins: their browsers are told that they may call.

Starlette's own middleware does it, outside of everything else, since a browser asks
beforehand without a key. It is imported only where a setting wants it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from infold.errors import ConfigError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

__all__ = ["open_to"]

ANY = "*"
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s*?#]+")
METHODS = ("GET", "POST")
# What a page may read of an answer beside its body.
EXPOSED = ("Inference-Header-Content-Length", "Retry-After", "Server-Timing", "X-Request-Id")


def open_to(origins: Sequence[str], app: ASGIApp) -> ASGIApp:
    """The app itself, or one that pages of these origins may call.

    Args:
        origins: As `https://example.org`; `*` is all of them.
        app: What they call.

    Raises:
        ConfigError: One of them is no origin.
    """
    if not origins:
        return app
    for index, origin in enumerate(origins):
        if origin != ANY and not ORIGIN.fullmatch(origin):
            raise ConfigError(
                f"INFOLD_CORS_ORIGINS[{index}]", f"'{origin}' is not of the form https://host[:port]"
            )
    from starlette.middleware.cors import CORSMiddleware

    # No cookies: a page has to hold a key of its own to be let in.
    return CORSMiddleware(
        app, allow_origins=origins, allow_methods=METHODS, allow_headers=(ANY,), expose_headers=EXPOSED
    )
