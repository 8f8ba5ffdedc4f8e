"""What a framework's frontend is asked for and what it hands over; the form on disk between processes.

A frontend runs in a child process. It is one function, `open_model(Request) ->
Exported`; everything it returns crosses back as plain ONNX, `.npy` and JSON, so
that the converter itself never needs a framework.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from infold.convert.frontends.formats import Format
from infold.fold.affine import F64
from infold.tensors import Array, Tensors

__all__ = ["Answer", "Call", "Convention", "Exported", "Framework", "Norm", "Options", "Request"]


@dataclass(frozen=True, slots=True)
class Options:
    """How to read a source that does not say everything itself.

    Attributes:
        format: What it is; None recognises it.
        custom_objects: `package.module:attribute`, for Keras layers of the user's own.
        unsafe: The user trusts the file: code in it may run.
        signature, tag: Which of a SavedModel's.
        inputs, outputs: Names of tensors, for TensorFlow graphs that do not say.
        training_flag: Name of the placeholder that switches a graph to training.
        weights: State dict (`.pt`, `.safetensors`) for a module.
    """

    format: Format | None = None
    custom_objects: tuple[str, ...] = ()
    unsafe: bool = False
    signature: str | None = None
    tag: str | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    training_flag: str | None = None
    weights: Path | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One source to export.

    Attributes:
        source: Path, checkpoint prefix or `package.module:factory`.
        format: What it is.
        options: As the user gave them.
        samples: The user's inputs, `.npz`; None draws some.
        shapes: Full shapes of inputs, by name; the empty name is the only input.
        backend: Which framework is to run it, where there is a choice.
    """

    source: str
    format: Format
    options: Options = field(default_factory=Options)
    samples: Path | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    backend: str = "torch"

    @property
    def runs_own_code(self) -> bool:
        """The user has named code of their own, or trusts the file's."""
        return self.format is Format.MODULE or bool(self.options.custom_objects) or self.options.unsafe

    def dump(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def parse(cls, text: str) -> Request:
        """From `dump`."""
        facts = json.loads(text)
        given = facts["options"]
        options = Options(
            Format(given["format"]) if given["format"] else None,
            tuple(given["custom_objects"]),
            given["unsafe"],
            given["signature"],
            given["tag"],
            tuple(given["inputs"]),
            tuple(given["outputs"]),
            given["training_flag"],
            Path(given["weights"]) if given["weights"] else None,
        )
        return cls(
            facts["source"],
            Format(facts["format"]),
            options,
            Path(facts["samples"]) if facts["samples"] else None,
            {name: tuple(shape) for name, shape in facts["shapes"].items()},
            facts["backend"],
        )


class Convention(StrEnum):
    """What momentum counts: Keras and TensorFlow keep that share of the old, PyTorch takes it of the new."""

    OF_THE_OLD = "old"
    OF_THE_NEW = "new"


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """A batch normalization as its framework knows it.

    Attributes:
        layer: Its name in the user's own model (`block3/bn2`).
        kind: The framework's class or op (`BatchNormalization`, `BatchNorm2d`).
        axis: Channel axis of its input as the framework counts it.
        epsilon: As the framework holds it.
        momentum, convention: None where the file does not say.
        trainable: None where the framework knows no such thing.
        gamma, beta: [C], ones and zeros where the layer has none.
        mean, variance: [C], moving statistics; None where it keeps none.
    """

    layer: str
    kind: str
    axis: int
    epsilon: float
    momentum: float | None
    convention: Convention
    trainable: bool | None
    gamma: F64
    beta: F64
    mean: F64 | None
    variance: F64 | None

    @property
    def keeps(self) -> float | None:
        """Share of the old statistics that one training step keeps."""
        if self.momentum is None:
            return None
        return self.momentum if self.convention is Convention.OF_THE_OLD else 1.0 - self.momentum


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One use of a norm in one forward pass.

    Attributes:
        norm: Its index in `Exported.norms`.
        value: What it gave, in the framework's layout.
    """

    norm: int
    value: Array


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What the framework itself computes in inference mode.

    Attributes:
        outputs: By the ONNX model's output names.
        calls: Each use of a norm, in the order the framework made them; empty where it
            does not show them.
    """

    outputs: Tensors
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Exported:
    """An unfolded model, and its framework still at hand.

    Attributes:
        framework: Name and versions (`keras 3.15.1 on torch 2.13.0`).
        proto: The model with every norm in it, weights inside.
        norms: All batch normalizations of the framework's model.
        run: The framework's own inference on samples named like the ONNX inputs.
        notes: What the user should be told, a sentence each.
        shapes: Of inputs the source itself brings along, by name; samples are drawn so where
            the user gives neither samples nor shapes.
        elsewhere: A backend that may leave open what this one had to fix; None where all is well.
    """

    framework: str
    proto: onnx.ModelProto
    norms: tuple[Norm, ...]
    run: Callable[[Tensors], Answer]
    notes: tuple[str, ...] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    elsewhere: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Framework:
    """What remains of a framework once its process has ended.

    Attributes:
        name: As `Exported.framework`.
        format: Of the source.
        norms, notes: As `Exported`.
        samples: What went in, by the ONNX model's input names.
        answer: What came out.
    """

    name: str
    format: Format
    norms: tuple[Norm, ...]
    notes: tuple[str, ...]
    samples: Tensors
    answer: Answer

    def save(self, folder: Path) -> None:
        """Write everything below a folder."""
        np.savez(folder / "samples.npz", **dict(self.samples))  # type: ignore[arg-type]  # its stub takes bool only
        np.savez(folder / "outputs.npz", **dict(self.answer.outputs))  # type: ignore[arg-type]  # the same
        for index, call in enumerate(self.answer.calls):
            np.save(folder / f"call{index}.npy", call.value)
        facts = {
            "name": self.name,
            "format": self.format,
            "notes": self.notes,
            "norms": [_norm_facts(norm) for norm in self.norms],
            "calls": [call.norm for call in self.answer.calls],
        }
        (folder / "framework.json").write_text(json.dumps(facts), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Framework:
        """Read what `save` wrote; the values of norms are mapped, not read."""
        facts = json.loads((folder / "framework.json").read_text(encoding="utf-8"))
        calls = tuple(
            Call(norm, np.load(folder / f"call{index}.npy", mmap_mode="r"))
            for index, norm in enumerate(facts["calls"])
        )
        return cls(
            facts["name"],
            Format(facts["format"]),
            tuple(_norm(entry) for entry in facts["norms"]),
            tuple(facts["notes"]),
            _arrays(folder / "samples.npz"),
            Answer(_arrays(folder / "outputs.npz"), calls),
        )


ARRAYS = ("gamma", "beta", "mean", "variance")


def _norm_facts(norm: Norm) -> dict[str, Any]:
    facts = {each.name: getattr(norm, each.name) for each in fields(norm)}
    return {
        key: value.tolist() if key in ARRAYS and value is not None else value for key, value in facts.items()
    }


def _norm(facts: dict[str, Any]) -> Norm:
    arrays = {key: None if facts[key] is None else np.array(facts[key], np.float64) for key in ARRAYS}
    return Norm(**{**facts, **arrays, "convention": Convention(facts["convention"])})


def _arrays(path: Path) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as saved:
        return {name: saved[name] for name in saved.files}
