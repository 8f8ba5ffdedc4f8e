"""Runs a framework's frontend in a child process and takes over what it made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from infold.convert.frontends.child import ELSEWHERE
from infold.convert.frontends.exported import Framework, Request
from infold.errors import FrameworkError, SourceError

__all__ = ["Progress", "run_frontend"]

# Told what is being done and for how many seconds already.
Progress = Callable[[str, float], None]
PROGRESS_S = 0.5
LOG_LINES = 20


def run_frontend(request: Request, folder: Path, progress: Progress | None = None) -> Framework:
    """Export a source; the unfolded model is `model.onnx` in the folder afterwards.

    Args:
        request: What to export.
        folder: An empty folder for whatever the child writes.
        progress: Called about twice a second.

    Raises:
        SourceError: The source cannot be used; says what to do.
        FrameworkError: The framework failed or died; holds what it printed.
    """
    (folder / "request.json").write_text(request.dump(), encoding="utf-8")
    returncode = _run(request, folder, progress)
    failure = folder / "failure.json"
    if failure.exists():
        facts = json.loads(failure.read_text(encoding="utf-8"))
        failure.unlink()
        if facts["kind"] == "other-backend" and facts["backend"] != request.backend:
            return _other_backend(request, facts, folder, progress)
        if facts["kind"] == "refused":
            raise SourceError(request.source, facts["detail"].removeprefix(f"{request.source}: "))
        raise FrameworkError(request.source, facts["detail"], _log(folder))
    if returncode:
        cause = f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
        detail = f"the framework's process died of {cause}"
        raise FrameworkError(request.source, detail, _log(folder))
    if (folder / ELSEWHERE).exists():
        return _better(request, folder, progress)
    return Framework.load(folder)


def _better(request: Request, folder: Path, progress: Progress | None) -> Framework:
    """Once more on a backend that may leave more open; what there is stays where that one fails."""
    backend = (folder / ELSEWHERE).read_text(encoding="utf-8")
    (folder / ELSEWHERE).unlink()
    if backend == request.backend:
        return Framework.load(folder)
    better = folder / backend
    better.mkdir()
    try:
        run_frontend(replace(request, backend=backend), better, progress)
    except SourceError as failure:
        first = Framework.load(folder)
        note = f"{backend} might leave more axes open, but could not be used: {failure.detail}"
        return replace(first, notes=(*first.notes, note))
    for made in better.iterdir():
        os.replace(made, folder / made.name)
    return Framework.load(folder)


def _other_backend(
    request: Request, facts: dict[str, str], folder: Path, progress: Progress | None
) -> Framework:
    """Once more on another backend; where that fails too, the first one's reason counts as well."""
    try:
        return run_frontend(replace(request, backend=facts["backend"]), folder, progress)
    except FrameworkError:
        raise
    except SourceError as second:
        detail = f"{second.detail}; on {request.backend}: {facts['detail']}"
        raise SourceError(request.source, detail) from second


def _run(request: Request, folder: Path, progress: Progress | None) -> int:
    environment = {
        **os.environ,
        "KERAS_BACKEND": request.backend,
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "CUDA_VISIBLE_DEVICES": "-1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONHASHSEED": "0",  # tf2onnx walks over sets: the same export each time
    }
    # -P: nothing in the current folder takes the place of a library.
    command = [
        sys.executable,
        "-P",
        "-c",
        "from infold.convert.frontends.child import main; main()",
        str(folder),
    ]
    began = time.monotonic()
    with (folder / "log.txt").open("wb") as log:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
        )
        try:
            while True:
                try:
                    return child.wait(PROGRESS_S)
                except subprocess.TimeoutExpired:
                    if progress is not None:
                        progress(f"exporting {request.source} ({request.format})", time.monotonic() - began)
        finally:
            child.kill()
            child.wait()


def _log(folder: Path) -> str:
    text = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
    return "\n".join(text.strip().splitlines()[-LOG_LINES:])
