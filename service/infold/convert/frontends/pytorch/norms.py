"""Batch norms of a module, the library's own and those written by hand."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from infold.convert.frontends.exported import Convention, Norm
from infold.fold.affine import F64

__all__ = [
    "Parts",
    "find_norms",
    "flat",
    "is_norm",
    "library_norm",
    "no_statistics",
    "norm_of_parts",
    "parts_of",
    "written_norm",
]

MEAN = re.compile(r"_?(moving|running)_?(mean|avg|average)")
VARIANCE = re.compile(r"_?(moving|running)_?(var|variance)")
GAMMA = re.compile(r"_?(gamma|weight|scale)")
BETA = re.compile(r"_?(beta|bias|shift|offset)")
# What a probe in float64 may be off by, relative to the arrays' own size.
CLOSE = 1e-4
USUAL_EPSILON = 1e-5


@dataclass(frozen=True, slots=True)
class Parts:
    """Tensors that make up a norm, by their part; None where there is none."""

    gamma: Tensor | None
    beta: Tensor | None
    mean: Tensor
    variance: Tensor


def is_norm(module: nn.Module) -> bool:
    """Whether a module is one of the library's batch norms."""
    return isinstance(module, _BatchNorm)


def no_statistics(layer: str) -> str:
    """What to tell about a norm that has none."""
    return (
        f"'{layer}' keeps no running statistics: it normalizes every batch by that batch's own mean and "
        "variance, which cannot be folded; train it with track_running_stats=True"
    )


def library_norm(layer: str, module: _BatchNorm) -> Norm:
    """The entry of one of the library's norms."""
    channels = module.num_features
    return Norm(
        layer,
        type(module).__name__,
        1,
        float(module.eps),
        None if module.momentum is None else float(module.momentum),
        Convention.OF_THE_NEW,
        None if module.weight is None else bool(module.weight.requires_grad),
        np.ones(channels) if module.weight is None else flat(module.weight),
        np.zeros(channels) if module.bias is None else flat(module.bias),
        None if module.running_mean is None else flat(module.running_mean),
        None if module.running_var is None else flat(module.running_var),
    )


def flat(tensor: Tensor) -> F64:
    """Float64 [C]."""
    array: F64 = tensor.detach().to("cpu", torch.float64).reshape(-1).numpy().copy()
    return array


def find_norms(module: nn.Module) -> dict[str, nn.Module]:
    """Every norm by its name in the network, those that only look like one included."""
    return {
        name: each
        for name, each in module.named_modules()
        if is_norm(each) or (not type(each).__module__.startswith("torch.") and _own_parts(each) is not None)
    }


def _own_parts(module: nn.Module) -> Parts | None:
    tensors = dict(module.named_parameters(recurse=False))
    tensors.update(module.named_buffers(recurse=False))
    return parts_of(tensors)


def parts_of(tensors: Mapping[str, Tensor]) -> Parts | None:
    """The parts of a norm among a module's own tensors, or None where it is no norm.

    A norm has moving statistics of one length and of a shape like (C), (1, C) or (1, C, 1, 1).
    """
    found: dict[str, Tensor] = {}
    for part, pattern in (("mean", MEAN), ("variance", VARIANCE), ("gamma", GAMMA), ("beta", BETA)):
        named = [value for name, value in tensors.items() if pattern.fullmatch(name.lower())]
        if len(named) == 1:
            found[part] = named[0]
    mean, variance = found.get("mean"), found.get("variance")
    if mean is None or variance is None or mean.shape != variance.shape:
        return None
    channels = mean.numel()
    if channels == 0 or max(mean.shape, default=1) != channels:
        return None
    gamma, beta = found.get("gamma"), found.get("beta")
    if any(each is not None and each.numel() not in (1, channels) for each in (gamma, beta)):
        return None
    return Parts(gamma, beta, mean, variance)


def written_norm(layer: str, module: nn.Module, shape: tuple[int, ...] | None) -> Norm | None:
    """The entry of a norm written by hand, or None if it does not compute one.

    It is asked what it makes of zeros and of ones: their difference is the scale, and
    that gives the epsilon, which its code may hold anywhere.

    Args:
        layer: Its name.
        module: The norm.
        shape: Of an input it has been called with; None if it was not.
    """
    parts = _own_parts(module)
    if parts is None:
        return None
    stated = next(
        (
            float(value)
            for name in ("eps", "epsilon")
            if isinstance(value := getattr(module, name, None), float)
        ),
        None,
    )
    probed = _probe(module, shape, parts, stated) if shape else None
    if probed is None:
        return None
    return norm_of_parts(layer, type(module).__name__, probed[0], parts, probed[1])


def norm_of_parts(layer: str, kind: str, axis: int, parts: Parts, epsilon: float) -> Norm:
    """The entry of a norm written by hand, once its axis and epsilon are known."""
    learned = [each for each in (parts.gamma, parts.beta) if each is not None]
    return Norm(
        layer,
        kind,
        axis,
        epsilon,
        None,  # which share it means is in its code
        Convention.OF_THE_NEW,
        any(each.requires_grad for each in learned) if learned else None,
        _filled(parts.gamma, parts.mean, 1.0),
        _filled(parts.beta, parts.mean, 0.0),
        flat(parts.mean),
        flat(parts.variance),
    )


def _filled(tensor: Tensor | None, like: Tensor, default: float) -> F64:
    if tensor is None:
        return np.full(like.numel(), default)
    return np.broadcast_to(flat(tensor), (like.numel(),)).copy()


def _probe(
    module: nn.Module, shape: tuple[int, ...], parts: Parts, stated: float | None
) -> tuple[int, float] | None:
    """Axis and epsilon, if the module is `gamma (x - mean) / sqrt(variance + epsilon) + beta`."""
    gamma, beta = _filled(parts.gamma, parts.mean, 1.0), _filled(parts.beta, parts.mean, 0.0)
    mean, variance = flat(parts.mean), flat(parts.variance)
    one_row = (1, *shape[1:])
    try:
        twin = copy.deepcopy(module).double()
        with torch.no_grad():
            made = [twin(torch.full(one_row, value, dtype=torch.float64)) for value in (0.0, 1.0)]
    except Exception:  # the user's own code may do whatever it likes with two odd inputs
        return None
    if not all(isinstance(each, Tensor) and each.shape == one_row for each in made):
        return None
    at_zero, at_one = (each.numpy() for each in made)
    for axis in dict.fromkeys((1, len(shape) - 1)):
        if axis >= len(shape) or shape[axis] != gamma.size:
            continue
        places = tuple(slice(None) if each == axis else 0 for each in range(len(shape)))
        shift = at_zero[places]
        scale = at_one[places] - shift
        epsilon = _epsilon(scale, gamma, variance) if stated is None else stated
        if epsilon is None:
            continue
        want = gamma / np.sqrt(variance + epsilon)
        if _near(scale, want) and _near(shift, beta - mean * want):
            return axis, epsilon
    return None


def _epsilon(scale: F64, gamma: F64, variance: F64) -> float | None:
    """Read off the channel in which it weighs most, as a number somebody may have written down."""
    alive = np.flatnonzero(gamma * scale > 0)
    if not alive.size:
        return USUAL_EPSILON if not gamma.any() else None
    channel = alive[variance[alive].argmin()]
    found = float((gamma[channel] / scale[channel]) ** 2 - variance[channel])
    return float(f"{found:.3g}") if np.isfinite(found) and found > 0 else None


def _near(got: F64, want: F64) -> bool:
    return bool(np.all(np.abs(got - want) <= CLOSE * (1.0 + np.abs(want))))
