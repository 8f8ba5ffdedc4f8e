"""Graphs as they come out of exporters and as people draw them, one a row, with what must become of each.

A row that is no trap must fold. A trap is a graph where folding would give wrong
numbers, lose an output or break the model; it must be kept, for the reason named.
The same table makes docs/patterns.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from graphs import Array, model, norm, normal, op_types

__all__ = ["PATTERNS", "Into", "Kept", "Pattern", "build", "operators"]


@dataclass(frozen=True, slots=True)
class Into:
    """The site is gone: by which rule, and into which operators."""

    rule: str
    op: str


@dataclass(frozen=True, slots=True)
class Kept:
    """The site stays, for these reasons: one a direction, or one if it could not be read at all."""

    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Pattern:
    """One row.

    Attributes:
        section: Heading it stands under.
        name: What a reader calls it.
        text: The graph (and functions after it) in ONNX text.
        weights: Initializers by name.
        expected: What becomes of each site, in graph order.
        after: Operators of the folded graph; empty where nothing changes.
        adjust: A last edit of the model, for what ONNX text cannot say.
        kernels: onnxruntime can run it; otherwise exact arithmetic alone decides.
        trips: How often the body of its loop runs.
    """

    section: str
    name: str
    text: str
    weights: Mapping[str, Array]
    expected: tuple[Into | Kept, ...]
    after: tuple[str, ...] = ()
    opset: int = 17
    ir_version: int = 8
    extra: str = ""
    adjust: Callable[[onnx.ModelProto], None] | None = None
    kernels: bool = True
    trips: int = 1

    @property
    def is_trap(self) -> bool:
        """Folding it would be wrong."""
        return not any(isinstance(each, Into) for each in self.expected)


def build(pattern: Pattern) -> onnx.ModelProto:
    """The unfolded model of a row."""
    proto = model(
        pattern.text,
        pattern.weights,
        opset=pattern.opset,
        ir_version=pattern.ir_version,
        extra=pattern.extra,
    )
    if pattern.adjust is not None:
        pattern.adjust(proto)
    return proto


def operators(proto: onnx.ModelProto) -> tuple[str, ...]:
    """Operator types of a model: its graph, subgraphs where they hang, then its functions."""
    found = list(op_types(proto.graph))
    for function in proto.functions:
        found += op_types(function)
    return tuple(found)


# -- writing rows ---------------------------------------------------------------------------------

IMAGE = "float[N,2,5,5] x"
SMALL = "float[N,4,3,3] y"
ROWS = "float[N,3] x"
UNITS = "float[N,4] y"
PARAMETERS = ("gamma", "beta", "mean", "variance")


def bn(output: str, data: str, prefix: str = "", attributes: str = "epsilon=0.001") -> str:
    """A BatchNormalization in ONNX text."""
    four = ", ".join(prefix + name for name in PARAMETERS)
    return f"{output} = BatchNormalization <{attributes}> ({data}, {four})"


def graph(inputs: str, outputs: str, body: str) -> str:
    """A graph in ONNX text."""
    return f"g ({inputs}) => ({outputs}) {{ {body} }}"


def rising(channels: int, seed: int = 0, prefix: str = "") -> dict[str, Array]:
    """A norm whose scales are all positive."""
    return {
        name: np.abs(a) if "gamma" in name else a for name, a in norm(channels, seed, prefix=prefix).items()
    }


def unshifted(channels: int, seed: int = 0) -> dict[str, Array]:
    """A norm that only scales: beta and moving mean are zero."""
    return {n: np.zeros_like(a) if n in ("beta", "mean") else a for n, a in norm(channels, seed).items()}


def rising_scale(channels: int) -> dict[str, Array]:
    """Positive scales and no shift."""
    return {name: np.abs(a) if name == "gamma" else a for name, a in unshifted(channels).items()}


def alike(channels: int) -> dict[str, Array]:
    """A norm that does the same on every channel, with a shift."""
    return {name: np.full_like(a, abs(a[0]) + 0.5) for name, a in norm(channels).items()}


def ints(*numbers: int) -> Array:
    """A list of integers."""
    return np.array(numbers, np.int64)


def factors(*shape: int, seed: int = 5) -> Array:
    """Constants away from zero, of both signs."""
    rng = np.random.default_rng(seed)
    return (rng.uniform(0.5, 2.0, shape) * rng.choice([-1, 1], shape)).astype(np.float32)


def producer(op: str) -> tuple[Into]:
    """One site, into the op before it."""
    return (Into("producer", op),)


def consumer(op: str) -> tuple[Into]:
    """One site, into the op behind it."""
    return (Into("consumer", op),)


def kept(*reasons: str) -> tuple[Kept]:
    """One site, kept."""
    return (Kept(reasons),)


CONV_W = {"w": normal(4, 2, 3, 3, seed=1)}
CONV_WB = {**CONV_W, "b": normal(4, seed=2)}
DENSE_W = {"w": normal(3, 4, seed=3)}
DENSE_WB = {**DENSE_W, "b": normal(4, seed=4)}
N4 = norm(4)
BIG = "float[N,2,6,6] x"


def _convolutions() -> Iterator[Pattern]:
    section = "Behind a convolution"

    def row(
        name: str, text: str, weights: Mapping[str, Array], after: tuple[str, ...] = ("Conv",), **more
    ) -> Pattern:
        return Pattern(section, name, text, weights, more.pop("expected", producer(after[0])), after, **more)

    same = "c = Conv <pads=[1,1,1,1]>"
    yield row(
        "Conv, norm", graph(IMAGE, "float[N,4,5,5] y", f"{same} (x, w, b) {bn('y', 'c')}"), {**CONV_WB, **N4}
    )
    yield row(
        "Conv without bias, norm", graph(IMAGE, SMALL, f"c = Conv (x, w) {bn('y', 'c')}"), {**CONV_W, **N4}
    )
    yield row(
        "Conv of one dimension, norm",
        graph("float[N,2,7] x", "float[N,4,5] y", f"c = Conv (x, w, b) {bn('y', 'c')}"),
        {"w": normal(4, 2, 3), "b": normal(4, seed=2), **N4},
    )
    yield row(
        "Conv of three dimensions, norm",
        graph("float[N,2,4,4,4] x", "float[N,4,3,3,3] y", f"c = Conv (x, w) {bn('y', 'c')}"),
        {"w": normal(4, 2, 2, 2, 2), **N4},
    )
    yield row(
        "grouped Conv, norm",
        graph("float[N,4,5,5] x", "float[N,6,3,3] y", f"c = Conv <group=2> (x, w, b) {bn('y', 'c')}"),
        {"w": normal(6, 2, 3, 3), "b": normal(6, seed=2), **norm(6)},
    )
    yield row(
        "depthwise Conv, norm",
        graph("float[N,4,5,5] x", "float[N,8,3,3] y", f"c = Conv <group=4> (x, w) {bn('y', 'c')}"),
        {"w": normal(8, 1, 3, 3), **norm(8)},
    )
    yield row(
        "Conv with strides and auto_pad=SAME_UPPER, norm",
        graph(
            BIG, "float[N,4,3,3] y", f'c = Conv <auto_pad="SAME_UPPER", strides=[2,2]> (x, w) {bn("y", "c")}'
        ),
        {**CONV_W, **N4},
    )
    yield row(
        "Conv whose bias is an empty name, norm",
        graph(IMAGE, SMALL, f"c = Conv (x, w) {bn('y', 'c')}"),
        {**CONV_W, **N4},
        adjust=lambda proto: proto.graph.node[0].input.append(""),
    )
    up = "float[N,4,7,7] y"
    yield row(
        "ConvTranspose, norm",
        graph(IMAGE, up, f"c = ConvTranspose (x, w, b) {bn('y', 'c')}"),
        {"w": normal(2, 4, 3, 3), "b": normal(4, seed=2), **N4},
        ("ConvTranspose",),
    )
    yield row(
        "grouped ConvTranspose with strides and output padding, norm",
        graph(
            "float[N,4,3,3] x",
            "float[N,6,8,8] y",
            f"c = ConvTranspose <group=2, strides=[2,2], output_padding=[1,1]> (x, w) {bn('y', 'c')}",
        ),
        {"w": normal(4, 3, 3, 3), **norm(6)},
        ("ConvTranspose",),
    )
    yield row(
        "depthwise ConvTranspose, norm",
        graph("float[N,4,5,5] x", up, f"c = ConvTranspose <group=4> (x, w, b) {bn('y', 'c')}"),
        {"w": normal(4, 1, 3, 3), "b": normal(4, seed=2), **N4},
        ("ConvTranspose",),
    )
    yield row(
        "Conv, norm without gamma and beta (ones and zeros)",
        graph(IMAGE, SMALL, f"c = Conv (x, w, b) {bn('y', 'c')}"),
        {**CONV_WB, **N4, "gamma": np.ones(4, np.float32), "beta": np.zeros(4, np.float32)},
    )
    yield row(
        "Conv, norm with a gamma of zero and a variance of zero",
        graph(IMAGE, SMALL, f"c = Conv (x, w, b) {bn('y', 'c')}"),
        {
            **CONV_WB,
            **N4,
            "gamma": np.array([0, 1, -1, 2], np.float32),
            "variance": np.array([1, 0, 1, 1], np.float32),
        },
    )
    yield row(
        "Conv, norm with a mean and a bias near 10000",
        graph(IMAGE, SMALL, f"c = Conv (x, w, b) {bn('y', 'c')}"),
        {**CONV_W, **N4, "b": np.full(4, 1e4, np.float32), "mean": np.full(4, 1.0001e4, np.float32)},
    )
    yield row(
        "Conv, norm, norm",
        graph(IMAGE, SMALL, f"c = Conv (x, w, b) {bn('m', 'c')} {bn('y', 'm', 'a_')}"),
        {**CONV_WB, **N4, **norm(4, 1, prefix="a_")},
        expected=producer("Conv") * 2,
    )
    yield row(
        "norm between two Convs goes backwards",
        graph(BIG, "float[N,3,2,2] y", f"c = Conv (x, w) {bn('n', 'c')} y = Conv (n, v)"),
        {**CONV_W, "v": normal(3, 4, 3, 3, seed=9), **N4},
        ("Conv", "Conv"),
        expected=producer("Conv"),
    )


def _dense() -> Iterator[Pattern]:
    section = "Behind a dense layer"

    def row(
        name: str, text: str, weights: Mapping[str, Array], after: tuple[str, ...], into: str = "", **more
    ) -> Pattern:
        return Pattern(
            section, name, text, weights, more.pop("expected", producer(into or after[0])), after, **more
        )

    tail = bn("y", "h")
    gemm = ("Gemm",)
    yield row("Gemm, norm", graph(ROWS, UNITS, f"h = Gemm (x, w, b) {tail}"), {**DENSE_WB, **N4}, gemm)
    yield row("Gemm without C, norm", graph(ROWS, UNITS, f"h = Gemm (x, w) {tail}"), {**DENSE_W, **N4}, gemm)
    yield row(
        "Gemm with transA and transB, norm",
        graph("float[3,N] x", UNITS, f"h = Gemm <transA=1, transB=1> (x, w, b) {tail}"),
        {"w": normal(4, 3), "b": normal(4, seed=4), **N4},
        gemm,
    )
    yield row(
        "Gemm with alpha and beta, norm",
        graph(ROWS, UNITS, f"h = Gemm <alpha=0.5, beta=2.0> (x, w, b) {tail}"),
        {**DENSE_WB, **N4},
        gemm,
    )
    yield row(
        "Gemm with beta=0, norm",
        graph(ROWS, UNITS, f"h = Gemm <alpha=-1.5, beta=0.0> (x, w, b) {tail}"),
        {**DENSE_WB, **N4},
        gemm,
    )
    for what, shape in (
        ("a scalar", ()),
        ("of one element", (1,)),
        ("a row", (1, 4)),
        ("a column", (5, 1)),
        ("a matrix", (5, 4)),
    ):
        yield row(
            f"Gemm with C {what}, norm",
            graph("float[5,3] x", "float[5,4] y", f"h = Gemm <beta=0.5> (x, w, b) {tail}"),
            {**DENSE_W, "b": normal(*shape, seed=4), **N4},
            gemm,
        )
    yield row(
        "MatMul, norm", graph(ROWS, UNITS, f"h = MatMul (x, w) {tail}"), {**DENSE_W, **N4}, gemm, "MatMul"
    )
    for name, add in (("Add", "Add (m, b)"), ("Add reversed", "Add (b, m)")):
        yield row(
            f"MatMul, {name}, norm",
            graph(ROWS, UNITS, f"m = MatMul (x, w) h = {add} {tail}"),
            {**DENSE_WB, **N4},
            gemm,
            "MatMul",
        )
    yield row(
        "MatMul with the constant on the left, norm",
        graph("float[3,4] x", "float[4,4] y", "m = MatMul (w, x) s = Mul (m, k) y = Add (s, k)"),
        {"w": normal(4, 3), "k": factors(4, 1)},
        gemm,
        "MatMul",
    )
    yield row(
        "MatMul of rank 3 with the constant on the left, norm",
        graph("float[N,3,5] x", "float[N,4,5] y", f"h = MatMul (w, x) {tail}"),
        {"w": normal(4, 3), **N4},
        ("MatMul", "Add"),
    )
    yield row(
        "MatMul of rank 3 with the constant on the left, Add, norm",
        graph("float[N,3,5] x", "float[N,4,5] y", f"m = MatMul (w, x) h = Add (m, b) {tail}"),
        {"w": normal(4, 3), "b": normal(4, 1, seed=4), **N4},
        ("MatMul", "Add"),
    )
    yield row(
        "MatMul, Reshape to rows, norm, Reshape back (LeViT)",
        graph(
            "float[2,5,3] x",
            "float[2,5,4] y",
            f"h3 = MatMul (x, w) h = Reshape (h3, rows) {bn('n', 'h')} y = Reshape (n, back)",
        ),
        {**DENSE_W, **N4, "rows": ints(-1, 4), "back": ints(2, 5, 4)},
        ("Reshape", "Gemm", "Reshape"),
        "MatMul",
    )
    yield row(
        "MatMul, Reshape to rows with an open batch, norm, Reshape back",
        graph(
            "float[N,5,3] x",
            "float[N,5,4] y",
            f"h3 = MatMul (x, w) h = Reshape (h3, rows) {bn('n', 'h')} y = Reshape (n, back)",
        ),
        {**DENSE_W, **N4, "rows": ints(-1, 4), "back": ints(-1, 5, 4)},
        ("Reshape", "Gemm", "Reshape"),
        "MatMul",
    )
    yield row(
        "MatMul of rank 4, Add, Reshape to rows, norm",
        graph(
            "float[N,2,5,3] x",
            "float[M,4] y",
            f"m = MatMul (x, w) a = Add (b, m) h = Reshape (a, rows) {tail}",
        ),
        {**DENSE_WB, **N4, "rows": ints(-1, 4)},
        ("Reshape", "Gemm"),
        "MatMul",
    )
    yield row(
        "MatMul, Mul, Add, Reshape to rows",
        graph(
            "float[N,5,3] x",
            "float[M,4] y",
            "m = MatMul (x, w) s = Mul (m, k) a = Add (s, l) r = Reshape (a, rows) y = Relu (r)",
        ),
        {**DENSE_W, "k": factors(4), "l": normal(4, seed=6), "rows": ints(-1, 4)},
        ("Reshape", "Gemm", "Relu"),
        "MatMul",
    )
    yield row(
        "MatMul, Reshape to rows, norm without a shift",
        graph("float[N,5,3] x", "float[M,4] y", f"m = MatMul (x, w) h = Reshape (m, rows) {tail}"),
        {**DENSE_W, **unshifted(4), "rows": ints(-1, 4)},
        ("MatMul", "Reshape"),
        "MatMul",
    )
    yield row(
        "MatMul, Mul, Add that is a graph output, Reshape to rows",
        graph(
            "float[N,5,3] x",
            "float[M,4] y, float[N,5,4] a",
            "m = MatMul (x, w) s = Mul (m, k) a = Add (s, l) y = Reshape (a, rows)",
        ),
        {**DENSE_W, "k": factors(4), "l": normal(4, seed=6), "rows": ints(-1, 4)},
        ("MatMul", "Add", "Reshape"),
        "MatMul",
    )
    yield row(
        "MatMul, Mul, Add, Reshape to rows of another length",
        graph(
            "float[N,6,3] x",
            "float[M,8] y",
            "m = MatMul (x, w) s = Mul (m, k) a = Add (s, l) y = Reshape (a, rows)",
        ),
        {**DENSE_W, "k": factors(4), "l": normal(4, seed=6), "rows": ints(-1, 8)},
        ("MatMul", "Add", "Reshape"),
        "MatMul",
    )
    yield row(
        "MatMul with the constant on the left, Reshape to rows of equal length, Mul, Add",
        graph(
            "float[N,3,4] x",
            "float[M,4] y",
            "m = MatMul (w, x) s = Mul (m, k) a = Add (s, l) y = Reshape (a, rows)",
        ),
        {"w": normal(4, 3), "k": factors(4, 1), "l": normal(4, 1, seed=6), "rows": ints(-1, 4)},
        ("MatMul", "Add", "Reshape"),
        "MatMul",
    )
    yield row(
        "MatMul, Add, Flatten to rows with an open batch, norm",
        graph(
            "float[N,5,3] x",
            "float[M,4] y",
            f"m = MatMul (x, w) a = Add (m, b) h = Flatten <axis=2> (a) {tail}",
        ),
        {**DENSE_WB, **N4},
        ("Flatten", "Gemm"),
        "MatMul",
    )
    yield row(
        "MatMul, Transpose, norm, Transpose back",
        graph(
            "float[N,5,3] x",
            "float[N,5,4] y",
            f"m = MatMul (x, w) h = Transpose <perm=[0,2,1]> (m) "
            f"{bn('n', 'h')} y = Transpose <perm=[0,2,1]> (n)",
        ),
        {**DENSE_W, **N4},
        ("MatMul", "Add", "Transpose", "Transpose"),
        "MatMul",
    )
    yield row(
        "Gemm with beta, Reshape, Mul, Add",
        graph(
            "float[4,3] x",
            "float[2,2,4] y",
            "h = Gemm <beta=2.0> (x, w, b) r = Reshape (h, s) m = Mul (r, k) y = Add (m, l)",
        ),
        {**DENSE_WB, "s": ints(2, 2, 4), "k": factors(4), "l": normal(4, seed=6)},
        ("Gemm", "Reshape"),
    )
    yield row(
        "Gemm, Mul, Add",
        graph(ROWS, UNITS, "h = Gemm (x, w, b) m = Mul (h, k) y = Add (l, m)"),
        {**DENSE_WB, "k": factors(4), "l": normal(4, seed=6)},
        gemm,
    )
    yield row(
        "Gemm, Unsqueeze, norm, Squeeze",
        graph(ROWS, UNITS, f"h = Gemm (x, w, b) u = Unsqueeze (h, a) {bn('n', 'u')} y = Squeeze (n, a)"),
        {**DENSE_WB, **N4, "a": ints(2)},
        ("Gemm", "Unsqueeze", "Squeeze"),
    )


def _written_out() -> Iterator[Pattern]:
    section = "Written out as arithmetic"
    out = "float[N,4,5,5] y"
    conv = "c = Conv <pads=[1,1,1,1]> (x, w, b)"
    k, shift = factors(1, 4, 1, 1), factors(1, 4, 1, 1, seed=6)

    def row(name: str, tail: str, constants: Mapping[str, Array], **more) -> Pattern:
        expected, after = more.pop("expected", producer("Conv")), more.pop("after", ("Conv",))
        return Pattern(
            section,
            name,
            graph(IMAGE, out, f"{conv} {tail}"),
            {**CONV_WB, **constants},
            expected,
            after,
            **more,
        )

    yield row("Conv, Mul, Add, constants on the right", "m = Mul (c, k) y = Add (m, l)", {"k": k, "l": shift})
    yield row("Conv, Mul, Add, constants on the left", "m = Mul (k, c) y = Add (l, m)", {"k": k, "l": shift})
    yield row(
        "Conv, Sub, Div, Mul, Add",
        "d = Sub (c, mean) e = Div (d, dev) m = Mul (e, k) y = Add (m, l)",
        {"mean": factors(4, 1, 1, seed=7), "dev": factors(4, 1, 1, seed=8), "k": k, "l": shift},
    )
    yield row("Conv, constant minus it", "y = Sub (k, c)", {"k": k})
    yield row("Conv, Neg, Mul", "m = Neg (c) y = Mul (m, k)", {"k": k})
    yield row("Conv, Mul by one number", "y = Mul (half, c)", {"half": np.array(0.5, np.float32)})
    yield row(
        "Conv, Sub, Mul by rsqrt(variance + epsilon), Add",
        "v = Add (variance, e) r = Sqrt (v) i = Reciprocal (r) "
        "d = Sub (c, mean) m = Mul (d, i) y = Add (m, l)",
        {
            "variance": np.abs(factors(4, 1, 1)),
            "e": np.array(1e-3, np.float32),
            "mean": factors(4, 1, 1, seed=7),
            "l": shift,
        },
    )
    yield Pattern(
        section,
        "grouped Conv without bias, Add (constant on the left)",
        graph("float[N,4,5,5] x", "float[N,6,3,3] y", "c = Conv <group=2> (x, w) y = Add (k, c)"),
        {"w": normal(6, 2, 3, 3), "k": factors(6, 1, 1)},
        producer("Conv"),
        ("Conv",),
    )
    yield Pattern(
        section,
        "ConvTranspose, Mul, Add",
        graph(IMAGE, "float[N,4,7,7] y", "c = ConvTranspose (x, w) m = Mul (k, c) y = Add (m, l)"),
        {"w": normal(2, 4, 3, 3), "k": k, "l": shift},
        producer("ConvTranspose"),
        ("ConvTranspose",),
    )
    yield row("constant over Conv", "y = Div (k, c)", {"k": k}, expected=(), after=())
    yield row(
        "constant over Conv, Mul, Add",
        "d = Div (k, c) m = Mul (d, k) y = Add (m, l)",
        {"k": k, "l": shift},
        expected=kept("blocked-by-op", "graph-output"),
        after=(),
    )
    for shape in ((4,), (1, 4), (1, 4, 1)):
        yield Pattern(
            section,
            f"Conv, Mul by {list(shape)} where height and width equal the channels",
            graph("float[N,2,6,6] x", "float[N,4,4,4] y", "c = Conv (x, w) y = Mul (c, k)"),
            {**CONV_W, "k": factors(*shape)},
            kept("axis-mismatch", "graph-output"),
        )
    yield Pattern(
        section,
        "Conv, Mul by one element of rank 5",
        graph(IMAGE, "float[1,N,4,3,3] y", "c = Conv (x, w) y = Mul (c, k)"),
        {**CONV_W, "k": factors(1, 1, 1, 1, 1)},
        (),
    )
    yield Pattern(
        section,
        "Conv of one channel, Mul that makes four of it",
        graph(IMAGE, SMALL, "c = Conv (x, w) y = Mul (c, k)"),
        {"w": normal(1, 2, 3, 3), "k": k},
        (),
    )
    yield Pattern(
        section,
        "Mul in front of an unpadded Conv",
        graph(IMAGE, SMALL, "m = Mul (x, k) y = Conv (m, w)"),
        {**CONV_W, "k": factors(2, 1, 1)},
        consumer("Conv"),
        ("Conv",),
    )
    yield Pattern(
        section,
        "Mul, Add in front of a Gemm",
        graph(ROWS, UNITS, "m = Mul (k, x) a = Add (m, k) y = Gemm <transB=1> (a, w)"),
        {"w": normal(4, 3), "k": factors(3)},
        consumer("Gemm"),
        ("Gemm",),
    )


def _channels_last() -> Iterator[Pattern]:
    section = "Channels last, as Keras exports it"
    last = "float[N,3,3,4] y"
    k, shift, mean, dev = (factors(4, seed=seed) for seed in range(4))

    def row(
        name: str, text: str, weights: Mapping[str, Array], after: tuple[str, ...], op: str = ""
    ) -> Pattern:
        return Pattern(section, name, text, weights, producer(op or after[0]), after)

    yield row(
        "Conv, Transpose, Mul, Add",
        graph(
            IMAGE, last, "c = Conv (x, w, b) t = Transpose <perm=[0,2,3,1]> (c) m = Mul (t, k) y = Add (m, l)"
        ),
        {**CONV_WB, "k": k, "l": shift},
        ("Conv", "Transpose"),
    )
    yield row(
        "Conv, Transpose, Cast, Sub, Mul, Add",
        graph(
            IMAGE,
            last,
            "c = Conv (x, w) t = Transpose <perm=[0,2,3,1]> (c) f = Cast <to=1> (t) "
            "d = Sub (f, mean) m = Mul (d, k) y = Add (m, l)",
        ),
        {**CONV_W, "k": k, "l": shift, "mean": mean},
        ("Conv", "Transpose", "Cast"),
    )
    yield row(
        "Conv, Transpose, Sub, Div, Mul, Add, Transpose back",
        graph(
            IMAGE,
            SMALL,
            "c = Conv (x, w) t = Transpose <perm=[0,2,3,1]> (c) d = Sub (t, mean) e = Div (d, dev) "
            "m = Mul (e, k) a = Add (m, l) y = Transpose <perm=[0,3,1,2]> (a)",
        ),
        {**CONV_W, "k": k, "l": shift, "mean": mean, "dev": dev},
        ("Conv", "Transpose", "Transpose"),
    )
    yield row(
        "Conv of a lifted sequence, Squeeze, Transpose, Mul, Add",
        graph(
            "float[N,2,7] x",
            "float[N,5,4] y",
            "u = Unsqueeze (x, two) c = Conv (u, w) s = Squeeze (c, two) t = Transpose <perm=[0,2,1]> (s) "
            "m = Mul (t, k) y = Add (m, l)",
        ),
        {"w": normal(4, 2, 1, 3), "two": ints(2), "k": k, "l": shift},
        ("Unsqueeze", "Conv", "Squeeze", "Transpose"),
        "Conv",
    )
    yield row(
        "depthwise Conv, Transpose, Mul, Add",
        graph(
            "float[N,4,5,5] x",
            last,
            "c = Conv <group=4> (x, w) t = Transpose <perm=[0,2,3,1]> (c) m = Mul (t, k) y = Add (m, l)",
        ),
        {"w": normal(4, 1, 3, 3), "k": k, "l": shift},
        ("Conv", "Transpose"),
    )
    yield row(
        "Concat of two Convs, Transpose, Mul",
        graph(
            IMAGE,
            "float[N,3,3,6] y",
            "c = Conv (x, w) e = Conv (x, v) j = Concat <axis=1> (c, e) "
            "t = Transpose <perm=[0,2,3,1]> (j) y = Mul (t, k)",
        ),
        {**CONV_W, "v": normal(2, 2, 3, 3, seed=7), "k": factors(6)},
        ("Conv", "Conv", "Concat", "Transpose"),
        "Conv",
    )
    yield Pattern(
        section,
        "Mul, Transpose, Slice of channels, Conv",
        graph(
            "float[N,5,5,6] x",
            "float[N,2,5,5] y",
            "m = Mul (x, k) t = Transpose <perm=[0,3,1,2]> (m) s = Slice (t, from, to, ax) y = Conv (s, w)",
        ),
        {"w": normal(2, 3, 1, 1), "k": factors(6), "from": ints(1), "to": ints(4), "ax": ints(1)},
        consumer("Conv"),
        ("Transpose", "Slice", "Conv"),
    )
    yield row(
        "MatMul, Mul, Add",
        graph("float[N,5,3] x", "float[N,5,4] y", "h = MatMul (x, w) m = Mul (h, k) y = Add (m, l)"),
        {**DENSE_W, "k": k, "l": shift},
        ("MatMul", "Add"),
    )
    yield row(
        "MatMul, Add, Mul, Add",
        graph(ROWS, UNITS, "h = MatMul (x, w) a = Add (h, b) m = Mul (a, k) y = Add (m, l)"),
        {**DENSE_WB, "k": k, "l": shift},
        ("Gemm",),
        "MatMul",
    )
    yield row(
        "Conv, Transpose, Mul, Add, Relu, Transpose back",
        graph(
            IMAGE,
            SMALL,
            "c = Conv (x, w) t = Transpose <perm=[0,2,3,1]> (c) m = Mul (t, k) a = Add (m, l) "
            "r = Relu (a) y = Transpose <perm=[0,3,1,2]> (r)",
        ),
        {**CONV_W, "k": k, "l": shift},
        ("Conv", "Transpose", "Relu", "Transpose"),
    )


def _in_front() -> Iterator[Pattern]:
    section = "In front of a linear operator"
    x4 = "float[N,4,5,5] x"

    def row(
        name: str,
        text: str,
        weights: Mapping[str, Array],
        after: tuple[str, ...] = (),
        expected: tuple[Into | Kept, ...] = (),
        **more,
    ) -> Pattern:
        return Pattern(section, name, text, weights, expected or consumer(after[-1]), after, **more)

    head = bn("n", "x")
    w = normal(3, 4, 3, 3, seed=1)
    out = "float[N,3,3,3] y"
    same = "float[N,3,5,5] y"
    yield row("norm, Conv", graph(x4, out, f"{head} y = Conv (n, w)"), {"w": w, **N4}, ("Conv",))
    yield row(
        "norm, Conv with bias, strides and auto_pad=VALID",
        graph(x4, "float[N,3,2,2] y", f'{head} y = Conv <auto_pad="VALID", strides=[2,2]> (n, w, b)'),
        {"w": w, "b": normal(3), **N4},
        ("Conv",),
    )
    yield row(
        "norm, grouped Conv",
        graph(x4, "float[N,6,3,3] y", f"{head} y = Conv <group=2> (n, w)"),
        {"w": normal(6, 2, 3, 3), **N4},
        ("Conv",),
    )
    yield row(
        "norm, depthwise Conv",
        graph(x4, "float[N,8,3,3] y", f"{head} y = Conv <group=4> (n, w)"),
        {"w": normal(8, 1, 3, 3), **N4},
        ("Conv",),
    )
    for what, attribute in (("pads", "pads=[1,1,1,1]"), ("auto_pad=SAME_UPPER", 'auto_pad="SAME_UPPER"')):
        yield row(
            f"norm, Conv with {what}",
            graph(x4, same, f"{head} y = Conv <{attribute}> (n, w)"),
            {"w": w, **N4},
            expected=kept("graph-input", "zero-padding"),
        )
        yield row(
            f"norm without a shift, Conv with {what}",
            graph(x4, same, f"{head} y = Conv <{attribute}> (n, w)"),
            {"w": w, **unshifted(4)},
            ("Conv",),
        )
    yield row(
        "norm, ConvTranspose",
        graph(x4, "float[N,3,7,7] y", f"{head} y = ConvTranspose (n, w)"),
        {"w": normal(4, 3, 3, 3), **N4},
        expected=kept("graph-input", "scattered-border"),
    )
    yield row(
        "norm without a shift, grouped ConvTranspose",
        graph(x4, "float[N,6,7,7] y", f"{head} y = ConvTranspose <group=2> (n, w)"),
        {"w": normal(4, 3, 3, 3), **unshifted(4)},
        ("ConvTranspose",),
    )
    yield row(
        "norm, Gemm",
        graph("float[N,4] x", "float[N,3] y", f"{head} y = Gemm (n, w, b)"),
        {"w": normal(4, 3), "b": normal(3), **N4},
        ("Gemm",),
    )
    yield row(
        "norm, Gemm with alpha, beta and transB",
        graph("float[N,4] x", "float[N,3] y", f"{head} y = Gemm <alpha=2.0, beta=0.5, transB=1> (n, w, b)"),
        {"w": normal(3, 4), "b": normal(3), **N4},
        ("Gemm",),
    )
    yield row(
        "norm, Flatten, Gemm",
        graph("float[N,4,2,3] x", "float[N,3] y", f"{head} f = Flatten (n) y = Gemm (f, w, b)"),
        {"w": normal(24, 3), "b": normal(3), **N4},
        ("Flatten", "Gemm"),
    )
    yield row(
        "norm, GlobalAveragePool, Flatten, Gemm",
        graph(
            "float[N,4,2,3] x",
            "float[N,3] y",
            f"{head} p = GlobalAveragePool (n) f = Flatten (p) y = Gemm (f, w)",
        ),
        {"w": normal(4, 3), **N4},
        ("GlobalAveragePool", "Flatten", "Gemm"),
    )
    yield row(
        "norm, MatMul",
        graph("float[N,4] x", "float[N,3] y", f"{head} y = MatMul (n, w)"),
        {"w": normal(4, 3), **N4},
        ("Gemm",),
        consumer("MatMul"),
    )
    yield row(
        "norm, MatMul, Add",
        graph("float[N,4] x", "float[N,3] y", f"{head} m = MatMul (n, w) y = Add (b, m)"),
        {"w": normal(4, 3), "b": normal(3), **N4},
        ("Gemm",),
        consumer("MatMul"),
    )
    yield row(
        "norm, MatMul with the constant on the left",
        graph("float[N,4,5] x", "float[N,3,5] y", f"{head} y = MatMul (w, n)"),
        {"w": normal(3, 4), **N4},
        ("MatMul", "Add"),
        consumer("MatMul"),
    )
    yield row(
        "norm read by two Convs",
        graph(x4, f"{out}, float[N,2,5,5] z", f"{head} y = Conv (n, w) z = Conv (n, v)"),
        {"w": w, "v": normal(2, 4, 1, 1), **N4},
        ("Conv", "Conv"),
    )
    yield row(
        "norm read by a Conv and a Gemm behind a Flatten",
        graph(
            "float[N,4,3,3] x",
            "float[N,3,1,1] y, float[N,2] z",
            f"{head} y = Conv (n, w) f = Flatten (n) z = Gemm (f, v)",
        ),
        {"w": w, "v": normal(36, 2), **N4},
        ("Conv", "Flatten", "Gemm"),
        consumer("Conv, Gemm"),
    )
    yield row(
        "norm read by two Convs with one weight",
        graph(x4, f"{out}, {out.replace(' y', ' z')}", f"{head} y = Conv (n, w) z = Conv (n, w, b)"),
        {"w": w, "b": normal(3), **N4},
        ("Conv", "Conv"),
    )
    yield row(
        "norm read by a Conv and a Sigmoid",
        graph(x4, f"{out}, float[N,4,5,5] z", f"{head} y = Conv (n, w) z = Sigmoid (n)"),
        {"w": w, **N4},
        expected=kept("graph-input", "blocked-by-op"),
    )
    yield row(
        "norm whose result is a graph output too, Conv",
        graph(x4, f"{out}, float[N,4,5,5] n", f"{head} y = Conv (n, w)"),
        {"w": w, **N4},
        expected=kept("graph-input", "graph-output"),
    )
    yield row(
        "norm with a gamma of zero, Conv",
        graph(x4, out, f"{head} y = Conv (n, w)"),
        {"w": w, **N4, "gamma": np.array([0, 1, -1, 0], np.float32)},
        ("Conv",),
    )
    yield row(
        "Conv, Sigmoid, norm, Conv",
        graph(BIG, "float[N,3,2,2] y", f"c = Conv (x, w) r = Sigmoid (c) {bn('n', 'r')} y = Conv (n, v)"),
        {**CONV_W, "v": w, **N4},
        ("Conv", "Sigmoid", "Conv"),
    )
    yield row(
        "norm, Concat with itself, Conv",
        graph(x4, out, f"{head} j = Concat <axis=1> (n, n) y = Conv (j, w)"),
        {"w": normal(3, 8, 3, 3), **N4},
        ("Concat", "Conv"),
    )
    yield row(
        "norm, norm, nothing linear",
        graph(
            "float[N,4,5] x",
            "float[N,4,5] y",
            f"{head} m = BatchNormalization (n, a_gamma, a_beta, a_mean, a_variance) y = Abs (m)",
        ),
        {**N4, **norm(4, 1, prefix="a_")},
        ("BatchNormalization", "Abs"),
        (Into("neighbour", "BatchNormalization"), Kept(("graph-input", "blocked-by-op"))),
    )
    again = "m = BatchNormalization (n, a_gamma, a_beta, a_mean, a_variance)"
    yield row(
        "three norms in a row, nothing linear",
        graph("float[N,4,5] x", "float[N,4,5] y", f"{head} {again} {bn('y', 'm', 'b_')}"),
        {**N4, **norm(4, 1, prefix="a_"), **norm(4, 2, prefix="b_")},
        ("BatchNormalization",),
        (
            Into("neighbour", "BatchNormalization"),
            Kept(("graph-input", "graph-output")),
            Into("neighbour", "BatchNormalization"),
        ),
    )
    yield row(
        "Mul, Add, Transpose, Mul, Add, nothing linear",
        graph(
            "float[N,4,5] x",
            "float[N,5,4] y",
            "m = Mul (x, k) a = Add (m, k) t = Transpose <perm=[0,2,1]> (a) "
            "p = Mul (t, l) q = Add (p, l) y = Abs (q)",
        ),
        {"k": factors(4, 1), "l": factors(4, seed=6)},
        ("Transpose", "Mul", "Add", "Abs"),
        (Into("neighbour", "Mul"), Kept(("graph-input", "blocked-by-op"))),
    )
    yield row(
        "norm behind the input",
        graph(x4, "float[N,4,5,5] y", bn("y", "x")),
        N4,
        expected=kept("graph-input", "graph-output"),
    )


def _between() -> Iterator[Pattern]:
    section = "With something in between"

    def row(
        name: str,
        body: str,
        out: str,
        constants: Mapping[str, Array] | None = None,
        after: tuple[str, ...] = (),
        expected: tuple[Into | Kept, ...] = (),
        inputs: str = BIG,
        weights: Mapping[str, Array] | None = None,
        numbers: Mapping[str, Array] = N4,
        **more,
    ) -> Pattern:
        everything = {**(CONV_W if weights is None else weights), **numbers, **(constants or {})}
        return Pattern(
            section, name, graph(inputs, out, body), everything, expected or producer("Conv"), after, **more
        )

    conv, y4 = "c = Conv (x, w)", "float[N,4,4,4] y"
    for op in ("Identity", "Dropout"):
        yield row(f"Conv, {op}, norm", f"{conv} d = {op} (c) {bn('y', 'd')}", y4, after=("Conv", op))
    yield row(
        "Conv, AveragePool, norm",
        f"{conv} d = AveragePool <kernel_shape=[2,2]> (c) {bn('y', 'd')}",
        "float[N,4,3,3] y",
        after=("Conv", "AveragePool"),
    )
    yield row(
        "Conv, AveragePool that leaves padding out, norm",
        f"{conv} d = AveragePool <kernel_shape=[2,2], pads=[1,1,1,1]> (c) {bn('y', 'd')}",
        "float[N,4,5,5] y",
        after=("Conv", "AveragePool"),
    )
    counting = "AveragePool <kernel_shape=[2,2], pads=[1,1,1,1], count_include_pad=1>"
    yield row(
        "Conv, AveragePool that counts padding, norm",
        f"{conv} d = {counting} (c) {bn('y', 'd')}",
        "float[N,4,5,5] y",
        expected=kept("shift-not-movable", "graph-output"),
    )
    yield row(
        "Conv, AveragePool that counts padding, norm without a shift",
        f"{conv} d = {counting} (c) {bn('y', 'd')}",
        "float[N,4,5,5] y",
        numbers=unshifted(4),
        after=("Conv", "AveragePool"),
    )
    yield row(
        "Conv, GlobalAveragePool, norm",
        f"{conv} d = GlobalAveragePool (c) {bn('y', 'd')}",
        "float[N,4,1,1] y",
        after=("Conv", "GlobalAveragePool"),
    )
    yield row(
        "Conv, ReduceMean over space, norm",
        f"{conv} d = ReduceMean <axes=[2,3], keepdims=0> (c) {bn('y', 'd')}",
        "float[N,4] y",
        after=("Conv", "ReduceMean"),
    )
    yield row(
        "Conv, ReduceSum over space, norm",
        f"{conv} d = ReduceSum <keepdims=0> (c, a) {bn('y', 'd')}",
        "float[N,4] y",
        {"a": ints(2, 3)},
        expected=kept("shift-not-movable", "graph-output"),
    )
    yield row(
        "Conv, Flatten, norm of every place",
        f"{conv} d = Flatten (c) {bn('y', 'd')}",
        "float[N,64] y",
        expected=kept("axis-mismatch", "graph-output"),
        numbers=norm(64),
    )
    yield row(
        "Conv, GlobalAveragePool, Flatten, norm",
        f"{conv} p = GlobalAveragePool (c) d = Flatten (p) {bn('y', 'd')}",
        "float[N,4] y",
        after=("Conv", "GlobalAveragePool", "Flatten"),
    )
    yield row(
        "Conv, Split, norm on each half",
        f"{conv} d, e = Split <axis=1> (c, h) {bn('y', 'd')} {bn('z', 'e', 'a_')}",
        "float[N,1,4,4] y, float[N,3,4,4] z",
        {"h": ints(1, 3), **norm(3, 1, prefix="a_")},
        numbers=norm(1),
        after=("Conv", "Split"),
        expected=producer("Conv") * 2,
    )
    yield row(
        "Conv, Split, norm on one half",
        f"{conv} d, z = Split <axis=1> (c) {bn('y', 'd')}",
        "float[N,2,4,4] y, float[N,2,4,4] z",
        numbers=norm(2),
        after=("Conv", "Split"),
    )
    yield row(
        "Conv, Split, both halves joined the other way round, norm",
        f"{conv} d, e = Split <axis=1> (c, h) f = Concat <axis=1> (e, d) {bn('y', 'f')}",
        "float[N,4,4,4] y",
        {"h": ints(1, 3)},
        after=("Conv", "Split", "Concat"),
    )
    yield row(
        "Conv, Split, Add of both halves, norm",
        f"{conv} d, e = Split <axis=1> (c) f = Add (d, e) {bn('y', 'f')}",
        "float[N,2,4,4] y",
        numbers=norm(2),
        after=("Conv", "Split", "Add"),
    )
    yield row(
        "Conv, Slice of channels, norm",
        f"{conv} d = Slice (c, from, to, ax, by) {bn('y', 'd')}",
        "float[N,2,4,4] y",
        {"from": ints(3), "to": ints(-100), "ax": ints(1), "by": ints(-2)},
        numbers=norm(2),
        after=("Conv", "Slice"),
    )
    yield row(
        "Conv, Slice of places, norm",
        f"{conv} d = Slice (c, from, to, ax) {bn('y', 'd')}",
        "float[N,4,2,2] y",
        {"from": ints(1, 1), "to": ints(3, 3), "ax": ints(2, 3)},
        after=("Conv", "Slice"),
    )
    yield row(
        "Conv, Gather of channels, norm",
        f"{conv} d = Gather <axis=1> (c, i) {bn('y', 'd')}",
        "float[N,3,4,4] y",
        {"i": ints(3, 0, 1)},
        numbers=norm(3),
        after=("Conv", "Gather"),
    )
    yield row(
        "Conv, Gather that takes a channel twice, norm",
        f"{conv} d = Gather <axis=1> (c, i) {bn('y', 'd')}",
        "float[N,3,4,4] y",
        {"i": ints(3, 0, 3)},
        numbers=norm(3),
        expected=kept("axis-mismatch", "graph-output"),
    )
    pool = "d = MaxPool <kernel_shape=[3,3], pads=[1,1,1,1]> (c)"
    yield row(
        "Conv, MaxPool, norm with positive scales",
        f"{conv} {pool} {bn('y', 'd')}",
        y4,
        numbers=rising(4),
        after=("Conv", "MaxPool"),
    )
    yield row(
        "Conv, MaxPool, norm with a negative scale",
        f"{conv} {pool} {bn('y', 'd')}",
        y4,
        numbers={**N4, "gamma": np.array([1, -1, 1, 1], np.float32)},
        expected=kept("negative-scale", "graph-output"),
    )
    yield row(
        "Conv, MaxPool whose indices are read, norm",
        f"{conv} d, z = MaxPool <kernel_shape=[2,2]> (c) {bn('y', 'd')}",
        "float[N,4,3,3] y, int64[N,4,3,3] z",
        numbers=rising(4),
        expected=kept("blocked-by-op", "graph-output"),
    )
    for op in ("Relu", "LeakyRelu <alpha=0.2>"):
        name = op.split()[0]
        yield row(
            f"Conv, {name}, norm with positive scales and no shift",
            f"{conv} d = {op} (c) {bn('y', 'd')}",
            y4,
            numbers=rising_scale(4),
            after=("Conv", name),
        )
    yield row(
        "Conv, PRelu, norm with positive scales and no shift",
        f"{conv} d = PRelu (c, s) {bn('y', 'd')}",
        y4,
        {"s": normal(4, 1, 1)},
        numbers=rising_scale(4),
        after=("Conv", "PRelu"),
    )
    yield row(
        "Conv, Relu, norm",
        f"{conv} d = Relu (c) {bn('y', 'd')}",
        y4,
        numbers=rising(4),
        expected=kept("shift-not-movable", "graph-output"),
    )
    yield row(
        "Conv, Sigmoid, norm",
        f"{conv} d = Sigmoid (c) {bn('y', 'd')}",
        y4,
        numbers=rising(4),
        expected=kept("blocked-by-op", "graph-output"),
    )
    for mode in ("reflect", "edge"):
        yield row(
            f"Conv, Pad ({mode}), norm",
            f'{conv} d = Pad <mode="{mode}"> (c, p) {bn("y", "d")}',
            "float[N,4,6,6] y",
            {"p": ints(0, 0, 1, 1, 0, 0, 1, 1)},
            after=("Conv", "Pad"),
        )
    yield row(
        "Conv, Pad with zeros, norm without a shift",
        f"{conv} d = Pad (c, p) {bn('y', 'd')}",
        "float[N,4,6,6] y",
        {"p": ints(0, 0, 1, 1, 0, 0, 1, 1)},
        numbers=unshifted(4),
        after=("Conv", "Pad"),
    )
    yield row(
        "Conv, Pad with zeros, norm",
        f"{conv} d = Pad (c, p) {bn('y', 'd')}",
        "float[N,4,6,6] y",
        {"p": ints(0, 0, 1, 1, 0, 0, 1, 1)},
        expected=kept("zero-padding", "graph-output"),
    )
    number, pads = np.array(-2.5, np.float32), ints(0, 0, 1, 0, 0, 0, 0, 1)
    yield row(
        "Conv, Pad with zeros, norm alike on every channel",
        f"{conv} d = Pad (c, p) {bn('y', 'd')}",
        "float[N,4,5,5] y",
        {"p": pads},
        numbers=alike(4),
        after=("Conv", "Pad"),
    )
    yield row(
        "Conv, Pad with a number, norm alike on every channel",
        f"{conv} d = Pad (c, p, v) {bn('y', 'd')}",
        "float[N,4,5,5] y",
        {"p": pads, "v": number},
        numbers=alike(4),
        after=("Conv", "Pad"),
    )
    yield row(
        "Conv, Pad of the channels with a number, norm alike on every channel",
        f"{conv} d = Pad (c, p, v) {bn('y', 'd')}",
        "float[N,6,4,4] y",
        {"p": ints(0, 1, 0, 0, 0, 1, 0, 0), "v": number},
        numbers=alike(6),
        after=("Conv", "Pad"),
    )
    yield row(
        "Conv, Pad with a number, norm without a shift",
        f"{conv} d = Pad (c, p, v) {bn('y', 'd')}",
        "float[N,4,5,5] y",
        {"p": pads, "v": number},
        numbers=unshifted(4),
        expected=kept("blocked-by-op", "graph-output"),
    )
    yield row(
        "Conv, Pad with a number that is read twice, norm alike on every channel",
        f"{conv} d = Pad (c, p, v) {bn('y', 'd')} z = Pad (x, p, v)",
        "float[N,4,5,5] y, float[N,2,7,7] z",
        {"p": pads, "v": number},
        numbers=alike(4),
        after=("Conv", "Pad", "Pad"),
    )
    yield row(
        "norm alike on every channel, Pad with a number, Conv",
        f"{bn('n', 'x')} d = Pad (n, p, v) y = Conv (d, w)",
        "float[N,4,5,5] y",
        {"p": pads, "v": number},
        numbers=alike(2),
        after=("Pad", "Conv"),
        expected=(Into("consumer", "Conv"),),
    )
    yield row(
        "norm, Pad with a number, Conv",
        f"{bn('n', 'x')} d = Pad (n, p, v) y = Conv (d, w)",
        "float[N,4,5,5] y",
        {"p": pads, "v": number},
        numbers=norm(2),
        expected=kept("graph-input", "blocked-by-op"),
    )
    for mode in ("nearest", "linear", "cubic"):
        yield row(
            f"Conv, Resize ({mode}), norm",
            f'{conv} d = Resize <mode="{mode}"> (c, , s) {bn("y", "d")}',
            "float[N,4,8,8] y",
            {"s": np.array([1, 1, 2, 2], np.float32)},
            after=("Conv", "Resize"),
        )
    yield row(
        "Conv, DepthToSpace, norm",
        f'{conv} d = DepthToSpace <blocksize=2, mode="CRD"> (c) {bn("y", "d")}',
        "float[N,1,8,8] y",
        numbers=norm(1),
        after=("Conv", "DepthToSpace"),
    )
    yield row(
        "Conv of eight channels, DepthToSpace (DCR), norm",
        f"{conv} d = DepthToSpace <blocksize=2> (c) {bn('y', 'd')}",
        "float[N,2,8,8] y",
        weights={"w": normal(8, 2, 3, 3)},
        numbers=norm(2),
        after=("Conv", "DepthToSpace"),
    )
    yield row(
        "Conv, Reshape and Transpose that shuffle pixels, norm",
        f"{conv} r = Reshape (c, s) t = Transpose <perm=[0,1,4,2,5,3]> (r) d = Reshape (t, u) {bn('y', 'd')}",
        "float[2,2,8,8] y",
        {"s": ints(2, 2, 2, 2, 4, 4), "u": ints(2, 2, 8, 8)},
        inputs="float[2,2,6,6] x",
        weights={"w": normal(8, 2, 3, 3)},
        numbers=norm(2),
        after=("Conv", "Reshape", "Transpose", "Reshape"),
    )
    yield row(
        "Conv, SpaceToDepth, norm",
        f"{conv} d = SpaceToDepth <blocksize=2> (c) {bn('y', 'd')}",
        "float[N,16,2,2] y",
        numbers=norm(16),
        expected=kept("axis-mismatch", "graph-output"),
    )
    yield row(
        "Conv, channel shuffle, norm",
        f"{conv} r = Reshape (c, s) t = Transpose <perm=[0,2,1,3,4]> (r) d = Reshape (t, u) {bn('y', 'd')}",
        "float[N,6,4,4] y",
        {"s": ints(0, 2, 3, 4, 4), "u": ints(0, 6, 4, 4)},
        weights={"w": normal(6, 2, 3, 3)},
        numbers=norm(6),
        after=("Conv", "Reshape", "Transpose", "Reshape"),
    )
    yield row(
        "Conv, Squeeze, norm",
        f"{conv} d = Squeeze (c, a) {bn('y', 'd')}",
        "float[N,4,4] y",
        {"a": ints(2)},
        inputs="float[N,2,3,6] x",
        after=("Conv", "Squeeze"),
    )
    yield row(
        "Conv, Cast to float16, norm",
        f"{conv} d = Cast <to=10> (c) {bn('y', 'd')}",
        "float16[N,4,4,4] y",
        numbers=norm(4, dtype="float16"),
        after=("Conv", "Cast"),
    )
    branches = "c = Conv (x, w) e = Conv (x, v)"
    v = {"v": normal(2, 2, 3, 3, seed=7)}
    yield row(
        "Concat of two Convs, norm",
        f"{branches} d = Concat <axis=1> (c, e) {bn('y', 'd')}",
        "float[N,6,4,4] y",
        v,
        numbers=norm(6),
        after=("Conv", "Conv", "Concat"),
    )
    yield row(
        "Concat of a Conv and a ConvTranspose, Mul, Add",
        "c = Conv <pads=[1,1,1,1]> (x, w) e = ConvTranspose <pads=[1,1,1,1]> (x, v) "
        "d = Concat <axis=1> (e, c) m = Mul (k, d) y = Add (m, k)",
        "float[N,7,6,6] y",
        {"v": normal(2, 3, 3, 3, seed=7), "k": factors(7, 1, 1)},
        numbers={},
        after=("Conv", "ConvTranspose", "Concat"),
        expected=producer("ConvTranspose, Conv"),
    )
    yield row(
        "Concat of a Conv and the input, norm",
        f"c = Conv <pads=[1,1,1,1]> (x, w) d = Concat <axis=1> (c, x) {bn('y', 'd')}",
        "float[N,6,6,6] y",
        numbers=norm(6),
        expected=kept("graph-input", "graph-output"),
    )
    yield row(
        "Concat of a Conv and another input, norm",
        f"c = Conv <pads=[1,1,1,1]> (x, w) d = Concat <axis=1> (c, z) {bn('y', 'd')}",
        "float[N,6,6,6] y",
        inputs=f"{BIG}, float[N,2,6,6] z",
        numbers=norm(6),
        expected=kept("graph-input", "graph-output"),
    )
    two = {"v": normal(4, 2, 3, 3, seed=7)}
    for op in ("Add", "Sub", "Sum", "Mean"):
        yield row(
            f"{op} of two Convs, norm",
            f"{branches} d = {op} (c, e) {bn('y', 'd')}",
            y4,
            two,
            after=("Conv", "Conv", op),
        )
    yield row(
        "Max of two Convs, norm with positive scales",
        f"{branches} d = Max (c, e) {bn('y', 'd')}",
        y4,
        two,
        numbers=rising(4),
        after=("Conv", "Conv", "Max"),
    )
    yield row(
        "Add of two Convs, norm with a gamma of zero",
        f"{branches} d = Add (c, e) {bn('y', 'd')}",
        y4,
        two,
        numbers={**N4, "gamma": np.array([0, 1, -1, 2], np.float32)},
        after=("Conv", "Conv", "Add"),
    )
    yield row(
        "Add of a Conv and another input, norm",
        f"{conv} d = Add (c, z) {bn('y', 'd')}",
        y4,
        inputs=f"{BIG}, float[N,4,4,4] z",
        expected=kept("graph-input", "graph-output"),
    )
    yield row(
        "product of two Convs, norm",
        f"{branches} d = Mul (c, e) {bn('y', 'd')}",
        y4,
        two,
        expected=kept("blocked-by-op", "graph-output"),
    )
    yield row(
        "MatMul, Transpose of two axes of equal length, norm",
        f"m = MatMul (x, w) d = Transpose <perm=[1,0]> (m) {bn('y', 'd')}",
        "float[6,6] y",
        inputs="float[6,3] x",
        weights={"w": normal(3, 6)},
        numbers=norm(6),
        expected=kept("axis-mismatch", "graph-output"),
    )
    yield row(
        "MatMul, Reshape to another axis of equal length, norm",
        f"m = MatMul (x, w) d = Reshape (m, s) {bn('y', 'd')}",
        "float[2,4,4] y",
        {"s": ints(2, 4, 4)},
        inputs="float[8,3] x",
        weights=DENSE_W,
        expected=kept("axis-mismatch", "graph-output"),
    )
    yield row(
        "MatMul of rank 3, norm on another axis of equal length",
        f"m = MatMul (x, w) {bn('y', 'm')}",
        "float[N,4,4] y",
        inputs="float[N,4,3] x",
        weights=DENSE_W,
        expected=kept("axis-mismatch", "graph-output"),
    )
    yield row(
        "MatMul, Reshape that is a graph output, norm",
        f"m = MatMul (x, w) d = Reshape (m, s) {bn('y', 'd')}",
        "float[10,4] y, float[10,4] d",
        {"s": ints(-1, 4)},
        inputs="float[2,5,3] x",
        weights=DENSE_W,
        expected=kept("graph-output", "graph-output"),
    )


def _sharing() -> Iterator[Pattern]:
    section = "Sharing"
    two = f"{SMALL}, float[N,4,3,3] z"

    def row(
        name: str,
        body: str,
        outputs: str,
        weights: Mapping[str, Array],
        after: tuple[str, ...] = (),
        expected: tuple[Into | Kept, ...] = (),
        inputs: str = IMAGE,
    ) -> Pattern:
        return Pattern(
            section, name, graph(inputs, outputs, body), weights, expected or producer("Conv"), after
        )

    a, b = norm(4, 1, prefix="a_"), norm(4, 2, prefix="b_")
    yield row(
        "two Convs with one weight, a norm on one",
        f"c = Conv (x, w) {bn('y', 'c')} z = Conv (x, w)",
        two,
        {**CONV_W, **N4},
        ("Conv", "Conv"),
    )
    yield row(
        "two Convs with one weight and one bias, a norm on each",
        f"c = Conv (x, w, b) {bn('y', 'c', 'a_')} d = Conv (x, w, b) {bn('z', 'd', 'b_')}",
        two,
        {**CONV_WB, **a, **b},
        ("Conv", "Conv"),
        producer("Conv") * 2,
    )
    yield row(
        "two Convs, norms with the same parameters",
        f"c = Conv (x, w) {bn('y', 'c')} d = Conv (x, v) {bn('z', 'd')}",
        two,
        {**CONV_W, "v": normal(4, 2, 3, 3, seed=8), **N4},
        ("Conv", "Conv"),
        producer("Conv") * 2,
    )
    yield row(
        "bias of the Conv is the mean of the norm",
        f"c = Conv (x, w, mean) {bn('y', 'c')}",
        SMALL,
        {**CONV_W, **N4},
        ("Conv",),
    )
    yield row(
        "one Conv, two norms",
        f"c = Conv (x, w) {bn('y', 'c', 'a_')} {bn('z', 'c', 'b_')}",
        two,
        {**CONV_W, **a, **b},
        expected=kept("shared-output", "graph-output") * 2,
    )
    yield row(
        "Conv whose shape is read, norm, Reshape to that shape",
        f"c = Conv (x, w) s = Shape (c) {bn('n', 'c')} f = Flatten (n) y = Reshape (f, s)",
        SMALL,
        {**CONV_W, **N4},
        ("Conv", "Shape", "Flatten", "Reshape"),
    )
    yield row(
        "MatMul, Flatten, norm, Reshape to the shape of the MatMul (LeViT, traced)",
        f"m = MatMul (x, w) h = Flatten <axis=2> (m) {bn('n', 'h')} s = Shape (m) y = Reshape (n, s)",
        "float[N,5,4] y",
        {**DENSE_W, **N4},
        ("MatMul", "Add", "Flatten", "Shape", "Reshape"),
        producer("MatMul"),
        inputs="float[N,5,3] x",
    )
    yield row(
        "norm whose shape is read, Conv",
        f"{bn('n', 'x')} y = Conv (n, w) z = Shape (n)",
        f"{SMALL}, int64[4] z",
        {**CONV_W, **norm(2)},
        ("Conv", "Shape"),
        (Into("consumer", "Conv"),),
    )
    yield row(
        "norm of which nothing but the shape is read",
        f"{bn('n', 'x')} z = Size (n) y = Identity (x)",
        "float[N,2,5,5] y, int64 z",
        norm(2),
        expected=kept("graph-input", "blocked-by-op"),
    )
    yield row(
        "Gemm read by a norm and by a Relu",
        f"h = Gemm (x, w) {bn('y', 'h')} z = Relu (h)",
        f"{UNITS}, float[N,4] z",
        {**DENSE_W, **N4},
        expected=kept("shared-output", "graph-output"),
        inputs=ROWS,
    )
    yield row(
        "Gemm read by a Mul and by a Relu",
        "h = Gemm (x, w) y = Mul (h, k) z = Relu (h)",
        f"{UNITS}, float[N,4] z",
        {**DENSE_W, "k": factors(4)},
        expected=kept("shared-output", "graph-output"),
        inputs=ROWS,
    )
    yield row(
        "Conv whose result is a graph output, norm",
        f"c = Conv (x, w) {bn('y', 'c')}",
        f"{SMALL}, float[N,4,3,3] c",
        {**CONV_W, **N4},
        expected=kept("graph-output", "graph-output"),
    )
    yield row(
        "Conv, pool that is a graph output, norm",
        f"c = Conv (x, w) p = GlobalAveragePool (c) {bn('y', 'p')}",
        "float[N,4,1,1] y, float[N,4,1,1] p",
        {**CONV_W, **N4},
        expected=kept("graph-output", "graph-output"),
    )
    yield row(
        "Conv, norm whose result is read twice and is a graph output",
        f"c = Conv (x, w) {bn('n', 'c')} y = Relu (n) z = Abs (n)",
        f"{two}, float[N,4,3,3] n",
        {**CONV_W, **N4},
        ("Conv", "Relu", "Abs"),
    )
    yield row(
        "Conv, shortcut around the norm",
        f"c = Conv (x, w) {bn('n', 'c')} y = Add (n, c)",
        SMALL,
        {**CONV_W, **N4},
        expected=kept("shared-output", "blocked-by-op"),
    )
    yield row(
        "Add of one Conv with itself, norm",
        f"c = Conv (x, w) d = Add (c, c) {bn('y', 'd')}",
        SMALL,
        {**CONV_W, **N4},
        expected=kept("shared-output", "graph-output"),
    )


LOCAL = """
    gamma = Constant <value = float[4] {1.5, 0.5, -2.0, 1.0}> ()
    beta = Constant <value = float[4] {0.25, -0.5, 1.0, 0.0}> ()
    mean = Constant <value = float[4] {0.1, 0.2, -0.3, 0.4}> ()
    variance = Constant <value = float[4] {1.0, 0.5, 2.0, 0.25}> ()
"""
LOCAL_W = "w = Constant <value = float[4,1,1,1] {0.5, -1.5, 2.0, 0.75}> ()"


def _inputs_of_all(proto: onnx.ModelProto) -> None:
    for tensor in proto.graph.initializer:
        proto.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )


def _subgraphs() -> Iterator[Pattern]:
    section = "Subgraphs, functions and inputs"
    y = SMALL
    flagged = f"{IMAGE}, bool p"
    plain = "else_branch = e () => (float[N,4,3,3] m) { d = Conv (x, u)  m = Relu (d) }"
    u = {"u": normal(4, 2, 3, 3, seed=8)}

    def branch(body: str) -> str:
        return f"y = If (p) <then_branch = t () => (float[N,4,3,3] n) {{ {body} }}, {plain}>"

    depthwise = graph("float[N,4,3,3] x, bool p", y, "")[:-1]
    yield Pattern(
        section,
        "Conv and norm in a branch, constants in the branch",
        depthwise
        + f"""y = If (p) <
            then_branch = t () => (float[N,4,3,3] n) {{
                {LOCAL_W} {LOCAL} c = Conv <group=4> (x, w) {bn("n", "c")} }},
            else_branch = e () => (float[N,4,3,3] m) {{ m = Relu (x) }}> }}""",
        {},
        producer("Conv"),
        ("If", "Conv", "Relu"),
    )
    yield Pattern(
        section,
        "Conv and norm in a branch, constants outside",
        graph(flagged, y, branch(f"c = Conv (x, w) {bn('n', 'c')}")),
        {**CONV_W, **u, **N4},
        producer("Conv"),
        ("If", "Conv", "Conv", "Relu"),
    )
    yield Pattern(
        section,
        "Conv and norm in a branch, the weight shared with a Conv outside",
        graph(
            flagged, f"{y}, float[N,4,3,3] z", f"z = Conv (x, w) {branch('c = Conv (x, w) ' + bn('n', 'c'))}"
        ),
        {**CONV_W, **u, **N4},
        producer("Conv"),
        ("Conv", "If", "Conv", "Conv", "Relu"),
    )
    yield Pattern(
        section,
        "Conv and norm outside, parameters shared with a branch",
        graph(
            flagged,
            f"{y}, float[N,4,3,3] z",
            f"c = Conv (x, w) {bn('z', 'c')} "
            + branch(f"d = Conv (x, u) r = Sigmoid (d) {bn('q', 'r')} n = Tanh (q)"),
        ),
        {**CONV_W, **u, **N4},
        (Into("producer", "Conv"), Kept(("blocked-by-op", "blocked-by-op"))),
        ("Conv", "If", "Conv", "Sigmoid", "BatchNormalization", "Tanh", "Conv", "Relu"),
    )
    yield Pattern(
        section,
        "Conv outside, norm in a branch",
        graph(flagged, y, f"c = Conv (x, w) {branch(bn('n', 'c'))}"),
        {**CONV_W, **u, **N4},
        kept("captured-by-subgraph", "graph-output"),
    )
    yield Pattern(
        section,
        "Conv and norm outside, a branch reads what the norm reads",
        graph(flagged, f"{y}, float[N,4,3,3] z", f"c = Conv (x, w) {bn('z', 'c')} {branch('n = Relu (c)')}"),
        {**CONV_W, **u, **N4},
        kept("captured-by-subgraph", "graph-output"),
    )
    yield Pattern(
        section,
        "norm outside, Conv in a branch",
        graph("float[N,2,5,5] x, bool p", y, f"{bn('q', 'x')} {branch('n = Conv (q, w)')}"),
        {**CONV_W, **u, **norm(2)},
        kept("graph-input", "captured-by-subgraph"),
    )
    yield Pattern(
        section,
        "Conv and norm in the body of a Loop",
        graph(
            IMAGE,
            "float[N,2,5,5] y",
            f"""y = Loop (trips, , x) <body = b (int64 i, bool go, float[N,2,5,5] s)
                => (bool on, float[N,2,5,5] out) {{
                on = Identity (go) c = Conv <pads=[1,1,1,1]> (s, w) {bn("n", "c")} out = Relu (n) }}>""",
        ),
        {"w": normal(2, 2, 3, 3), "trips": np.array(2, np.int64), **norm(2)},
        producer("Conv"),
        ("Loop", "Identity", "Conv", "Relu"),
        trips=2,
    )
    yield Pattern(
        section,
        "Conv and norm in a model-local function",
        f"""g (float[N,4,3,3] x) => (float[N,4,3,3] y) {{ m = local.block (x)  y = local.block (m) }}
        <domain: "local", opset_import: ["" : 17]>
        block (a) => (r) {{ {LOCAL_W} {LOCAL} c = Conv <group=4> (a, w) {bn("r", "c")} }}""",
        {},
        producer("Conv"),
        ("block", "block", "Constant", "Constant", "Conv"),
        extra=', "local" : 1',
    )
    conv = graph(IMAGE, y, f"c = Conv (x, w, b) {bn('y', 'c')}")
    yield Pattern(
        section,
        "IR version 3, initializers listed as inputs",
        conv,
        {**CONV_WB, **N4},
        producer("Conv"),
        ("Conv",),
        opset=8,
        ir_version=3,
        adjust=_inputs_of_all,
    )
    yield Pattern(
        section,
        "IR version 8, initializers that the caller may override",
        conv,
        {**CONV_WB, **N4},
        kept("not-constant"),
        adjust=_inputs_of_all,
    )

    def override_weight(proto: onnx.ModelProto) -> None:
        proto.graph.input.append(
            onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [4, 2, 3, 3])
        )

    yield Pattern(
        section,
        "IR version 8, a weight that the caller may override",
        conv,
        {**CONV_WB, **N4},
        kept("not-constant", "graph-output"),
        adjust=override_weight,
    )


def _opsets() -> Iterator[Pattern]:
    section = "Training in disguise, and old opsets"
    weights = {**CONV_W, **N4}

    def row(
        name: str,
        norm_text: str,
        expected: tuple[Into | Kept, ...],
        opset: int,
        *,
        kernels: bool = True,
        **more,
    ) -> Pattern:
        after = ("Conv",) if isinstance(expected[0], Into) else ()
        text = graph(IMAGE, SMALL, f"c = Conv (x, w) {norm_text}")
        return Pattern(section, name, text, weights, expected, after, opset, **more)

    training, into = kept("training-mode"), producer("Conv")
    extra = "y, m, v, sm, sv"
    yield row(
        "Conv, norm with training_mode=1",
        bn("y, m, v", "c", attributes="training_mode=1"),
        training,
        15,
        kernels=False,
    )
    yield row("Conv, norm of opset 9 with named extra outputs", bn(extra, "c"), training, 9)
    yield row(
        "Conv, norm of opset 9 with empty extra outputs",
        bn("y", "c"),
        into,
        9,
        adjust=lambda proto: proto.graph.node[1].output.extend(["", "", "", ""]),
    )
    yield row(
        "Conv, norm of opset 7 with spatial=0",
        bn("y", "c", attributes="spatial=0"),
        kept("axis-mismatch"),
        7,
        kernels=False,
    )
    yield row("Conv, norm of opset 7 with spatial=1", bn("y", "c", attributes="spatial=1"), into, 7)
    yield row(
        "Conv, norm of opset 6 with is_test=1", bn("y", "c", attributes="is_test=1"), into, 6, kernels=False
    )
    yield row(
        "Conv, norm of opset 6 with is_test=0",
        bn("y", "c", attributes="is_test=0"),
        training,
        6,
        kernels=False,
    )
    yield row("Conv, norm of opset 21", bn("y", "c"), into, 21, ir_version=10)


def _types() -> Iterator[Pattern]:
    section = "Types and where the weight comes from"

    def half(numbers: Mapping[str, Array], names: tuple[str, ...] = ()) -> dict[str, Array]:
        return {n: a.astype(np.float16) if not names or n in names else a for n, a in numbers.items()}

    image, small = IMAGE.replace("float", "float16"), SMALL.replace("float", "float16")
    body = f"c = Conv (x, w, b) {bn('y', 'c')}"
    yield Pattern(
        section,
        "Conv, norm, all float16",
        graph(image, small, body),
        half({**CONV_WB, **N4}),
        producer("Conv"),
        ("Conv",),
    )
    yield Pattern(
        section,
        "Conv in float16, norm with float32 statistics",
        graph(image, small, body),
        half({**CONV_WB, **N4}, ("w", "b", "gamma", "beta")),
        producer("Conv"),
        ("Conv",),
    )
    yield Pattern(
        section,
        "Conv in float16, norm with float32 parameters and statistics",
        graph(image, small, body),
        half({**CONV_WB, **N4}, ("w", "b")),
        producer("Conv"),
        ("Conv",),
    )
    yield Pattern(
        section,
        "Conv in float16, norm whose scale overflows it",
        graph(image, small, body),
        half(
            {**CONV_WB, **N4, "gamma": np.full(4, 6e4, np.float32), "variance": np.full(4, 1e-7, np.float32)}
        ),
        kept("not-representable", "graph-output"),
    )
    yield Pattern(
        section,
        "Conv, norm, all bfloat16",
        graph(IMAGE.replace("float", "bfloat16"), SMALL.replace("float", "bfloat16"), body),
        {
            "w": normal(4, 2, 3, 3, seed=1, dtype="bfloat16"),
            "b": normal(4, seed=2, dtype="bfloat16"),
            **norm(4, dtype="bfloat16"),
        },
        producer("Conv"),
        ("Conv",),
        opset=22,
        ir_version=10,
        kernels=False,
    )
    yield Pattern(
        section,
        "Conv, norm, all float64",
        graph(IMAGE.replace("float", "double"), SMALL.replace("float", "double"), body),
        {
            "w": normal(4, 2, 3, 3, dtype="float64"),
            "b": normal(4, dtype="float64"),
            **norm(4, dtype="float64"),
        },
        producer("Conv"),
        ("Conv",),
        kernels=False,
    )
    sources = {
        "a Constant node": ("k = Constant <value = float[2,1,1,1] {0.5, -1.5}> ()", {}),
        "Identity": ("k = Identity (w)", {"w": normal(2, 1, 1, 1)}),
        "Cast": ("k = Cast <to=1> (w)", {"w": normal(2, 1, 1, 1, dtype="float16")}),
        "Reshape": ("k = Reshape (w, s)", {"w": normal(2), "s": ints(2, 1, 1, 1)}),
        "Transpose": ("k = Transpose <perm=[1,0,2,3]> (w)", {"w": normal(1, 2, 1, 1)}),
    }
    for name, (prelude, numbers) in sources.items():
        yield Pattern(
            section,
            f"Conv with its weight behind {name}, norm",
            graph("float[N,1,3,3] x", "float[N,2,3,3] y", f"{prelude} c = Conv (x, k) {bn('y', 'c')}"),
            {**numbers, **norm(2)},
            producer("Conv"),
            ("Conv",),
        )
    rng = np.random.default_rng(5)
    quantized = {
        "w": rng.integers(-127, 127, (4, 2, 3, 3)).astype(np.int8),
        "s": np.array([0.01, 0.02, 0.03, 0.04], np.float32),
        "z": np.zeros(4, np.int8),
    }
    text = graph(IMAGE, SMALL, f"k = DequantizeLinear <axis=0> (w, s, z) c = Conv (x, k) {bn('y', 'c')}")
    yield Pattern(
        section,
        "Conv with its weight behind DequantizeLinear, norm with positive scales",
        text,
        {**quantized, **rising(4)},
        producer("Conv"),
        ("DequantizeLinear", "Conv"),
        opset=21,
        ir_version=10,
    )
    yield Pattern(
        section,
        "Conv with its weight behind DequantizeLinear, norm with a negative scale",
        text,
        {**quantized, **N4},
        producer("Conv"),
        ("DequantizeLinear", "Conv"),
        opset=21,
        ir_version=10,
    )


PATTERNS: tuple[Pattern, ...] = (
    *_convolutions(),
    *_dense(),
    *_written_out(),
    *_channels_last(),
    *_in_front(),
    *_between(),
    *_sharing(),
    *_subgraphs(),
    *_opsets(),
    *_types(),
)
