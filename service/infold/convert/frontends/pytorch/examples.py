"""Inputs to trace a network with: the user's samples, or drawn in a shape the user gives."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infold.convert.frontends.exported import Request
from infold.convert.samples import read_samples
from infold.errors import SourceError
from infold.tensors import Array

__all__ = ["Signature", "take", "widened"]

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a forward() takes.

    Attributes:
        names: Of the arguments, in order.
        needed: Those without a default.
        variadic: Name of `*args`, or nothing; its inputs are called `<name>_0` and so on.
        by_keyword: Those that can only be passed by name.
    """

    names: tuple[str, ...]
    needed: tuple[str, ...]
    variadic: str = ""
    by_keyword: tuple[str, ...] = ()

    @classmethod
    def of(cls, forward: Callable[..., Any]) -> Signature:
        """Of a Python function, bound to its module."""
        names, needed, by_keyword, variadic = [], [], [], ""
        for each in inspect.signature(forward).parameters.values():
            if each.kind is inspect.Parameter.VAR_POSITIONAL:
                variadic = each.name
                continue
            if each.kind is inspect.Parameter.VAR_KEYWORD:
                continue
            names.append(each.name)
            if each.default is inspect.Parameter.empty:
                needed.append(each.name)
            if each.kind not in POSITIONAL:
                by_keyword.append(each.name)
        return cls(tuple(names), tuple(needed), variadic, tuple(by_keyword))

    def known(self, name: str) -> bool:
        """Whether there is an input of that name."""
        prefix, _, index = name.rpartition("_")
        return name in self.names or bool(self.variadic and prefix == self.variadic and index.isdecimal())

    @property
    def only(self) -> str | None:
        """The input that needs no name."""
        if len(self.needed) == 1:
            return self.needed[0]
        if not self.needed and len(self.names) == 1 and not self.variadic:
            return self.names[0]
        return f"{self.variadic}_0" if self.variadic and not self.names else None

    def ordered(self, names: Mapping[str, Any]) -> tuple[str, ...]:
        """Names of inputs in the order of the arguments."""
        rest = sorted(
            (each for each in names if each not in self.names), key=lambda n: int(n.rpartition("_")[2])
        )
        return (*(each for each in self.names if each in names), *rest)

    def arranged(self, inputs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional arguments, as far as they go without a gap, and the rest by name."""
        args: list[Any] = []
        keywords: dict[str, Any] = {}
        gap = False
        for name in self.names:
            if name not in inputs:
                gap = True
            elif gap or name in self.by_keyword:
                keywords[name] = inputs[name]
            else:
                args.append(inputs[name])
        args += [inputs[name] for name in self.ordered(inputs) if name not in self.names]
        return tuple(args), keywords

    def shapes(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The same by argument, `*args` as one tuple: what torch.export takes dynamic shapes as."""
        named = {name: inputs[name] for name in self.names if name in inputs}
        rest = tuple(inputs[name] for name in self.ordered(inputs) if name not in self.names)
        return {**named, self.variadic: rest} if rest else named


def take(request: Request, signature: Signature, floats: torch.dtype) -> dict[str, Tensor]:
    """Inputs in the order of the arguments.

    Args:
        request: The user's samples, or shapes.
        signature: What the network takes.
        floats: The type of its weights; inputs that are no integers come in it.

    Raises:
        SourceError: No shape is known for an input, or one is given for none.
    """
    if request.samples is not None:
        arrays = read_samples(request.samples)
        found = {name: _tensor(array, floats) for name, array in arrays.items()}
        remedy = f"{request.samples} holds no array for"
    else:
        generator = torch.Generator().manual_seed(0)
        found = {}
        for name, shape in request.shapes.items():
            found[_named(request, name, signature)] = torch.randn(shape, generator=generator).to(floats)
        remedy = "give the shape of"
    for name in found:
        if not signature.known(name):
            inputs = ", ".join(signature.names) or f"{signature.variadic}_0"
            raise SourceError(request.source, f"its forward() takes no '{name}'; it takes {inputs}")
    lacking = [name for name in signature.needed if name not in found]
    if lacking or not found:
        name = (lacking or list(signature.names) or [f"{signature.variadic}_0"])[0]
        flag = "--shape" if signature.only == name else f"--shape {name}="
        example = f"{flag}{'' if flag.endswith('=') else ' '}1,3,224,224"
        raise SourceError(
            request.source, f"{remedy} its input '{name}' (such as {example}), or --samples FILE.npz"
        )
    return {name: found[name] for name in signature.ordered(found)}


def widened(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """At least two rows: a batch of one is a case of its own to torch.export."""
    return {
        name: torch.cat((value, value)) if value.ndim and value.shape[0] == 1 else value
        for name, value in inputs.items()
    }


def _named(request: Request, name: str, signature: Signature) -> str:
    if name:
        return name
    if signature.only is None:
        inputs = ", ".join(signature.names) or f"{signature.variadic}_0"
        raise SourceError(
            request.source, f"--shape needs a name, --shape NAME=...: its forward() takes {inputs}"
        )
    return signature.only


def _tensor(array: Array, floats: torch.dtype) -> Tensor:
    if array.dtype.kind == "f":
        return torch.from_numpy(array.astype(np.float64)).to(floats)
    return torch.from_numpy(np.ascontiguousarray(array))
