"""A graph as onnxruntime's optimizers left it, kept on disk: loaded in milliseconds, held once.

Optimizing a graph at every start costs most of the start, and a session that
does it keeps the rewritten weights in memory of its own. So the first load of a
model writes the outcome into a cache, weights in a file beside the graph, and
every session after that maps them: a second session, or a second process, adds
next to nothing.

An entry is a folder named by everything the outcome depends on: the model's
bytes, onnxruntime's version, the CPU's features, the optimizers left out.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from infold.errors import SessionError
from infold.runtime.digests import Digests
from infold.runtime.options import RunOptions
from infold.runtime.ort import onnxruntime
from infold.runtime.session import Session
from infold.tensors import Array, Tensors

__all__ = ["Cache", "Prepared"]

log = logging.getLogger(__name__)

FORMAT = 1  # of an entry; raise it whenever what is kept changes its meaning
GRAPH, WEIGHTS, FACTS = "model.onnx", "weights.bin", "facts.json"
ENGINES = "tensorrt"
NO_GRAPH = "no graph"  # a fact of an entry that holds nothing else
NEW = ".new-"
LOOK_S = 0.02
UNUSED_S, UNFINISHED_S = 30 * 24 * 3600.0, 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Prepared:
    """An entry of the cache.

    Attributes:
        model: What it was made of.
        path: The optimized graph.
        facts: What was learnt since.
    """

    model: Path
    path: Path
    facts: Mapping[str, Any] = field(default_factory=dict)

    def open(self, options: RunOptions) -> Session:
        """A session on the optimized graph; nothing is optimized again.

        Raises:
            SessionError: onnxruntime refuses it.
        """
        return Session(self.path, replace(options, optimize=False), shown_as=self.model)


class Cache:
    """A folder of prepared graphs.

    Args:
        folder: Where it lies; made if it is missing. Where that cannot be written,
            a temporary folder takes its place for the life of this process.
        label: In the names of what is not finished yet; by default the number of this process.
        or_temporary: False keeps nothing where there is no folder.
    """

    def __init__(self, folder: Path | None, label: str = "", *, or_temporary: bool = True) -> None:
        self._label = label or str(os.getpid())
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if folder is not None and _is_writable(folder):
            self.folder: Path | None = folder
        else:
            self.folder = self._elsewhere(folder) if or_temporary else None
        self._digests = Digests(self.folder)

    def _elsewhere(self, wanted: Path | None) -> Path | None:
        try:
            self._temporary = tempfile.TemporaryDirectory(
                prefix="infold-cache-",
                ignore_cleanup_errors=True,  # a load that is still under way may write into it
            )
        except OSError:
            log.warning("no cache", extra={"folder": str(wanted)})
            return None
        if wanted is not None:
            log.info("cache is temporary", extra={"folder": str(wanted), "instead": self._temporary.name})
        return Path(self._temporary.name)

    def key(self, model: Path, options: RunOptions) -> str:
        """Everything an entry depends on, as one name of 64 characters.

        Files that hold weights of the model count by name, size and time.

        Raises:
            SessionError: The model cannot be read.
        """
        try:
            return self._key(model, options)
        except OSError as failure:
            raise SessionError(str(model), failure.strerror or str(failure)) from failure
        except ValueError as empty:
            raise SessionError(str(model), "an empty file") from empty

    def digest(self, path: Path) -> str:
        """Of the bytes of any file, remembered as that of a model is.

        Raises:
            OSError: It cannot be read.
            ValueError: It is empty.
        """
        return self._digests.of(path).sha256

    def _key(self, model: Path, options: RunOptions) -> str:
        digest = self._digests.of(model)
        about: tuple[object, ...] = (
            FORMAT,
            digest.sha256,
            onnxruntime().__version__,
            options.placement.provider,
            sorted(options.disabled_optimizers),
            _cpu_features(),
            [_stamp(model.parent / name) for name in digest.weight_files],
        )
        if options.placement.device.is_gpu:
            about = (*about, replace(options.cuda, engines=None))
        return hashlib.sha256(repr(about).encode()).hexdigest()

    def find(self, key: str, model: Path) -> Prepared | None:
        """The entry of that name, or None; a damaged one is taken away."""
        if self.folder is None:
            return None
        entry = self.folder / key
        try:
            facts = json.loads((entry / FACTS).read_text(encoding="utf-8"))
            # Weights are mapped: reading beyond the end of a cut file would kill the process.
            sizes = {name: (entry / name).stat().st_size for name in facts["sizes"]}
            if facts.get(NO_GRAPH):
                return None
            if sizes != facts["sizes"] or GRAPH not in sizes:
                raise ValueError("a file has another size")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as damaged:
            self.drop(key, str(damaged))
            return None
        with contextlib.suppress(OSError):
            os.utime(entry)
        return Prepared(model, entry / GRAPH, facts)

    def facts(self, key: str) -> dict[str, Any] | None:
        """What was learnt of an entry, be there a graph in it or not; None where there is none."""
        if self.folder is None:
            return None
        try:
            facts = json.loads((self.folder / key / FACTS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        with contextlib.suppress(OSError):
            os.utime(self.folder / key)
        return facts if isinstance(facts, dict) else None

    def engines(self, key: str) -> Path | None:
        """A folder for what TensorRT builds of a model; None where nothing can be kept.

        TensorRT itself does not look at the weights to tell engines apart: the key does.
        """
        if self.folder is None:
            return None
        folder = self.folder / key / ENGINES
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.utime(folder.parent)
        except OSError:
            return None
        return folder

    def drop(self, key: str, reason: str) -> None:
        """Take an entry away that is of no use."""
        if self.folder is not None:
            log.warning("cache entry dropped", extra={"entry": str(self.folder / key), "reason": reason})
            shutil.rmtree(self.folder / key, ignore_errors=True)

    def make(self, key: str, model: Path, options: RunOptions, sample: Tensors) -> Prepared | None:
        """Optimize a model once and keep the outcome, or None where that does not work here.

        The outcome is kept only if it gives the very bits on `sample` that the
        optimized session itself gives. No facts are kept yet: see `learn`.
        """
        if self.folder is None:
            return None
        entry: Path | None = None
        try:
            entry = Path(tempfile.mkdtemp(prefix=f"{NEW}{self._label}-", dir=self.folder))
            reason = _written(entry, model, options, sample)
            if not reason:
                self._publish(entry, key)
        except (OSError, SessionError) as failure:  # a disk that is full is either
            reason = str(failure)
        finally:
            if entry is not None:
                shutil.rmtree(entry, ignore_errors=True)
        if reason:
            log.info("graph not kept", extra={"model": str(model), "reason": reason})
            return None
        with contextlib.suppress(OSError):
            self._forget_unused()
        return self.find(key, model)

    def learn(self, key: str, facts: Mapping[str, Any], *, is_new: bool = False) -> None:
        """Keep what was found of an entry, beside it.

        Args:
            key: Of the entry; one that is not there is passed over.
            facts: In types that JSON has.
            is_new: There is to be an entry, if only for these facts.
        """
        if self.folder is None:
            return
        entry = self.folder / key
        with contextlib.suppress(OSError):
            if is_new:
                entry.mkdir(mode=0o700, exist_ok=True)
                facts = {**facts, NO_GRAPH: True}
            if entry.is_dir():
                _write_facts(entry, facts, self._label)

    def tidy_after(self, label: str) -> None:
        """Take away what a cache of that label left unfinished, whose process is no more."""
        if self.folder is None:
            return
        with contextlib.suppress(OSError):
            for name in os.listdir(self.folder):
                if name.startswith(f"{NEW}{label}-"):
                    shutil.rmtree(self.folder / name, ignore_errors=True)
                with contextlib.suppress(OSError):
                    (self.folder / name / f".{FACTS}.{label}").unlink()

    def note(self, name: str, told: Mapping[str, Any]) -> None:
        """Leave word for other processes, where one may be left."""
        if self.folder is not None:
            new = self.folder / f".{name}.{self._label}"
            with contextlib.suppress(OSError):
                new.write_text(json.dumps(told), encoding="utf-8")
                new.replace(self.folder / f".{name}.json")

    def noted(self, name: str) -> dict[str, Any]:
        """What was left last under a name; nothing where nothing was."""
        try:
            told = json.loads((self.folder / f".{name}.json").read_text()) if self.folder is not None else {}
        except (OSError, ValueError):
            return {}
        return told if isinstance(told, dict) else {}

    @contextmanager
    def alone(self, key: str, is_over: Callable[[], bool] | None = None) -> Iterator[None]:
        """Hold an entry: processes that start together make and measure it once, one after another.

        Args:
            key: Of the entry.
            is_over: Asked from time to time whether to wait no longer; then nothing is held.
        """
        if self.folder is None:
            yield
            return
        try:
            lock = (self.folder / f".{key}.lock").open("w")
        except OSError:
            yield
            return
        with lock:
            with contextlib.suppress(OSError):  # a file system without locks
                _locked(lock, is_over)
            yield

    def close(self) -> None:
        """Remove a temporary folder."""
        if self._temporary is not None:
            self._temporary.cleanup()

    def _publish(self, entry: Path, key: str) -> None:
        assert self.folder is not None
        _write_facts(entry, {}, self._label)
        final = self.folder / key
        shutil.rmtree(final, ignore_errors=True)
        entry.rename(final)

    def _forget_unused(self) -> None:
        assert self.folder is not None
        now = time.time()
        for name in os.listdir(self.folder):
            entry = self.folder / name
            oldest = now - (UNFINISHED_S if name.startswith(NEW) else UNUSED_S)
            with contextlib.suppress(OSError):
                if entry.stat().st_mtime < oldest:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _locked(lock: IO[str], is_over: Callable[[], bool] | None) -> None:
    if is_over is None:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return
    while not is_over():
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(LOOK_S)


def _stamp(path: Path) -> tuple[str, int, int]:
    """A file by name, size and time; as empty where it is not there, which is for onnxruntime to say."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return str(path), 0, 0
    return str(path), status.st_size, status.st_mtime_ns


def _written(entry: Path, model: Path, options: RunOptions, sample: Tensors) -> str:
    """Write the optimized graph into a folder, and say why it is of no use; empty if it is.

    Raises:
        SessionError: onnxruntime cannot write it, read it again or run it.
    """
    optimized = Session(model, replace(options, write_to=entry / GRAPH, weights_name=WEIGHTS))
    wanted = optimized.run(sample)
    del optimized
    given = Prepared(model, entry / GRAPH).open(options).run(sample)
    return "" if all(_same(given[name], wanted[name]) for name in wanted) else "other results"


def _same(one: Array, other: Array) -> bool:
    """Equal bit by bit, strings by what they say."""
    if one.dtype == np.object_:
        return one.shape == other.shape and one.tolist() == other.tolist()
    return one.tobytes() == other.tobytes()


def _write_facts(entry: Path, facts: Mapping[str, Any], label: str) -> None:
    sizes = {each.name: each.stat().st_size for each in entry.iterdir() if each.name in (GRAPH, WEIGHTS)}
    new = entry / f".{FACTS}.{label}"
    new.write_text(json.dumps({**facts, "sizes": sizes}), encoding="utf-8")
    new.replace(entry / FACTS)


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _cpu_features() -> str:
    """What the optimizers choose kernels by."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = [platform.processor()]
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()} {features}"
