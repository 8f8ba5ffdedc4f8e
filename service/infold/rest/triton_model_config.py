"""A served model's configuration as Triton's own words for it: what its clients and tools read.

Effective values are told, as `model.toml` has left them, and fields that other
servers of the protocol always fill are there too. What comes out can be read
back as a configuration of the same meaning.

Source: Triton's docs/protocol/extension_model_configuration.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infold.runtime import MODEL_FILE, Batching, Device, ModelConfig, TritonConfig, TritonTensor, type_name
from infold.tensors import Signature, TensorSpec

__all__ = ["model_config_json"]


def model_config_json(
    name: str,
    versions: str | tuple[int, ...],
    signature: Signature,
    config: ModelConfig,
    labels: Mapping[str, str] | None = None,
    triton: TritonConfig | None = None,
    *,
    runs: int = 0,
    device: Device = Device.CPU,
    gpu_id: int = 0,
) -> dict[str, Any]:
    """The configuration of a model, ready to be written as JSON.

    Args:
        name: Of the model.
        versions: Which are served, as `ModelConfig.versions`.
        signature: Inputs and outputs as callers see them.
        config: What its owner says about serving it.
        labels: Files of labels, by the output's name.
        triton: What its owner wrote for Triton; None if nothing.
        runs: At once; 0 tells what `config` says, or 1.
        device: That runs it.
        gpu_id: Number of the GPU, where it is one.
    """
    is_batched, batching = signature.is_batched, config.batching
    declared = {each.name: each for each in (*triton.inputs, *triton.outputs)} if triton is not None else {}
    names = dict(labels or {})
    told: dict[str, Any] = {
        "name": name,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "runtime": "",
        "version_policy": _policy(versions),
        "max_batch_size": batching.max_rows if is_batched else 0,
        "input": [
            _tensor(spec, declared.get(spec.name), is_batched=is_batched)
            | {
                "format": declared[spec.name].format if spec.name in declared else "FORMAT_NONE",
                "allow_ragged_batch": False,
                "optional": False,
            }
            for spec in signature.inputs
        ],
        "output": [
            _tensor(spec, declared.get(spec.name), is_batched=is_batched)
            | {"label_filename": names.get(spec.name, "")}
            for spec in signature.outputs
        ],
        "batch_input": [],
        "batch_output": [],
        "instance_group": [_group(name, runs or config.session.runs or 1, device, gpu_id)],
        "default_model_filename": triton.filename if triton is not None else MODEL_FILE,
        "cc_model_filenames": {},
        "metric_tags": {},
        "parameters": {},
        "model_warmup": _warmups(triton) if triton is not None else [],
    }
    if is_batched and batching.max_rows > 1 and batching.join != "never":
        told["dynamic_batching"] = _dynamic_batching(batching)
    return told


def _policy(versions: str | tuple[int, ...]) -> dict[str, Any]:
    if isinstance(versions, tuple):
        return {"specific": {"versions": list(versions)}}
    if versions == "all":
        return {"all": {}}
    return {"latest": {"num_versions": int(versions.partition(":")[2] or 1)}}


def _tensor(spec: TensorSpec, declared: TritonTensor | None, *, is_batched: bool) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": spec.name,
        "data_type": type_name(spec.dtype),
        "dims": spec.wire_shape()[1 if is_batched else 0 :],
        "is_shape_tensor": False,
    }
    if declared is not None and declared.reshape is not None:
        told["reshape"] = {"shape": list(declared.reshape)}
    return told


def _group(name: str, count: int, device: Device, gpu_id: int) -> dict[str, Any]:
    return {
        "name": f"{name}_0",
        "kind": "KIND_GPU" if device.is_gpu else "KIND_CPU",
        "count": count,
        "gpus": [gpu_id] if device.is_gpu else [],
        "secondary_devices": [],
        "profile": [],
        "passive": False,
        "host_policy": "",
    }


def _dynamic_batching(batching: Batching) -> dict[str, Any]:
    return {
        "preferred_batch_size": list(batching.preferred_rows),
        "max_queue_delay_microseconds": round(batching.max_delay_s * 1e6),
        "preserve_ordering": False,
        "priority_levels": 0,
        "default_priority_level": 0,
        "default_queue_policy": {
            "timeout_action": "REJECT",
            "default_timeout_microseconds": 0,
            "allow_timeout_override": False,
            "max_queue_size": batching.capacity_rows,
        },
        "priority_queue_policy": {},
    }


def _warmups(triton: TritonConfig) -> list[dict[str, Any]]:
    return [
        {
            "name": each.name,
            "batch_size": each.rows,
            "inputs": {
                given.name: {
                    "data_type": given.data_type,
                    "dims": list(given.dims),
                    given.data: given.file or True,
                }
                for given in each.inputs
            },
            "count": each.count,
        }
        for each in triton.warmups
    ]
