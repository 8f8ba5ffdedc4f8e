"""From what a version's `model.toml` says of a shadow to one that can be run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from infold.errors import ConfigError, RuntimeCrashError, SessionError
from infold.runtime import Run as IsolatedRun
from infold.runtime import RunOptions, Session, ShadowConfig, kept_child, run_isolated
from infold.runtime.measuring import one_row
from infold.runtime.model_files import check_files
from infold.serving.calls import RunFunction
from infold.serving.declared import declared
from infold.serving.events import Observer
from infold.serving.preparing import checked_weights
from infold.serving.repository import ModelVersion
from infold.serving.reshaping import as_declared
from infold.serving.sampling import MOST_ROWS
from infold.serving.shadow import Desk, Shadow
from infold.tensors import Signature, TensorSpec

__all__ = ["shadow_of"]


def shadow_of(
    version: ModelVersion, own: Signature, seen: Signature, desk: Desk, observer: Observer
) -> Shadow | None:
    """The shadow of a version that is about to be served, or None where it has none; opened by and by.

    Args:
        version: What is served.
        own: The signature of its session.
        seen: The same as callers see it.
        desk: Where it is run.
        observer: Told of what becomes of it.
    """
    config, batching = version.config.shadow, version.config.batching
    if config is None or not config.is_named or (path := _path(version, config)) == version.path:
        return None
    # A run's first rows alone give what they gave among the others only where requests may share runs.
    is_cut = seen.is_batched and batching.join != "never" and batching.max_rows > 1
    name = version.name, version.number
    most = MOST_ROWS if is_cut else 0

    def opener(shadow: Shadow) -> RunFunction:
        return _opened(version, path, own, shadow)

    return Shadow(name, config.share, most, opener, desk, observer)


def _path(version: ModelVersion, config: ShadowConfig) -> Path:
    if config.file:
        return version.path.with_name(config.file)
    if config.version == version.number:
        return version.path
    return version.folder / str(config.version) / version.path.name


def _opened(version: ModelVersion, path: Path, own: Signature, shadow: Shadow) -> RunFunction:
    """What runs a shadow, as callers of the version would; takes its time.

    Raises:
        ConfigError: It is not there, or takes or gives something else than the version.
        SessionError: onnxruntime refuses it, or dies of it, or its files lie where they may not.
    """
    place = f"{version.path.parent}: shadow"
    if not path.is_file():
        raise ConfigError(place, f"there is no file '{path}'")
    check_files(path, root=version.root)
    checked_weights(replace(version, path=path))
    _try_apart(path, own, shadow, version.root)
    # As the graph is written, not as onnxruntime rewrites it: that is what is held against it.
    session = Session(path, RunOptions(intra_op_threads=1, optimize=False, keeps_memory=False))
    if difference := _difference(own, session.signature):
        raise ConfigError(place, difference)
    if version.triton is None:
        return session.run
    outputs = [spec.name for spec in session.signature.outputs]
    return as_declared(session.run, version.name, outputs, declared(version.triton, session.signature))


def _try_apart(path: Path, own: Signature, shadow: Shadow, root: Path) -> None:
    """Open and run it once in a process that may die of it, and is ended if nobody wants it any more.

    Raises:
        RuntimeCrashError: It did.
    """
    with kept_child() as child:
        shadow.may_take_long(child.kill)
        try:
            run_isolated([IsolatedRun(path.name, path, one_row(path, own, root))])
        except RuntimeCrashError:
            raise
        except SessionError:  # of one row of zeros, perhaps; if it is the model's, it is met again later
            return


def _difference(own: Signature, other: Signature) -> str:
    """How a shadow's tensors differ from a version's in name or type; empty if they do not."""
    for role, ours, theirs in (
        ("input", own.inputs, other.inputs),
        ("output", own.outputs, other.outputs),
    ):
        mine, yours = _types(ours), _types(theirs)
        for name in sorted(mine.keys() | yours.keys()):
            if name not in yours:
                return f"it has no {role} '{name}'"
            if name not in mine:
                return f"it has an {role} '{name}', the version has none"
            if mine[name] != yours[name]:
                return f"its {role} '{name}' is {yours[name]}, the version's {mine[name]}"
    return ""


def _types(specs: Sequence[TensorSpec]) -> dict[str, str]:
    return {spec.name: str(spec.dtype) for spec in specs}
