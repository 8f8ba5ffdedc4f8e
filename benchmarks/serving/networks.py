"""The networks that are served: known shapes, random weights.

    python benchmarks/serving/networks.py [name ...]

writes what is missing under `build/serving/models/<name>/1/model.onnx`, which is a model
repository. Weights are drawn so that the variance is kept from layer to layer (He), hence outputs
are finite and differ from input to input; how fast a network runs does not depend on their values.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from catalogue import NETWORKS
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET, IR = 17, 8


class Graph:
    """A graph that grows node by node."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(seed)

    def add(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """A node with one output, whose name is returned."""
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, value: NDArray[np.floating]) -> str:
        """An initializer."""
        name = f"w_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def weights(self, shape: tuple[int, ...], fan_in: int, gain: float) -> str:
        """Normal weights that multiply the mean square of their input by `gain`."""
        return self.constant(self._random.standard_normal(shape) * np.sqrt(gain / fan_in))

    def bias(self, length: int) -> str:
        """What a folded batch norm leaves behind."""
        return self.constant(0.1 * self._random.standard_normal(length))

    def conv(
        self, x: str, i: int, o: int, kernel: int = 1, *, stride: int = 1, groups: int = 1, gain: float = 2
    ) -> str:
        """A convolution of `i` channels to `o` that keeps the extent, but for its stride."""
        weight = self.weights((o, i // groups, kernel, kernel), i // groups * kernel**2, gain)
        spread = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        return self.add("Conv", [x, weight, self.bias(o)], group=groups, **spread)

    def dense(self, x: str, i: int, o: int, gain: float = 1) -> str:
        """A fully connected layer."""
        return self.add("Gemm", [x, self.weights((o, i), i, gain), self.bias(o)], transB=1)

    def classifier(self, x: str, i: int, classes: int) -> str:
        """Mean over the image, then a fully connected layer."""
        return self.dense(self.add("Flatten", [self.add("GlobalAveragePool", [x])], axis=1), i, classes)

    def save(self, path: Path, y: str, shape: tuple[int, ...], classes: int) -> None:
        """The file, with `y` for output."""
        self.nodes.append(helper.make_node("Identity", [y], ["y"], name="y"))
        take = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])
        give = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", classes])
        graph = helper.make_graph(self.nodes, path.parent.parent.name, [take], [give], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
        onnx.checker.check_model(model)
        onnx.save(model, path)


def tiny(path: Path) -> None:
    """64 to 64 to 10: next to nothing to compute, so that all the rest shows."""
    graph = Graph(1)
    hidden = graph.add("Relu", [graph.dense("x", 64, 64, gain=2)])
    graph.save(path, graph.dense(hidden, 64, 10), (64,), 10)


def mobilenetv2(path: Path) -> None:
    """MobileNetV2 of width 1 for 224x224 images, batch norms folded.

    Source: arXiv:1801.04381, table 2.
    """
    graph = Graph(2)
    limits = [graph.constant(np.array(each, np.float32)) for each in (0, 6)]

    def relu6(x: str) -> str:
        return graph.add("Clip", [x, *limits])

    x, channels = relu6(graph.conv("x", 3, 32, 3, stride=2)), 32
    first = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2))
    rows = (*first, (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))  # expansion, out, repeats, stride
    for expansion, out, repeats, first_stride in rows:
        for number in range(repeats):
            stride, wide = first_stride if number == 0 else 1, channels * expansion
            inner = x if expansion == 1 else relu6(graph.conv(x, channels, wide))
            inner = relu6(graph.conv(inner, wide, wide, 3, stride=stride, groups=wide))
            # The last of the three is linear; beside a shortcut it adds a little only.
            is_residual = stride == 1 and channels == out
            inner = graph.conv(inner, wide, out, gain=0.25 if is_residual else 1)
            x, channels = graph.add("Add", [x, inner]) if is_residual else inner, out
    x = relu6(graph.conv(x, channels, 1280))
    graph.save(path, graph.classifier(x, 1280, 1000), (3, 224, 224), 1000)


def resnet50(path: Path) -> None:
    """ResNet-50 (stride in the 3x3 convolution) for 224x224 images, batch norms folded.

    Source: arXiv:1512.03385, table 1.
    """
    graph = Graph(3)

    def relu(x: str) -> str:
        return graph.add("Relu", [x])

    x, channels = relu(graph.conv("x", 3, 64, 7, stride=2)), 64
    x = graph.add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for stage, repeats in enumerate((3, 4, 6, 3)):
        narrow, out = 64 * 2**stage, 256 * 2**stage
        for number in range(repeats):
            stride = 2 if stage and number == 0 else 1
            inner = relu(graph.conv(x, channels, narrow))
            inner = relu(graph.conv(inner, narrow, narrow, 3, stride=stride))
            inner = graph.conv(inner, narrow, out, gain=0.25)
            shortcut = x if number else graph.conv(x, channels, out, stride=stride, gain=1)
            x, channels = relu(graph.add("Add", [inner, shortcut])), out
    graph.save(path, graph.classifier(x, 2048, 1000), (3, 224, 224), 1000)


def resnet50_int8(path: Path) -> None:
    """The ResNet-50 above in 8 bits: static, QDQ, a scale per output channel."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Images(CalibrationDataReader):  # type: ignore[misc]  # its base is untyped
        """A few random images."""

        def __init__(self) -> None:
            random = np.random.default_rng(11)
            self._images = iter(random.standard_normal((4, 1, 3, 224, 224)).astype(np.float32))

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            image = next(self._images, None)
            return None if image is None else {"x": image}

    quantize_static(
        write("resnet50"),
        path,
        Images(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )


WRITERS: dict[str, Callable[[Path], None]] = {
    each.__name__: each for each in (tiny, mobilenetv2, resnet50, resnet50_int8)
}


def write(name: str) -> Path:
    """The file of a network is there."""
    file = NETWORKS[name].file
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(".draft")
        WRITERS[name](draft)
        draft.rename(file)
    return file


def main() -> None:
    import onnxruntime

    for name in sys.argv[1:] or NETWORKS:
        network = NETWORKS[name]
        session = onnxruntime.InferenceSession(write(name))
        random = np.random.default_rng(0)
        inputs = (random.standard_normal((1, *network.shape)).astype(np.float32) for _ in range(2))
        one, other = (session.run(None, {"x": each})[0] for each in inputs)
        told = f"std {one.std():.3g}, between two inputs {np.abs(one - other).mean():.3g}"
        print(f"{name:16}{network.file.stat().st_size / 2**20:7.1f} MiB  {told}")
        assert np.isfinite(one).all()
        assert not np.allclose(one, other)


if __name__ == "__main__":
    main()
