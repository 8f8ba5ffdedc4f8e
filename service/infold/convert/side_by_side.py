"""Runs two models on the same samples and looks inside both.

In a child process on onnxruntime with graph optimizations off; on onnx's
reference evaluator where onnxruntime lacks a kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import onnx_ir as ir

from infold.errors import NoKernelError, ProofError, RuntimeCrashError, SessionError
from infold.runtime import Run, run_isolated, versions
from infold.tensors import Array, Tensors

__all__ = ["Model", "run_both", "run_inside"]


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """One side of a proof.

    Attributes:
        label: What to call it: `unfolded` or `folded`.
        graph: The model for reading.
        proto: The model for running; external data may lie outside.
        folder: Where its external data lies.
    """

    label: str
    graph: ir.Model
    proto: onnx.ModelProto
    folder: Path


def run_both(
    unfolded: Model,
    folded: Model,
    common: Sequence[str],
    exposed: Sequence[str],
    samples: Tensors,
) -> tuple[str, tuple[dict[str, Array], dict[str, Array]]]:
    """Run both models.

    Args:
        unfolded: One side.
        folded: The other.
        common: Inner values to look at in both.
        exposed: Inner values to look at in `folded`; at least those of `common`.
        samples: Inputs by name.

    Returns:
        What ran them, and for each side its outputs and inner values by name.

    Raises:
        ProofError: A side does not run anywhere, or the runtime crashed on it.
    """
    with TemporaryDirectory(prefix="infold-proof-") as name:
        scratch = Path(name)
        sides = ((unfolded, common), (folded, exposed))
        try:
            runs = [_run(model, names, samples, scratch) for model, names in sides]
            left, right = run_isolated(runs)
            return f"onnxruntime {versions()['onnxruntime']}, graph optimizations off", (left, right)
        except NoKernelError as lacking:
            oracle = f"onnx {onnx.__version__} reference evaluator ({lacking.detail[:120]})"
        except RuntimeCrashError as crash:
            raise ProofError(f"onnxruntime crashed on the {crash.model} model: {crash.detail}") from crash
        except SessionError as failure:
            raise ProofError(f"the {failure.model} model does not run: {failure.detail}") from failure
    return oracle, (_evaluate(unfolded, common, samples), _evaluate(folded, exposed, samples))


def run_inside(
    proto: onnx.ModelProto, folder: Path, names: Sequence[str], samples: Tensors
) -> dict[str, Array]:
    """Run one model as it is, and look inside.

    Args:
        proto: The model.
        folder: Where its external data lies.
        names: Inner values to look at.
        samples: Inputs by name.

    Returns:
        Its outputs and the inner values, by name.

    Raises:
        ProofError: It runs nowhere, or the runtime crashed on it.
    """
    with TemporaryDirectory(prefix="infold-run-") as scratch:
        model = Model("exported", ir.Model(ir.Graph([], [], nodes=[]), ir_version=10), proto, folder)
        try:
            return run_isolated([_run(model, names, samples, Path(scratch))])[0]
        except NoKernelError:
            return _evaluate(model, names, samples)
        except SessionError as failure:
            raise ProofError(f"the exported model does not run: {failure.detail}") from failure


def _run(model: Model, names: Sequence[str], samples: Tensors, scratch: Path) -> Run:
    path = scratch / f"{model.label}.onnx"
    with _Exposed(model.proto, names) as proto:
        path.write_bytes(proto.SerializeToString())
    return Run(model.label, path, samples, external_folder=model.folder)


def _evaluate(model: Model, names: Sequence[str], samples: Tensors) -> dict[str, Array]:
    from onnx.reference import ReferenceEvaluator  # slow to import and rarely needed

    try:
        with _Exposed(model.proto, names) as proto:
            complete = onnx.ModelProto()
            complete.CopyFrom(proto)
        onnx.external_data_helper.load_external_data_for_model(complete, str(model.folder))
        evaluator = ReferenceEvaluator(complete)
        return dict(zip(evaluator.output_names, evaluator.run(None, dict(samples)), strict=True))
    except Exception as failure:
        detail = " ".join(str(failure).split())[:300]
        raise ProofError(f"the {model.label} model runs on no oracle: {detail}") from failure


class _Exposed:
    """A model with more outputs, for as long as the context lasts; no copy of its weights."""

    def __init__(self, proto: onnx.ModelProto, names: Sequence[str]) -> None:
        self._proto = proto
        present = {value.name for value in proto.graph.output}
        self._extra = [name for name in names if name not in present]

    def __enter__(self) -> onnx.ModelProto:
        self._proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self._extra)
        return self._proto

    def __exit__(self, *_: object) -> None:
        if self._extra:
            del self._proto.graph.output[-len(self._extra) :]
