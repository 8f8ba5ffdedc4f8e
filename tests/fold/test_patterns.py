"""Every row of the table of patterns: what becomes of it, and that its numbers stay."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx.inliner
import onnx_ir as ir
import pytest

from fold.patterns import PATTERNS, Into, Kept, Pattern, build, operators
from fold.write_patterns import PAGE, page
from graphs import Array, Folded, fold, normal, to_ir
from infold.fold import Outcome
from oracle import LINEAR, compare, count_roundings, evaluate, every_node, gamma, magnitudes, run, underflow

UNITS = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8, "float64": 2.0**-53}
LENGTHS = {"N": 2}


def feeds(proto: onnx.ModelProto, choice: bool) -> dict[str, Array]:
    """Numbers for every input that no initializer stands for."""
    given = {tensor.name for tensor in proto.graph.initializer}
    made: dict[str, Array] = {}
    for place, value in enumerate(each for each in proto.graph.input if each.name not in given):
        kind = value.type.tensor_type
        shape = [dim.dim_value or LENGTHS[dim.dim_param] for dim in kind.shape.dim]
        if kind.elem_type == onnx.TensorProto.BOOL:
            made[value.name] = np.array(choice)
        else:
            dtype = ir.DataType(kind.elem_type).numpy().name
            made[value.name] = normal(*shape, seed=50 + place, dtype=dtype)
    return made


def decisions(folded: Folded) -> list[Into | Kept]:
    """What was decided on each site, as the table writes it."""
    return [
        Into(each.rule, each.into_op)
        if each.outcome is Outcome.FOLDED
        else Kept(tuple(refusal.reason.value for refusal in each.refusals))
        for each in folded.report.decisions
    ]


def runnable(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A norm at inference in the spelling of opset 15, which both evaluators understand."""
    if proto.opset_import[0].version >= 14:
        return proto
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    made.opset_import[0].version = 15
    for node in every_node(made.graph):
        if node.op_type == "BatchNormalization":
            del node.output[1:]
            newer = [each for each in node.attribute if each.name not in ("is_test", "spatial")]
            del node.attribute[:]
            node.attribute.extend(newer)
    return made


def without_signs(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with quantized weights by their absolute value, as the oracle takes the others."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    for tensor in made.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8:
            array = np.abs(onnx.numpy_helper.to_array(tensor))
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return made


def assert_same_numbers(pattern: Pattern, proto: onnx.ModelProto, folded: onnx.ModelProto) -> None:
    """Within rounding of each other: on onnxruntime where it has kernels, and in exact arithmetic."""
    proto, folded = (runnable(onnx.inliner.inline_local_functions(each)) for each in (proto, folded))
    has_branches = any(node.op_type == "If" for node in proto.graph.node)
    for choice in (True, False) if has_branches else (True,):
        fed = feeds(proto, choice)
        unit = UNITS[fed["x"].dtype.name]
        if fed["x"].dtype == ml_dtypes.bfloat16:  # the reference wants arrays that numpy knows
            fed = {name: array.astype(np.float32) for name, array in fed.items()}
        bound = magnitudes(without_signs(proto), fed)
        roundings = count_roundings(proto) * pattern.trips
        linear = pattern.trips * sum(node.op_type in LINEAR for node in every_node(proto.graph))
        lost = underflow(proto, fed)
        if pattern.kernels:
            widest = max(
                unit, *(UNITS[np.dtype(out.dtype).name] for out in run(proto, fed) if out.dtype.kind == "f")
            )
            allowed = [2 * gamma(roundings, widest) * m + lost for m in bound]
            compare(run(proto, fed), run(folded, fed), allowed, "on onnxruntime")
        own = 2 * gamma(roundings, 2.0**-53)
        sharp = [(gamma(max(1, linear), unit) + own) * m + lost for m in bound]
        compare(evaluate(proto, fed), evaluate(folded, fed), sharp, "in float64")


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.name)
def test_pattern(pattern: Pattern) -> None:
    """Decision, operators, interface, numbers, and that a second pass finds nothing."""
    proto = build(pattern)
    before = proto.SerializeToString(deterministic=True)
    folded = fold(proto)
    assert proto.SerializeToString(deterministic=True) == before

    assert decisions(folded) == list(pattern.expected), [each.why for each in folded.report.decisions]
    old, new = operators(proto), operators(folded.proto)
    assert new == (pattern.after or old)
    assert folded.report.nodes_before == len(old) and folded.report.nodes_after == len(new) <= len(old)
    if pattern.is_trap:
        untouched = ir.to_proto(to_ir(proto))
        assert folded.proto.SerializeToString(deterministic=True) == untouched.SerializeToString(
            deterministic=True
        )

    onnx.checker.check_model(folded.proto, full_check=True)
    assert folded.proto.graph.output == proto.graph.output
    weights = {tensor.name for tensor in proto.graph.initializer} if proto.ir_version < 4 else set()
    assert list(folded.proto.graph.input) == [each for each in proto.graph.input if each.name not in weights]
    if not pattern.is_trap:
        assert_same_numbers(pattern, proto, folded.proto)

    again = fold(folded.proto)
    assert again.report.folded == ()
    assert again.proto.SerializeToString(deterministic=True) == folded.proto.SerializeToString(
        deterministic=True
    )


def test_names_are_unique_and_both_kinds_are_there() -> None:
    """A row is found by its name; the table holds folds and traps."""
    names = [pattern.name for pattern in PATTERNS]
    assert len(set(names)) == len(names)
    assert sum(pattern.is_trap for pattern in PATTERNS) >= 30
    assert sum(not pattern.is_trap for pattern in PATTERNS) >= 100


def test_the_page_of_patterns_is_up_to_date() -> None:
    """docs/patterns.md is what tests/fold/write_patterns.py writes."""
    assert PAGE.read_text() == page()
