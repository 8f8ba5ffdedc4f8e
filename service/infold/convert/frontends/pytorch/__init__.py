"""PyTorch: `torch.export` archives, TorchScript, modules built by code, whole pickled modules.

`screening` refuses files that would run code, `building` gets at a module, `weights`
fills it, `examples` finds inputs to trace it with, `programs` turns captured graphs
into ONNX, `norms` knows batch norms, and `eager`, `archives` and `torchscript` are
the three ways a network can be at hand.
"""

from __future__ import annotations

from torch import jit

from infold.convert.frontends.exported import Exported, Request
from infold.convert.frontends.formats import Format
from infold.convert.frontends.pytorch import archives, building, eager, torchscript

__all__ = ["open_model"]


def open_model(request: Request) -> Exported:
    """Export a PyTorch network, every norm still in it.

    Raises:
        SourceError: It cannot be used; says what to do.
    """
    if request.format is Format.PT2:
        return archives.open_archive(request)
    if request.format is Format.TORCHSCRIPT:
        return torchscript.open_script(request, torchscript.load(request.source))
    module, notes = building.build(request)
    if isinstance(module, jit.ScriptModule):
        return torchscript.open_script(request, module, notes)
    return eager.open_module(request, module, notes)
