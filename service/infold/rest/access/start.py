"""What is told at the start about who may come in."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from infold.rest.access.small_file import others_of
from infold.rest.access.tls import tls_files

if TYPE_CHECKING:
    from infold.settings import Settings

__all__ = ["scheme_of", "tell_what_others_may"]

log = logging.getLogger(__name__)


def scheme_of(settings: Settings) -> str:
    """Of the service's addresses."""
    return "http" if settings.tls_cert is None else "https"


def tell_what_others_may(settings: Settings) -> None:
    """A warning for each file that more people may look into, or change, than should.

    Raises:
        ConfigError: Files of TLS are named that are of no use.
    """
    files = tls_files(settings)
    for path in (settings.api_keys, None if files is None else files.key):
        if path is not None and (able := others_of(path)) is not None:
            log.warning("file open to others", extra={"file": str(path), "may_be": able})
