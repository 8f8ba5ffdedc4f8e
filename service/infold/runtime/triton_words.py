"""What infold takes from Triton's configuration of a model, in infold's own words.

Dimensions are as on the wire, so without the batch axis where there is one; -1
stands for any length.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from infold.runtime.model_config import ModelConfig
from infold.runtime.options import Device
from infold.tensors import BFLOAT16

__all__ = ["DATA_TYPES", "MODEL_FILE", "TritonConfig", "TritonTensor", "Warmup", "WarmupInput", "type_name"]

MODEL_FILE = "model.onnx"

# Types by Triton's names.
DATA_TYPES: Mapping[str, np.dtype[np.generic]] = {
    "TYPE_BOOL": np.dtype(np.bool_),
    "TYPE_UINT8": np.dtype(np.uint8),
    "TYPE_UINT16": np.dtype(np.uint16),
    "TYPE_UINT32": np.dtype(np.uint32),
    "TYPE_UINT64": np.dtype(np.uint64),
    "TYPE_INT8": np.dtype(np.int8),
    "TYPE_INT16": np.dtype(np.int16),
    "TYPE_INT32": np.dtype(np.int32),
    "TYPE_INT64": np.dtype(np.int64),
    "TYPE_FP16": np.dtype(np.float16),
    "TYPE_FP32": np.dtype(np.float32),
    "TYPE_FP64": np.dtype(np.float64),
    "TYPE_STRING": np.dtype(np.object_),
    "TYPE_BF16": BFLOAT16,
}
_NAMES = {dtype: name for name, dtype in DATA_TYPES.items()}


def type_name(dtype: np.dtype[np.generic]) -> str:
    """Triton's name of a type in a model's configuration."""
    return _NAMES[dtype]


@dataclass(frozen=True, slots=True)
class TritonTensor:
    """One input or output as `config.pbtxt` declares it.

    Attributes:
        name: The model's own name of it.
        data_type: Triton's word, as `TYPE_FP32`.
        dims: Its shape on the wire.
        reshape: Its shape in the model, also without the batch axis; None where that is the same.
        format: Triton's word for the order of an image's axes; nothing follows from it.
    """

    name: str
    data_type: str
    dims: tuple[int, ...]
    reshape: tuple[int, ...] | None = None
    format: str = "FORMAT_NONE"


@dataclass(frozen=True, slots=True)
class WarmupInput:
    """One input of a warm-up sample.

    Attributes:
        name: Of the model's input.
        data_type: Triton's word, as `TYPE_FP32`.
        dims: Its shape without the batch axis, all lengths given.
        data: `zero_data`, `random_data` or `input_data_file`.
        file: Below the model's `warmup` folder; empty where no file is read.
    """

    name: str
    data_type: str
    dims: tuple[int, ...]
    data: str
    file: str = ""


@dataclass(frozen=True, slots=True)
class Warmup:
    """A sample that is run before a version is ready.

    Attributes:
        name: For errors.
        rows: How often the sample stands below itself in one run.
        inputs: In the order of their names.
        count: Runs of it.
    """

    name: str
    rows: int
    inputs: tuple[WarmupInput, ...]
    count: int = 1


@dataclass(frozen=True, slots=True)
class TritonConfig:
    """A model's configuration as its owner wrote it for Triton.

    Attributes:
        place: Where it stands, for errors.
        name: Of the model; empty where it does not say.
        max_batch_size: 0 where requests have no batch axis, or, see `is_complete`, where it is not said.
        inputs: Declared ones; none where all are as the model has them.
        outputs: The same.
        base: What it says in terms of `model.toml`, which overrides it.
        filename: Of the model, inside a version's folder.
        labels: Files of labels, inside the model's folder, by the output's name.
        warmups: What is run before a version is ready.
        device: The one that its instances want; None leaves it to the service.
        ignored: Fields that are set and change no answer, and that infold does not follow.
    """

    place: str
    name: str = ""
    max_batch_size: int = 0
    inputs: tuple[TritonTensor, ...] = ()
    outputs: tuple[TritonTensor, ...] = ()
    base: ModelConfig = field(default_factory=ModelConfig)
    filename: str = MODEL_FILE
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    warmups: tuple[Warmup, ...] = ()
    device: Device | None = None
    ignored: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Inputs and outputs are declared; else the model completes what is not said, as in Triton."""
        return bool(self.inputs and self.outputs)
