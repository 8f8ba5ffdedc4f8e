"""Open Inference Protocol v2: what is told of models, beside what they answer.

Source: open-inference-protocol, specification/protocol/inference_rest.md; Triton's
docs/protocol/extension_model_repository.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from infold.rest.codec import DATATYPES
from infold.rest.counting import LEAST_FAR_FIRST
from infold.serving import ModelState, State
from infold.tensors import Signature, TensorSpec

__all__ = ["index", "least_far", "metadata"]

INDEX_WORDS = {
    State.LOADING: "LOADING",
    State.READY: "READY",
    State.DRAINING: "UNLOADING",
    State.UNLOADED: "UNAVAILABLE",
    State.FAILED: "UNAVAILABLE",
}


def metadata(model: str, versions: list[int], signature: Signature) -> dict[str, Any]:
    """The model metadata object."""

    def described(specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
        return [
            {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": spec.wire_shape()}
            for spec in specs
        ]

    return {
        "name": model,
        "versions": [str(version) for version in versions],
        "platform": "onnxruntime_onnx",
        "inputs": described(signature.inputs),
        "outputs": described(signature.outputs),
    }


def least_far(of_workers: Iterable[Sequence[ModelState]]) -> list[ModelState]:
    """The states of all workers as one: each version as the worker has it that is least far with it."""
    found: dict[tuple[str, int], ModelState] = {}
    for each in chain.from_iterable(of_workers):
        key = each.model, each.version or 0
        if key not in found or _rank(each) < _rank(found[key]):
            found[key] = each
    return [state for _, state in sorted(found.items())]


def _rank(each: ModelState) -> int:
    return LEAST_FAR_FIRST.index(each.state or State.UNLOADED)


def index(on_disk: Iterable[str], states: Sequence[ModelState], *, only_ready: bool) -> list[dict[str, str]]:
    """The repository index: every version that was ever loaded, and the name of every other model.

    Args:
        on_disk: Names of models.
        states: Of versions.
        only_ready: True leaves out what does not answer.
    """
    rows = []
    for each in states:
        if each.state is None or (only_ready and each.state is not State.READY):
            continue
        row = {"name": each.model, "state": INDEX_WORDS[each.state], "reason": _reason(each)}
        if each.version is not None:
            row["version"] = str(each.version)
        rows.append(row)
    if not only_ready:
        known = {each.model for each in states}
        rows += [{"name": name} for name in on_disk if name not in known]
    return sorted(rows, key=lambda row: row["name"])


def _reason(each: ModelState) -> str:
    return "unloaded" if each.state is State.UNLOADED and not each.reason else each.reason
