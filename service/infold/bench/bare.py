"""onnxruntime alone on the same model and inputs: the limit of what a server could do.

Two ways to use a machine are tried: one run after the other with all cores inside each, and
as many runs at once as there are cores with one core inside each.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Sequence
from pathlib import Path

from infold.bench.latencies import latencies
from infold.bench.loops import Timing
from infold.bench.outcomes import Load, Loop
from infold.runtime import Placement, Session, available_cores
from infold.runtime.options import RunOptions
from infold.tensors import Tensors

__all__ = ["measure_bare"]


def measure_bare(
    path: Path,
    requests: Sequence[Tensors],
    placement: Placement,
    disabled_optimizers: tuple[str, ...],
    timing: Timing,
) -> tuple[list[Load], list[Tensors]]:
    """One row for each way, and the model's answer to each request.

    Raises:
        SessionError: onnxruntime fails.
    """
    session = Session(path, RunOptions(placement, disabled_optimizers=disabled_optimizers))
    answers = [session.run(tensors) for tensors in requests]
    rows = [_measured(session, requests, 1, timing)]
    del session  # and its threads with it
    cores = available_cores()
    if cores > 1:
        options = RunOptions(placement, intra_op_threads=1, disabled_optimizers=disabled_optimizers)
        rows.append(_measured(Session(path, options), requests, cores, timing))
    return rows, list(answers)


def _measured(session: Session, requests: Sequence[Tensors], threads: int, timing: Timing) -> Load:
    start = time.monotonic() + timing.warmup_s
    end = start + timing.seconds
    stop = threading.Event()
    found = [array("d") for _ in range(threads)]

    def repeat(thread: int) -> None:
        number = thread
        while not stop.is_set() and (began := time.monotonic()) < end:
            session.run(requests[number % len(requests)])
            ended = time.monotonic()
            if start <= began and ended < end:
                found[thread].append(ended - began)
            number += 1

    workers = [threading.Thread(target=repeat, args=(n,)) for n in range(1, threads)]
    for worker in workers:
        worker.start()
    try:
        repeat(0)
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    every = [seconds for some in found for seconds in some]
    return Load(Loop.BARE, float(threads), len(every) / timing.seconds, latencies(every))
