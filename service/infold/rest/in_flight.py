"""How many bytes of requests the service holds at a time: pure counting.

A body counts from the moment it is begun to be read, by the length that it says it
has, until its request is answered. What a request holds is noted with the request
itself, so nothing is given back twice, and nothing is forgotten that was noted.
"""

from __future__ import annotations

import threading
from collections.abc import MutableMapping
from typing import Any

from infold.errors import AbandonedError, OverloadedError

__all__ = ["InFlight"]

KEY = "infold.in_flight"
ENDED = -1


class InFlight:
    """The bytes of all requests that are not answered yet.

    Everything is called by the event loop, but for `hold` between `begin_growth` and
    `end_growth`: only then is anything locked, since every request comes through here.

    Args:
        limit_bytes: The most that they may have together.
    """

    __slots__ = ("_growing", "_held_bytes", "_lock", "limit_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._held_bytes = 0
        self._growing = 0
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """What all of them have together."""
        return self._held_bytes

    def hold(self, request: MutableMapping[str, Any], size: int) -> None:
        """The request has at least so many bytes now, and had the right to them before it took them.

        Args:
            request: Where it is noted.
            size: All of its bytes, not those that are new.

        Raises:
            OverloadedError: There is no room for them; it holds what it held.
            AbandonedError: The request has ended meanwhile.
        """
        if self._growing:
            with self._lock:
                self._hold(request, size)
        else:
            self._hold(request, size)

    def give_back(self, request: MutableMapping[str, Any]) -> None:
        """The request has ended and holds nothing, however often that is said."""
        if self._growing:
            with self._lock:
                self._give_back(request)
        else:
            self._give_back(request)

    def begin_growth(self) -> None:
        """A thread is about to hold more for a request; one `end_growth` follows, from anywhere."""
        with self._lock:
            self._growing += 1

    def end_growth(self) -> None:
        """That thread holds nothing more."""
        with self._lock:
            self._growing -= 1

    def _hold(self, request: MutableMapping[str, Any], size: int) -> None:
        held = request.get(KEY, 0)
        if held == ENDED:
            raise AbandonedError
        if size <= held:
            return
        after = self._held_bytes + size - held
        if after > self.limit_bytes:
            raise OverloadedError(self.limit_bytes)
        self._held_bytes = after
        request[KEY] = size

    def _give_back(self, request: MutableMapping[str, Any]) -> None:
        held = request.get(KEY, 0)
        request[KEY] = ENDED
        if held != ENDED:
            self._held_bytes -= held
