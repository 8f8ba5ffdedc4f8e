"""From Keras on TensorFlow to ONNX, by way of a SavedModel: for layers that only TensorFlow runs."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import tensorflow as tf

from infold.convert.frontends.keras.inference import Inference
from infold.convert.frontends.keras.interface import Interface
from infold.convert.frontends.tf_export import to_onnx
from infold.errors import SourceError

__all__ = ["NAME", "export", "no_gradients"]

NAME = f"tensorflow {tf.__version__}"
SIGNATURE = "serving_default"

no_gradients = nullcontext


def export(interface: Interface, inference: Inference) -> onnx.ModelProto:
    """Export with every norm in the graph, inputs and outputs in the model's order."""
    del inference  # layers are named by the exceptions that come out of them
    inputs = [f"in_{number}" for number in range(len(interface.inputs))]
    outputs = [f"out_{number}" for number in range(len(interface.outputs))]

    def serve(*tensors: Any) -> dict[str, Any]:
        return dict(zip(outputs, interface.flat_call(*tensors), strict=True))

    specs = [
        tf.TensorSpec(spec.shape, tf.as_dtype(spec.dtype), name)
        for spec, name in zip(interface.inputs, inputs, strict=True)
    ]
    module = tf.Module()
    module.model = interface.model
    with TemporaryDirectory(prefix="infold-saved-model-") as folder:
        tf.saved_model.save(module, folder, {SIGNATURE: tf.function(serve).get_concrete_function(*specs)})
        try:
            proto: onnx.ModelProto = to_onnx(Path(folder), SIGNATURE, None)
        except SourceError as refused:  # which names a folder that the user has never seen
            raise RuntimeError(refused.detail) from None
    _reorder(proto.graph.input, inputs)
    _reorder(proto.graph.output, outputs)
    return proto


def _reorder(values: Any, names: list[str]) -> None:
    """A repeated field of values in the order of their names."""
    by_name = {value.name: value.SerializeToString() for value in values}
    del values[:]
    for name in names:
        values.add().ParseFromString(by_name[name])
