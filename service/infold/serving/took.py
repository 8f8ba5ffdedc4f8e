"""Where the time of one request went, from its body to its answer."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Took"]


class Took(NamedTuple):
    """What a request took in each stage of its way, in seconds; 0 where there was no such stage.

    Attributes:
        rows: That it brought.
        decode_s: Reading its tensors.
        queue_s: Waiting for its run, reading left out.
        batch_s: Joining it with others, filling up, and splitting: all of its run's.
        compute_s: In the session: all of its run's.
        encode_s: Writing its answer.
    """

    rows: int
    decode_s: float
    queue_s: float
    batch_s: float
    compute_s: float
    encode_s: float
