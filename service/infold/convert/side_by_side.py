"""Runs models on samples and looks inside: a model, a way to run it, the values asked for.

Values are asked for a few at a time, so that memory and disk hold no more of them than the few
that are being compared. onnxruntime leaves out what does not lead to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import onnx
import onnx_ir as ir

from infold.convert.reference import evaluate_model
from infold.errors import NoKernelError, NothingToProveError, ProofError, RuntimeCrashError, SessionError
from infold.runtime import Run, run_isolated, versions
from infold.tensors import Array, Tensors

__all__ = ["Model", "OnnxRuntime", "Oracle", "Reference", "run_inside"]


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

    @property
    def computed(self) -> set[str]:
        """Names of the values that nodes of the main graph compute."""
        return {output for node in self.proto.graph.node for output in node.output if output}


class Oracle(Protocol):
    """What runs the models of a proof."""

    @property
    def name(self) -> str:
        """What a report calls it."""

    @property
    def window_bytes(self) -> float:
        """How much to ask for at a time."""

    def run(self, sides: Sequence[tuple[Model, Sequence[str]]], samples: Tensors) -> list[dict[str, Array]]:
        """Run models on the same samples.

        Args:
            sides: Models, and for each the values to look at: outputs or inner ones, all of
                them computed by nodes of its main graph.
            samples: Inputs by name.

        Returns:
            For each side the values by name.

        Raises:
            NoKernelError: It does not implement something in one of them.
            NothingToProveError: The unfolded model does not run, or the runtime crashed on it.
            ProofError: The same of the folded one.
        """


class OnnxRuntime:
    """onnxruntime with graph optimizations off, in a child process."""

    # What is compared with it and the figures about it take about as much again.
    window_bytes = 384 * 2.0**20

    @property
    def name(self) -> str:
        """Its version, and that it does nothing on its own account."""
        return f"onnxruntime {versions()['onnxruntime']}, graph optimizations off"

    def run(self, sides: Sequence[tuple[Model, Sequence[str]]], samples: Tensors) -> list[dict[str, Array]]:
        """See `Oracle`."""
        with TemporaryDirectory(prefix="infold-proof-") as name:
            runs = []
            for number, (model, names) in enumerate(sides):
                path = Path(name) / f"{number}.onnx"
                with _Asked(model.proto, names) as proto:
                    path.write_bytes(proto.SerializeToString())
                runs.append(Run(model.label, path, samples, external_folder=model.folder))
            try:
                return run_isolated(runs)
            except NoKernelError:
                raise
            except RuntimeCrashError as crash:
                what = f"onnxruntime crashed on the {crash.model} model: {crash.detail}"
                raise _failed(crash.model)(what) from crash
            except SessionError as failure:
                what = f"the {failure.model} model does not run: {failure.detail}"
                raise _failed(failure.model)(what) from failure


class Reference:
    """onnx's reference evaluator, where onnxruntime lacks a kernel."""

    # It keeps every value until it is done, so there is nothing to be gained by asking twice.
    window_bytes = float("inf")

    def __init__(self, lacking: NoKernelError) -> None:
        self._why = lacking.detail[:120]

    @property
    def name(self) -> str:
        """Its version, and why it had to be this one."""
        return f"onnx {onnx.__version__} reference evaluator ({self._why})"

    def run(self, sides: Sequence[tuple[Model, Sequence[str]]], samples: Tensors) -> list[dict[str, Array]]:
        """See `Oracle`."""
        return [self._evaluate(model, names, samples) for model, names in sides]

    def _evaluate(self, model: Model, names: Sequence[str], samples: Tensors) -> dict[str, Array]:
        try:
            with _Asked(model.proto, names) as proto:
                complete = onnx.ModelProto()
                complete.CopyFrom(proto)
            onnx.external_data_helper.load_external_data_for_model(complete, str(model.folder))
            return evaluate_model(complete, samples)
        except Exception as failure:
            detail = " ".join(str(failure).split())[:300]
            what = f"the {model.label} model runs on no oracle: {detail}"
            raise _failed(model.label)(what) from failure


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
    nothing = ir.Model(ir.Graph([], [], nodes=[]), ir_version=proto.ir_version)
    model = Model("exported", nothing, proto, folder)
    asked = list(dict.fromkeys([*(value.name for value in proto.graph.output), *names]))
    try:
        return OnnxRuntime().run([(model, asked)], samples)[0]
    except NoKernelError as lacking:
        return Reference(lacking).run([(model, asked)], samples)[0]


def _failed(label: str) -> type[ProofError]:
    """Where the unfolded model fails, there is nothing to hold the folded one against."""
    return NothingToProveError if label == "unfolded" else ProofError


class _Asked:
    """A model with other outputs, for as long as the context lasts; no copy of its weights."""

    def __init__(self, proto: onnx.ModelProto, names: Sequence[str]) -> None:
        self._graph, self._proto = proto.graph, proto
        self._own = [_copied(value) for value in proto.graph.output]
        stated = {value.name: value for value in self._own}
        self._asked = [stated.get(name, onnx.ValueInfoProto(name=name)) for name in names]

    def __enter__(self) -> onnx.ModelProto:
        self._set(self._asked)
        return self._proto

    def __exit__(self, *_: object) -> None:
        self._set(self._own)

    def _set(self, outputs: Sequence[onnx.ValueInfoProto]) -> None:
        del self._graph.output[:]
        self._graph.output.extend(outputs)


def _copied(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(value)
    return copy
