"""The child process in which a framework runs: it may abort, print and pick backends as it likes."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import onnx

from infold.convert.frontends.exported import Exported, Framework, Request
from infold.convert.frontends.formats import Format
from infold.convert.frontends.tidy import tidy
from infold.convert.samples import draw_samples, load_samples, signature_of
from infold.errors import InfoldError, SamplesError, SourceError
from infold.tensors import Signature, Tensors

__all__ = ["ELSEWHERE", "OtherBackendError", "main"]

# Where the child leaves the name of a backend that may do better.
ELSEWHERE = "elsewhere.txt"

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
BFLOAT16 = onnx.TensorProto.BFLOAT16
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
    if request.runs_own_code:
        sys.path.append(str(Path.cwd()))  # last: a `keras.py` lying about there is not keras
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
    if any(value.type.tensor_type.elem_type == BFLOAT16 for value in _typed(proto)):
        detail = "computes in bfloat16, which onnxruntime cannot run on a CPU; save it in float32 or float16"
        raise SourceError(request.source, detail)
    external = proto.ByteSize() > 2**30
    onnx.save(proto, str(folder / "model.onnx"), save_as_external_data=external, location="model.onnx.data")
    signature = signature_of(proto)
    try:
        samples = _samples(request, exported, signature)
    except SamplesError as unfit:
        if exported.elsewhere is None:
            raise
        raise OtherBackendError(exported.elsewhere, str(unfit)) from unfit
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
    if exported.elsewhere is not None:
        (folder / ELSEWHERE).write_text(exported.elsewhere, encoding="utf-8")


def _samples(request: Request, exported: Exported, signature: Signature) -> Tensors:
    if request.samples is not None:
        return load_samples(request.samples, signature)
    return draw_samples(signature, _with_neighbours(request.shapes or exported.shapes, signature))


def _typed(proto: onnx.ModelProto) -> Iterator[onnx.ValueInfoProto]:
    """Every value whose type can be told."""
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    yield from (*inferred.input, *inferred.output, *inferred.value_info)


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
