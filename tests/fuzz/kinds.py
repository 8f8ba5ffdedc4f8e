"""Every kind of request beside plain infer and predict.

A kind that the server does not serve it may refuse. One that it serves it must answer
or refuse like any other, so a new feature is fuzzed by the same test: it needs a
generator here, of what is right and of what can be wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st

from fuzz import compression, orders, payloads, pictures, routes
from fuzz.asking import Request

__all__ = ["KINDS"]

KINDS: tuple[Callable[[], st.SearchStrategy[Request]], ...] = (
    compression.compressed,
    pictures.images,
    pictures.multipart,
    pictures.pictures_in_messages,
    payloads.numpy_files,
    payloads.encoded_strings,
    payloads.half_numbers,
    payloads.classification,
    routes.addresses,
    orders.configurations,
    orders.management,
    routes.observation,
)
