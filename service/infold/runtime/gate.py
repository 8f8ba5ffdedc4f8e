"""Many may pass at a time, or one alone: recording a CUDA graph fails if anybody else uses the GPU meanwhile.

onnxruntime records in CUDA's global mode, in which no thread of the process may allocate or wait.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["GPU", "Gate"]


class Gate:
    """Passed by many or by one; whoever wants it alone goes before those that come later.

    It is not passed twice by one thread at a time.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._inside = 0
        self._wanted_alone = 0
        self._is_alone = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Nobody is inside alone."""
        with self._changed:
            while self._is_alone or self._wanted_alone:
                self._changed.wait()
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                if not self._inside:
                    self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else is inside."""
        with self._changed:
            self._wanted_alone += 1
            while self._is_alone or self._inside:
                self._changed.wait()
            self._wanted_alone -= 1
            self._is_alone = True
        try:
            yield
        finally:
            with self._changed:
                self._is_alone = False
                self._changed.notify_all()


# Every session of this process on whatever GPU.
GPU = Gate()
