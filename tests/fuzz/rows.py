"""Requests of TF-Serving's dialect that are right, in rows and in columns, and what must come of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from hypothesis import strategies as st

from fuzz.arrays import Array, as_list, from_json, is_same
from fuzz.asking import Answer, Request, predict
from fuzz.drafts import OUTPUTS, Draft, drafts, expected
from fuzz.models import ECHOES

__all__ = ["RowDraft", "assert_predicted", "row_drafts"]


@dataclass(frozen=True, slots=True)
class RowDraft:
    """A predict request before it is written.

    Attributes:
        draft: The same as an infer request.
        content: Its JSON.
    """

    draft: Draft
    content: dict[str, Any]

    @property
    def request(self) -> Request:
        """As it is sent."""
        return predict(self.draft.model, json.dumps(self.content, allow_nan=False).encode())


@st.composite
def row_drafts(draw: st.DrawFn) -> RowDraft:
    """Requests that are right."""
    draft = draw(drafts(with_bytes=False).filter(lambda each: all(map(len, each.arrays.values()))))
    given = {name: as_list(array) for name, array in draft.arrays.items()}
    is_bare = len(given) == 1 and draw(st.booleans())
    content: dict[str, Any]
    if draft.model == "fixed" or draw(st.booleans()):
        content = {"inputs": given["x"] if is_bare else given}
    elif is_bare:
        content = {"instances": given["x"]}
    else:
        content = {
            "instances": [dict(zip(given, row, strict=True)) for row in zip(*given.values(), strict=True)]
        }
    if draw(st.booleans()):
        content["signature_name"] = "serving_default"
    return RowDraft(draft, content)


def assert_predicted(asked: RowDraft, answer: Answer) -> None:
    """All outputs are there, in the form that the request came in."""
    assert answer.status == 200, (asked, answer)
    (key, values), *others = orjson.loads(answer.body).items()
    assert not others
    assert key == ("predictions" if "instances" in asked.content else "outputs")
    wanted = expected(asked.draft)
    if asked.draft.model not in OUTPUTS:
        values = dict.fromkeys(wanted, values)
    elif key == "predictions":
        assert all(sorted(row) == sorted(wanted) for row in values)
        values = {name: [row[name] for row in values] for name in wanted}
    assert sorted(values) == sorted(wanted)
    for name, array in wanted.items():
        assert is_same(_array(values[name], array, asked.draft.model), array), (asked, answer)


def _array(values: Any, like: Array, model: str) -> Array:
    kinds = {np.dtype(object): "BYTES", np.dtype(np.float32): "FP32", np.dtype(np.int64): "INT64"}
    datatype = ECHOES[model] if model in ECHOES else kinds[like.dtype]
    return from_json(_leaves(values, like.shape), datatype, like.shape)


def _leaves(values: Any, shape: Sequence[int]) -> list[Any]:
    """All elements of nested lists that are exactly of a shape."""
    if not shape:
        return [values]
    assert isinstance(values, list) and len(values) == shape[0], (values, shape)
    return [leaf for value in values for leaf in _leaves(value, shape[1:])]
