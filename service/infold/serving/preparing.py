"""The heavy part of a first load: a model is opened, optimized, run and measured, and what came of it kept.

It may happen in a child process (`serving/trial.py`), so what is handed on are facts, no sessions.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from infold.errors import SessionError
from infold.runtime import Cache, Device, Placement, Prepared, RunOptions, Session
from infold.runtime.confinement import tells_of_no_memory
from infold.runtime.cuda import CudaOptions
from infold.runtime.golden import GOLDEN_FILE, LIMIT_BYTES
from infold.runtime.measuring import BUCKETS, one_row, time_rows, time_run
from infold.runtime.memory import give_back
from infold.runtime.model_files import check_files, check_place
from infold.runtime.session import nodes_left
from infold.runtime.weights import weight_files
from infold.serving.plan import Measured
from infold.serving.repository import ModelVersion
from infold.tensors import Dim, Signature, Tensors

__all__ = [
    "Findings",
    "Prepare",
    "checked_weights",
    "known",
    "mark_of",
    "options_of",
    "prepare",
    "remember",
    "varies",
    "with_engines",
]

log = logging.getLogger(__name__)

QUIET = 0.9  # of the time a run of one thread must have had a core
MEASURE_S, WIDE_S = 1.0, 0.3  # for all numbers of rows together, and for the wide session
# What reading facts of another kind raises.
DAMAGED = (KeyError, TypeError, ValueError, AttributeError)
PASSED, MOST_PASSED, FINDINGS = "passed", 16, "findings"


@dataclass(frozen=True, slots=True)
class Findings:
    """What a first load came to.

    Attributes:
        key: The cache's name of it.
        is_kept: The cache has its optimized graph.
        measured: None where it could not be run by itself, or was not measured.
        weight_files: Names of files that it names for its weights.
        left_on_cpu: Operators that a GPU leaves to the CPU.
        left_on_cuda: Operators that TensorRT leaves to CUDA.
        is_lasting: Another first load would come to the same.
    """

    key: str
    is_kept: bool
    measured: Measured | None = None
    weight_files: tuple[str, ...] = ()
    left_on_cpu: tuple[str, ...] = ()
    left_on_cuda: tuple[str, ...] = ()
    is_lasting: bool = True

    def as_json(self) -> dict[str, Any]:
        """In types that JSON has."""
        return {
            "key": self.key,
            "is_kept": self.is_kept,
            "measured": None if self.measured is None else _facts(self.measured),
            "weight_files": list(self.weight_files),
            "left_on_cpu": list(self.left_on_cpu),
            "left_on_cuda": list(self.left_on_cuda),
            "is_lasting": self.is_lasting,
        }

    @classmethod
    def of_json(cls, facts: Mapping[str, Any]) -> Findings:
        """What `as_json` gave.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: It is something else.
        """
        return cls(
            str(facts["key"]),
            bool(facts["is_kept"]),
            _from_facts(facts["measured"]),
            tuple(map(str, facts["weight_files"])),
            tuple(map(str, facts["left_on_cpu"])),
            tuple(map(str, facts["left_on_cuda"])),
            bool(facts["is_lasting"]),
        )


# From a version, options of its narrow session and the cores of the process to what is found of it.
Prepare = Callable[[ModelVersion, RunOptions, int, Cache], Findings]


def options_of(version: ModelVersion, placement: Placement, cores: int) -> RunOptions:
    """How the session of a version runs that is not the wide one.

    Args:
        version: What is on disk.
        placement: The device that runs it.
        cores: That runs may take in all.
    """
    config = version.config.session
    return RunOptions(
        placement,
        intra_op_threads=min(config.intra_op_threads or 1, cores),
        disabled_optimizers=config.disabled_optimizers,
        cuda=CudaOptions(
            placement.gpu_id,
            config.gpu_memory_bytes or placement.gpu_memory_bytes,
            config.tf32,
            config.cuda_graph,
            config.tensorrt_fp16,
            version.config.batching.max_rows,
        ),
    )


def with_engines(options: RunOptions, cache: Cache, key: str) -> RunOptions:
    """The same, with a place for what TensorRT builds."""
    if options.placement.device is not Device.TENSORRT:
        return options
    return replace(options, cuda=replace(options.cuda, engines=cache.engines(key)))


def prepare(version: ModelVersion, narrow: RunOptions, cores: int, cache: Cache) -> Findings:
    """A version has been run, and what the next load can make use of is in the cache.

    Raises:
        SessionError: onnxruntime refuses it, or its weights lie where they may not; who calls has
            looked at the graph's own file (`check_files`).
        DeviceError: It loads, but not on that device.
    """
    key = cache.key(version.path, narrow)
    if narrow.placement.device.is_gpu:
        return _on_gpu(version, with_engines(narrow, cache, key), key)
    with cache.alone(key):
        prepared = cache.find(key, version.path)
        if prepared is not None:
            try:
                return _learnt(version, prepared, key, narrow, cores, cache)
            except SessionError as failure:  # damaged, though of the right size
                cache.drop(key, failure.detail)
        weights = checked_weights(version)
        session = Session(version.path, narrow)
        row = one_row(version.path, session.signature, version.root)
        try:
            session.run(row)
        except SessionError as failure:  # open lengths that are not 1: nothing can be learnt of it
            if tells_of_no_memory(failure.detail):
                raise
            log.info("not measured", extra=_named(version) | {"reason": failure.detail})
            return Findings(key, False, None, weights)
        prepared = cache.make(key, version.path, narrow, row)
        if prepared is None:
            measured = Measured(_rows(session, row, version))
            return Findings(key, False, measured, weights, is_lasting=_has_room(version, cache))
        del session
        return _learnt(version, prepared, key, narrow, cores, cache)


def known(version: ModelVersion, narrow: RunOptions, cores: int, cache: Cache) -> Findings | None:
    """What an earlier load found, if these very bytes have passed their trial.

    Raises:
        SessionError: It cannot be read.
    """
    key = cache.key(version.path, narrow)
    if (facts := cache.facts(key)) is None:
        return None
    try:
        if mark_of(version, cache) not in facts[PASSED]:
            return None
        if FINDINGS in facts:
            found = Findings.of_json(facts[FINDINGS])
            return found if found.key == key and not found.is_kept else None
        measured = _from_facts(facts.get(_name(narrow, cores)))
    except DAMAGED:
        return None
    if measured is None or not measured.is_settled or cache.find(key, version.path) is None:
        return None
    return Findings(key, True, measured)


def mark_of(version: ModelVersion, cache: Cache) -> str:
    """What besides the model a trial runs: golden samples, and those of `config.pbtxt`."""
    path = version.path.with_name(GOLDEN_FILE)
    golden = ""
    with contextlib.suppress(OSError, ValueError):  # what is wrong with it is told by whoever reads it
        if check_place(path, version.path, version.root) is None and path.stat().st_size <= LIMIT_BYTES:
            golden = cache.digest(path)
    triton = version.triton and replace(version.triton, place="")
    return hashlib.sha256(repr((golden, triton)).encode()).hexdigest()


def remember(found: Findings, mark: str, cache: Cache) -> None:
    """A version has passed its trial; `known` tells from now on.

    Args:
        found: Of it.
        mark: See `mark_of`; from before the trial.
        cache: Where that is kept.
    """
    if not found.is_lasting:
        return
    facts = dict(cache.facts(found.key) or {})
    if not found.is_kept:
        facts[FINDINGS] = found.as_json()
    passed = [each for each in facts.get(PASSED, []) if each != mark]
    facts[PASSED] = [*passed[-MOST_PASSED + 1 :], mark]
    cache.learn(found.key, facts, is_new=not found.is_kept)


def checked_weights(version: ModelVersion) -> tuple[str, ...]:
    """Names of the files that a version names for its weights, all of which lie where they may.

    Raises:
        SessionError: One does not, or the version is no model.
    """
    try:
        weights = weight_files(version.path)
    except OSError as failure:
        raise SessionError(str(version.path), failure.strerror or str(failure)) from failure
    except ValueError as failure:
        raise SessionError(str(version.path), str(failure)) from failure
    check_files(version.path, weights, version.root)
    return weights


def varies(signature: Signature) -> bool:
    """An input has an open length behind its first."""
    return any(spec.shape is None or not all(map(_is_fixed, spec.shape[1:])) for spec in signature.inputs)


def _is_fixed(dim: Dim) -> bool:
    return isinstance(dim, int)


def _has_room(version: ModelVersion, cache: Cache) -> bool:
    """It was not for want of room that nothing is kept."""
    try:
        return cache.folder is not None and (
            shutil.disk_usage(cache.folder).free > 2 * sum(each[1] for each in version.stamp)
        )
    except OSError:
        return False


def _learnt(
    version: ModelVersion, prepared: Prepared, key: str, narrow: RunOptions, cores: int, cache: Cache
) -> Findings:
    """What is known of an entry, measured where it was not yet, or on a busy machine."""
    name = _name(narrow, cores)
    try:
        measured = _from_facts(prepared.facts.get(name))
    except DAMAGED:
        measured = None
    if measured is None or not measured.is_settled:
        session = prepared.open(narrow)
        if varies(session.signature):
            narrow = replace(narrow, keeps_memory=False)
        del session
        measured = _measured(version, prepared, narrow, cores).joined(measured)
        give_back()
        cache.learn(key, {**prepared.facts, name: _facts(measured)})
    return Findings(key, True, measured)


def _measured(version: ModelVersion, prepared: Prepared, narrow: RunOptions, cores: int) -> Measured:
    """By sessions of their own, whose memory of large runs goes with them."""
    session = prepared.open(narrow)
    row = one_row(version.path, session.signature, version.root)
    began, worked = time.perf_counter(), time.process_time()
    rows = _rows(session, row, version)
    is_quiet = time.process_time() - worked >= QUIET * (time.perf_counter() - began)
    wide_s = None
    if cores > narrow.intra_op_threads:
        wide_s = time_run(prepared.open(replace(narrow, intra_op_threads=cores)), row, WIDE_S)
    return Measured(rows, wide_s, is_quiet)


def _on_gpu(version: ModelVersion, options: RunOptions, key: str) -> Findings:
    """No graph is kept and nothing measured there; it is run once all the same."""
    weights = checked_weights(version)
    session = Session(version.path, options)
    row = one_row(version.path, session.signature, version.root)
    del session
    left = nodes_left(version.path, options, row)
    return Findings(key, False, None, weights, left.cpu, left.cuda)


def _rows(session: Session, row: Tensors, version: ModelVersion) -> Mapping[int, float]:
    batching = version.config.batching
    most = batching.max_rows if session.signature.is_batched else 1
    return time_rows(session, row, [each for each in BUCKETS if each <= most], MEASURE_S)


def _name(narrow: RunOptions, cores: int) -> str:
    return f"seconds on {narrow.intra_op_threads} of {cores} cores"


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
    narrow = {int(rows): float(seconds) for rows, seconds in facts["narrow"].items()}
    wide = facts["wide"]
    return Measured(
        narrow, None if wide is None else float(wide), bool(facts["is_quiet"]), int(facts["times"])
    )


def _named(version: ModelVersion) -> dict[str, Any]:
    return {"model": version.name, "version": version.number}
