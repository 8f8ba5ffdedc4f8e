"""One version of a model, run in every way: sessions as serving opens them, answers checked."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from infold.bench.answers import difference
from infold.bench.latencies import latencies
from infold.errors import DisagreementError
from infold.runtime import Cache, Device, Placement, RunOptions, Session
from infold.serving import ModelVersion
from infold.serving.loading import varies
from infold.tensors import Signature, Tensors
from infold.tune.inputs import Pool, stacked
from infold.tune.precision import is_coarse
from infold.tune.ways import Cell, Way, buckets, is_worth_measuring

__all__ = ["Measurement", "closed_loop", "options_of"]

# Of floats, relative to the largest. A number on the border of two steps of an 8-bit or 16-bit type
# may fall to either side when sums are taken in another order; the steps of 8 bits are the larger ones.
TOLERANCE, COARSE_TOLERANCE = 1e-3, 2e-2
LEAST_RUNS = 3
WARMUP_SHARE = 0.2

Tell = Callable[[Way, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """What is measured of one version.

    Attributes:
        version: What is on disk.
        precision: See `stored_types`.
        signature: Of its model.
        pool: What it is run on.
        answers: Of the plain session to each row of the pool.
    """

    version: ModelVersion
    precision: str
    signature: Signature
    pool: Pool
    answers: Sequence[Tensors]

    def cells(
        self, cache: Cache, ways: Sequence[Way], seconds: float, latency_ms: float | None, tell: Tell
    ) -> Iterator[Cell]:
        """Every way with every number of rows that is worth it, in order.

        Raises:
            SessionError: onnxruntime fails.
            DisagreementError: Answers differ from those of one row at a time.
        """
        opened: tuple[int, Session] | None = None
        opener = self._opener(cache)
        for way in ways:
            if opened is None or opened[0] != way.threads:
                opened = None  # and its threads with it
                opened = (way.threads, opener(way.threads))
            found: list[Cell] = []
            most = self.version.config.batching.max_rows
            for rows in buckets(most, is_joinable=self.signature.is_batched):
                if not is_worth_measuring(rows, found, seconds, latency_ms):
                    break
                tell(way, rows)
                found.append(self._cell(opened[1], way, rows, seconds))
                yield found[-1]

    def _opener(self, cache: Cache) -> Callable[[int], Session]:
        """Gives sessions of so many threads; all of them map the same weights."""
        path, options = self.version.path, options_of(self.version)
        key = cache.key(path, options)
        with cache.alone(key):
            prepared = cache.find(key, path) or cache.make(key, path, options, self.pool.rows[0])
        if prepared is None:
            return lambda threads: Session(path, replace(options, intra_op_threads=threads))
        options = replace(options, keeps_memory=not varies(self.signature))
        return lambda threads: prepared.open(replace(options, intra_op_threads=threads))

    def _cell(self, session: Session, way: Way, rows: int, seconds: float) -> Cell:
        batch, wanted = self.pool.batch(rows), stacked(self.answers, rows)
        self._check(wanted, session.run(batch), way, rows)
        timed = closed_loop(lambda: session.run(batch), way.runs, seconds)
        for caller in timed:
            self._check(wanted, caller.last, way, rows)
        every = [each for caller in timed for each in caller.taken_s]
        found = latencies(every)
        rows_per_s = sum(rows * len(caller.taken_s) / caller.elapsed_s for caller in timed)
        return Cell(self.version.number, way, rows, rows_per_s, found.p50_ms, found.p99_ms, len(every))

    def _check(self, wanted: Tensors, found: Tensors, way: Way, rows: int) -> None:
        tolerance = COARSE_TOLERANCE if is_coarse(self.precision) else TOLERANCE
        if problem := difference(wanted, found, tolerance):
            alike = "as one row at a time" if rows > 1 else "as on one thread"
            advice = "; with batching.max_rows = 1 no rows are joined" if rows > 1 else ""
            where = f"{way}, {rows} row{'' if rows == 1 else 's'}"
            raise DisagreementError(
                self.version.path, f"does not answer {alike} ({where}): output {problem}{advice}"
            )


@dataclass(frozen=True, slots=True)
class Caller:
    """What one caller of a closed loop saw.

    Attributes:
        taken_s: By each run.
        elapsed_s: From the beginning of the first to the end of the last.
        last: What the last one gave.
    """

    taken_s: Sequence[float]
    elapsed_s: float
    last: Tensors


def closed_loop(run: Callable[[], Tensors], callers: int, seconds: float) -> list[Caller]:
    """Run from several threads, each again as soon as its run is over.

    A fifth of the time goes before that does not count; a caller makes three
    runs that count at least, however long they take.
    """
    start = time.perf_counter() + WARMUP_SHARE * seconds
    end = start + seconds
    stop = threading.Event()
    found: list[Caller | Exception] = []

    def repeat() -> None:
        taken, first, ended = array("d"), 0.0, 0.0
        last: Tensors = {}
        try:
            last = run()
            while not stop.is_set() and ((began := time.perf_counter()) < end or len(taken) < LEAST_RUNS):
                last = run()
                ended = time.perf_counter()
                if began >= start:
                    first = first or began
                    taken.append(ended - began)
            found.append(Caller(taken, ended - first, last))
        except Exception as failure:
            found.append(failure)

    workers = [threading.Thread(target=repeat, daemon=True) for _ in range(callers - 1)]
    for worker in workers:
        worker.start()
    try:
        repeat()
    except BaseException:  # Ctrl-C: the others must not go on
        stop.set()
        raise
    finally:
        for worker in workers:
            worker.join()
    for each in found:
        if isinstance(each, Exception):
            raise each
    return [each for each in found if isinstance(each, Caller)]


def options_of(version: ModelVersion) -> RunOptions:
    """One thread, on the CPU, as the model's owner wants it optimized."""
    return RunOptions(
        Placement(Device.CPU, "threads are a matter of the CPU"),
        intra_op_threads=1,
        disabled_optimizers=version.config.session.disabled_optimizers,
    )
