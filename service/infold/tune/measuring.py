"""One version of a model, run in every way: sessions as serving opens them, answers checked."""

from __future__ import annotations

import statistics
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from infold.bench.answers import difference
from infold.bench.latencies import latencies
from infold.errors import DisagreementError
from infold.runtime import Cache, Device, Placement, RunOptions, Session
from infold.serving import ModelVersion
from infold.serving.preparing import varies
from infold.tensors import Signature, Tensors
from infold.tune.inputs import Pool, stacked
from infold.tune.precision import is_coarse
from infold.tune.ways import Cell, Way, buckets, is_worth_measuring

__all__ = ["Measurement", "closed_loop", "options_of"]

# Of floats, relative to the largest. A number on the border of two steps of an 8-bit or 16-bit type
# may fall to either side when sums are taken in another order; the steps of 8 bits are the larger ones.
TOLERANCE, COARSE_TOLERANCE = 1e-3, 2e-2
LEAST_RUNS = 2
WARMUP_SHARE = 0.2

Tell = Callable[[Way, int], None]


class Measurement:
    """What is measured of one version, in rounds: each goes through all ways once.

    What disturbs the machine for a while then disturbs all ways alike.

    Args:
        version: What is on disk.
        precision: See `stored_types`.
        signature: Of its model.
        pool: What it is run on.
        answers: Of the plain session to each row of the pool.
    """

    def __init__(
        self,
        version: ModelVersion,
        precision: str,
        signature: Signature,
        pool: Pool,
        answers: Sequence[Tensors],
    ) -> None:
        self.version, self.precision, self.signature = version, precision, signature
        self.pool, self.answers = pool, answers
        self._open: Callable[[int], Session] | None = None
        self._rounds: dict[tuple[Way, int], list[Sequence[Caller]]] = {}

    @property
    def cells(self) -> list[Cell]:
        """All rounds together, in the order of the first one."""
        return [self._cell(*key) for key in self._rounds]

    def measure(
        self, cache: Cache, ways: Sequence[Way], seconds: float, latency_ms: float | None, tell: Tell
    ) -> None:
        """One round: every way with every number of rows that is worth it.

        Args:
            cache: Where serving keeps prepared graphs.
            ways: All of them, those of equal threads side by side.
            seconds: Of each measurement.
            latency_ms: See `is_worth_measuring`.
            tell: Told what comes next.

        Raises:
            SessionError: onnxruntime fails.
            DisagreementError: Answers differ from those of one row at a time.
        """
        self._open = self._open or self._opener(cache)
        most = buckets(self.version.config.batching.max_rows, is_joinable=self.signature.is_batched)
        is_first = not self._rounds
        for threads, alike in groupby(ways, key=lambda way: way.threads):
            session = self._open(threads)
            for way in alike:
                found: list[Cell] = []
                for rows in most:
                    if is_first and not is_worth_measuring(rows, found, seconds, latency_ms):
                        break
                    if is_first or (way, rows) in self._rounds:
                        tell(way, rows)
                        timed = self._timed(session, way, rows, seconds)
                        self._rounds.setdefault((way, rows), []).append(timed)
                        found.append(self._cell(way, rows))
            del session  # and its threads with it

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

    def _timed(self, session: Session, way: Way, rows: int, seconds: float) -> Sequence[Caller]:
        batch, wanted = self.pool.batch(rows), stacked(self.answers, rows)
        self._check(wanted, session.run(batch), way, rows)
        timed = closed_loop(lambda: session.run(batch), way.runs, seconds)
        for caller in timed:
            self._check(wanted, caller.last, way, rows)
        return timed

    def _cell(self, way: Way, rows: int) -> Cell:
        rounds = self._rounds[way, rows]
        rates = [sum(rows * len(one.taken_s) / one.elapsed_s for one in callers) for callers in rounds]
        every = [seconds for callers in rounds for one in callers for seconds in one.taken_s]
        found, middle = latencies(every), statistics.median(rates)
        spread = (max(rates) - min(rates)) / middle
        return Cell(self.version.number, way, rows, middle, found.p50_ms, found.p99_ms, len(every), spread)

    def _check(self, wanted: Tensors, found: Tensors, way: Way, rows: int) -> None:
        tolerance = COARSE_TOLERANCE if is_coarse(self.precision) else TOLERANCE
        if problem := difference(wanted, found, tolerance):
            as_before = "as one row at a time" if rows > 1 else "as on one thread"
            advice = "; with batching.max_rows = 1 no rows are joined" if rows > 1 else ""
            where = f"{way}, {rows} row{'' if rows == 1 else 's'}"
            raise DisagreementError(
                self.version.path, f"does not answer {as_before} ({where}): output {problem}{advice}"
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

    A fifth of the time goes before that does not count; a caller makes two
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
