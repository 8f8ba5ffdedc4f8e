"""From a version on disk to sessions that are ready, with a plan for them; in a thread, no asyncio.

The first load of a model optimizes it, runs it once and measures it (`serving/preparing.py`); what
came of that is kept in the cache, and the next load only opens files.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from infold.errors import SessionError
from infold.runtime import Cache, Placement, RunOptions, Session
from infold.runtime.model_files import check_files
from infold.serving.plan import Plan, choose, on_gpu
from infold.serving.preparing import (
    Findings,
    Prepare,
    checked_weights,
    options_of,
    prepare,
    varies,
    with_engines,
)
from infold.serving.repository import ModelVersion
from infold.tensors import Signature

__all__ = ["Loaded", "load", "opened"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A version that can be run.

    Attributes:
        session: Runs on the plan's cores.
        wide: Runs on all cores; None where the plan wants none.
        plan: How to run it.
        left_on_cpu: Operators that a GPU leaves to the CPU.
        left_on_cuda: Operators that TensorRT leaves to CUDA.
    """

    session: Session
    wide: Session | None
    plan: Plan
    left_on_cpu: tuple[str, ...] = ()
    left_on_cuda: tuple[str, ...] = ()


def load(
    version: ModelVersion, placement: Placement, cores: int, cache: Cache, prepare: Prepare = prepare
) -> Loaded:
    """Load a version.

    Args:
        version: What is on disk.
        placement: The device that runs it.
        cores: That runs may take in all.
        cache: Where outcomes of earlier loads lie.
        prepare: Does what only the first load does; by default in this process.

    Raises:
        SessionError: onnxruntime refuses it.
        DeviceError: It loads, but not on that device.
    """
    narrow = options_of(version, placement, cores)
    check_files(version.path, root=version.root)
    found = prepare(version, narrow, cores, cache)
    try:
        return opened(version, found, narrow, cores, cache)
    except SessionError as failure:
        if not found.is_kept:
            raise
        cache.drop(found.key, failure.detail)  # damaged, though of the right size
    return opened(version, prepare(version, narrow, cores, cache), narrow, cores, cache)


def opened(version: ModelVersion, found: Findings, narrow: RunOptions, cores: int, cache: Cache) -> Loaded:
    """A version whose first load is over; where its graph is kept that takes milliseconds.

    Raises:
        SessionError, DeviceError: As `load`.
    """
    prepared = cache.find(found.key, version.path) if found.is_kept else None
    if prepared is None:
        return _unprepared(version, found, narrow, cores, cache)
    session = prepared.open(narrow)
    if varies(
        session.signature
    ):  # memory kept for the largest shape that ever came would never be given back
        narrow = replace(narrow, keeps_memory=False)
        session = prepared.open(narrow)
    plan = _plan(version, found, cores, session.signature)
    wide = replace(narrow, intra_op_threads=cores)
    return Loaded(session, prepared.open(wide) if plan.wide_cores else None, plan)


def _unprepared(
    version: ModelVersion, found: Findings, narrow: RunOptions, cores: int, cache: Cache
) -> Loaded:
    """As it lies in the repository, if it lies there as it did when it was tried."""
    if found.is_kept:  # but it is gone
        checked_weights(version)
    check_files(version.path, found.weight_files, version.root)
    if cache.key(version.path, narrow) != found.key:
        raise SessionError(str(version.path), "has changed while it was loaded")
    session = Session(version.path, with_engines(narrow, cache, found.key))
    if narrow.placement.device.is_gpu:
        plan = on_gpu(version.config.batching, joinable=session.signature.is_batched)
        _tell(version, plan)
        return Loaded(session, None, plan, found.left_on_cpu, found.left_on_cuda)
    plan = _plan(version, found, cores, session.signature)
    # A second session costs as much as the first: only whoever asks for it gets one.
    if version.config.session.wide != "always" or not plan.wide_cores:
        return Loaded(session, None, replace(plan, wide_cores=0))
    return Loaded(session, Session(version.path, replace(narrow, intra_op_threads=cores)), plan)


def _plan(version: ModelVersion, found: Findings, cores: int, signature: Signature) -> Plan:
    config = version.config
    plan = choose(found.measured, cores, config.batching, config.session, joinable=signature.is_batched)
    _tell(version, plan)
    return plan


def _tell(version: ModelVersion, plan: Plan) -> None:
    log.info(
        "plan chosen",
        extra={
            "model": version.name,
            "version": version.number,
            "cores": plan.cores,
            "runs": plan.runs,
            "wide_cores": plan.wide_cores,
            "join_rows": plan.join_rows,
            "inline_rows": plan.inline_rows,
        },
    )
