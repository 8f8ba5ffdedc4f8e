"""The graphs that folders are compared on, made here from nothing but onnx and numpy.

    python graphs.py FOLDER

writes each as `<name>.onnx` with inputs in `<name>.npz`, and `index.json` beside them. Opset 17,
IR 8, seeded, so every run sees the same bytes.

`ideal` lists by hand the operators that are left when every norm is folded and nothing else is
optimised, bodies of branches and functions included, constants left out. A trap is a graph where
the nearest fold is wrong, or where only a careful one is right: what counts is that the answers,
the inputs and the outputs stay what they were.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 17, 8
FLOATS = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.float16): TensorProto.FLOAT16}
DOMAIN = "bench"


class Net:
    """A graph under construction: calling it adds a node and gives the name of its output."""

    def __init__(self, seed: int, dtype: type[np.generic] = np.float32, *, inner: Net | None = None) -> None:
        self.rng = inner.rng if inner else np.random.default_rng(seed)
        self.dtype = np.dtype(dtype)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.feeds: dict[str, np.ndarray] = {}
        self.functions: list[onnx.FunctionProto] = []
        self.prefix = "inner_" if inner else ""

    def __call__(
        self, op: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: object
    ) -> str:
        """Add a node; with several outputs they are `<name>`, `<name>.1`, ..."""
        name = f"{self.prefix}{op.lower()}_{len(self.nodes)}"
        names = [name, *(f"{name}.{number}" for number in range(1, outputs))]
        self.nodes.append(helper.make_node(op, inputs, names, name=name, domain=domain, **attributes))
        return name

    def input(self, *shape: int, name: str = "x", scale: float = 1.0) -> str:
        """An input of the model, with normal values to feed it."""
        self.feeds[name] = (scale * self.rng.standard_normal(shape)).astype(self.dtype)
        self.inputs.append(helper.make_tensor_value_info(name, FLOATS[self.dtype], shape))
        return name

    def constant(self, array: np.ndarray, name: str = "") -> str:
        """An initializer; float arrays take the graph's type."""
        name = name or f"{self.prefix}c_{len(self.initializers)}"
        if array.dtype == np.float64:
            array = array.astype(self.dtype)
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, *shape: int, fan_in: int | None = None) -> str:
        """Weights drawn as He does."""
        fan_in = fan_in or int(np.prod(shape[1:]))
        return self.constant(self.rng.standard_normal(shape) * np.sqrt(2 / fan_in))

    def vector(self, *shape: int, low: float = 0.5, high: float = 1.5) -> str:
        """Numbers between two bounds."""
        return self.constant(self.rng.uniform(low, high, shape))

    def conv(self, x: str, into: int, out: int, kernel: int = 3, *, bias: bool = True, **more: object) -> str:
        """A 2-D convolution without padding unless asked."""
        group = int(str(more.get("group", 1)))
        weight = self.weight(out, into // group, kernel, kernel)
        extra = [self.vector(out, low=-1, high=1)] if bias else []
        return self("Conv", x, weight, *extra, kernel_shape=[kernel, kernel], **more)

    def statistics(self, channels: int, *, positive: bool = False, gain: float = 1.0) -> list[str]:
        """Gamma, beta, mean and variance; every fourth gamma is negative unless told otherwise."""
        gamma = gain * self.rng.uniform(0.5, 1.5, channels)
        if not positive:
            gamma[1::4] *= -1
        normal = 0.3 * self.rng.standard_normal((2, channels))
        variance = self.rng.uniform(0.5, 2.0, channels)
        return [self.constant(each) for each in (gamma, normal[0], normal[1], variance)]

    def norm(self, x: str, channels: int, *, positive: bool = False, gain: float = 1.0) -> str:
        """A trained batch norm."""
        return self("BatchNormalization", x, *self.statistics(channels, positive=positive, gain=gain))

    def model(self, *outputs: str) -> onnx.ModelProto:
        """The finished model; shapes of outputs are inferred."""
        infos = [helper.make_empty_tensor_value_info(name) for name in outputs]
        graph = helper.make_graph(self.nodes, "graph", self.inputs, infos, self.initializers)
        opsets = [helper.make_opsetid("", OPSET)]
        if self.functions:
            opsets.append(helper.make_opsetid(DOMAIN, 1))
        model = helper.make_model(graph, opset_imports=opsets, functions=self.functions)
        model.ir_version = IR_VERSION
        model.producer_name = "infold benchmark"
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        found = {value.name: value for value in (*inferred.output, *inferred.value_info)}
        for info in graph.output:
            if not found[info.name].type.HasField("tensor_type"):
                raise ValueError(f"the type of '{info.name}' cannot be inferred")
        del model.graph.output[:]
        model.graph.output.extend(found[name] for name in outputs)
        return model


@dataclass(frozen=True)
class Pattern:
    """A graph to fold, what is left of it ideally, and whether it is a trap."""

    name: str
    build: Callable[[Net], Sequence[str]]
    ideal: str
    trap: bool = False
    dtype: type[np.generic] = np.float32


PATTERNS: list[Pattern] = []
Build = Callable[[Net], str | Sequence[str]]


def _register(ideal: str, trap: bool, dtype: type[np.generic]) -> Callable[[Build], Build]:
    def add(build: Build) -> Build:
        def outputs(net: Net) -> Sequence[str]:
            made = build(net)
            return (made,) if isinstance(made, str) else made

        name = build.__name__.replace("_", "-")
        PATTERNS.append(Pattern(name, outputs, ideal, trap, dtype))
        return build

    return add


def folds_to(ideal: str, dtype: type[np.generic] = np.float32) -> Callable[[Build], Build]:
    """A graph whose norms can all be folded."""
    return _register(ideal, False, dtype)


def trap(ideal: str, dtype: type[np.generic] = np.float32) -> Callable[[Build], Build]:
    """A graph that has to keep its answers; `ideal` is what it is made of."""
    return _register(ideal, True, dtype)


# A norm behind its producer.


@folds_to("Conv")
def conv_bn(net: Net) -> str:
    return net.norm(net.conv(net.input(2, 3, 8, 8), 3, 6, pads=[1] * 4), 6)


@folds_to("Conv")
def conv3d_bn(net: Net) -> str:
    x = net.input(2, 3, 5, 5, 5)
    return net.norm(net("Conv", x, net.weight(4, 3, 3, 3, 3), pads=[1] * 6), 4)


@folds_to("Conv")
def depthwise_conv_bn(net: Net) -> str:
    return net.norm(net.conv(net.input(2, 6, 8, 8), 6, 6, group=6, pads=[1] * 4, bias=False), 6)


@folds_to("Conv")
def conv_with_empty_bias_bn(net: Net) -> str:
    return net.norm(net("Conv", net.input(2, 3, 8, 8), net.weight(4, 3, 3, 3), ""), 4)


@folds_to("ConvTranspose")
def grouped_transposed_conv_bn(net: Net) -> str:
    x = net.input(2, 4, 5, 5)
    return net.norm(net("ConvTranspose", x, net.weight(4, 3, 3, 3), group=2, strides=[2, 2]), 6)


@folds_to("Gemm")
def gemm_alpha_beta_bn(net: Net) -> str:
    x, w = net.input(4, 8), net.weight(5, 8)
    return net.norm(net("Gemm", x, w, net.vector(5), transB=1, alpha=0.5, beta=2.0), 5)


@folds_to("Gemm")
def gemm_scalar_bias_bn(net: Net) -> str:
    return net.norm(net("Gemm", net.input(4, 8), net.weight(8, 5, fan_in=8), net.vector()), 5)


@folds_to("MatMul Add")
def matmul_add_bn(net: Net) -> str:
    product = net("MatMul", net.input(4, 8), net.weight(8, 5, fan_in=8))
    return net.norm(net("Add", net.vector(5), product), 5)


@folds_to("MatMul Add")
def matmul_constant_left_bn(net: Net) -> str:
    return net.norm(net("MatMul", net.weight(5, 8), net.input(2, 8, 7)), 5)


@folds_to("MatMul Add Reshape Reshape")
def matmul_add_reshape_bn(net: Net) -> str:
    x, w = net.input(2, 7, 8), net.weight(8, 5, fan_in=8)
    tokens = net("Add", net("MatMul", x, w), net.vector(5))
    flat = net("Reshape", tokens, net.constant(np.array([14, 5], np.int64)))
    return net("Reshape", net.norm(flat, 5), net.constant(np.array([2, 7, 5], np.int64)))


# A norm written out.


@folds_to("Conv")
def conv_mul_add(net: Net) -> str:
    y = net.conv(net.input(2, 3, 8, 8), 3, 4)
    return net("Add", net("Mul", y, net.vector(1, 4, 1, 1)), net.vector(1, 4, 1, 1))


@folds_to("Conv")
def conv_mul_add_constants_first(net: Net) -> str:
    y = net.conv(net.input(2, 3, 8, 8), 3, 4)
    return net("Add", net.vector(4, 1, 1), net("Mul", net.vector(4, 1, 1), y))


@folds_to("Conv")
def conv_sub_div_mul_add(net: Net) -> str:
    y = net.conv(net.input(2, 3, 8, 8), 3, 4)
    for op in ("Sub", "Div", "Mul", "Add"):
        y = net(op, y, net.vector(1, 4, 1, 1))
    return y


@folds_to("Conv")
def constant_minus_conv(net: Net) -> str:
    return net("Sub", net.vector(1, 4, 1, 1), net.conv(net.input(2, 3, 8, 8), 3, 4))


@folds_to("Gemm")
def gemm_mul_add(net: Net) -> str:
    y = net("Gemm", net.input(4, 8), net.weight(8, 5, fan_in=8), net.vector(5))
    return net("Add", net("Mul", y, net.vector(5)), net.vector(5))


@folds_to("Conv Transpose")
def conv_transpose_mul_add_last_axis(net: Net) -> str:
    y = net("Transpose", net.conv(net.input(2, 3, 8, 8), 3, 4), perm=[0, 2, 3, 1])
    return net("Add", net("Mul", y, net.vector(4)), net.vector(4))


# A norm in front of its consumer.


@folds_to("Conv")
def bn_conv(net: Net) -> str:
    return net.conv(net.norm(net.input(2, 4, 8, 8), 4), 4, 6)


@folds_to("Conv")
def bn_depthwise_conv(net: Net) -> str:
    return net.conv(net.norm(net.input(2, 4, 8, 8), 4), 4, 4, group=4)


@folds_to("Conv")
def scale_padded_conv(net: Net) -> str:
    x = net("Mul", net.input(2, 4, 8, 8), net.vector(1, 4, 1, 1))
    return net.conv(x, 4, 6, pads=[1] * 4)


@folds_to("Flatten Gemm")
def bn_flatten_gemm(net: Net) -> str:
    flat = net("Flatten", net.norm(net.input(2, 4, 3, 3), 4))
    return net("Gemm", flat, net.weight(5, 36), net.vector(5), transB=1)


# Something between.


@folds_to("Conv Conv Concat")
def concat_of_convs_bn(net: Net) -> str:
    x = net.input(2, 3, 8, 8)
    return net.norm(net("Concat", net.conv(x, 3, 4), net.conv(x, 3, 2), axis=1), 6)


@folds_to("Conv Conv Add")
def sum_of_convs_bn(net: Net) -> str:
    x = net.input(2, 3, 8, 8)
    return net.norm(net("Add", net.conv(x, 3, 4), net.conv(x, 3, 4)), 4)


@folds_to("Conv Split")
def conv_split_bn_each(net: Net) -> Sequence[str]:
    y = net.conv(net.input(2, 3, 8, 8), 3, 6)
    half = net("Split", y, net.constant(np.array([2, 4], np.int64)), outputs=2, axis=1)
    return net.norm(half, 2), net.norm(f"{half}.1", 4)


@folds_to("Conv GlobalAveragePool Flatten")
def conv_pool_flatten_bn(net: Net) -> str:
    y = net("GlobalAveragePool", net.conv(net.input(2, 3, 8, 8), 3, 6))
    return net.norm(net("Flatten", y), 6)


@folds_to("Conv MaxPool")
def conv_maxpool_bn(net: Net) -> str:
    y = net("MaxPool", net.conv(net.input(2, 3, 8, 8), 3, 6), kernel_shape=[2, 2])
    return net.norm(y, 6, positive=True)


@folds_to("Conv Identity Dropout")
def conv_identity_dropout_bn(net: Net) -> str:
    y = net("Dropout", net("Identity", net.conv(net.input(2, 3, 8, 8), 3, 6)))
    return net.norm(y, 6)


@folds_to("Conv")
def conv_bn_bn(net: Net) -> str:
    return net.norm(net.norm(net.conv(net.input(2, 3, 8, 8), 3, 6), 6), 6)


# Sharing, scopes, types.


@folds_to("Conv Conv")
def shared_weight_two_bns(net: Net) -> Sequence[str]:
    w = net.weight(4, 3, 3, 3)
    x, z = net.input(2, 3, 8, 8), net.input(2, 3, 8, 8, name="z")
    return net.norm(net("Conv", x, w), 4), net.norm(net("Conv", z, w), 4)


@folds_to("ReduceSum Greater If Conv Conv")
def bn_inside_a_branch(net: Net) -> str:
    x = net.input(2, 3, 8, 8)
    w = net.weight(4, 3, 3, 3)
    total = net("ReduceSum", x, keepdims=0)
    branches = []
    for number in range(2):
        inner = Net(0, inner=net)
        inner.prefix = f"branch{number}_"
        y = inner("BatchNormalization", inner("Conv", x, w), *net.statistics(4))
        info = helper.make_tensor_value_info(y, TensorProto.FLOAT, (2, 4, 6, 6))
        branches.append(helper.make_graph(inner.nodes, f"branch{number}", [], [info]))
    condition = net("Greater", total, net.constant(np.array(0.0)))
    return net("If", condition, then_branch=branches[0], else_branch=branches[1])


@folds_to("block Conv")
def bn_inside_a_function(net: Net) -> str:
    inner = Net(0, inner=net)
    arrays = [net.rng.standard_normal((4, 3, 3, 3)) / 3, *net.rng.uniform(0.5, 1.5, (4, 4))]
    named = [inner("Constant", value=numpy_helper.from_array(each.astype(np.float32))) for each in arrays]
    y = inner("BatchNormalization", inner("Conv", "a", named[0]), *named[1:])
    opset = [helper.make_opsetid("", OPSET)]
    net.functions.append(helper.make_function(DOMAIN, "block", ["a"], [y], inner.nodes, opset))
    return net("block", net.input(2, 3, 8, 8), domain=DOMAIN)


@folds_to("Identity Conv")
def weight_behind_constant_and_identity(net: Net) -> str:
    array = (net.rng.standard_normal((4, 3, 3, 3)) / 3).astype(np.float32)
    w = net("Identity", net("Constant", value=numpy_helper.from_array(array)))
    return net.norm(net("Conv", net.input(2, 3, 8, 8), w), 4)


@folds_to("DequantizeLinear Conv")
def weight_behind_dequantize_bn(net: Net) -> str:
    stored = net.constant(net.rng.integers(-127, 127, (4, 3, 3, 3)).astype(np.int8))
    zero = net.constant(np.zeros(4, np.int8))
    scale = net.vector(4, low=0.002, high=0.004)
    w = net("DequantizeLinear", stored, scale, zero, axis=0)
    return net.norm(net("Conv", net.input(2, 3, 8, 8), w), 4)


@folds_to("Conv", np.float16)
def half_precision_conv_bn(net: Net) -> str:
    return net.norm(net.conv(net.input(2, 3, 8, 8), 3, 6), 6)


@folds_to("Conv", np.float16)
def half_precision_conv_bn_single_statistics(net: Net) -> str:
    y = net.conv(net.input(2, 3, 8, 8), 3, 6)
    single = net.rng.uniform(0.5, 1.5, (4, 6)).astype(np.float32)
    return net("BatchNormalization", y, *(net.constant(each) for each in single))


# Traps.


@trap("MatMul Transpose BatchNormalization")
def matmul_transpose_bn_equal_lengths(net: Net) -> str:
    product = net("MatMul", net.input(6, 8), net.weight(8, 6, fan_in=8))
    return net.norm(net("Transpose", product, perm=[1, 0]), 6)


@trap("Conv Mul")
def conv_times_width(net: Net) -> str:
    return net("Mul", net.conv(net.input(2, 3, 8, 8), 3, 6), net.vector(6))


@trap("Conv Mul")
def conv_times_height(net: Net) -> str:
    return net("Mul", net.conv(net.input(2, 3, 8, 8), 3, 6), net.vector(1, 6, 1))


@trap("Exp Conv Div")
def constant_over_conv(net: Net) -> str:
    y = net("Conv", net("Exp", net.input(2, 3, 8, 8)), net.vector(4, 3, 3, 3))
    return net("Div", net.vector(1, 4, 1, 1), y)


@trap("Conv Mul")
def conv_times_constant_of_higher_rank(net: Net) -> str:
    return net("Mul", net.conv(net.input(2, 3, 8, 8), 3, 4), net.vector(1, 1, 1, 1, 1))


@trap("BatchNormalization Conv")
def bn_padded_conv(net: Net) -> str:
    return net.conv(net.norm(net.input(2, 4, 8, 8), 4), 4, 6, pads=[1] * 4)


@trap("BatchNormalization Conv")
def bn_same_upper_conv(net: Net) -> str:
    return net.conv(net.norm(net.input(2, 4, 8, 8), 4), 4, 6, auto_pad="SAME_UPPER")


@trap("Conv MaxPool BatchNormalization")
def conv_maxpool_bn_negative(net: Net) -> str:
    return net.norm(net("MaxPool", net.conv(net.input(2, 3, 8, 8), 3, 6), kernel_shape=[2, 2]), 6)


@trap("Conv BatchNormalization")
def conv_is_an_output_too(net: Net) -> Sequence[str]:
    y = net.conv(net.input(2, 3, 8, 8), 3, 6)
    return net.norm(y, 6), y


@trap("Gemm Mul Relu")
def gemm_read_by_two(net: Net) -> Sequence[str]:
    y = net("Gemm", net.input(4, 8), net.weight(8, 5, fan_in=8), net.vector(5))
    return net("Mul", y, net.vector(5)), net("Relu", y)


@trap("Conv BatchNormalization")
def weight_may_be_overridden(net: Net) -> str:
    x = net.input(2, 3, 8, 8)
    y = net("Conv", x, net.constant(net.rng.standard_normal((4, 3, 3, 3)) / 3, "w"))
    net.input(4, 3, 3, 3, name="w", scale=0.4)  # fed with other values than are stored
    return net.norm(y, 4)


@trap("Conv BatchNormalization")
def bn_in_training_mode(net: Net) -> str:
    y = net.conv(net.input(2, 3, 8, 8), 3, 6)
    return net("BatchNormalization", y, *net.statistics(6), outputs=3, training_mode=1)


@trap("Conv BatchNormalization", np.float16)
def half_precision_overflow(net: Net) -> str:
    x = net.input(2, 3, 8, 8, scale=1e-4)
    y = net("Conv", x, net.constant(net.rng.uniform(-6e4, 6e4, (4, 3, 3, 3))))
    ones, variance = np.ones(4), np.full(4, 6e-3)
    norms = [net.constant(each) for each in (ones, 0 * ones, ones, variance)]
    return net("BatchNormalization", y, *norms, epsilon=1e-5)


# Whole networks, as published, with weights drawn here.


def _bn_relu(net: Net, x: str, channels: int, gain: float = 1.0, relu: bool = True) -> str:
    y = net.norm(x, channels, positive=True, gain=gain)
    return net("Relu", y) if relu else y


def resnet50(net: Net) -> str:
    """ResNet-50: 53 convolutions, 53 norms."""
    stem = net.conv(net.input(1, 3, 224, 224), 3, 64, 7, strides=[2, 2], pads=[3] * 4, bias=False)
    y = net("MaxPool", _bn_relu(net, stem, 64), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    into = 64
    for width, blocks, first in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            stride = first if block == 0 else 1
            z = _bn_relu(net, net.conv(y, into, width, 1, bias=False), width)
            z = net.conv(z, width, width, 3, strides=[stride] * 2, pads=[1] * 4, bias=False)
            z = net.conv(_bn_relu(net, z, width), width, 4 * width, 1, bias=False)
            z = _bn_relu(net, z, 4 * width, gain=0.3, relu=False)
            if block == 0:
                y = net.conv(y, into, 4 * width, 1, strides=[stride] * 2, bias=False)
                y = _bn_relu(net, y, 4 * width, relu=False)
            y, into = net("Relu", net("Add", z, y)), 4 * width
    y = net("Flatten", net("GlobalAveragePool", y))
    return net("Gemm", y, net.weight(1000, into), net.vector(1000, low=-0.1, high=0.1), transB=1)


def mobilenet_v2(net: Net) -> str:
    """MobileNetV2: 52 convolutions, 52 norms."""
    zero, six = net.constant(np.array(0.0)), net.constant(np.array(6.0))

    def clipped(x: str, channels: int) -> str:
        return net("Clip", net.norm(x, channels, positive=True), zero, six)

    y = clipped(net.conv(net.input(1, 3, 224, 224), 3, 32, strides=[2, 2], pads=[1] * 4, bias=False), 32)
    into = 32
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2))
    for expand, out, blocks, first in (*stages, (6, 320, 1, 1)):
        for block in range(blocks):
            stride, wide, z = first if block == 0 else 1, expand * into, y
            if expand > 1:
                z = clipped(net.conv(z, into, wide, 1, bias=False), wide)
            z = net.conv(z, wide, wide, strides=[stride] * 2, pads=[1] * 4, group=wide, bias=False)
            z = net.norm(net.conv(clipped(z, wide), wide, out, 1, bias=False), out, positive=True)
            y, into = net("Add", z, y) if stride == 1 and into == out else z, out
    y = clipped(net.conv(y, into, 1280, 1, bias=False), 1280)
    y = net("Flatten", net("GlobalAveragePool", y))
    return net("Gemm", y, net.weight(1000, 1280), net.vector(1000, low=-0.1, high=0.1), transB=1)


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    index: list[dict[str, object]] = []

    def write(name: str, net: Net, outputs: Sequence[str], **facts: object) -> None:
        model = net.model(*outputs)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, folder / f"{name}.onnx")
        np.savez(folder / f"{name}.npz", **net.feeds)
        index.append({"name": name, "half": net.dtype == np.float16, **facts})

    for number, pattern in enumerate(PATTERNS):
        net = Net(number, pattern.dtype)
        outputs = pattern.build(net)
        ideal = pattern.ideal.split()
        write(pattern.name, net, outputs, kind="trap" if pattern.trap else "foldable", ideal=ideal)
    for name, build in (("resnet50", resnet50), ("mobilenet_v2", mobilenet_v2)):
        net = Net(len(index))
        output = build(net)
        ideal = [node.op_type for node in net.nodes if node.op_type != "BatchNormalization"]
        write(name, net, (output,), kind="network", ideal=ideal)
    (folder / "index.json").write_text(json.dumps(index, indent=1))


if __name__ == "__main__":
    main()
