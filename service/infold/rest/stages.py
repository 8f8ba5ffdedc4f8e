"""Where the time of answered requests went, stage by stage: counted, and told each caller."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from infold.rest.counting import Histogram, Ledger
from infold.serving import Took

__all__ = ["STAGES", "STAGE_SECONDS", "StageCounts", "server_timing"]

# From the first byte of a request to the last of its answer, in the order that is usual.
STAGES = ("read", "decode", "queue", "batch", "compute", "encode")
# Of a small model every stage takes microseconds.
STAGE_SECONDS = (
    1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3,
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip


class StageCounts:
    """How long requests of one version took in each stage.

    Attributes:
        by_stage: A histogram a stage, up to date after `settle`.
    """

    __slots__ = ("_answered", "by_stage")

    def __init__(self) -> None:
        self.by_stage = {stage: Histogram(STAGE_SECONDS) for stage in STAGES}
        self._answered = Ledger(self._count)

    def waited(self, seconds: float) -> None:
        """A run took a request on, whatever came of it."""
        self.by_stage["queue"].observe(seconds)

    def answered(self, read_s: float, took: Took) -> None:
        """A request was answered; its wait is counted already."""
        _, decode_s, _, batch_s, compute_s, encode_s = took
        self._answered.add((read_s, decode_s, batch_s, compute_s, encode_s))

    def settle(self) -> None:
        """Bring the histograms up to date."""
        self._answered.settle()

    def _count(self, rows: NDArray[np.float64]) -> None:
        stages = (stage for stage in STAGES if stage != "queue")
        for stage, seconds in zip(stages, rows.T, strict=True):
            self.by_stage[stage].observe_all(seconds)


def server_timing(read_s: float, took: Took) -> tuple[bytes, bytes]:
    """The header that tells a caller where the time went, in milliseconds.

    Source: W3C Server Timing.
    """
    _, decode_s, queue_s, batch_s, compute_s, encode_s = took
    if not (queue_s or batch_s):  # run where it was read: nothing to wait for, nobody to share with
        return b"server-timing", INLINE % (read_s * 1e3, decode_s * 1e3, compute_s * 1e3, encode_s * 1e3)
    return b"server-timing", EVERY % (
        read_s * 1e3,
        decode_s * 1e3,
        queue_s * 1e3,
        batch_s * 1e3,
        compute_s * 1e3,
        encode_s * 1e3,
    )


EVERY = b", ".join(b"%s;dur=%%.3f" % stage.encode() for stage in STAGES)
INLINE = EVERY.replace(b"queue;dur=%.3f, batch;dur=%.3f", b"queue;dur=0, batch;dur=0")
