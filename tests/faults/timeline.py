"""Which versions may answer when, and which must: what answers and refusals are held against.

A version may answer from the moment it lies on disk (a worker that is started again may find it
there), must answer once an order to load it has been carried out, need not once an order has been
given that takes it away, and must not once that has been carried out.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Timeline"]


@dataclass(slots=True)
class _Span:
    """One life of a version.

    Attributes:
        begun: From then on it may answer.
        sure: From then on it must.
        doubtful: From then on it need not.
        ended: From then on it must not.
    """

    begun: float
    sure: float = math.inf
    doubtful: float = math.inf
    ended: float = math.inf


class Timeline:
    """The lives of all versions; `None` stands for a model as a whole, whatever version answers.

    Args:
        clock: Seconds that are never set back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._spans: dict[tuple[str, int | None], list[_Span]] = {}

    def appears(self, model: str, version: int | None) -> None:
        """From now on it may answer; where it was there already, a new life of it begins."""
        with self._lock:
            now, spans = self._clock(), self._spans.setdefault((model, version), [])
            if spans:
                spans[-1].ended = min(spans[-1].ended, now)
                spans[-1].doubtful = min(spans[-1].doubtful, now)
            spans.append(_Span(now))

    def is_sure(self, model: str, version: int | None) -> None:
        """From now on it must answer."""
        with self._lock:
            self._spans[model, version][-1].sure = self._clock()

    def is_doubtful(self, model: str, version: int | None) -> None:
        """From now on it need not answer any more."""
        with self._lock:
            last = self._spans[model, version][-1]
            last.doubtful = min(last.doubtful, self._clock())

    def vanishes(self, model: str, version: int | None) -> None:
        """From now on it must not answer any more."""
        with self._lock:
            last = self._spans[model, version][-1]
            last.ended = self._clock()
            last.doubtful = min(last.doubtful, last.ended)

    def may(self, model: str, version: int | None, sent: float, received: float) -> bool:
        """It was there at some time between these two."""
        return any(each.begun <= received and sent <= each.ended for each in self._of(model, version))

    def must(self, model: str, version: int | None, sent: float, received: float) -> bool:
        """It was there all the time between these two."""
        return any(each.sure <= sent and received <= each.doubtful for each in self._of(model, version))

    def newest_sure(self, model: str, sent: float, received: float) -> int:
        """The newest version that was there all the time between these two; 0 where none was."""
        with self._lock:
            versions = [version for name, version in self._spans if name == model and version is not None]
        return max((each for each in versions if self.must(model, each, sent, received)), default=0)

    def candidates(self, model: str, sent: float, received: float) -> list[int]:
        """Versions that were there at some time between these two."""
        with self._lock:
            versions = [version for name, version in self._spans if name == model and version is not None]
        return [each for each in versions if self.may(model, each, sent, received)]

    def living(self, model: str) -> list[int]:
        """Versions that may answer now, oldest first."""
        now = self._clock()
        return sorted(self.candidates(model, now, now))

    def _of(self, model: str, version: int | None) -> list[_Span]:
        with self._lock:
            return list(self._spans.get((model, version), ()))
