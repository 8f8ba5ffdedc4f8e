"""From a version on disk to sessions that are ready, with a plan for them; in a thread, no asyncio.

The first load of a model optimizes it, runs it once and measures it; what came
of that is kept in the cache, and the next load only opens files.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from infold.errors import SessionError
from infold.runtime import Cache, Placement, Prepared, RunOptions, Session
from infold.runtime.measuring import BUCKETS, one_row, time_rows, time_run
from infold.runtime.memory import give_back
from infold.runtime.options import Device
from infold.runtime.session import nodes_left_on_cpu
from infold.serving.plan import Measured, Plan, choose
from infold.serving.repository import ModelVersion
from infold.tensors import Dim, Signature, Tensors

__all__ = ["Loaded", "load", "varies"]

log = logging.getLogger(__name__)

QUIET = 0.9  # of the time a run of one thread must have had a core
MEASURE_S, WIDE_S = 1.0, 0.3  # for all numbers of rows together, and for the wide session


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A version that can be run.

    Attributes:
        session: Runs on the plan's cores.
        wide: Runs on all cores; None where the plan wants none.
        plan: How to run it.
        left_on_cpu: Operators that CUDA leaves to the CPU.
    """

    session: Session
    wide: Session | None
    plan: Plan
    left_on_cpu: tuple[str, ...] = ()


def load(version: ModelVersion, placement: Placement, cores: int, cache: Cache) -> Loaded:
    """Load a version.

    Args:
        version: What is on disk.
        placement: The device that runs it.
        cores: That runs may take in all.
        cache: Where outcomes of earlier loads lie.

    Raises:
        SessionError: onnxruntime refuses it.
        DeviceError: It loads, but not on that device.
    """
    config = version.config.session
    narrow = RunOptions(
        placement,
        intra_op_threads=min(config.intra_op_threads or 1, cores),
        disabled_optimizers=config.disabled_optimizers,
    )
    if placement.device is Device.CUDA:
        return _on_cuda(version, narrow)
    key = cache.key(version.path, narrow)
    with cache.alone(key):
        prepared = cache.find(key, version.path)
        if prepared is not None:
            try:
                return _open(version, prepared, key, narrow, cores, cache)
            except SessionError as failure:  # damaged, though of the right size
                cache.drop(key, failure.detail)
        session = Session(version.path, narrow)
        row = one_row(version.path, session.signature)
        try:
            session.run(row)
        except SessionError as failure:  # open lengths that are not 1: nothing can be learnt of it
            log.info("not measured", extra=_named(version) | {"reason": failure.detail})
            return _unprepared(version, session, None, narrow, cores)
        prepared = cache.make(key, version.path, narrow, row)
        if prepared is None:
            return _unprepared(version, session, Measured(_rows(session, row, version)), narrow, cores)
        del session
        return _open(version, prepared, key, narrow, cores, cache)


def _unprepared(
    version: ModelVersion, session: Session, measured: Measured | None, narrow: RunOptions, cores: int
) -> Loaded:
    """A second session costs as much as the first: only whoever asks for it gets one."""
    plan = _plan(version, measured, cores, session.signature)
    if version.config.session.wide != "always" or not plan.wide_cores:
        return Loaded(session, None, replace(plan, wide_cores=0))
    return Loaded(session, Session(version.path, replace(narrow, intra_op_threads=cores)), plan)


def _open(
    version: ModelVersion, prepared: Prepared, key: str, narrow: RunOptions, cores: int, cache: Cache
) -> Loaded:
    session = prepared.open(narrow)
    if varies(
        session.signature
    ):  # memory kept for the largest shape that ever came would never be given back
        narrow = replace(narrow, keeps_memory=False)
        session = prepared.open(narrow)
    wide = replace(narrow, intra_op_threads=cores)
    name = f"seconds on {narrow.intra_op_threads} of {cores} cores"
    measured = _from_facts(prepared.facts.get(name))
    if measured is None or not measured.is_settled:
        measured = _measured(version, prepared, narrow, wide).joined(measured)
        give_back()
        cache.learn(key, {**prepared.facts, name: _facts(measured)})
    plan = _plan(version, measured, cores, session.signature)
    return Loaded(session, prepared.open(wide) if plan.wide_cores else None, plan)


def _measured(version: ModelVersion, prepared: Prepared, narrow: RunOptions, wide: RunOptions) -> Measured:
    """By sessions of their own, whose memory of large runs goes with them."""
    session = prepared.open(narrow)
    row = one_row(version.path, session.signature)
    began, worked = time.perf_counter(), time.process_time()
    rows = _rows(session, row, version)
    is_quiet = time.process_time() - worked >= QUIET * (time.perf_counter() - began)
    wide_s = None
    if wide.intra_op_threads > narrow.intra_op_threads:
        wide_s = time_run(prepared.open(wide), row, WIDE_S)
    return Measured(rows, wide_s, is_quiet)


def varies(signature: Signature) -> bool:
    """An input has an open length behind its first."""
    return any(spec.shape is None or not all(map(_is_fixed, spec.shape[1:])) for spec in signature.inputs)


def _is_fixed(dim: Dim) -> bool:
    return isinstance(dim, int)


def _on_cuda(version: ModelVersion, options: RunOptions) -> Loaded:
    session = Session(version.path, options)
    row = one_row(version.path, session.signature)
    left = nodes_left_on_cpu(version.path, options, row)
    batching = version.config.batching
    joins = session.signature.is_batched and batching.join != "never"
    return Loaded(session, None, Plan(cores=1, runs=1, join_rows=batching.max_rows if joins else 1), left)


def _rows(session: Session, row: Tensors, version: ModelVersion) -> Mapping[int, float]:
    batching = version.config.batching
    most = batching.max_rows if session.signature.is_batched else 1
    return time_rows(session, row, [each for each in BUCKETS if each <= most], MEASURE_S)


def _plan(version: ModelVersion, measured: Measured | None, cores: int, signature: Signature) -> Plan:
    config = version.config
    plan = choose(measured, cores, config.batching, config.session, joinable=signature.is_batched)
    log.info(
        "plan chosen",
        extra=_named(version)
        | {
            "cores": plan.cores,
            "runs": plan.runs,
            "wide_cores": plan.wide_cores,
            "join_rows": plan.join_rows,
            "inline_rows": plan.inline_rows,
        },
    )
    return plan


def _facts(measured: Measured) -> dict[str, Any]:
    return {
        "narrow": {str(rows): seconds for rows, seconds in measured.narrow_s.items()},
        "wide": measured.wide_s,
        "is_quiet": measured.is_quiet,
        "times": measured.times,
    }


def _from_facts(facts: Mapping[str, Any] | None) -> Measured | None:
    if facts is None:
        return None
    narrow = {int(rows): seconds for rows, seconds in facts["narrow"].items()}
    return Measured(narrow, facts["wide"], facts["is_quiet"], facts["times"])


def _named(version: ModelVersion) -> dict[str, Any]:
    return {"model": version.name, "version": version.number}
