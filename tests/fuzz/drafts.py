"""Requests for tensors that are right: every datatype, as bytes, as JSON, and both in one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from hypothesis import strategies as st

from fuzz.arrays import (
    Array,
    arrays,
    as_bytes,
    as_list,
    from_bytes,
    from_json,
    is_same,
    is_speakable,
    speakable,
)
from fuzz.asking import Answer, Request, infer, json_length
from fuzz.models import ECHOES

__all__ = ["OUTPUTS", "Draft", "assert_answered", "drafts"]


@dataclass(frozen=True, slots=True)
class Draft:
    """A request before it is written.

    Attributes:
        model: Asked.
        arrays: What is meant, by input.
        content: The JSON of it.
        blobs: Bytes behind the JSON, an input each.
        length: What the header says of the JSON; None for the truth, b"" for no header.
        tail: Bytes behind the last input.
        headers: Beside that one.
    """

    model: str
    arrays: dict[str, Array]
    content: dict[str, Any]
    blobs: tuple[bytes, ...]
    length: bytes | None = None
    tail: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def text(self) -> bytes:
        """The JSON as it is sent."""
        return json.dumps(self.content, allow_nan=False).encode()

    @property
    def request(self) -> Request:
        """As it is sent."""
        text = self.text
        headers = list(self.headers)
        if self.length != b"":
            headers.append(json_length(len(text) if self.length is None else self.length))
        return infer(self.model, b"".join((text, *self.blobs, self.tail)), *headers)


OUTPUTS = {"sums": ["total", "difference"], "mixed": ["number", "word"]}
LENGTHS = st.sampled_from([1, 1, 2, 3, 5, 0])


@st.composite
def inputs_of(draw: st.DrawFn, model: str) -> dict[str, tuple[str, Array]]:
    """Datatype and array by input, such as a model takes."""
    rows, width = draw(LENGTHS), draw(LENGTHS)
    if model in ECHOES:
        return {"x": (ECHOES[model], draw(arrays(ECHOES[model], (rows, width))))}
    if model == "sums":
        return {name: ("FP32", draw(arrays("FP32", (rows, width)))) for name in "ab"}
    if model == "mixed":
        return {
            "a": ("FP32", draw(arrays("FP32", (rows, 2)))),
            "b": ("BYTES", draw(arrays("BYTES", (rows,)))),
        }
    assert model == "fixed"
    return {"x": ("INT64", draw(arrays("INT64", (2, 3))))}


@st.composite
def drafts(draw: st.DrawFn, *, with_bytes: bool = True) -> Draft:
    """Requests that are right; the first input is bytes, or nothing is, and nothing is asked for as bytes.

    Outputs are listed or not; inputs come in any order, flat or nested.
    """
    model = draw(st.sampled_from([*ECHOES, "sums", "mixed", "fixed"]))
    given = draw(inputs_of(model))
    if not with_bytes:
        given = {name: (datatype, speakable(array)) for name, (datatype, array) in given.items()}
    entries, blobs = [], list[bytes]()
    for name in draw(st.permutations(sorted(given))):
        datatype, array = given[name]
        entry: dict[str, Any] = {"name": name, "shape": list(array.shape), "datatype": datatype}
        if not is_speakable(array) or (with_bytes and (not entries or draw(st.booleans()))):
            blobs.append(as_bytes(array))
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            entry["data"] = as_list(array if draw(st.booleans()) else array.reshape(-1))
        entries.append(entry)
    content: dict[str, Any] = {"inputs": entries, **draw(_wishes(model, with_bytes))}
    meant = {name: array for name, (_, array) in given.items()}
    return Draft(model, meant, content, tuple(blobs), None if with_bytes else b"")


@st.composite
def _wishes(draw: st.DrawFn, model: str, with_bytes: bool) -> dict[str, Any]:
    """Everything of a request beside its inputs."""
    wishes: dict[str, Any] = {}
    if draw(st.booleans()):
        wishes["parameters"] = {"binary_data_output": with_bytes and draw(st.booleans())}
    if draw(st.booleans()):
        names = draw(st.permutations(OUTPUTS.get(model, ["y"])))
        wishes["outputs"] = [{"name": name} for name in names[: draw(st.integers(1, len(names)))]]
        for output in wishes["outputs"]:
            if draw(st.booleans()):
                output["parameters"] = {"binary_data": with_bytes and draw(st.booleans())}
    if draw(st.booleans()):
        wishes["id"] = draw(st.text(max_size=20))
    return wishes


# -- what comes of them -----------------------------------------------------------------------------


def expected(draft: Draft) -> dict[str, Array]:
    """What the model answers, by output."""
    given = draft.arrays
    with np.errstate(all="ignore"):
        match draft.model:
            case "sums":
                return {"total": given["a"] + given["b"], "difference": given["a"] - given["b"]}
            case "mixed":
                return {"number": given["a"], "word": given["b"]}
            case "fixed":
                return {"y": -given["x"]}
    return {"y": given["x"]}


def assert_answered(draft: Draft, answer: Answer) -> None:
    """Every output that was asked for is there, in order, with the values that it must have."""
    assert answer.status == 200, (draft, answer)
    text = answer.headers.get(b"inference-header-content-length")
    size = len(answer.body) if text is None else int(text)
    content, blobs = orjson.loads(answer.body[:size]), answer.body[size:]
    assert content["model_name"] == draft.model
    assert content.get("id") == draft.content.get("id")
    wanted = expected(draft)
    asked = draft.content.get("outputs") or [{"name": name} for name in wanted]
    assert [output["name"] for output in content["outputs"]] == [output["name"] for output in asked]
    for output in content["outputs"]:
        got, blobs = _output(output, blobs)
        assert is_same(got, wanted[output["name"]]), (draft, output, got)
    assert blobs == b""


def _output(output: Mapping[str, Any], blobs: bytes) -> tuple[Array, bytes]:
    """An output of an answer, and the bytes behind it."""
    datatype, shape = output["datatype"], output["shape"]
    if "data" in output:
        return from_json(output["data"], datatype, shape), blobs
    size = output["parameters"]["binary_data_size"]
    return from_bytes(blobs[:size], datatype, shape), blobs[size:]
