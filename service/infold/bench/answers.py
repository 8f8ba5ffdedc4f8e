"""Are the answers right? Each is held against a reference; equal bytes are judged once.

Under load nothing is decoded: what differs from all that was seen before is kept, and
compared when the load is over. Rows of several callers run together as one batch, which may
change the last bits of floats, so these have a tolerance, also inside text, where classes have
their scores. Integers and other text have none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from infold.bench.outcomes import Kind, Outcomes
from infold.rest.codec import DTYPES
from infold.tensors import BFLOAT16, Array, Tensors, kind_of

__all__ = ["Answer", "Judge", "difference", "read_answer"]

# Bytes of the JSON part, where the server says so (binary extension), and the body.
Answer = tuple[int | None, bytes]

# Relative to the largest magnitude of the reference.
TOLERANCE = 1e-3
# A float inside text, told from an integer by its point or exponent.
FLOAT = re.compile(r"-?\d+(?:\.\d+(?:e[+-]?\d+)?|e[+-]?\d+)", re.IGNORECASE)
# From one bfloat16 to the next: where sums are taken in another order, a number may fall to either.
BFLOAT16_STEP = 2.0**-7
# Answers kept undecoded: beyond that they are compared while the load runs.
MOST_BYTES = 64 * 2**20


class Judge:
    """Compares answers with a reference for each distinct request.

    Attributes:
        first_wrong: What was wrong with the first wrong answer, or None.
    """

    def __init__(self, references: Sequence[Tensors]) -> None:
        self.first_wrong: str | None = None
        self._references = references
        self._verdicts: dict[tuple[int, Answer], bool] = {}
        self._verdict_bytes = 0
        self._waiting: dict[tuple[int, Answer], list[tuple[Outcomes, int]]] = {}
        self._waiting_bytes = 0

    def see(self, outcomes: Outcomes, entry: int, request: int, answer: Answer) -> None:
        """Take note of an answer 200; its entry is marked wrong now or when this is settled."""
        key = (request, answer)
        verdict = self._verdicts.get(key)
        if verdict is None:
            waiting = self._waiting.get(key)
            if waiting is None:
                waiting = self._waiting[key] = []
                self._waiting_bytes += len(answer[1])
            waiting.append((outcomes, entry))
            if self._waiting_bytes > MOST_BYTES:
                self.settle()
        elif not verdict:
            outcomes.kinds[entry] = Kind.WRONG

    def settle(self) -> None:
        """Compare what has not been compared yet."""
        for (request, answer), seen in self._waiting.items():
            problem = self._problem(request, answer)
            if problem is not None:
                self.first_wrong = self.first_wrong or f"request {request + 1}: {problem}"
                for outcomes, entry in seen:
                    outcomes.kinds[entry] = Kind.WRONG
            if self._verdict_bytes < MOST_BYTES:
                self._verdicts[request, answer] = problem is None
                self._verdict_bytes += len(answer[1])
        self._waiting.clear()
        self._waiting_bytes = 0

    def _problem(self, request: int, answer: Answer) -> str | None:
        try:
            found = read_answer(answer)
        except ValueError as broken:
            return str(broken)
        return difference(self._references[request], found)


def read_answer(answer: Answer) -> dict[str, Array]:
    """What an answer holds: the outputs of protocol v2, the members of other JSON, or plain bytes.

    Raises:
        ValueError: It says that it is protocol v2, and is not.
    """
    json_bytes, body = answer
    try:
        content = orjson.loads(body if json_bytes is None else body[:json_bytes])
    except orjson.JSONDecodeError:
        return {"body": np.frombuffer(body, np.uint8)}
    if not isinstance(content, dict):
        return {"body": _plain(content)}
    if "outputs" not in content or "model_name" not in content:
        return {str(name): _plain(value) for name, value in content.items()}
    offset = json_bytes or 0
    found: dict[str, Array] = {}
    try:
        for output in content["outputs"]:
            length = (output.get("parameters") or {}).get("binary_data_size")
            if length is None:
                found[output["name"]] = _from_json(output)
            else:
                found[output["name"]] = _from_bytes(output, body[offset : offset + length])
                offset += length
    except (KeyError, TypeError, AttributeError, ValueError) as broken:
        raise ValueError(f"no answer of protocol v2: {type(broken).__name__}: {broken}") from broken
    return found


def _from_json(output: Mapping[str, Any]) -> Array:
    dtype = DTYPES[output["datatype"]]
    if dtype.kind == "O":
        return np.array(output["data"], np.object_).reshape(output["shape"])
    if kind_of(dtype) == "f":  # null is NaN
        return np.array(output["data"], np.float64).reshape(output["shape"]).astype(dtype)
    return np.array(output["data"], dtype).reshape(output["shape"])


def _from_bytes(output: Mapping[str, Any], raw: bytes) -> Array:
    dtype = DTYPES[output["datatype"]]
    if dtype.kind != "O":
        return np.frombuffer(raw, dtype.newbyteorder("<")).reshape(output["shape"])
    texts, at = [], 0
    while at < len(raw):  # each string behind its length in four bytes
        length = int.from_bytes(raw[at : at + 4], "little")
        texts.append(raw[at + 4 : at + 4 + length].decode("utf-8", "replace"))
        at += 4 + length
    return np.array(texts, np.object_).reshape(output["shape"])


def _plain(value: Any) -> Array:
    try:
        return np.array(value, np.float64)
    except (TypeError, ValueError):
        return np.array(orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode(), np.object_)


def difference(reference: Tensors, found: Tensors, tolerance: float = TOLERANCE) -> str | None:
    """How an answer differs from the reference, or None where it does not.

    Args:
        reference: What is right.
        found: What is judged.
        tolerance: For floats, relative to the largest magnitude of the reference; for bfloat16
            its own steps at least.
    """
    if sorted(reference) != sorted(found):
        return f"holds {', '.join(sorted(found))}, not {', '.join(sorted(reference))}"
    for name, want in reference.items():
        got = found[name]
        if got.shape != want.shape:
            return f"'{name}' has shape {list(got.shape)}, not {list(want.shape)}"
        if want.dtype.kind == "O":
            problem = _text_off(
                [str(each) for each in want.flat], [str(each) for each in got.flat], tolerance
            )
        elif kind_of(want.dtype) == "f":
            allowed = max(tolerance, BFLOAT16_STEP) if want.dtype == BFLOAT16 else tolerance
            problem = _off(want.astype(np.float64), got.astype(np.float64), allowed)
        else:
            problem = None if np.array_equal(want, got) else "differs"
        if problem:
            return f"'{name}' {problem}"
    return None


def _text_off(want: list[str], got: list[str], tolerance: float) -> str | None:
    """Text: all but its floats must be equal."""
    if [FLOAT.sub("#", each) for each in want] != [FLOAT.sub("#", each) for each in got]:
        return "differs"
    floats = [np.array(FLOAT.findall(" ".join(texts)), np.float64) for texts in (want, got)]
    return _off(floats[0], floats[1], tolerance)


def _off(want: NDArray[np.float64], got: NDArray[np.float64], tolerance: float) -> str | None:
    """Floats: JSON has one word for infinities and NaN, so these all count as equal."""
    finite = np.isfinite(want)
    if not np.array_equal(finite, np.isfinite(got)):
        return "is not finite in other places"
    allowed = tolerance * float(np.abs(want[finite]).max(initial=0.0))
    off = float(np.abs(want[finite] - got[finite]).max(initial=0.0))
    return None if off <= allowed else f"is off by {off:.2g}, where {allowed:.2g} is allowed"
