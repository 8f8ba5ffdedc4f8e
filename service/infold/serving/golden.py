"""A loaded version, held against the samples that came with it.

It is asked on every session that will serve, through the same functions as requests. What the file
may hold and how it is read: `runtime/golden.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from infold.errors import GoldenError, InfoldError
from infold.runtime.golden import GOLDEN_FILE, read_golden
from infold.serving.presenting import Presented
from infold.serving.repository import ModelVersion
from infold.tensors import BFLOAT16, Array, kind_of

__all__ = ["check_golden"]

# Relative to the largest magnitude of the output. Another machine sums in another order; a step of
# a 16-bit float is a thousandth or more of its number.
TOLERANCES: Mapping[np.dtype[np.generic], float] = {
    np.dtype(np.float32): 1e-3,
    np.dtype(np.float64): 1e-3,
    np.dtype(np.float16): 2e-2,
    BFLOAT16: 2e-2,
}
# Steps of a quantized number, or labels: only the model's owner knows which.
SHORT = (np.dtype(np.int8), np.dtype(np.uint8))
SHOWN_CHARACTERS = 100


def check_golden(version: ModelVersion, seen: Presented) -> None:
    """Pass if a version answers its golden samples as it should, in every way that requests are run.

    Without samples, or with inputs only, there is nothing to check.

    Raises:
        GoldenError: It does not, or the samples do not fit it.
        ConfigError: They cannot be read.
    """
    golden = read_golden(version.path, root=version.root)
    if golden is None or not golden.outputs:
        return
    place = str(version.path.with_name(GOLDEN_FILE))
    if golden.others:
        raise GoldenError(place, f"'{golden.others[0]}' is neither in.<input> nor out.<output>")
    specs = {name: seen.signature.output(name) for name in golden.outputs}
    for name, spec in specs.items():
        if spec is None:
            known = ", ".join(f"'{each.name}'" for each in seen.signature.outputs)
            raise GoldenError(f"{place}: out.{name}", f"the model has no such output; it has {known}")
        if problem := spec.mismatch(golden.outputs[name]):
            raise GoldenError(f"{place}: out.{name}", problem.replace("takes", "gives"))
    try:
        seen.signature.check(golden.inputs)
    except InfoldError as failure:
        raise GoldenError(place, str(failure)) from failure
    for run, which in ((seen.run, ""), (seen.run_wide, " on all cores")):
        if run is None:
            continue
        try:
            given = run(golden.inputs, list(golden.outputs), None)
        except InfoldError as failure:
            raise GoldenError(place, f"does not run{which}: {failure}") from failure
        for name, wanted in golden.outputs.items():
            if differs := _difference(given[name], wanted, version.config.golden.tolerance):
                raise GoldenError(f"{place}: out.{name}{differs[0]}", f"{differs[1]}{which}")


def _difference(given: Array, wanted: Array, tolerance: float) -> tuple[str, str] | None:
    """Where two arrays of a type differ most, and how; None where they agree."""
    if given.shape != wanted.shape:
        return "", f"shape {list(given.shape)} is not {list(wanted.shape)}"
    tolerance = _tolerance(wanted.dtype, tolerance)
    if not tolerance:
        differs, least = given != wanted, "not"
        worst = np.asarray(differs, np.float64)
    else:
        worst, scale = _distances(given, wanted)
        bound = tolerance * scale if scale else float(np.finfo(np.float32).eps)
        differs, least = worst > bound, f"within {tolerance:g} of {scale:.6g}"
    count = int(np.count_nonzero(differs))
    if not count:
        return None
    at = np.unravel_index(int(np.argmax(worst)), worst.shape) if worst.ndim else ()
    where = f"[{','.join(map(str, at))}]" if at else ""
    within = "" if least == "not" else f" {least}"
    others = f"; {count} of {worst.size} differ" if worst.size > 1 else ""
    return where, f"{_shown(given[at])} is not {_shown(wanted[at])}{within}{others}"


def _tolerance(dtype: np.dtype[np.generic], asked: float) -> float:
    if dtype in SHORT:
        return asked
    return (asked or TOLERANCES[dtype]) if kind_of(dtype) == "f" else 0.0


def _distances(
    given: Array, wanted: Array
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float64]], float]:
    """How far elements are apart, and the largest magnitude wanted.

    Two that are no number are not apart, nor are equal infinities.
    """
    mine, right = given.astype(np.float64), wanted.astype(np.float64)
    finite = np.isfinite(right)
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(mine - right)
    same = (mine == right) | (np.isnan(mine) & np.isnan(right))
    apart = np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart))
    return apart, float(np.abs(right[finite]).max(initial=0.0))


def _shown(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
