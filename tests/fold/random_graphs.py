"""Random graphs around norms: linear ops, affines in every spelling, all that lies between, forks, branches.

Each graph features one operator in one direction, so that a run of a few hundred
graphs meets all of them; what stands in front of and behind it is left to chance.
Shapes are small and fixed, numbers float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from graphs import Array

__all__ = ["FEATURES", "FORKS", "Made", "features_of", "make"]

FLOAT = TensorProto.FLOAT


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the graph: its name, its shape, and the axis its channels lie on."""

    name: str
    shape: tuple[int, ...]
    channels: int = 1

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def width(self) -> int:
        """Number of channels."""
        return self.shape[self.channels]

    @property
    def is_image(self) -> bool:
        return self.rank == 4 and self.channels == 1


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A random model and what its maker knows of it.

    Attributes:
        proto: The model.
        norms: Number of BatchNormalization nodes.
        affines: Number of elementwise nodes with a constant, biases of MatMul left out.
        forks: The kinds of fork in it.
    """

    proto: onnx.ModelProto
    norms: int
    affines: int
    forks: tuple[str, ...]


class Maker:
    """A graph under construction."""

    def __init__(self, rng: np.random.Generator, outer: Maker | None = None) -> None:
        self.rng = rng
        self.outer = outer
        self.root: Maker = outer.root if outer else self
        self.nodes: list[onnx.NodeProto] = []
        self.outputs: dict[str, Value] = {}
        if outer is None:
            self.initializers: list[onnx.TensorProto] = []
            self.constants: dict[tuple[str, tuple[int, ...]], list[str]] = {}
            self.inputs: list[onnx.ValueInfoProto] = []
            self.count = self.norms = self.affines = 0
            self.layout = self.one_of(["DCR", "CRD"])  # of every DepthToSpace in the graph
            self.source = self.input_image()

    # -- pieces -----------------------------------------------------------------------------------

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def one_of(self, choices: Sequence[Any]) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def fresh(self) -> int:
        self.root.count += 1
        return self.root.count

    def constant(self, array: Array, role: str = "c") -> str:
        """An initializer; now and then one that another reader has already."""
        root, key = self.root, (role, array.shape)
        known = root.constants.setdefault(key, [])
        if known and role in ("weight", "bias") and self.chance(0.1):
            return str(self.one_of(known))
        name = f"{role}{self.fresh()}"
        root.initializers.append(numpy_helper.from_array(array, name))
        known.append(name)
        return name

    def normal(self, *shape: int, role: str = "weight") -> str:
        return self.constant(self.rng.standard_normal(shape).astype(np.float32), role)

    def ints(self, *numbers: int) -> str:
        return self.constant(np.array(numbers, np.int64), "ints")

    def add(
        self, op: str, inputs: Sequence[str], shape: Sequence[int], channels: int = 1, **attributes: Any
    ) -> Value:
        """One node with one output."""
        number = self.fresh()
        node = helper.make_node(op, list(inputs), [f"v{number}"], name=f"{op}_{number}", **attributes)
        self.nodes.append(node)
        return Value(f"v{number}", tuple(shape), channels)

    def input_image(self) -> Value:
        """A new input of the graph."""
        shape = (2, 4, int(self.one_of([4, 5, 6])), int(self.one_of([4, 6])))
        value = Value(f"x{self.fresh()}", shape)
        self.inputs.append(helper.make_tensor_value_info(value.name, FLOAT, shape))
        return value

    def tap(self, value: Value) -> None:
        """Make it an output of the graph."""
        self.outputs[value.name] = value

    def finish(self, forks: tuple[str, ...]) -> Made:
        outputs = [helper.make_tensor_value_info(v.name, FLOAT, v.shape) for v in self.outputs.values()]
        graph = helper.make_graph(self.nodes, "g", self.inputs, outputs, self.initializers)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return Made(proto, self.norms, self.affines, forks)

    # -- linear operators -------------------------------------------------------------------------

    def linear(self, v: Value, wide: int = 0) -> Value:
        """A linear op with a constant weight, of a kind that suits the value."""
        if v.is_image:
            return self.conv_transpose(v) if self.chance(0.15) and v.shape[2] <= 6 else self.conv(v, wide)
        if v.rank == 3 and v.channels == 1:
            return self.matmul_left(v) if self.chance(0.5) else self.conv(v, wide)
        if v.rank == 2 and v.channels == 1 and self.chance(0.6):
            return self.gemm(v, wide)
        if v.channels == v.rank - 1:
            return self.matmul(v, wide)
        return v

    def conv(self, v: Value, wide: int = 0) -> Value:
        out = wide or int(self.one_of([4, 8]))
        group = int(self.one_of([1, 1, 1, 2, 4])) if v.width % 4 == 0 and out % 4 == 0 else 1
        space = v.shape[2:]
        taps = int(self.one_of([1, 3])) if min(space) >= 3 else 1
        padded = taps == 3 and (self.chance(0.5) or min(space) < 5)
        inputs = [v.name, self.normal(out, v.width // group, *[taps] * len(space))]
        if self.chance(0.5):
            inputs.append(self.normal(out, role="bias"))
        lost = 0 if padded else taps - 1
        shape = (v.shape[0], out, *(n - lost for n in space))
        attributes = {"pads": [1] * 2 * len(space)} if padded else {}
        return self.add("Conv", inputs, shape, group=group, **attributes)

    def grouped(self, v: Value) -> Value:
        inputs = [v.name, self.normal(8, v.width // 4, 1, 1)]
        return self.add("Conv", inputs, (v.shape[0], 8, *v.shape[2:]), group=4)

    def conv_transpose(self, v: Value) -> Value:
        group = int(self.one_of([1, 2])) if v.width % 2 == 0 else 1
        out = int(self.one_of([4, 8]))
        inputs = [v.name, self.normal(v.width, out // group, 2, 2)]
        if self.chance(0.5):
            inputs.append(self.normal(out, role="bias"))
        return self.add(
            "ConvTranspose", inputs, (v.shape[0], out, *(n + 1 for n in v.shape[2:])), group=group
        )

    def gemm(self, v: Value, wide: int = 0) -> Value:
        out, trans = wide or int(self.one_of([4, 8])), int(self.chance(0.5))
        inputs = [v.name, self.normal(*((out, v.width) if trans else (v.width, out)))]
        if self.chance(0.6):
            inputs.append(self.normal(*self.one_of([(out,), (1, out), (v.shape[0], 1), (1,)]), role="bias"))
        alpha, beta = (float(self.one_of([1.0, 1.0, -0.5, 2.0])) for _ in range(2))
        return self.add("Gemm", inputs, (v.shape[0], out), transB=trans, alpha=alpha, beta=beta)

    def matmul(self, v: Value, wide: int = 0) -> Value:
        out = wide or int(self.one_of([4, 8]))
        made = self.add("MatMul", [v.name, self.normal(v.width, out)], (*v.shape[:-1], out), v.channels)
        return self.bias(made, (out,))

    def matmul_left(self, v: Value) -> Value:
        out = int(self.one_of([4, 8]))
        made = self.add("MatMul", [self.normal(out, v.width), v.name], (v.shape[0], out, v.shape[2]))
        return self.bias(made, (out, 1))

    def bias(self, v: Value, shape: tuple[int, ...]) -> Value:
        if self.chance(0.5):
            return v
        operands = [v.name, self.normal(*shape, role="bias")]
        return self.add("Add", operands[:: 1 if self.chance(0.5) else -1], v.shape, v.channels)

    # -- affines ----------------------------------------------------------------------------------

    def affine(self, v: Value, kind: Kind) -> Value:
        """A norm or a written-out affine on the value's channels."""
        if v.channels == 1 and v.rank >= 2 and self.chance(0.55):
            return self.batch_norm(v, kind)
        steps = (
            ["Mul"]
            if kind.is_pure
            else self.one_of([["Mul", "Add"], ["Sub", "Div", "Mul", "Add"], ["Mul", "Sub"]])
        )
        if not kind.is_positive and self.chance(0.3):
            steps = [*steps, "Neg"]
        for step in steps:
            v = self.elementwise(v, step, kind)
        return v

    def batch_norm(self, v: Value, kind: Kind) -> Value:
        gamma = self.factors(v.width, kind)
        if not kind.is_positive and self.chance(0.3):
            gamma[self.rng.integers(v.width)] = 0
            gamma = kind.arranged(gamma)
        shifts = [
            np.zeros(v.width) if kind.is_pure else kind.arranged(self.rng.uniform(-1, 1, v.width))
            for _ in "bm"
        ]
        variance = kind.arranged(self.rng.uniform(0.5, 2, v.width))
        arrays = zip((gamma, *shifts, variance), ("gamma", "beta", "mean", "variance"), strict=True)
        inputs = [v.name, *(self.constant(a.astype(np.float32), role) for a, role in arrays)]
        self.root.norms += 1
        return self.add("BatchNormalization", inputs, v.shape, epsilon=float(self.one_of([1e-5, 1e-3])))

    def factors(self, channels: int, kind: Kind) -> Array:
        numbers = self.rng.uniform(0.5, 1.5, channels)
        if not kind.is_positive:
            numbers = numbers * self.rng.choice([-1, 1], channels)
        return kind.arranged(numbers)

    def elementwise(self, v: Value, op: str, kind: Kind) -> Value:
        self.root.affines += 1
        if op == "Neg":
            return self.add("Neg", [v.name], v.shape, v.channels)
        numbers = self.factors(v.width, kind).reshape(-1, *[1] * (v.rank - v.channels - 1)).astype(np.float32)
        if self.chance(0.15):
            numbers = numbers.reshape(-1)[:1].reshape(())
        operands = [v.name, self.constant(numbers, "factor")]
        may_swap = op in ("Add", "Mul") or (op == "Sub" and not kind.is_positive)
        if may_swap and self.chance(0.5):
            operands.reverse()
        return self.add(op, operands, v.shape, v.channels)

    def partner(self, v: Value) -> Value:
        """Another branch of the same shape, mostly one that can absorb."""
        source = self.root.source
        shape = (*source.shape[:2], *v.shape[2:])
        space = self.add("Resize", [source.name, "", "", self.ints(*shape)], shape, mode="nearest")
        other = self.add("Conv", [space.name, self.normal(v.width, source.width, 1, 1)], v.shape)
        return self.blocker(other) if self.chance(0.1) else other

    # -- blockers and branches --------------------------------------------------------------------

    def blocker(self, v: Value) -> Value:
        return self.add("Abs", [v.name], v.shape, v.channels)

    def branch(self, v: Value, kind: Kind) -> Value:
        """An If whose branches both keep the shape; the value is captured."""
        if not any(each.name == "p" for each in self.root.inputs):
            self.root.inputs.append(helper.make_tensor_value_info("p", TensorProto.BOOL, []))
        bodies = []
        for inner in (self.inner_fold, self.inner_affine):
            body = Maker(self.rng, self)
            result = inner(body, v, kind)
            info = helper.make_tensor_value_info(result.name, FLOAT, result.shape)
            bodies.append(helper.make_graph(body.nodes, f"b{self.fresh()}", [], [info]))
        return self.add("If", ["p"], v.shape, v.channels, then_branch=bodies[0], else_branch=bodies[1])

    @staticmethod
    def inner_fold(body: Maker, v: Value, kind: Kind) -> Value:
        if v.is_image:
            inputs = [v.name, body.normal(v.width, v.width, 1, 1)]
            return body.affine(body.add("Conv", inputs, v.shape), kind)
        return body.blocker(v)

    @staticmethod
    def inner_affine(body: Maker, v: Value, kind: Kind) -> Value:
        return body.blocker(body.affine(v, kind))


@dataclass(frozen=True, slots=True)
class Kind:
    """What affines to make: of positive scales only, without shift, alike on which channels."""

    is_positive: bool = False
    is_pure: bool = False
    alike: str = ""

    def arranged(self, numbers: Array) -> Array:
        """The numbers, made equal on the channels that belong together."""
        if self.alike == "tiled" and len(numbers) % 4 == 0:
            return np.tile(numbers[: len(numbers) // 4], 4)
        if self.alike == "repeated" and len(numbers) % 4 == 0:
            return np.repeat(numbers[: len(numbers) // 4], 4)
        if self.alike == "uniform":
            return np.full_like(numbers, numbers[0])
        return numbers


# -- operators in between: each takes an image --------------------------------------------------


def _same(op: str, **attributes: Any) -> Callable[[Maker, Value], Value]:
    return lambda g, v: g.add(op, [v.name], v.shape, v.channels, **attributes)


def _prelu(g: Maker, v: Value) -> Value:
    slope = g.rng.uniform(-0.9, 0.9, (v.width, 1, 1)).astype(np.float32)
    return g.add("PRelu", [v.name, g.constant(slope, "slope")], v.shape)


def _pool(op: str, **attributes: Any) -> Callable[[Maker, Value], Value]:
    def pool(g: Maker, v: Value) -> Value:
        n, c, h, w = v.shape
        if g.chance(0.5):
            return g.add(op, [v.name], (n, c, h - 1, w - 1), kernel_shape=[2, 2], **attributes)
        return g.add(op, [v.name], v.shape, kernel_shape=[3, 3], pads=[1, 1, 1, 1], **attributes)

    return pool


def _global(op: str) -> Callable[[Maker, Value], Value]:
    return lambda g, v: g.add(op, [v.name], (*v.shape[:2], 1, 1))


def _reduce(op: str) -> Callable[[Maker, Value], Value]:
    def reduce(g: Maker, v: Value) -> Value:
        keep = int(g.chance(0.5))
        shape = (*v.shape[:2], 1, 1) if keep else v.shape[:2]
        if op == "ReduceSum":
            return g.add(op, [v.name, g.ints(2, 3)], shape, keepdims=keep)
        return g.add(op, [v.name], shape, keepdims=keep, axes=[2, -1])

    return reduce


def _resize(g: Maker, v: Value) -> Value:
    n, c, h, w = v.shape
    sizes = g.ints(n, c, 2 * h, 2 * w)
    return g.add(
        "Resize", [v.name, "", "", sizes], (n, c, 2 * h, 2 * w), mode=g.one_of(["nearest", "linear"])
    )


def _pad(*modes: str) -> Callable[[Maker, Value], Value]:
    def pad(g: Maker, v: Value) -> Value:
        n, c, h, w = v.shape
        inputs = [v.name, g.ints(0, 0, 1, 0, 0, 0, 0, 1)]
        return g.add("Pad", inputs, (n, c, h + 1, w + 1), mode=g.one_of(modes))

    return pad


def _pad_number(g: Maker, v: Value) -> Value:
    n, c, h, w = v.shape
    number = np.array(g.rng.uniform(-2, 2), np.float32)
    inputs = [v.name, g.ints(0, 0, 0, 1, 0, 0, 1, 0), g.constant(number, "number")]
    return g.add("Pad", inputs, (n, c, h + 1, w + 1))


def _transpose(g: Maker, v: Value) -> Value:
    perm = g.one_of([(0, 2, 3, 1), (0, 1, 3, 2), (1, 0, 2, 3)])
    return g.add("Transpose", [v.name], [v.shape[i] for i in perm], perm.index(1), perm=perm)


def _reshape(g: Maker, v: Value) -> Value:
    n, c, h, w = v.shape
    if g.chance(0.4):
        return _shuffle(g, v)
    shape = g.one_of([(n, c, h * w), (n, c, 1, h * w), (n, c, h, 1, w)])
    return g.add("Reshape", [v.name, g.ints(*shape)], shape)


def _shuffle(g: Maker, v: Value) -> Value:
    n, c, h, w = v.shape
    wide = (n, 2, c // 2, h, w)
    parts = g.add("Reshape", [v.name, g.ints(*wide)], wide, 2)
    turned = g.add("Transpose", [parts.name], (n, c // 2, 2, h, w), perm=[0, 2, 1, 3, 4])
    return g.add("Reshape", [turned.name, g.ints(0, c, h, w)], v.shape)


def _flatten(g: Maker, v: Value) -> Value:
    if g.chance(0.7):
        v = g.add("GlobalAveragePool", [v.name], (*v.shape[:2], 1, 1))
    return g.add("Flatten", [v.name], (v.shape[0], int(np.prod(v.shape[1:]))))


def _squeeze(g: Maker, v: Value) -> Value:
    wide = g.add("Unsqueeze", [v.name, g.ints(2)], (*v.shape[:2], 1, *v.shape[2:]))
    return g.add("Squeeze", [wide.name, g.ints(2)], v.shape)


def _unsqueeze(g: Maker, v: Value) -> Value:
    pooled = g.add("ReduceMean", [v.name], v.shape[:3], axes=[3], keepdims=0)
    return g.add("Unsqueeze", [pooled.name, g.ints(-1)], (*v.shape[:3], 1))


def _depth_to_space(g: Maker, v: Value) -> Value:
    n, c, h, w = v.shape
    return g.add("DepthToSpace", [v.name], (n, c // 4, 2 * h, 2 * w), blocksize=2, mode=g.root.layout)


def _space_to_depth(g: Maker, v: Value) -> Value:
    n, c, h, w = v.shape
    if h % 2 or w % 2:
        v = g.add(
            "Slice",
            [v.name, g.ints(0, 0), g.ints(h - h % 2, w - w % 2), g.ints(2, 3)],
            (n, c, h - h % 2, w - w % 2),
        )
        n, c, h, w = v.shape
    return g.add("SpaceToDepth", [v.name], (n, 4 * c, h // 2, w // 2), blocksize=2)


def _slice(g: Maker, v: Value) -> Value:
    n, c, h, w = v.shape
    if g.chance(0.3):
        return g.add("Slice", [v.name, g.ints(1), g.ints(100), g.ints(-1)], (n, c, h, w - 1))
    starts, ends, steps, kept = g.one_of(
        [((0,), (c // 2,), (1,), c // 2), ((-1,), (-100,), (-1,), c), ((1,), (c,), (2,), c // 2)]
    )
    inputs = [v.name, g.ints(*starts), g.ints(*ends), g.ints(1), g.ints(*steps)]
    return g.add("Slice", inputs, (n, kept, h, w))


def _gather(g: Maker, v: Value) -> Value:
    n, c, h, w = v.shape
    picked = g.rng.permutation(c)[: c - 1 if g.chance(0.3) else c]
    if g.chance(0.1):
        picked[0] = picked[-1]
    return g.add("Gather", [v.name, g.ints(*(int(i) for i in picked))], (n, len(picked), h, w), axis=1)


def _split(g: Maker, v: Value) -> Value:
    n, c, h, w = v.shape
    number = g.fresh()
    names = [f"s{number}a", f"s{number}b"]
    g.nodes.append(
        helper.make_node("Split", [v.name, g.ints(c // 2, c // 2)], names, name=f"Split_{number}", axis=1)
    )
    first, second = (Value(name, (n, c // 2, h, w)) for name in names)
    if g.chance(0.7):
        g.tap(g.blocker(g.linear(second)))
    return first


def _split_joined(g: Maker, v: Value) -> Value:
    """Both parts come together again: one op is met on two ways."""
    n, c, h, w = v.shape
    number = g.fresh()
    names = [f"s{number}a", f"s{number}b"]
    first, second = g.one_of([(1, c - 1), (c // 2, c // 2)])
    sizes = g.ints(first, second)
    g.nodes.append(helper.make_node("Split", [v.name, sizes], names, name=f"Split_{number}", axis=1))
    if first == second and g.chance(0.4):
        return g.add(g.one_of(["Add", "Sub", "Mean"]), names, (n, c // 2, h, w))
    return g.add("Concat", names[:: int(g.one_of([1, -1]))], v.shape, axis=1)


def _concat(g: Maker, v: Value) -> Value:
    other = replace(v, name=g.partner(v).name)
    return g.add("Concat", [v.name, other.name], (v.shape[0], 2 * v.width, *v.shape[2:]), axis=1)


def _join(op: str) -> Callable[[Maker, Value], Value]:
    return lambda g, v: g.add(op, [v.name, g.partner(v).name], v.shape)


MOVES: Mapping[str, Callable[[Maker, Value], Value]] = {
    "Identity": _same("Identity"),
    "Dropout": _same("Dropout"),
    "Cast": _same("Cast", to=FLOAT),
    "Relu": _same("Relu"),
    "LeakyRelu": _same("LeakyRelu", alpha=0.3),
    "PRelu": _prelu,
    "AveragePool": _pool("AveragePool"),
    "AveragePool counting": _pool("AveragePool", count_include_pad=1),
    "MaxPool": _pool("MaxPool"),
    "LpPool": _pool("LpPool", p=2),
    "GlobalAveragePool": _global("GlobalAveragePool"),
    "GlobalMaxPool": _global("GlobalMaxPool"),
    "ReduceMean": _reduce("ReduceMean"),
    "ReduceSum": _reduce("ReduceSum"),
    "ReduceMax": _reduce("ReduceMax"),
    "ReduceMin": _reduce("ReduceMin"),
    "Resize": _resize,
    "Pad": _pad("reflect", "edge"),
    "Pad with zeros": _pad("constant"),
    "Pad with a number": _pad_number,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Slice": _slice,
    "Gather": _gather,
    "Split": _split,
    "Split joined": _split_joined,
    "Concat": _concat,
}
JOINS: Mapping[str, Callable[[Maker, Value], Value]] = {
    op: _join(op) for op in ("Add", "Sub", "Sum", "Max", "Min", "Mean")
}

MONOTONE = (
    "Relu",
    "LeakyRelu",
    "PRelu",
    "MaxPool",
    "LpPool",
    "GlobalMaxPool",
    "ReduceMax",
    "ReduceMin",
    "Max",
    "Min",
)
SCALE_ONLY = ("Relu", "LeakyRelu", "PRelu", "LpPool", "ReduceSum", "AveragePool counting", "Pad with zeros")

FORKS = (
    "two linear readers",
    "read twice",
    "tapped",
    "captured",
    "branch",
    "two norms",
    "costs more",
    "input weight",
    "shape read",
)
FEATURES: tuple[tuple[str, str], ...] = (
    *((op, "up") for op in (*MOVES, *JOINS)),
    *((op, "down") for op in MOVES),
    *((fork, "fork") for fork in FORKS),
    ("padded", "down"),
    ("scattered", "down"),
    *((op, side) for op in ("dense", "transposed", "grouped") for side in ("behind", "in front")),
)


def kind_for(g: Maker, op: str, direction: str) -> Kind:
    """An affine that the operator lets through, most of the time."""
    if g.chance(0.2):
        return Kind()
    alike = ""
    if (op, direction) in (("SpaceToDepth", "up"), ("DepthToSpace", "down")):
        alike = "tiled" if g.root.layout == "DCR" or op == "SpaceToDepth" else "repeated"
    if (op, direction) in (("Flatten", "up"), ("Gather", "up")) and g.chance(0.5):
        alike = "uniform"
    if op == "Pad with a number" and g.chance(0.8):
        alike = "uniform"
    return Kind(op in MONOTONE or g.chance(0.2), op in SCALE_ONLY or g.chance(0.1), alike)


def features_of(seed: int) -> list[tuple[str, str]]:
    """What the graph of that number is about; each feature comes round equally often."""
    places = {seed % len(FEATURES), (seed * 7 + seed // len(FEATURES)) % len(FEATURES)}
    return [FEATURES[place] for place in sorted(places)]


def make(seed: int) -> Made:
    """The random model of that number; the same number gives the same model."""
    g = Maker(np.random.default_rng(seed))
    forks = []
    for op, direction in features_of(seed):
        v = g.input_image()
        if g.chance(0.3):
            v = g.blocker(wander(g, v)) if g.chance(0.5) else g.blocker(v)
        if direction in ("behind", "in front"):
            v = feature_linear(g, v, op, direction)
        elif direction == "fork":
            forks.append(op)
            v = feature_fork(g, v, op)
        else:
            v = feature_move(g, v, op, direction)
        if g.chance(0.4):
            v = wander(g, v)
        if g.chance(0.15):
            g.tap(v)
            v = wander(g, v)
        g.tap(v)
    return g.finish(tuple(forks))


def wander(g: Maker, v: Value) -> Value:
    """A few steps of anything that suits the value."""
    for _ in range(int(g.rng.integers(1, 4))):
        roll = g.rng.random()
        if roll < 0.3:
            v = g.linear(v)
        elif roll < 0.7:
            v = g.affine(v, Kind(g.chance(0.4), g.chance(0.3)))
        elif (
            v.is_image
            and v.width % 4 == 0
            and v.width <= 16
            and min(v.shape[2:]) >= 3
            and max(v.shape[2:]) <= 8
        ):
            v = (MOVES | JOINS)[g.one_of(list(MOVES | JOINS))](g, v)
        else:
            v = g.blocker(v)
    return v


def image(g: Maker, v: Value) -> Value:
    """The value if it is a usable image, otherwise the input again."""
    usable = (
        v.is_image and v.width % 4 == 0 and v.width <= 16 and min(v.shape[2:]) >= 3 and max(v.shape[2:]) <= 8
    )
    if not usable:
        g.tap(v)
        v = g.source
    return v


def feature_move(g: Maker, v: Value, op: str, direction: str) -> Value:
    """The featured operator between a linear op and an affine, one way round or the other."""
    kind, v = kind_for(g, op, direction), image(g, v)
    if op in ("padded", "scattered"):
        n = g.affine(g.blocker(v), Kind(is_pure=g.chance(0.4)))
        inputs = [n.name, g.normal(4, 4, 3, 3) if v.width == 4 else g.normal(v.width, v.width, 3, 3)]
        if op == "padded":
            return g.add("Conv", inputs, v.shape, pads=[1, 1, 1, 1])
        return g.add("ConvTranspose", inputs, (*v.shape[:2], *(n + 2 for n in v.shape[2:])))
    step = (MOVES | JOINS)[op]
    second = MOVES[g.one_of(["Identity", "Cast", "Dropout", "Slice"])] if g.chance(0.2) else None
    if direction == "up":
        wide = v.width if op in JOINS else 0
        before = g.conv(v, wide) if g.chance(0.8) or v.shape[2] > 6 or op in JOINS else g.conv_transpose(v)
        if min(before.shape[2:]) < 2:
            before = g.add("Conv", [v.name, g.normal(4, v.width, 1, 1)], (v.shape[0], 4, *v.shape[2:]))
        if second and before.is_image:
            before = second(g, before)
            before = (
                before
                if before.width % 4 == 0
                else g.add(
                    "Conv", [before.name, g.normal(4, before.width, 1, 1)], (v.shape[0], 4, *before.shape[2:])
                )
            )
        return g.affine(step(g, before), kind)
    n = g.affine(g.blocker(v) if g.chance(0.7) else v, kind)
    crossed = step(g, n)
    if crossed.is_image and g.chance(0.7):
        return g.add(
            "Conv", [crossed.name, g.normal(4, crossed.width, 1, 1)], (v.shape[0], 4, *crossed.shape[2:])
        )
    return g.linear(crossed)


def feature_linear(g: Maker, v: Value, op: str, side: str) -> Value:
    """The featured linear op, an affine on one side of it and nothing between."""
    v = image(g, v)
    if op == "dense":
        if g.chance(0.5):
            v = g.add("ReduceMean", [v.name], v.shape[:2], axes=[2, 3], keepdims=0)
        else:
            n, c, h, w = v.shape
            v = g.add("Reshape", [v.name, g.ints(n, c, h * w)], (n, c, h * w))
    step = {"dense": g.linear, "grouped": g.grouped, "transposed": g.conv_transpose}[op]
    if side == "behind":
        return g.affine(step(v), Kind())
    return step(g.affine(g.blocker(v), Kind(is_pure=op == "transposed" and g.chance(0.8))))


def feature_fork(g: Maker, v: Value, kind: str) -> Value:
    """The featured kind of fork."""
    v, plain = image(g, v), Kind(g.chance(0.3), g.chance(0.2))
    if kind == "two linear readers":
        n = g.affine(g.blocker(v), plain)
        g.tap(g.add("Conv", [n.name, g.normal(3, v.width, 1, 1)], (v.shape[0], 3, *v.shape[2:])))
        return g.add("Conv", [n.name, g.normal(4, v.width, 1, 1)], (v.shape[0], 4, *v.shape[2:]))
    if kind == "costs more":
        flat = (v.shape[0], v.width, v.shape[2] * v.shape[3])
        lines = g.add("Reshape", [g.blocker(v).name, g.ints(*flat)], flat)
        n = g.batch_norm(lines, replace(plain, is_pure=False))
        for _ in range(2):
            result = g.add("MatMul", [g.normal(3, v.width), n.name], (flat[0], 3, flat[2]))
            g.tap(result)
        return result
    if kind == "branch":
        return g.branch(v, plain)
    if kind == "input weight":
        number = g.fresh()
        g.inputs.append(helper.make_tensor_value_info(f"w{number}", FLOAT, (4, v.width, 1, 1)))
        c = g.add("Conv", [v.name, f"w{number}"], (v.shape[0], 4, *v.shape[2:]))
        return g.affine(c, plain)
    c = g.conv(v)
    if kind == "shape read":
        shape = g.add("Shape", [c.name], (c.rank,))
        n = g.affine(c, plain)
        return g.add("Reshape", [n.name, shape.name], c.shape)
    if kind == "read twice":
        g.tap(g.blocker(c))
    elif kind == "tapped":
        g.tap(c)
    elif kind == "captured":
        g.tap(g.branch(c, plain))
    elif kind == "two norms":
        g.tap(g.affine(c, plain))
    return g.affine(c, plain)
