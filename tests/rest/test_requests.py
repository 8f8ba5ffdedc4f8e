"""Infer and predict requests: whichever way one is read, it says the same."""

import json
from collections.abc import Mapping
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infold.errors import InvalidInputError, RequestError
from infold.rest import v1, v2
from infold.rest.codec import DATATYPES, DTYPES
from infold.rest.v1 import decode_predict
from infold.rest.v2 import InferRequest, decode_infer
from infold.tensors import Array, Signature, TensorSpec


def signature(*inputs: TensorSpec) -> Signature:
    return Signature(inputs, (TensorSpec("y", np.dtype(np.float32), ("n",)),))


def one(datatype: str, *shape: int | str | None, name: str = "x") -> Signature:
    return signature(TensorSpec(name, DTYPES[datatype], shape))


def said(tensors: Mapping[str, Array]) -> list[tuple[object, ...]]:
    return [
        (name, array.dtype, array.shape, array.tolist() if array.dtype == object else array.tobytes())
        for name, array in tensors.items()
    ]


def infer_outcome(body: bytes, json_bytes: int | None, wanted: Signature) -> object:
    """All that a request says, or its refusal; nothing else may come of it."""
    try:
        request: InferRequest = decode_infer(body, json_bytes, wanted)
    except RequestError as refused:
        return type(refused), str(refused)
    return said(request.tensors), request.outputs, request.id, dict(request.binary), request.is_binary


# -- shapes that no array can have ------------------------------------------------------------------


@pytest.mark.parametrize("shape", [[0, 2**63], [0, 2**62], [2**40, 0, 2**40], [1] * 100, [0] * 100])
@pytest.mark.parametrize("form", ["json", "bytes"])
@pytest.mark.parametrize("is_open", [False, True])
def test_a_shape_that_no_array_has_is_refused(shape: list[int], form: str, is_open: bool) -> None:
    """400 and where; never a failure of ours."""
    wanted = signature(TensorSpec("x", np.dtype(np.float32), None if is_open else ("n", "m")))
    values = [0.0] * (1 if all(shape) else 0)
    entry: dict[str, Any] = {"name": "x", "shape": shape, "datatype": "FP32"}
    if form == "json":
        body, json_bytes = json.dumps({"inputs": [{**entry, "data": values}]}).encode(), None
        blob = b""
    else:
        blob = np.array(values, np.float32).tobytes()
        entry["parameters"] = {"binary_data_size": len(blob)}
        body = json.dumps({"inputs": [entry]}).encode()
        json_bytes = len(body)
    with pytest.raises(InvalidInputError, match=r"inputs\[0\]\.shape"):
        decode_infer(body + blob, json_bytes, wanted)
