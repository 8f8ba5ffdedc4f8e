"""A model's configuration in Triton's words."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient

from infold.rest.codec import DATATYPES
from infold.rest.triton_model_config import model_config_json
from infold.runtime import Batching, Device, ModelConfig, SessionConfig, parse_triton_json
from infold.runtime.triton_config import parse_triton_text
from infold.serving.declared import declared
from infold.tensors import Dim, Signature, TensorSpec
from stub_server import doubled, stub


def spec(name: str, *shape: Dim, dtype: Any = np.float32) -> TensorSpec:
    return TensorSpec(name, np.dtype(dtype), shape)


PLAIN = Signature((spec("x", "n", 3, None),), (spec("y", "n", 2), spec("s", "n", dtype=object)))


def told(signature: Signature = PLAIN, config: ModelConfig | None = None, **more: Any) -> dict[str, Any]:
    return model_config_json("m", "latest", signature, config or ModelConfig(), **more)


def test_tritons_client_reads_it() -> None:
    """Whole numbers as such."""
    with (
        stub(doubled, {"/v2/models/m/config": told()}) as url,
        InferenceServerClient(url.removeprefix("http://")) as client,
    ):
        config = client.get_model_config("m")
    assert config == json.loads(json.dumps(told()))
    assert (config["name"], config["platform"], config["backend"]) == ("m", "onnxruntime_onnx", "onnxruntime")
    assert config["max_batch_size"] == 64
    assert [(each["name"], each["data_type"], each["dims"]) for each in config["input"]] == [
        ("x", "TYPE_FP32", [3, -1])
    ]
    assert [(each["name"], each["data_type"], each["dims"]) for each in config["output"]] == [
        ("y", "TYPE_FP32", [2]),
        ("s", "TYPE_STRING", []),
    ]
    assert all(type(dim) is int for each in config["input"] + config["output"] for dim in each["dims"])


def test_what_perf_analyzer_asks_of_it_is_there() -> None:
    """Which scheduler there is it sees by the keys that are there."""
    config = told()
    assert type(config["max_batch_size"]) is int
    assert "dynamic_batching" in config
    assert config.keys() & {"sequence_batching", "ensemble_scheduling", "model_transaction_policy"} == set()
    for each in config["input"]:
        assert (each["format"], each["optional"], each["is_shape_tensor"]) == ("FORMAT_NONE", False, False)
    assert all(each["is_shape_tensor"] is False for each in config["output"])


def test_a_model_without_rows_has_no_batch() -> None:
    """Its dims are all of them, and nothing is joined."""
    for signature in (
        Signature((spec("x", 2, 3),), PLAIN.outputs),
        Signature(PLAIN.inputs, PLAIN.outputs, has_rows=False),
    ):
        config = told(signature)
        assert config["max_batch_size"] == 0
        assert len(config["input"][0]["dims"]) == len(signature.inputs[0].shape or ())
        assert "dynamic_batching" not in config


@pytest.mark.parametrize("dtype", DATATYPES)
def test_every_type_has_its_name(dtype: np.dtype[np.generic]) -> None:
    """The protocol's, but for strings."""
    name = told(Signature((spec("x", dtype=dtype),), ()))["input"][0]["data_type"]
    assert name == f"TYPE_{DATATYPES[dtype].replace('BYTES', 'STRING')}"


@pytest.mark.parametrize(
    ("versions", "policy"),
    [
        ("latest", {"latest": {"num_versions": 1}}),
        ("latest:3", {"latest": {"num_versions": 3}}),
        ("all", {"all": {}}),
        ((1, 4), {"specific": {"versions": [1, 4]}}),
    ],
)
def test_forms_of_a_version_policy(versions: str | tuple[int, ...], policy: dict[str, Any]) -> None:
    """As Triton writes them."""
    assert model_config_json("m", versions, PLAIN, ModelConfig())["version_policy"] == policy


def test_joining_is_dynamic_batching() -> None:
    """With what a queue is wished to be; without it the key is not there."""
    batching = Batching(32, 0.0015, 99, preferred_rows=(8, 16))
    config = told(config=ModelConfig(batching=batching))
    assert config["max_batch_size"] == 32
    dynamic = config["dynamic_batching"]
    assert dynamic["preferred_batch_size"] == [8, 16]
    assert dynamic["max_queue_delay_microseconds"] == 1500
    assert dynamic["default_queue_policy"]["max_queue_size"] == 99
    for never in (Batching(8, join="never"), Batching(1)):
        config = told(config=ModelConfig(batching=never))
        assert config["max_batch_size"] == never.max_rows
        assert "dynamic_batching" not in config


def test_instances_are_runs() -> None:
    """As they are, as they are wished, or one."""
    wished = ModelConfig(session=SessionConfig(runs=3))
    groups = [
        each["instance_group"][0]
        for each in (told(), told(config=wished), told(config=wished, runs=2, device=Device.CUDA, gpu_id=1))
    ]
    assert [(each["count"], each["kind"], each["gpus"]) for each in groups] == [
        (1, "KIND_CPU", []),
        (3, "KIND_CPU", []),
        (2, "KIND_GPU", [1]),
    ]


def test_what_was_declared_is_told_again() -> None:
    """Shapes, labels, samples, a file's name; and what stands there can be read back."""
    text = """
        name: "m" max_batch_size: 8 default_model_filename: "net.onnx"
        input { name: "x" data_type: TYPE_FP32 dims: [3, 8, 8] format: FORMAT_NCHW
            reshape { shape: [3, 64] } }
        output { name: "y" data_type: TYPE_FP32 dims: [2] label_filename: "labels.txt" }
        version_policy { specific { versions: [1, 2] } }
        dynamic_batching { preferred_batch_size: [4] max_queue_delay_microseconds: 700
            default_queue_policy { max_queue_size: 20 } }
        instance_group { count: 2 kind: KIND_CPU }
        model_warmup { name: "w" batch_size: 2 count: 3 inputs { key: "x" value {
            data_type: TYPE_FP32 dims: [3, 8, 8] input_data_file: "x.raw" } } }
    """
    triton = parse_triton_text(text, "config")
    seen = declared(triton, PLAIN).signature
    config = model_config_json("m", triton.base.versions, seen, triton.base, triton.labels, triton)
    assert config["input"][0]["dims"] == [3, 8, 8]
    assert config["input"][0]["reshape"] == {"shape": [3, 64]}
    assert config["input"][0]["format"] == "FORMAT_NCHW"
    assert config["output"][0]["label_filename"] == "labels.txt"
    assert config["default_model_filename"] == "net.onnx"
    assert parse_triton_json(json.dumps(config), "config") == triton


@pytest.mark.parametrize("has_rows", [True, False])
def test_a_model_of_ours_can_be_read_back(has_rows: bool) -> None:
    """As the same signature, served the same way."""
    own = ModelConfig("all", Batching(16, 0.25, 64, preferred_rows=(4,)), SessionConfig(runs=1))
    signature = Signature(PLAIN.inputs, PLAIN.outputs, has_rows)
    text = json.dumps(model_config_json("m", own.versions, signature, own))
    again = parse_triton_json(text, "config")
    assert again.ignored == ()
    assert declared(again, PLAIN).signature == signature
    if has_rows:
        assert again.base == own
