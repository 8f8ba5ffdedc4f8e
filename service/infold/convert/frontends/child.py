"""The child process in which a framework runs: it may abort, print and pick backends as it likes."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import onnx

from infold.convert.frontends.exported import Exported, Framework, Request
from infold.convert.frontends.formats import Format
from infold.convert.frontends.tidy import tidy
from infold.convert.samples import draw_samples, load_samples, signature_of
from infold.errors import InfoldError, SourceError
from infold.tensors import Signature, Tensors

__all__ = ["OtherBackendError", "main"]

FRONTENDS = {
    Format.KERAS: "keras",
    Format.SAVED_MODEL: "tensorflow",
    Format.GRAPH_DEF: "tensorflow",
    Format.CHECKPOINT: "tensorflow",
    Format.PT2: "pytorch",
    Format.TORCHSCRIPT: "pytorch",
    Format.MODULE: "pytorch",
    Format.PICKLE: "pytorch",
}
# The extra that brings a missing module.
EXTRAS = {
    "keras": "keras",
    "tensorflow": "tensorflow",
    "tf2onnx": "tensorflow",
    "torch": "torch",
    "onnxscript": "torch",
}
EXTRAS["safetensors"] = "torch"
# How often it is asked whether the parent still lives.
PARENT_S = 0.5


class OtherBackendError(Exception):
    """This backend cannot do it; another one may.

    Attributes:
        backend: Which.
        detail: Why this one cannot.
    """

    def __init__(self, backend: str, detail: str) -> None:
        self.backend = backend
        self.detail = detail
        super().__init__(detail)


def main() -> None:
    """Export what `request.json` in the folder given as first argument asks for."""
    _end_with(os.getppid())
    folder = Path(sys.argv[1])
    request = Request.parse((folder / "request.json").read_text(encoding="utf-8"))
    sys.path.insert(0, os.getcwd())  # the user's own modules, as `python -m` finds them
    frontend = FRONTENDS[request.format]
    try:
        exported: Exported = import_module(f"infold.convert.frontends.{frontend}").open_model(request)
        _hand_over(exported, request, folder)
        sys.stdout.flush()
        os._exit(0)  # frameworks leave threads behind that may never end
    except OtherBackendError as no:
        _fail(folder, "other-backend", no.detail, backend=no.backend)
    except ModuleNotFoundError as missing:
        extra = EXTRAS.get((missing.name or "").partition(".")[0])
        if extra is None:
            _fail(folder, "refused", f"{request.source}: {missing}")
        else:
            _fail(folder, "refused", f"{request.source}: needs {missing.name}: pip install 'infold[{extra}]'")
    except InfoldError as refused:
        _fail(folder, "refused", str(refused))
    except Exception as failure:
        import traceback

        traceback.print_exc()
        words = " ".join(str(failure).split())[:300]
        _fail(folder, "failed", f"{type(failure).__name__}: {words}")


def _end_with(parent: int) -> None:
    """Nobody is left to take the export once the parent is gone, however it ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _hand_over(exported: Exported, request: Request, folder: Path) -> None:
    proto = tidy(exported.proto)
    external = proto.ByteSize() > 2**30
    onnx.save(proto, str(folder / "model.onnx"), save_as_external_data=external, location="model.onnx.data")
    signature = signature_of(proto)
    if request.samples is not None:
        samples: Tensors = load_samples(request.samples, signature)
    else:
        shapes = _with_neighbours(request.shapes or exported.shapes, signature)
        samples = draw_samples(signature, shapes)
    answer = exported.run(samples)
    lacking = {spec.name for spec in signature.outputs} ^ set(answer.outputs)
    if lacking:
        names = ", ".join(sorted(lacking))
        raise SourceError(request.source, f"the export and the framework disagree on the outputs: {names}")
    outputs = {spec.name: answer.outputs[spec.name] for spec in signature.outputs}
    framework = Framework(
        exported.framework,
        request.format,
        exported.norms,
        exported.notes,
        samples,
        replace(answer, outputs=outputs),
    )
    framework.save(folder)


def _with_neighbours(
    shapes: Mapping[str, tuple[int, ...]], signature: Signature
) -> dict[str, tuple[int, ...]]:
    """At least two rows where the batch axis is open: one alone shows nothing of its neighbours."""
    if not signature.is_batched:
        return dict(shapes)
    return {name: (max(2, shape[0]), *shape[1:]) if shape else shape for name, shape in shapes.items()}


def _fail(folder: Path, kind: str, detail: str, **more: str) -> None:
    (folder / "failure.json").write_text(
        json.dumps({"kind": kind, "detail": detail, **more}), encoding="utf-8"
    )
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
