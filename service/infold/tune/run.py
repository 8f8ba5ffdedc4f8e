"""One tuning from beginning to end: find the model, measure every way, choose, report."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from infold.bench.noise import Noise
from infold.bench.words import noise_note
from infold.errors import ConfigError, InfoldError, SamplesError, SessionError
from infold.runtime import Cache, Session, available_cores
from infold.serving import ModelVersion
from infold.serving.plan import INLINE_S
from infold.tensors import Tensors, kind_of
from infold.tune.choice import choose
from infold.tune.inputs import Pool, pool
from infold.tune.measuring import Measurement, options_of
from infold.tune.precision import stored_types
from infold.tune.report import Report
from infold.tune.subject import Subject
from infold.tune.ways import Cell, Way, buckets, counted, ways

__all__ = ["Progress", "Wish", "tune"]

Progress = Callable[[str, float], None]

ROUNDS = 3
# Plans may have changed places where rounds lie further apart.
LOUD = 0.1


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of a tuning.

    Attributes:
        latency_ms: What a reply may take; None asks for throughput alone.
        seconds: Of each measurement, all rounds together.
        samples, shapes: Inputs; see `pool`.
    """

    latency_ms: float | None = None
    seconds: float = 1.0
    samples: Path | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def check(self) -> None:
        """Return if it makes sense.

        Raises:
            ConfigError: Something does not; names the option.
        """
        if self.latency_ms is not None and not 0 < self.latency_ms < math.inf:
            raise ConfigError("--latency-ms", f"must be above 0, not {self.latency_ms:g}")
        if not 0 < self.seconds <= 3600:
            raise ConfigError("--seconds", "must be above 0 and at most 3600")


def tune(subject: Subject, wish: Wish, cache: Cache, progress: Progress | None = None) -> Report:
    """Measure a model in every way, and choose.

    Args:
        subject: The model.
        wish: What the plan is to be good for.
        cache: Where serving keeps prepared graphs.
        progress: Told what is going on, and for how many seconds already.

    Raises:
        SessionError: onnxruntime fails on it.
        SamplesError: The inputs do not fit it.
        DisagreementError: Its answers depend on how it is run.
    """
    return _Run(subject, wish, cache, progress or (lambda what, seconds: None)).report()


class _Run:
    """A tuning under way."""

    def __init__(self, subject: Subject, wish: Wish, cache: Cache, progress: Progress) -> None:
        self._subject, self._wish, self._cache, self._progress = subject, wish, cache, progress
        self._began = time.monotonic()
        self._cores = available_cores()
        self._notes: list[str] = []

    def report(self) -> Report:
        noise, subject = Noise(os.getpid()), self._subject
        own = self._measurement(subject.version)
        others = [each for version in subject.others if (each := self._beside(version, own))]
        for number in range(1, ROUNDS + 1):
            self._round(own, number)
            others = [each for each in others if self._survives(each, number)]
        mine = own.cells
        self._tell_about(own, mine)
        for other in others:
            self._tell_difference(own, other)
        cells = (*mine, *(cell for other in others for cell in other.cells))
        self._tell_noise(noise.cores(time.monotonic() - self._began), cells)
        return Report(
            subject.version.name,
            subject.version.number,
            self._cores,
            self._wish.latency_ms,
            {each.version.number: each.precision for each in (own, *others)},
            cells,
            choose(mine, self._cores, self._wish.latency_ms),
            tuple(self._notes),
        )

    def _beside(self, version: ModelVersion, own: Measurement) -> Measurement | None:
        """Another version; what is wrong with one is no reason to know nothing of the rest."""
        try:
            return self._measurement(version, own.pool)
        except InfoldError as failure:
            self._notes.append(f"version {version.number} is left out: {failure}")
            return None

    def _survives(self, other: Measurement, number: int) -> bool:
        try:
            self._round(other, number)
        except InfoldError as failure:
            self._notes.append(f"version {other.version.number} is left out: {failure}")
            return False
        return True

    def _round(self, measurement: Measurement, number: int) -> None:
        def tell(way: Way, rows: int) -> None:
            version = f"version {measurement.version.number}"
            self._say(f"{version}: {way}, {counted(rows, 'row')} (round {number} of {ROUNDS})")

        wish = self._wish
        measurement.measure(self._cache, ways(self._cores), wish.seconds / ROUNDS, wish.latency_ms, tell)

    def _measurement(self, version: ModelVersion, like: Pool | None = None) -> Measurement:
        """A version with what the plain session answers to each row alone; rows of `like`, if they fit."""
        self._say(f"version {version.number}: one row at a time")
        session = Session(version.path, options_of(version))
        inputs = like if like is not None and like.fits(session.signature) else None
        if inputs is None:
            inputs = pool(version.path, session.signature, self._wish.samples, self._wish.shapes)
        try:
            answers = [session.run(row) for row in inputs.rows]
        except SessionError as failure:
            if not inputs.open_inputs:
                raise
            names = ", ".join(f"'{name}'" for name in inputs.open_inputs)
            raise SamplesError(
                f"{failure}; open lengths of {names} were taken as 1: give --shape or --samples"
            ) from failure
        return Measurement(version, stored_types(version.path), session.signature, inputs, answers)

    def _say(self, what: str) -> None:
        self._progress(what, time.monotonic() - self._began)

    def _tell_noise(self, used: float | None, cells: Sequence[Cell]) -> None:
        """What others did, and what came of it."""
        if used is not None:
            self._notes.append(noise_note("other processes", used, os.cpu_count() or self._cores))
        spread = statistics.median(cell.spread for cell in cells)
        if spread > LOUD:
            self._notes.append(
                f"rounds of one and the same measurement lie {spread:.0%} apart (median): "
                "on a quiet machine, or with more --seconds, another plan may be better"
            )

    def _tell_about(self, own: Measurement, cells: Sequence[Cell]) -> None:
        if own.pool.open_inputs:
            names = ", ".join(f"'{name}'" for name in own.pool.open_inputs)
            self._notes.append(
                f"open lengths of {names} were taken as 1; --shape or --samples gives real ones"
            )
        if not own.signature.is_batched:
            self._notes.append(
                "requests cannot share a run, since not every first axis is open: 1 row is 1 request"
            )
        self._tell_inline(own.version, cells)
        most, largest = own.version.config.batching.max_rows, max(cell.rows for cell in cells)
        if largest < buckets(most, is_joinable=own.signature.is_batched)[-1]:
            limit = "" if self._wish.latency_ms is None else ", or could not reply within the limit"
            self._notes.append(
                f"runs of more than {counted(largest, 'row')} are not measured, of {most} allowed: "
                f"they would take longer than a third of --seconds {self._wish.seconds:g}{limit}"
            )

    def _tell_inline(self, version: ModelVersion, cells: Sequence[Cell]) -> None:
        """Serving has a shorter way for very short runs, which no plan changes."""
        short = [cell.rows for cell in cells if cell.way == Way(1, 1) and cell.p50_ms <= 1000 * INLINE_S]
        config = version.config
        if short and config.session.inline == "auto" and not config.batching.max_delay_s:
            self._notes.append(
                f"runs of up to {counted(max(short), 'row')} are over within {1000 * INLINE_S:g} ms: "
                "infold serve runs such requests on its event loop, one after another, "
                "unless session.inline is 'never'"
            )

    def _tell_difference(self, own: Measurement, other: Measurement) -> None:
        """How far another version's answers to the same rows are off, where that can be said."""
        if own.pool is not other.pool:
            return
        off = [_off(want, got) for want, got in zip(own.answers, other.answers, strict=True)]
        known = [each for each in off if each is not None]
        if known and len(known) == len(off):
            self._notes.append(
                f"answers of version {other.version.number} differ from those of version "
                f"{own.version.number} by up to {max(known):.2g} of the largest number in them"
            )


def _off(want: Tensors, got: Tensors) -> float | None:
    """The largest difference as a share of the largest magnitude, over outputs that are numbers."""
    found = []
    for name, array in want.items():
        if kind_of(array.dtype) != "f" or name not in got or got[name].shape != array.shape:
            continue
        plain, others = array.astype(np.float64), got[name].astype(np.float64)
        largest = float(np.abs(plain).max(initial=0.0))
        share = float(np.abs(plain - others).max(initial=0.0)) / largest if largest else 0.0
        if math.isfinite(share):
            found.append(share)
    return max(found, default=None)
