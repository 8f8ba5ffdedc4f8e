"""A session on a GPU: how it is opened, how it runs, and what it leaves to others."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infold.errors import SessionError
from infold.runtime.bfloat16 import run_values
from infold.runtime.binding import BoundRuns, can_bind
from infold.runtime.cuda import cuda_provider, tensorrt_provider, why_no_graph
from infold.runtime.cuda_graph import GraphRuns
from infold.runtime.gate import GPU
from infold.runtime.gpu_check import CUDA, TENSORRT
from infold.runtime.gpu_libraries import CUDA_LIBRARY, TENSORRT_LIBRARY, load_libraries
from infold.runtime.options import CPU, RunOptions, session_options
from infold.runtime.ort import onnxruntime
from infold.runtime.pinned import pinned_memory
from infold.tensors import BFLOAT16, Array, Dim, Signature, Tensors

__all__ = ["GpuRuns", "Left", "opened_on_gpu", "operators_by_provider"]

log = logging.getLogger(__name__)

GRAPH_KEY = "session.cuda_graph"


@dataclass(frozen=True, slots=True)
class Left:
    """Operator types that a session on a GPU leaves to others, sorted.

    Attributes:
        cpu: To the CPU.
        cuda: That TensorRT leaves to CUDA; empty on CUDA itself.
    """

    cpu: tuple[str, ...] = ()
    cuda: tuple[str, ...] = ()

    @classmethod
    def of(cls, operators: Mapping[str, set[str]], provider: str) -> Left:
        """Of all that ran, by the provider that ran it, in a session on another one."""
        cuda = operators.get(CUDA, set()) if provider == TENSORRT else set()
        return cls(tuple(sorted(operators.get(CPU, set()))), tuple(sorted(cuda)))


def operators_by_provider(profile: Path) -> dict[str, set[str]]:
    """Operator types that a profile of onnxruntime shows, by the provider that ran them."""
    events: list[dict[str, Any]] = json.loads(profile.read_text())
    found: dict[str, set[str]] = {}
    for fact in (event.get("args", {}) for event in events if event.get("cat") == "Node"):
        if "provider" in fact and "op_name" in fact:
            found.setdefault(str(fact["provider"]), set()).add(str(fact["op_name"]))
    return found


def opened_on_gpu(graph: str | bytes, native: Any, options: RunOptions) -> Any:
    """Onnxruntime's session of a graph on the GPU; what it cannot run there goes to the next provider.

    Args:
        graph: A path, or a model's bytes.
        native: onnxruntime's SessionOptions.
        options: The device, and how it is used.
    """
    load_libraries(CUDA_LIBRARY)
    chosen: list[Any] = [(CUDA, cuda_provider(options.cuda)), CPU]
    if options.placement.provider == TENSORRT:
        load_libraries(TENSORRT_LIBRARY)
        ranges = _lengths(graph) if options.cuda.most_rows > 1 else {}
        chosen.insert(0, (TENSORRT, tensorrt_provider(options.cuda, ranges)))
    try:
        with GPU.shared():
            return onnxruntime().InferenceSession(
                graph,
                native,
                providers=chosen,
                disabled_optimizers=list(options.disabled_optimizers) or None,
                enable_fallback=False,  # or it would print a banner and take the CPU
            )
    except Exception as failure:
        if options.cuda.cuda_graph and "graph capture" in str(failure):
            why = "a part of it is left to the CPU, or has If, Loop or Scan"
            raise ValueError(f"{GRAPH_KEY}: {why}: {failure}") from failure
        raise


class GpuRuns:
    """Runs of one session on a GPU; safe to use from several threads at once.

    Args:
        native: onnxruntime's session.
        signature: Its inputs and outputs.
        options: How it was opened.
        shown_as: The model, for errors.

    Raises:
        SessionError: Its runs are to be recorded as a CUDA graph, and cannot be.
    """

    def __init__(self, native: Any, signature: Signature, options: RunOptions, shown_as: str) -> None:
        self._native = native
        self._graph: GraphRuns | None = None
        self._bound: BoundRuns | None = None
        self._halves = frozenset(spec.name for spec in signature.outputs if spec.dtype == BFLOAT16)
        cuda = options.cuda
        if cuda.cuda_graph:
            if options.placement.provider == TENSORRT:
                raise SessionError(shown_as, f"{GRAPH_KEY}: is for the device cuda, not for tensorrt")
            if why := why_no_graph(signature):
                raise SessionError(shown_as, f"{GRAPH_KEY}: {why}")
            with GPU.shared():
                self._graph = GraphRuns(native, signature, "cuda", cuda.gpu_id)
        elif can_bind(signature):
            self._bound = BoundRuns(native, signature, pinned_memory(cuda.gpu_id))

    def run(self, names: Sequence[str], tensors: Tensors, switch: Any) -> list[Array]:
        """Outputs in the order asked, in memory of their own.

        Args:
            names: Of the outputs.
            tensors: All inputs, as the signature says.
            switch: onnxruntime's options of this run, or None.
        """
        if self._graph is not None:
            return self._graph.run(names, tensors)
        with GPU.shared():
            if self._bound is not None:
                return self._bound.run(names, tensors, switch)
            return run_values(self._native, names, tensors, switch, self._halves)


def _lengths(graph: str | bytes) -> Mapping[str, tuple[Dim, ...] | None]:
    """Shapes of a graph's inputs, read with a session on the CPU that optimizes nothing."""
    look = session_options(RunOptions(optimize=False, intra_op_threads=1))
    try:
        inputs = onnxruntime().InferenceSession(graph, look, providers=[CPU]).get_inputs()
    except Exception as failure:  # an operator that only TensorRT knows
        log.warning("no range of rows for tensorrt", extra={"reason": str(failure)[:300]})
        return {}
    return {each.name: None if each.shape is None else tuple(each.shape) for each in inputs}
