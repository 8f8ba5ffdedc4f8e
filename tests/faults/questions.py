"""Requests whose answers are known, in every form that tensors are sent in, and what is made of an answer."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import orjson

from faults.models import BROAD, LINE, MODELS, MOST, PAIR, WIDTHS, Floats, answer
from faults.timeline import Timeline
from fuzz.asking import Answer, Request, json_length

__all__ = ["BUSY", "Form", "Kind", "Question", "Verdict", "judged", "question", "reason_of"]

# What a request that makes sense may be refused with; everything else is wrong.
KNOWN = {404, 429, 503, 504}
# Of these the ones that say that there is too much to do, be it of everybody or of one caller.
BUSY = {429, 503}
ABSENT = re.compile("is not found|is not ready")
MOST_ROWS = 4


class Form(StrEnum):
    """How tensors travel."""

    JSON = "json"
    BYTES = "bytes"
    PREDICT = "predict"


class Kind(StrEnum):
    """What became of a request."""

    ANSWERED = "answered"
    REFUSED = "refused"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """One request.

    Attributes:
        model: That is asked.
        version: That is asked for; None leaves it to the service.
        form: Of the request and of its answer.
        x: Its input.
    """

    model: str
    version: int | None
    form: Form
    x: Floats

    def request(self, identity: str) -> Request:
        """As it is sent under an id."""
        where = self.model if self.version is None else f"{self.model}/versions/{self.version}"
        headers: tuple[tuple[bytes, bytes], ...] = ((b"x-request-id", identity.encode()),)
        if self.form is Form.PREDICT:
            body = orjson.dumps({"instances": self.x.tolist()})
            return Request(f"/v1/models/{where}:predict".encode(), body, headers=headers)
        entry: dict[str, Any] = {"name": "x", "shape": list(self.x.shape), "datatype": "FP32"}
        if self.form is Form.JSON:
            entry["data"] = self.x.reshape(-1).tolist()
            body = orjson.dumps({"inputs": [entry]})
        else:
            entry["parameters"] = {"binary_data_size": self.x.nbytes}
            text = orjson.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}})
            headers = (*headers, json_length(len(text)))
            body = text + self.x.tobytes()
        return Request(f"/v2/models/{where}/infer".encode(), body, headers=headers)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a request, and why it is called so; of a refusal its reason."""

    kind: Kind
    detail: str = ""


def question(dice: random.Random, timeline: Timeline) -> Question:
    """Any question; a version that is asked for by name is one that may be there, as a rule."""
    (name,) = dice.choices(MODELS, (6, 5, 1))
    rows = 1 if name == BROAD else dice.randint(1, MOST_ROWS)
    (form,) = dice.choices(tuple(Form), (4, 4, 1 if name == LINE else 0))
    version = None
    if (living := timeline.living(name)) and dice.random() < (0.6 if name == PAIR else 0.2):
        version = dice.choice(living) if dice.random() < 0.98 else max(living) + 1000
    seed = dice.getrandbits(32)
    x = np.random.default_rng(seed).integers(0, MOST, (rows, WIDTHS[name])).astype(np.float32)
    return Question(name, version, form, x)


def judged(asked: Question, given: Answer, sent: float, received: float, timeline: Timeline) -> Verdict:
    """What an answer is worth, by what could be answered while it was waited for."""
    if given.status != 200:
        return _refusal(asked, given, sent, received, timeline)
    try:
        version, y = _read(asked, given)
    except (KeyError, ValueError, TypeError, IndexError) as odd:
        return Verdict(Kind.WRONG, f"an answer that cannot be read: {odd!r}: {given!r}")
    known = timeline.candidates(asked.model, sent, received)
    versions = known if version is None else [version]
    fitting = [each for each in versions if _is_same(y, answer(each, asked.x))]
    if not fitting:
        return Verdict(Kind.WRONG, f"no answer of version {version} or of {known}: {asked} {given!r}")
    if asked.version is not None and asked.version not in fitting:
        return Verdict(Kind.WRONG, f"version {asked.version} was asked, {fitting} answered")
    if not set(fitting) & set(known):
        return Verdict(Kind.WRONG, f"version {fitting} of {asked.model} answered, there were {known}")
    newest = timeline.newest_sure(asked.model, sent, received)
    if asked.version is None and max(fitting) < newest:
        return Verdict(Kind.WRONG, f"version {fitting} of {asked.model} answered, {newest} was there")
    return Verdict(Kind.ANSWERED)


def _refusal(asked: Question, given: Answer, sent: float, received: float, timeline: Timeline) -> Verdict:
    reason = reason_of(given)
    if reason is None:
        return Verdict(Kind.WRONG, f"a refusal without a reason: {given!r}")
    if given.status not in KNOWN:
        return Verdict(Kind.WRONG, f"refused with {given.status}: {reason}")
    if ABSENT.search(reason):
        if timeline.must(asked.model, asked.version, sent, received):
            return Verdict(
                Kind.WRONG, f"refused though it was there: {asked.model} {asked.version}: {reason}"
            )
    elif given.status == 404:
        return Verdict(Kind.WRONG, f"refused as not there, which is not said: {reason}")
    elif given.status in BUSY and b"retry-after" not in given.headers:
        return Verdict(Kind.WRONG, f"nobody is told when to come again: {given!r}")
    return Verdict(Kind.REFUSED, f"{given.status} {reason}")


def reason_of(given: Answer) -> str | None:
    """Why something was refused, without names and numbers; None where it is not told as it should be."""
    try:
        content = orjson.loads(given.body)
    except ValueError:
        return None
    if not isinstance(content, dict) or list(content) != ["error"] or not isinstance(content["error"], str):
        return None
    text = re.sub(r"\d+(\.\d+)?", "N", re.sub(r"'[^']*'", "'...'", content["error"]))
    return text[:70].strip() or None


def _read(asked: Question, given: Answer) -> tuple[int | None, Floats]:
    """The version that an answer names, and its tensor."""
    if asked.form is Form.PREDICT:
        return None, np.array(orjson.loads(given.body)["predictions"], np.float32)
    size = int(given.headers.get(b"inference-header-content-length", len(given.body)))
    content = orjson.loads(given.body[:size])
    (entry,) = content["outputs"]
    if (content["model_name"], entry["name"], entry["datatype"]) != (asked.model, "y", "FP32"):
        raise ValueError("another model, output or datatype")
    if asked.form is Form.BYTES:
        y = np.frombuffer(given.body[size:], np.float32)
    else:
        y = np.array(entry["data"], np.float32)
    return int(content["model_version"]), y.reshape(entry["shape"])


def _is_same(one: Floats, other: Floats) -> bool:
    """Of one shape, and equal bit by bit."""
    return one.shape == other.shape and one.tobytes() == other.tobytes()
