"""State dicts, `.pt` or `.safetensors`, put into the module they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from infold.convert.frontends.formats import Format, recognise
from infold.convert.frontends.pytorch.screening import NeedsCodeError, load_weights_only
from infold.convert.frontends.pytorch.wording import in_brief
from infold.errors import SourceError

__all__ = ["load_into"]

FEW = 3
# Where training scripts keep a network's weights among other things.
INSIDE = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights")


def load_into(module: nn.Module, path: Path, source: str) -> tuple[str, ...]:
    """Fill a module, leaving nothing out and nothing over.

    Args:
        module: Changed in place.
        path: `.pt` or `.safetensors`.
        source: What built the module, for messages.

    Returns:
        What to tell the user.

    Raises:
        SourceError: The file cannot be read, or does not fit the module.
    """
    state, notes = _read(path)
    state, stripped = _without_prefix(state, module)
    if stripped:
        notes.append(
            f"the names in {path} begin with '{stripped}', which is no part of the network's; it was cut"
        )
    own = module.state_dict()
    unfit = [
        f"{name} {list(value.shape)} where the network has {list(own[name].shape)}"
        for name, value in state.items()
        if name in own and not is_lazy(own[name]) and own[name].shape != value.shape
    ]
    if unfit:
        raise SourceError(
            path, f"does not fit {source}: {_few(unfit)}; is it of another version of the network?"
        )
    try:
        keys = module.load_state_dict(dict(state), strict=False)
    except RuntimeError as failure:
        raise SourceError(path, f"does not fit {source}: {in_brief(failure)}") from failure
    missing = _really_missing(keys.missing_keys, own, state)
    problems = []
    if missing:
        problems.append(f"it lacks {_few(missing)}")
    if keys.unexpected_keys:
        problems.append(f"the network has no {_few(keys.unexpected_keys)}")
    if problems:
        detail = f"does not fit {source}: {'; '.join(problems)}; is it of another version of the network?"
        raise SourceError(path, detail)
    return tuple(notes)


def _read(path: Path) -> tuple[Mapping[str, Tensor], list[str]]:
    if not path.is_file():
        raise SourceError(path, "no such file")
    with path.open("rb") as file:
        head = file.read(10)
    if path.suffix == ".safetensors" or head[8:] == b'{"':
        try:
            return load_file(path), []
        except (SafetensorError, OSError, ValueError) as broken:
            raise SourceError(path, f"a damaged safetensors file: {in_brief(broken)}") from broken
    kind = recognise(str(path))
    if kind is not Format.PICKLE:
        raise SourceError(path, f"is a {kind} file, not weights; save module.state_dict() or safetensors")
    try:
        content = load_weights_only(str(path), path)
    except NeedsCodeError as needs:
        detail = f"holds more than weights: opening it would run code (it names {needs.what})"
        raise SourceError(path, f"{detail}; save module.state_dict()") from needs
    return _state(path, content)


def _state(path: Path, content: Any) -> tuple[Mapping[str, Tensor], list[str]]:
    if _is_state(content):
        return _tensors(content), []
    if isinstance(content, Mapping):
        for name in INSIDE:
            if name in content and _is_state(content[name]):
                return _tensors(content[name]), [
                    f"the weights are '{name}' of {path}; the rest was passed over"
                ]
    raise SourceError(path, "holds no state dict; save module.state_dict()")


def _is_state(content: Any) -> bool:
    if not isinstance(content, Mapping) or not content:
        return False
    return all(
        isinstance(value, Tensor) or str(name).endswith("_extra_state") for name, value in content.items()
    )


def _tensors(content: Mapping[str, Any]) -> Mapping[str, Tensor]:
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


def _without_prefix(state: Mapping[str, Tensor], module: nn.Module) -> tuple[Mapping[str, Tensor], str]:
    """Names without what DataParallel, torch.compile or a training loop put in front of all of them."""
    own = set(module.state_dict())
    if own & set(state):
        return state, ""
    cut = ""
    names = list(state)
    while names and all("." in name for name in names):
        first = names[0].partition(".")[0]
        if any(name.partition(".")[0] != first for name in names):
            break
        names = [name.partition(".")[2] for name in names]
        cut += f"{first}."
        if own & set(names):
            return {name.removeprefix(cut): value for name, value in state.items()}, cut
    return state, ""


def _really_missing(missing: list[str], own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Without parameters that are the same as one that is there: safetensors keeps such only once."""
    present = {
        own[name].data_ptr() for name in state if name in own and not is_lazy(own[name]) and own[name].numel()
    }
    return [
        name
        for name in missing
        if name not in own or is_lazy(own[name]) or own[name].data_ptr() not in present
    ]


def _few(names: list[str]) -> str:
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return f"{', '.join(names[:FEW])}{more}"
