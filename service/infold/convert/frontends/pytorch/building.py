"""A module of the user's own: built by a factory, or unpickled where the user trusts the file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from infold.convert.frontends.exported import Request
from infold.convert.frontends.formats import WEIGHTS_ONLY, Format
from infold.convert.frontends.pytorch.screening import NeedsCodeError, load_weights_only
from infold.convert.frontends.pytorch.weights import load_into
from infold.convert.frontends.pytorch.wording import in_brief, where_raised
from infold.errors import SourceError

__all__ = ["build"]

SEED = 20150306
UNWEIGHTED = "no --weights were given: the weights are whatever {} gives its network"


def build(request: Request) -> tuple[nn.Module, tuple[str, ...]]:
    """The module that a source stands for, and what to tell about it.

    Raises:
        SourceError: It cannot be imported, built, filled or trusted.
    """
    if request.format is Format.PICKLE:
        return _unpickled(request)
    torch.manual_seed(SEED)  # a factory that draws its weights gives the same network every time
    module = _made(request.source)
    weights = request.options.weights
    if weights is None:
        return module, (UNWEIGHTED.format(request.source),)
    if isinstance(module, torch.jit.ScriptModule):
        raise SourceError(request.source, "gives a TorchScript program; --weights fills plain modules only")
    return module, load_into(module, Path(weights), request.source)


def _made(source: str) -> nn.Module:
    found = _found(source)
    if isinstance(found, nn.Module):
        return _bare(found)
    if not callable(found):
        kind = type(found).__name__
        raise SourceError(source, f"is a {kind}; name a function or a class that gives a torch.nn.Module")
    made = _called(found, source)
    if not isinstance(made, nn.Module):
        raise SourceError(source, f"gave a {type(made).__name__}, not a torch.nn.Module")
    return _bare(made.eval())  # nothing to tell: a new module is always in training mode


def _found(source: str) -> Any:
    package, _, attributes = source.partition(":")
    try:
        found: Any = import_module(package)
    except ModuleNotFoundError as missing:
        if missing.name and (package == missing.name or package.startswith(f"{missing.name}.")):
            places = f"the current folder ({Path.cwd()}) and installed packages were looked through"
            raise SourceError(source, f"no module named '{missing.name}'; {places}") from missing
        raise SourceError(
            source, f"importing {package} needs '{missing.name}', which is missing"
        ) from missing
    except Exception as failure:
        detail = f"importing {package} failed with {in_brief(failure)}{where_raised(failure)}"
        raise SourceError(source, detail) from failure
    for name in attributes.split("."):
        if not hasattr(found, name):
            known = [key for key, value in vars(sys.modules[package]).items() if _builds(value, package)]
            some = f"; it has {', '.join(sorted(known)[:8])}" if known else ""
            raise SourceError(source, f"{package} has no '{attributes}'{some}")
        found = getattr(found, name)
    return found


def _builds(value: Any, package: str) -> bool:
    own = getattr(value, "__module__", None) == package
    return isinstance(value, nn.Module) or (own and callable(value))


def _called(factory: Callable[[], Any], source: str) -> Any:
    try:
        return factory()
    except TypeError as failure:
        if failure.__traceback__ is not None and failure.__traceback__.tb_next is None:
            detail = f"cannot be called without arguments ({failure}); name a function that needs none"
            raise SourceError(source, detail) from failure
        raise SourceError(source, f"failed with {in_brief(failure)}{where_raised(failure)}") from failure
    except Exception as failure:
        raise SourceError(source, f"failed with {in_brief(failure)}{where_raised(failure)}") from failure


def _unpickled(request: Request) -> tuple[nn.Module, tuple[str, ...]]:
    source = request.source
    try:
        content = load_weights_only(source, Path(source))
    except NeedsCodeError as needs:
        if not request.options.unsafe:
            raise SourceError(
                source,
                f"a whole pickled object: opening it runs whatever code it names (here {needs.what}). "
                "Save module.state_dict() and name the code that builds the network (infold convert "
                "package.module:factory DEST.onnx --weights FILE), or, if you trust who made the file, "
                "--unsafe",
            ) from needs
        content = _run_pickle(source)
    if isinstance(content, dict) and isinstance(content.get("model"), nn.Module):
        content = content["model"]  # a checkpoint around a whole module
    if isinstance(content, nn.Module):
        return _bare(content), ()
    if isinstance(content, dict):
        raise SourceError(source, WEIGHTS_ONLY.format(source))
    raise SourceError(source, f"holds a {type(content).__name__}, not a network")


def _run_pickle(source: str) -> Any:
    try:
        return torch.load(source, map_location="cpu", weights_only=False)
    except (AttributeError, ImportError) as missing:
        detail = f"needs the code of its classes ({missing}); run infold where it can be imported"
        raise SourceError(source, detail) from missing
    except Exception as failure:
        raise SourceError(source, f"cannot be unpickled: {in_brief(failure)}") from failure


def _bare(module: nn.Module) -> nn.Module:
    """Without what wraps a module for training on several devices or for compiling it."""
    while True:
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
            module = inner
        else:
            return module
