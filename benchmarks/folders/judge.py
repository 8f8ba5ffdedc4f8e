"""Judges a folded graph: is it valid, are its answers right, what is left to compute?

    python judge.py reference MODEL INPUTS ANSWERS      the unfolded model's answers
    python judge.py compare FOLDED INPUTS ANSWERS       those of a folded model against them
    python judge.py values VALUES ANSWERS               values from another runtime, by position

Models run on onnxruntime with graph optimizations off; where it has no kernel for the unfolded
model, both run on onnx's reference evaluator.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

# Not work of a norm: constants, and what onnxruntime puts around its own operators, changes of memory
# layout and casts for types that it has no kernel for.
UNCOUNTED = {"Constant", "Cast", "ReorderInput", "ReorderOutput"}
FUSED = {"FusedConv": "Conv", "FusedGemm": "Gemm", "FusedMatMul": "MatMul"}
ORACLE = "__oracle__"


def main() -> None:
    what, *paths = sys.argv[1:]
    print("\n" + json.dumps({"reference": reference, "compare": compare, "values": values}[what](*paths)))


def reference(model: str, inputs: str, answers: str) -> dict[str, Any]:
    """Write the answers of the unfolded model; says which oracle gave them."""
    try:
        oracle, found = "onnxruntime", on_onnxruntime(model, inputs)
    except Exception:
        oracle, found = "onnx.reference", on_reference(model, inputs)
    np.savez(answers, **found, **{ORACLE: np.array(oracle)})
    return {"oracle": oracle}


def compare(model: str, inputs: str, answers: str) -> dict[str, Any]:
    """A verdict on a folded model."""
    facts: dict[str, Any] = {"counts": {}, "error": None}
    proto = onnx.load(model)
    facts["counts"] = dict(counted(proto))
    with np.load(answers) as saved:
        wanted = dict(saved)
    oracle = str(wanted.pop(ORACLE))
    try:
        onnx.checker.check_model(model)
    except Exception as failure:
        # A runtime's own domains and types are no fault of the graph.
        return facts | {"verdict": "invalid", "why": f"checker: {one_line(failure)}"}
    lost = [name for name in wanted if name not in {each.name for each in proto.graph.output}]
    if lost:
        return facts | {"verdict": "lost", "why": f"no output {lost[0]}"}
    try:
        found = on_onnxruntime(model, inputs) if oracle == "onnxruntime" else on_reference(model, inputs)
    except KeyError as missing:
        return facts | {"verdict": "lost", "why": f"no input {missing}"}
    except Exception as failure:
        return facts | {"verdict": "invalid", "why": f"session: {one_line(failure)}"}
    return facts | against(wanted, found)


def values(found: str, answers: str) -> dict[str, Any]:
    """A verdict on values that another runtime computed."""
    with np.load(answers) as saved:
        wanted = {name: saved[name] for name in saved.files if name != ORACLE}
    with np.load(found) as saved:
        by_position = [saved[name] for name in saved.files]
    if len(by_position) < len(wanted):
        return {"verdict": "lost", "why": f"{len(by_position)} outputs of {len(wanted)}", "error": None}
    return against(wanted, dict(zip(wanted, by_position, strict=False)))


def against(wanted: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> dict[str, Any]:
    """The largest difference, as a part of the largest value of that output."""
    worst = 0.0
    for name, right in wanted.items():
        if found[name].shape != right.shape:
            why = f"{name} has shape {found[name].shape}, not {right.shape}"
            return {"verdict": "wrong", "why": why, "error": None}
        exact, got = right.astype(np.float64), found[name].astype(np.float64)
        difference = np.abs(got - exact).max() / max(np.abs(exact).max(), 1e-30)
        worst = max(worst, float(difference)) if np.isfinite(difference) else float("inf")
    return {"verdict": "ran", "why": "", "error": worst if np.isfinite(worst) else 1e30}


def on_onnxruntime(model: str, inputs: str) -> dict[str, np.ndarray]:
    """Answers without any optimization."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds_of(session, inputs)), strict=True))


def feeds_of(session: ort.InferenceSession, inputs: str) -> dict[str, np.ndarray]:
    """The inputs; a KeyError names one that the model does not take any more."""
    takes = {each.name for each in (*session.get_inputs(), *session.get_overridable_initializers())}
    with np.load(inputs) as saved:
        feeds = dict(saved)
    for name in feeds:
        if name not in takes:
            raise KeyError(name)
    return feeds


def on_reference(model: str, inputs: str) -> dict[str, np.ndarray]:
    """Answers of onnx's own evaluator."""
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(model)
    with np.load(inputs) as saved:
        found = evaluator.run(None, dict(saved))
    return dict(zip(evaluator.output_names, (np.asarray(each) for each in found), strict=True))


def counted(model: onnx.ModelProto) -> Counter[str]:
    """Operators by kind, in branches and functions too; a fused sum counts as an Add of its own."""
    counts: Counter[str] = Counter()

    def visit(nodes: Iterable[onnx.NodeProto]) -> None:
        for node in nodes:
            kind = FUSED.get(node.op_type, node.op_type)
            if kind not in UNCOUNTED:
                counts[kind] += 1
                if kind == "Conv" and len(node.input) > 3 and node.input[3]:
                    counts["Add"] += 1
            for attribute in node.attribute:
                for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                    visit(inner.node)

    visit(model.graph.node)
    for function in model.functions:
        visit(function.node)
    return counts


def one_line(failure: BaseException) -> str:
    """Its message on one line."""
    return " ".join(str(failure).split())[:200]


if __name__ == "__main__":
    main()
