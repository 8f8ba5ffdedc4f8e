"""A loaded version as callers see it: what it takes and gives, and what runs it.

Without a `config.pbtxt` that is the session itself.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from infold.errors import ConfigError
from infold.runtime import Device, Placement, TritonConfig
from infold.serving.declared import declared
from infold.serving.loading import Loaded
from infold.serving.reading import Reading, reading_of
from infold.serving.repository import ModelVersion
from infold.serving.reshaping import Run, as_declared
from infold.serving.warming import warm_up
from infold.tensors import Signature

__all__ = ["Presented", "placed", "presented"]

log = logging.getLogger(__name__)

SHOWN_HINTS = 50


@dataclass(frozen=True, slots=True, eq=False)
class Presented:
    """What answers requests.

    Attributes:
        signature: Inputs and outputs as callers see them.
        run: Runs on the plan's cores.
        run_wide: Runs on all cores; None where the plan wants none.
        reading: How pictures and classes are read.
    """

    signature: Signature
    run: Run
    run_wide: Run | None
    reading: Reading


def placed(version: ModelVersion, placement: Placement) -> Placement:
    """Where a version is run.

    Args:
        version: What is on disk.
        placement: Where the service runs its models.

    Raises:
        ConfigError: Its instances want a GPU, and the service has none.
    """
    triton = version.triton
    if triton is None or triton.device in (None, placement.device):
        return placement
    if triton.device is Device.CUDA:
        if placement.device.is_gpu:
            return placement
        detail = "asks for a GPU; start infold with --device cuda"
        raise ConfigError(f"{triton.place}: instance_group", detail)
    return Placement(Device.CPU, f"{triton.place}: instance_group")


def presented(version: ModelVersion, loaded: Loaded) -> Presented:
    """A loaded version, checked against its configuration, and warmed up as its `config.pbtxt` says.

    Raises:
        ConfigError: It does not fit, or does not run.
    """
    signature, run = loaded.session.signature, loaded.session.run
    run_wide = loaded.wide.run if loaded.wide is not None else None
    triton = version.triton
    if triton is None:
        return Presented(signature, run, run_wide, reading_of(version, signature))
    _tell_hints(version, triton)
    seen, own_outputs = declared(triton, signature), [spec.name for spec in signature.outputs]
    narrow = as_declared(run, version.name, own_outputs, seen)
    wide = None if run_wide is None else as_declared(run_wide, version.name, own_outputs, seen)
    folder = version.folder
    warm_up(triton, folder, seen.signature, [narrow] if wide is None else [narrow, wide])
    return Presented(seen.signature, narrow, wide, reading_of(version, seen.signature))


def _tell_hints(version: ModelVersion, triton: TritonConfig) -> None:
    if not triton.ignored:
        return
    more = len(triton.ignored) - SHOWN_HINTS
    hints = [*triton.ignored[:SHOWN_HINTS], *([f"and {more} more"] if more > 0 else [])]
    log.info("hints not used", extra={"model": version.name, "version": version.number, "hints": hints})
