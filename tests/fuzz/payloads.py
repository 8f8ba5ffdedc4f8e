"""Tensors in other clothes: numpy's files, strings in base 64, half numbers, classes instead of numbers."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
from hypothesis import strategies as st

from fuzz.asking import Request, infer, predict
from fuzz.damage import damaged

__all__ = ["classification", "encoded_strings", "half_numbers", "numpy_files"]


@st.composite
def numpy_files(draw: st.DrawFn) -> Request:
    """Arrays in numpy's own format: of other types and orders, with headers that lie, with pickles."""
    plain = np.zeros((1, 2), np.float32)
    arrays = [plain, plain.astype(">f8"), np.asfortranarray(np.zeros((3, 2), np.float32)), np.array(3.5)]
    arrays += [np.array([[{"a": 1}]], object), np.array(["text"]), np.zeros(3, [("a", "i4")])]
    arrays += [
        np.zeros((0, 7), np.int64),
        np.zeros((1,) * 32),
        np.zeros(2, "datetime64[s]"),
        np.zeros(2, complex),
    ]
    file = io.BytesIO()
    np.save(file, draw(st.sampled_from(arrays)), allow_pickle=True)
    body = file.getvalue()
    odd = [b"(1, 2)", b"(-1, 2)", b"(1, 2L)", b"(99999999999, 9999999999999)", b"((1,), 2)", b"(f(), 1)"]
    body = body.replace(b"(1, 2)", draw(st.sampled_from(odd)))
    types = [b"application/x-npy", b"application/octet-stream", b"application/npy", b"application/x-npz"]
    headers = ((b"content-type", draw(st.sampled_from(types))),)
    return Request(
        draw(st.sampled_from([b"/v2/models/echo_float/infer", b"/v1/models/echo_int64:predict"])),
        damaged(draw, body),
        headers=headers,
    )


@st.composite
def encoded_strings(draw: st.DrawFn) -> Request:
    """TF-Serving's `{"b64": ...}`, rightly and wrongly encoded, where strings are taken and where not."""
    texts = [base64.b64encode(b"abc").decode(), "YQ", "=", "Y Q=", "\0", "ü", "", "YQ==YQ==", "A" * 10**6]
    values = [*texts, None, 3, ["YQ=="], {"b64": "YQ=="}]
    value: dict[str, Any] = {"b64": draw(st.sampled_from(values))}
    if draw(st.booleans()):
        value[draw(st.sampled_from(["b64 ", "B64", "x", ""]))] = "YQ=="
    forms: list[Any] = [
        value,
        [value],
        [[value]],
        [[value, "a"]],
        {"x": value},
        {"x": [value]},
        {"x": [[value]]},
    ]
    body = {draw(st.sampled_from(["instances", "inputs"])): draw(st.sampled_from(forms))}
    return predict(draw(st.sampled_from(["echo_string", "echo_float", "mixed"])), json.dumps(body).encode())


@st.composite
def half_numbers(draw: st.DrawFn) -> Request:
    """BF16 and FP16, as JSON and as bytes, of models that take them and others."""
    datatype = draw(st.sampled_from(["BF16", "FP16"]))
    blob = draw(st.binary(max_size=6))
    entry: dict[str, Any] = {"name": "x", "shape": [1, 2], "datatype": datatype}
    if draw(st.booleans()):
        entry["data"] = draw(st.sampled_from([[1, 2], [1e39, 2], [None, 1], [65519.9, 65520]]))
        return infer(
            draw(st.sampled_from(["echo_float16", "echo_bfloat16"])), json.dumps({"inputs": [entry]}).encode()
        )
    entry["parameters"] = {"binary_data_size": len(blob)}
    text = json.dumps({"inputs": [entry]}).encode()
    model = draw(st.sampled_from(["echo_float16", "echo_bfloat16", "echo_float"]))
    return infer(model, text + blob, (b"inference-header-content-length", b"%d" % len(text)))


@st.composite
def classification(draw: st.DrawFn) -> Request:
    """Outputs asked for as their largest classes, of any number, of types that have none."""
    count = draw(st.sampled_from([1, 2, 0, -1, 3, 2**31, 2**64, 1.5, "1", True, None, []]))
    entry = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, None]}
    output = {"name": "y", "parameters": {"classification": count, "binary_data": draw(st.booleans())}}
    model = draw(st.sampled_from(["echo_float", "echo_string"]))
    if model == "echo_string":
        entry |= {"datatype": "BYTES", "data": ["a", "b"]}
    return infer(model, json.dumps({"inputs": [entry], "outputs": [output]}).encode())
