"""Folds a model of 2.3 GB and compares with copying its files twice.

    build/peers/infold/bin/python benchmarks/folders/big.py [--rounds 3] [--keep]

The model (eight weights of [8192, 8192] and one of [4608, 8192] in float32, ten norms) goes to
`build/big` with its data outside, as models above 2 GB must. Copying twice reads and writes what
any folder has to read and write, two times over. Nothing is flushed to the disk inside a timed
step; it is flushed before each, so that one step does not pay for another. A few rows of every
folded weight and all of its bias are compared with float64.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from peers import INFOLD, ROOT
from run import environment

WORK = ROOT / "build" / "big"
SOURCE, FOLDED = WORK / "big.onnx", WORK / "folded" / "big.onnx"
WIDTH, LAST, LAYERS = 8192, 4608, 9
ROWS = (0, 1, 2047, 4607)
EPSILON = 1e-5
ALLOWED_TIME, ALLOWED_FACTOR, ALLOWED_MORE = 1.5, 1.5, 200e6
Vectors = dict[str, np.ndarray]


def layer_of(number: int) -> tuple[str, tuple[int, int]]:
    """How a layer is written, and the shape of its weight."""
    if number % 2 == 0:
        return "Gemm", (LAST if number == LAYERS - 1 else WIDTH, WIDTH)
    return "MatMul", (WIDTH, WIDTH)


def statistics_of(number: int, channels: int) -> Vectors:
    """The parameters of a norm, the same in every run."""
    rng = np.random.default_rng(1000 + number)
    low = {"gamma": 0.5, "beta": -0.5, "mean": -0.5, "variance": 0.5}
    return {name: rng.uniform(least, least + 1, channels).astype(np.float32) for name, least in low.items()}


def bias_of(number: int, channels: int) -> np.ndarray:
    """The bias of a layer, the same in every run."""
    return np.random.default_rng(2000 + number).uniform(-1, 1, channels).astype(np.float32)


def make() -> None:
    """Write the model: weights straight into the data file, a few rows at a time."""
    (WORK / "folded").mkdir(parents=True, exist_ok=True)
    nodes, initializers, flowing, offset = [], [], "x", 0

    def norm(number: int, channels: int, x: str) -> str:
        names = []
        for name, numbers in statistics_of(number, channels).items():
            names.append(f"norm{number}.{name}")
            initializers.append(numpy_helper.from_array(numbers, names[-1]))
        made = f"norm{number}"
        nodes.append(helper.make_node("BatchNormalization", [x, *names], [made], made, epsilon=EPSILON))
        return made

    flowing = norm(LAYERS, WIDTH, flowing)  # in front of the first layer
    with SOURCE.with_suffix(".data").open("wb") as data:
        for number in range(LAYERS):
            kind, shape = layer_of(number)
            outputs = shape[0] if kind == "Gemm" else shape[1]
            rng = np.random.default_rng(number)
            for _ in range(0, shape[0], 512):
                block = rng.standard_normal((512, shape[1]), np.float32)
                block *= np.float32(np.sqrt(1 / WIDTH))
                data.write(block.tobytes())
            weight = TensorProto(name=f"w{number}", data_type=TensorProto.FLOAT, dims=shape)
            weight.data_location = TensorProto.EXTERNAL
            length = 4 * shape[0] * shape[1]
            for key, value in (("location", "big.data"), ("offset", offset), ("length", length)):
                weight.external_data.add(key=key, value=str(value))
            offset += length
            initializers += [weight, numpy_helper.from_array(bias_of(number, outputs), f"b{number}")]
            if kind == "Gemm":
                inputs = [flowing, weight.name, f"b{number}"]
                nodes.append(helper.make_node(kind, inputs, [f"y{number}"], f"y{number}", transB=1))
            else:
                nodes.append(helper.make_node(kind, [flowing, weight.name], [f"p{number}"], f"p{number}"))
                nodes.append(
                    helper.make_node("Add", [f"p{number}", f"b{number}"], [f"y{number}"], f"y{number}")
                )
            flowing = norm(number, outputs, f"y{number}")
            if number < LAYERS - 1:
                nodes.append(helper.make_node("Relu", [flowing], [f"r{number}"], f"r{number}"))
                flowing = f"r{number}"
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, WIDTH))
    y = helper.make_tensor_value_info(flowing, TensorProto.FLOAT, (1, LAST))
    graph = helper.make_graph(nodes, "big", [x], [y], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, SOURCE)


def copy_twice() -> float:
    """Seconds for two copies of both files."""
    os.sync()
    started = time.perf_counter()
    for number in range(2):
        for path in (SOURCE, SOURCE.with_suffix(".data")):
            shutil.copyfile(path, WORK / f"copy{number}{path.suffix}")
    taken = time.perf_counter() - started
    for path in WORK.glob("copy*"):
        path.unlink()
    return taken


@dataclass
class Folded:
    """What a fold in a process of its own took."""

    wall_s: float
    resident: float
    anonymous: float
    mapped: float


@dataclass
class Watch:
    """Samples how the memory of a process is made up; what is mapped can be dropped, the rest cannot."""

    pid: int
    peaks: dict[str, float] = field(default_factory=lambda: {"VmHWM": 0.0, "RssAnon": 0.0, "RssFile": 0.0})
    done: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Look every 10 ms until told to stop."""
        status = Path(f"/proc/{self.pid}/status")
        while not self.done.wait(0.01):
            try:
                lines = status.read_text().splitlines()
            except OSError:
                return
            for line in lines:
                key, _, rest = line.partition(":")
                if key in self.peaks:
                    self.peaks[key] = max(self.peaks[key], 1024.0 * int(rest.split()[0]))


def fold(service: Path) -> Folded:
    """Fold the model with infold, started anew."""
    for path in FOLDED.parent.glob("*"):
        path.unlink()
    os.sync()
    started = time.perf_counter()
    process = subprocess.Popen(
        INFOLD.command(SOURCE, FOLDED),
        env=environment(INFOLD, service),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    watch = Watch(process.pid)
    thread = threading.Thread(target=watch.run)
    thread.start()
    _, words = process.communicate()
    wall = time.perf_counter() - started
    watch.done.set()
    thread.join()
    if process.returncode:
        last = (words.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        raise SystemExit(f"infold failed: {last}")
    return Folded(wall, watch.peaks["VmHWM"], watch.peaks["RssAnon"], watch.peaks["RssFile"])


def stored(model: onnx.ModelProto, folder: Path) -> dict[str, np.ndarray]:
    """Every initializer, external ones mapped."""
    found = {}
    for tensor in model.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            found[tensor.name] = numpy_helper.to_array(tensor)
            continue
        where = {entry.key: entry.value for entry in tensor.external_data}
        path, offset = folder / where["location"], int(where.get("offset", 0))
        found[tensor.name] = np.memmap(path, np.float32, "r", offset, tuple(tensor.dims))
    return found


def differences() -> Iterator[tuple[str, float]]:
    """How far folded rows are from float64, as a part of the largest exact value of the row."""
    before = stored(onnx.load(SOURCE, load_external_data=False), WORK)
    model = onnx.load(FOLDED, load_external_data=False)
    after = stored(model, FOLDED.parent)
    left = [node.name for node in model.graph.node if node.op_type == "BatchNormalization"]
    if left:
        raise SystemExit(f"norms left: {', '.join(left)}")
    layers = [node for node in model.graph.node if node.op_type in ("Gemm", "MatMul")]
    readers = {name: node for node in model.graph.node for name in node.input}
    for number, node in enumerate(layers):
        kind, shape = layer_of(number)
        outputs = shape[0] if kind == "Gemm" else shape[1]
        weight = before[f"w{number}"] if kind == "Gemm" else before[f"w{number}"].T
        new_bias = node.input[2] if node.op_type == "Gemm" else readers[node.output[0]].input[1]
        turned = any(each.name == "transB" and each.i for each in node.attribute)
        new_weight = after[node.input[1]] if turned else after[node.input[1]].T
        scale, shift = affine(number, outputs)
        in_scale, in_shift = affine(LAYERS, WIDTH) if number == 0 else (np.ones(1), np.zeros(1))
        for row in ROWS:
            old = weight[row].astype(np.float64)
            exact = scale[row] * old * in_scale
            yield f"{node.name} row {row}", largest(new_weight[row] - exact, exact)
            bias = scale[row] * (bias_of(number, outputs)[row] + (old * in_shift).sum()) + shift[row]
            yield (
                f"{node.name} bias {row}",
                largest(after[new_bias].reshape(-1)[row] - bias, np.abs(bias) + 1),
            )


def affine(number: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """A norm as scale and shift, in float64."""
    wide = {name: each.astype(np.float64) for name, each in statistics_of(number, channels).items()}
    scale = wide["gamma"] / np.sqrt(wide["variance"] + EPSILON)
    return scale, wide["beta"] - wide["mean"] * scale


def largest(difference: np.ndarray, of: np.ndarray) -> float:
    """The largest difference as a part of the largest value."""
    return float(np.abs(difference).max() / np.abs(of).max())


def main() -> None:
    parser = argparse.ArgumentParser(description="Fold 2.3 GB and compare with copying them twice.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--service", type=Path, default=ROOT / "service", help="where infold's package lies")
    parser.add_argument("--keep", action="store_true", help="leave the files in build/big")
    options = parser.parse_args()
    if not SOURCE.exists():
        make()
    size = sum(path.stat().st_size for path in (SOURCE, SOURCE.with_suffix(".data")))
    tensor = 4.0 * WIDTH * WIDTH
    with SOURCE.with_suffix(".data").open("rb") as data:  # once, so that every step finds it in memory
        while data.read(2**24):
            pass
    copies, folds = [], []
    for number in range(options.rounds):
        copies.append(copy_twice())
        folds.append(fold(options.service.resolve()))
        took = f"copying twice {copies[-1]:.1f} s, folding {folds[-1].wall_s:.1f} s"
        print(f"round {number + 1}: {took}", file=sys.stderr)
    worst = max(differences(), key=lambda pair: pair[1])
    copying, folding = statistics.median(copies), statistics.median(each.wall_s for each in folds)
    resident, anonymous = (max(getattr(each, what) for each in folds) for what in ("resident", "anonymous"))
    mapped, limit = max(each.mapped for each in folds), ALLOWED_FACTOR * tensor + ALLOWED_MORE

    def held(yes: bool) -> str:
        return "yes" if yes else "**no**"

    ratio = folding / copying
    print(f"| {size / 1e9:.2f} GB, median of {options.rounds} | measured | target | held |")
    print("|---|---:|---:|---|")
    print(f"| copying twice, s | {copying:.1f} ({min(copies):.1f} to {max(copies):.1f}) | | |")
    ends = f"({min(each.wall_s for each in folds):.1f} to {max(each.wall_s for each in folds):.1f})"
    print(f"| folding, s | {folding:.1f} {ends} | | |")
    print(f"| folding / copying twice | {ratio:.2f} | {ALLOWED_TIME} | {held(ratio <= ALLOWED_TIME)} |")
    print(f"| peak resident, MB | {resident / 1e6:.0f} | {limit / 1e6:.0f} | {held(resident <= limit)} |")
    print(f"| of which its own, MB (sampled) | {anonymous / 1e6:.0f} | | |")
    print(f"| of which mapped files, MB (sampled) | {mapped / 1e6:.0f} | | |")
    print(
        f"| worst row against float64 ({worst[0]}) | {worst[1]:.1e} | 1.2e-07 | {held(worst[1] <= 1.2e-7)} |"
    )
    if not options.keep:
        shutil.rmtree(WORK)


if __name__ == "__main__":
    main()
