"""Runs one folder on one file, in that folder's own environment.

    python drivers.py DRIVER IN OUT

prints one line of JSON: seconds for importing, seconds for folding in the warm process (reading
and writing included), and the peak resident memory in KiB as the kernel saw it. Each driver
imports its library and returns what folds; nothing but the standard library is imported here.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Fold = Callable[[str, str], dict[str, Any] | None]


def infold() -> Fold:
    """Infold without its proof."""
    from infold.convert import fold

    def run(source: str, target: str) -> None:
        fold(source, Path(target))

    return run


def load_and_save() -> Fold:
    """Folds nothing: what it costs to start, read and write."""
    import onnx

    def run(source: str, target: str) -> None:
        onnx.save(onnx.load(source), target)

    return run


def _onnxruntime(level: str) -> Fold:
    import onnxruntime as ort

    def run(source: str, target: str) -> None:
        options = ort.SessionOptions()
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
        options.optimized_model_filepath = target
        options.log_severity_level = 4
        ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])

    return run


def ort_basic() -> Fold:
    """Onnxruntime's offline optimizer, what any runtime can read."""
    return _onnxruntime("ORT_ENABLE_BASIC")


def ort_all() -> Fold:
    """Onnxruntime's offline optimizer, everything it has for this machine."""
    return _onnxruntime("ORT_ENABLE_ALL")


def onnxsim() -> Fold:
    """Onnxsim with its defaults."""
    import onnx
    import onnxsim as library

    def run(source: str, target: str) -> None:
        folded, _ = library.simplify(onnx.load(source))
        onnx.save(folded, target)

    return run


def onnxslim() -> Fold:
    """Onnxslim with its defaults."""
    import onnxslim as library

    def run(source: str, target: str) -> None:
        library.slim(source, target)

    return run


def onnxscript() -> Fold:
    """Onnxscript's optimizer and its default rewrite rules."""
    import onnx_ir
    from onnxscript import optimizer, rewriter

    def run(source: str, target: str) -> None:
        model = onnx_ir.load(source)
        optimizer.optimize(model)
        onnx_ir.save(rewriter.rewrite(model), target)

    return run


def onnxoptimizer() -> Fold:
    """Onnxoptimizer's fuse and eliminate passes."""
    import onnx
    import onnxoptimizer as library

    def run(source: str, target: str) -> None:
        onnx.save(library.optimize(onnx.load(source)), target)

    return run


def openvino() -> Fold:
    """OpenVINO's conversion."""
    import openvino as library

    def run(source: str, target: str) -> None:
        library.save_model(library.convert_model(source), target, compress_to_fp16=False)

    return run


def openvino_answers() -> Fold:
    """What a converted model answers; IN is `MODEL:INPUTS`, OUT takes the outputs by position.

    Says which layers are left in the compiled graph. What the engine has taken into the kernel of a
    neighbour is no layer any more, multiplied into the weights or not. Branches are compiled out of
    sight, so for them it is the converted graph that is counted.
    """
    from collections import Counter

    import numpy as np
    import openvino as library

    def run(source: str, target: str) -> dict[str, Any]:
        path, inputs = source.split(":")
        compiled = library.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        takes = {name for each in compiled.inputs for name in each.get_names()}
        with np.load(inputs) as feeds:
            if missing := [name for name in feeds.files if name not in takes]:
                return {"lost": missing[0]}
            results = compiled(dict(feeds))
        np.savez(target, *[results[number] for number in range(len(compiled.outputs))])
        layers = compiled.get_runtime_model().get_ops()
        counts = Counter(str(layer.get_rt_info()["layerType"].value) for layer in layers)
        for op in library.Core().read_model(path).get_ops():
            if op.get_type_name() == "If":
                counts.update(each.get_type_name() for n in (0, 1) for each in op.get_function(n).get_ops())
        return {"counts": dict(counts)}

    return run


def peak_kib() -> int:
    """The most this process has held; the kernel's own mark, not what a parent handed down."""
    status = Path("/proc/self/status")
    if status.exists():
        marks = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        if marks:
            return int(marks[0].split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


def main() -> None:
    name, source, target = sys.argv[1:]
    started = time.perf_counter()
    sys.path.pop(0)  # the folder of this file
    fold: Fold = globals()[name]()
    imported = time.perf_counter()
    facts = fold(source, target) or {}
    done = time.perf_counter()
    facts |= {"import_s": imported - started, "fold_s": done - imported, "peak_kib": peak_kib()}
    print("\n" + json.dumps(facts))


if __name__ == "__main__":
    main()
