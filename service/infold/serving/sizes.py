"""Runs of every size that is to be expected, before the first request: memory is taken, kernels chosen."""

from __future__ import annotations

import logging
import time

from infold.errors import SessionError
from infold.runtime import Session, Stop
from infold.runtime.measuring import one_row, repeated
from infold.serving.loading import Loaded
from infold.serving.plan import sizes
from infold.serving.repository import ModelVersion
from infold.tensors import Tensors

__all__ = ["warm_sizes"]

log = logging.getLogger(__name__)

# CUDA chooses its kernels anew for each size, which takes up to a second; nobody else's cores are needed.
BUDGET_S, GPU_BUDGET_S = 2.0, 20.0


def warm_sizes(version: ModelVersion, loaded: Loaded) -> None:
    """The sessions that will serve have run every size they will see, as far as that does not take long.

    A model that no row can be made up for is not run, nor in sizes that it does not take.
    """
    session, batching = loaded.session, version.config.batching
    row = one_row(version.path, session.signature, version.root)
    counts = [1]
    if session.signature.is_batched:
        counts = sizes(loaded.plan.join_rows, *batching.preferred_rows, *batching.pad_to)
    left = GPU_BUDGET_S if session.provider != "CPUExecutionProvider" else BUDGET_S
    row_s = 0.0
    try:
        if loaded.wide is not None:
            left -= _run_s(loaded.wide, row)
        for count in counts:
            if count * row_s > left:
                break
            taken = _run_s(session, repeated(row, count), is_large=count > loaded.plan.join_rows)
            left, row_s = left - taken, taken / count
    except SessionError as failure:
        about = {"model": version.name, "version": version.number, "reason": failure.detail}
        log.info("not warmed up", extra=about)


def _run_s(session: Session, tensors: Tensors, *, is_large: bool = False) -> float:
    began = time.perf_counter()
    session.run(tensors, None, Stop(is_large=is_large))
    return time.perf_counter() - began
