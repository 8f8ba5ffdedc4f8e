"""onnxruntime, and nothing else: sessions, their options, a model's own settings, isolated runs.

The environment is read in `settings.py` alone. The one write is here, before
onnxruntime is first imported: its Linux wheel would send telemetry otherwise.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from infold.runtime.child import kept_child
from infold.runtime.config_edit import add_disabled_optimizers
from infold.runtime.image_config import Classification, ImageInput
from infold.runtime.model_config import Batching, Canary, ModelConfig, SessionConfig, read_config
from infold.runtime.options import Device, Placement, RunOptions, available_cores, choose_device
from infold.runtime.prepared import Cache, Prepared
from infold.runtime.probe import Run, run_isolated
from infold.runtime.session import Session, Stop, versions
from infold.runtime.shadow_config import ShadowConfig
from infold.runtime.triton_config import CONFIG_FILE, parse_triton_json, read_triton_config
from infold.runtime.triton_words import (
    DATA_TYPES,
    MODEL_FILE,
    TritonConfig,
    TritonTensor,
    Warmup,
    WarmupInput,
    type_name,
)

__all__ = [
    "CONFIG_FILE",
    "DATA_TYPES",
    "MODEL_FILE",
    "Batching",
    "Cache",
    "Canary",
    "Classification",
    "Device",
    "ImageInput",
    "ModelConfig",
    "Placement",
    "Prepared",
    "Run",
    "RunOptions",
    "Session",
    "SessionConfig",
    "ShadowConfig",
    "Stop",
    "TritonConfig",
    "TritonTensor",
    "Warmup",
    "WarmupInput",
    "add_disabled_optimizers",
    "available_cores",
    "choose_device",
    "kept_child",
    "parse_triton_json",
    "read_config",
    "read_triton_config",
    "run_isolated",
    "type_name",
    "versions",
]
