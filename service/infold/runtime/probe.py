"""Runs models in a child process.

onnxruntime is native code that opens files from strangers: a crash there must
be an answer, not the end of the command or of the server.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from infold.errors import NoKernelError, RuntimeCrashError, SessionError
from infold.runtime.bfloat16 import restored
from infold.runtime.child import DiedError, child_at_hand
from infold.tensors import Array, Tensors

__all__ = ["Run", "run_isolated", "serve_jobs"]

DEFAULT_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One model to run in the child.

    Attributes:
        label: What to call it in an error.
        path: The model.
        tensors: Its inputs.
        optimize: False switches onnxruntime's graph optimizations off.
        disabled_optimizers: Optimizers to leave out, by name.
        external_folder: Where the model's external data lies, if not beside it.
    """

    label: str
    path: Path
    tensors: Tensors
    optimize: bool = False
    disabled_optimizers: tuple[str, ...] = ()
    external_folder: Path | None = None


def run_isolated(runs: Sequence[Run], timeout_s: float = DEFAULT_TIMEOUT_S) -> list[dict[str, Array]]:
    """Run models one after another in one child process.

    Returns:
        The outputs of each, by name, in the order of `runs`. Numbers are mapped from files that
        have no name any more: they take memory as they are read, and disk as long as they are held.

    Raises:
        NoKernelError: onnxruntime does not implement something in one of them.
        RuntimeCrashError: The child died or took longer than `timeout_s`.
        SessionError: onnxruntime refused or failed otherwise; names the run.
    """
    with tempfile.TemporaryDirectory(prefix="infold-probe-") as name:
        folder = Path(name)
        jobs = [_write_job(folder, index, run) for index, run in enumerate(runs)]
        (folder / "jobs.json").write_text(json.dumps(jobs))
        try:
            with child_at_hand() as child:
                child.work(folder, timeout_s)
        except DiedError as dead:
            where = _under_way(folder, runs)
            if dead.cause is None:
                raise RuntimeCrashError(where, f"no result within {timeout_s:.0f} s") from dead
            for index, run in enumerate(runs):
                _read_result(folder, index, run)  # one that failed before is the cause
            how = f"the runtime died of {dead.cause}; {dead.said}".rstrip("; ")
            raise RuntimeCrashError(where, how) from dead
        return [_read_result(folder, index, run) or {} for index, run in enumerate(runs)]


def _write_job(folder: Path, index: int, run: Run) -> dict[str, Any]:
    for n, array in enumerate(run.tensors.values()):
        _save(folder / f"in{index}.{n}", array)
    return {
        "path": str(run.path),
        "inputs": list(run.tensors),
        "optimize": run.optimize,
        "disabled_optimizers": list(run.disabled_optimizers),
        "external_folder": str(run.external_folder) if run.external_folder else None,
    }


def _under_way(folder: Path, runs: Sequence[Run]) -> str:
    for index, run in enumerate(runs):
        if not (folder / f"done{index}.json").exists():
            return run.label
    return runs[-1].label


def _read_result(folder: Path, index: int, run: Run) -> dict[str, Array] | None:
    """The outputs of one run; None if the child did not come to its end."""
    marker = folder / f"done{index}.json"
    if not marker.exists():
        return None
    facts = json.loads(marker.read_text())
    if "error" in facts:
        kind = NoKernelError if facts["error"] == "NoKernelError" else SessionError
        raise kind(run.label, facts["detail"])
    return {name: _load(folder / f"out{index}.{n}") for n, name in enumerate(facts["outputs"])}


def _save(stem: Path, array: Array) -> None:
    """Numbers as .npy; strings as JSON, because .npy would pickle them."""
    if array.dtype.kind in "OSU":
        texts = [str(each) for each in array.reshape(-1)]
        stem.with_name(f"{stem.name}.json").write_text(json.dumps([list(array.shape), texts]))
    else:
        np.save(stem.with_name(f"{stem.name}.npy"), array)


def _load(stem: Path) -> Array:
    strings = stem.with_name(f"{stem.name}.json")
    if not strings.exists():
        return restored(np.asarray(np.load(stem.with_name(f"{stem.name}.npy"), mmap_mode="r")))
    shape, texts = json.loads(strings.read_text())
    array = np.empty(len(texts), np.object_)
    array[:] = texts
    return array.reshape(shape)


def serve_jobs() -> None:
    """Entry of the child: run every job of each folder named on standard input."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # native code prints there as it likes
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and ends this process
    for line in sys.stdin:
        _run_jobs(Path(line.rstrip("\n")))
        print("done", file=answers, flush=True)


def _run_jobs(folder: Path) -> None:
    for index, job in enumerate(json.loads((folder / "jobs.json").read_text())):
        facts: dict[str, Any]
        try:
            facts = {"outputs": _do(folder, index, job)}
        except SessionError as failure:
            facts = {"error": type(failure).__name__, "detail": failure.detail}
        (folder / f"done{index}.json").write_text(json.dumps(facts))


def _do(folder: Path, index: int, job: dict[str, Any]) -> list[str]:
    """Run one job; its session and arrays are gone before the next one starts."""
    from infold.runtime.options import RunOptions
    from infold.runtime.session import Session

    options = RunOptions(optimize=job["optimize"], disabled_optimizers=tuple(job["disabled_optimizers"]))
    outside = Path(job["external_folder"]) if job["external_folder"] else None
    session = Session(Path(job["path"]), options, external_folder=outside)
    tensors = {name: _load(folder / f"in{index}.{n}") for n, name in enumerate(job["inputs"])}
    outputs = session.run(tensors)
    for n, array in enumerate(outputs.values()):
        _save(folder / f"out{index}.{n}", array)
    return list(outputs)
