"""Loads and unloads of models that no other test asks, with configurations of the caller's."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from fuzz.asking import Request
from fuzz.routes import NAMES

__all__ = ["configurations", "management"]

# Keys of Triton's model configuration, each with what it may be and what it should not.
NUMBERS: list[Any] = [0, 1, 8, -1, 2**31, 2**63, 10**30, 1.5, "4", "x", None, True, [], {}]
TENSOR: dict[str, list[Any]] = {
    "name": ["x", "y", "z", "", "\0", 3, None],
    "data_type": ["TYPE_FP32", "TYPE_STRING", "TYPE_INVALID", "FP32", "", 11, -1, None],
    "dims": [[], [-1], [1], [-2], [0], [2**31], [2**63], ["1"], [1.5], "1", None, [1] * 100],
    "reshape": [{"shape": []}, {"shape": [-1, -1]}, {}, []],
    "label_filename": ["labels.txt", "../../../etc/passwd", "/etc/passwd", "\0", ""],
    "optional": [True, "x"],
}
WARMERS = [{"data_type": "TYPE_FP32", "dims": [each], "zero_data": True} for each in (1, 2**30, -1)]
CONFIGURATION: dict[str, list[Any]] = {
    "name": ["spare", "other", "../x", "", "\0", 3],
    "backend": ["onnxruntime", "python", "", 3],
    "platform": ["onnxruntime_onnx", "ensemble", None],
    "max_batch_size": NUMBERS,
    "version_policy": [{"latest": {"num_versions": 2**40}}, {"specific": {"versions": [99]}}, {"all": {}}, 3],
    "instance_group": [[{"count": each}] for each in (1, 0, -1, 2**31, "x")] + [[{"kind": "KIND_GPU"}], {}],
    "dynamic_batching": [{"max_queue_delay_microseconds": each} for each in NUMBERS],
    "optimization": [{"execution_accelerators": {}}, {"graph": {"level": 10**10}}, {"priority": "x"}, 3],
    "parameters": [{"a": {"string_value": "b"}}, {"a": 3}, [], {"": {}}],
    "model_warmup": [[{"name": "w", "batch_size": 2**30, "inputs": {"x": each}}] for each in WARMERS],
    "response_cache": [{"enable": True}, 1],
    "sequence_batching": [{}],
    "ensemble_scheduling": [{}],
    "default_model_filename": ["model.onnx", "../../../etc/passwd", "/etc/passwd", "", "\0", "a" * 5000],
    "cc_model_filenames": [{"1": "x"}],
    "no such key": [1],
}  # fmt: skip


@st.composite
def configurations(draw: st.DrawFn) -> Request:
    """Loads of a model with a configuration of the caller's."""
    keys = draw(st.lists(st.sampled_from(sorted(CONFIGURATION)), max_size=3))
    config: dict[str, Any] = {key: draw(st.sampled_from(CONFIGURATION[key])) for key in keys}
    for side in draw(st.lists(st.sampled_from(["input", "output"]), max_size=2)):
        parts = draw(st.lists(st.sampled_from(sorted(TENSOR)), max_size=4))
        tensor: dict[str, Any] = {"name": "x" if side == "input" else "y"}
        tensor |= {each: draw(st.sampled_from(TENSOR[each])) for each in parts}
        config[side] = draw(st.sampled_from([[tensor], [tensor], [tensor] * 2, tensor, [], [3]]))
    text = json.dumps(config)
    odd = [
        text[:-1],
        "[" * 5000,
        "9" * 5000,
        '{"max_batch_size":%s}' % ("9" * 5000),
        "\ud800",
        "",
        *[text] * 8,
    ]
    body = json.dumps({"parameters": {"config": draw(st.sampled_from(odd))}}).encode()
    return Request(b"/v2/repository/models/spare/load", body)


@st.composite
def management(draw: st.DrawFn) -> Request:
    """The repository, its index, loads and unloads: of models that no other test asks."""
    name = draw(st.sampled_from([each for each in NAMES if b"echo" not in each.lower()]))
    verb = draw(st.sampled_from([b"/load", b"/unload", b"/LOAD", b""]))
    configs = ["{}", "[]", "{", '{"max_batch_size":-1}', '{"backend":"python"}', 3, None, '{"a":' * 300]
    parameters: list[Any] = [{"config": each} for each in configs]
    parameters += [{"file:../../x": "YQ=="}, {"file:1/model.onnx": "!"}, {"file:1/model.onnx": "YQ=="}]
    parameters += [[], "x", None]
    parameters += [{"unload_dependents": "x"}, {"unload_dependents": True}]
    body = json.dumps({"parameters": draw(st.sampled_from(parameters))}).encode()
    bodies = [body, b"", b"{", b'{"ready":true}', b'{"ready":1}', b"[]", b"null", b"\xff"]
    targets = [
        b"/v2/repository/models/" + name + verb,
        b"/v2/repository/index",
        b"/v2/repository/x/models/" + name + verb,
    ]
    return Request(draw(st.sampled_from(targets)), draw(st.sampled_from(bodies)))
