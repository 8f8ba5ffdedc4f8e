"""Where the time of answered requests went, stage by stage: counted, and told each caller."""

from __future__ import annotations

from bisect import bisect_left

from infold.rest.counting import Histogram
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
        by_stage: A histogram a stage.
    """

    __slots__ = ("_each", "by_stage")

    def __init__(self) -> None:
        self.by_stage = {stage: Histogram(STAGE_SECONDS) for stage in STAGES}
        self._each = tuple(self.by_stage[stage] for stage in STAGES if stage != "queue")

    def waited(self, seconds: float) -> None:
        """A run took a request on, whatever came of it."""
        self.by_stage["queue"].observe(seconds)

    def answered(self, read_s: float, took: Took) -> None:
        """A request was answered; its wait is counted already."""
        _, decode_s, _, batch_s, compute_s, encode_s = took
        read, decode, batch, compute, encode = self._each
        read.counts[bisect_left(STAGE_SECONDS, read_s)] += 1
        read.sum += read_s
        decode.counts[bisect_left(STAGE_SECONDS, decode_s)] += 1
        decode.sum += decode_s
        batch.counts[bisect_left(STAGE_SECONDS, batch_s)] += 1
        batch.sum += batch_s
        compute.counts[bisect_left(STAGE_SECONDS, compute_s)] += 1
        compute.sum += compute_s
        encode.counts[bisect_left(STAGE_SECONDS, encode_s)] += 1
        encode.sum += encode_s


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
