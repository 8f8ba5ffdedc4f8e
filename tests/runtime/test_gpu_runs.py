"""Sessions that are on a GPU as far as infold is concerned: onnxruntime is given the CPU all the same."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from graphs import conv_norm, model, normal
from infold.errors import DeviceError, SessionError
from infold.runtime import Cache, Device, ModelConfig, Placement, RunOptions, Session, gpu_runs, options
from infold.runtime import session as sessions
from infold.runtime.binding import BoundRuns
from infold.runtime.cuda import CudaOptions
from infold.runtime.cuda_graph import GraphRuns
from infold.runtime.gpu_runs import Left, opened_on_gpu, operators_by_provider
from infold.runtime.options import CPU, CUDA, TENSORRT, session_options
from infold.runtime.session import nodes_left
from infold.serving.preparing import options_of, with_engines
from infold.serving.repository import ModelVersion
from infold.tensors import BFLOAT16

ON_CUDA = Placement(Device.CUDA, "asked for", 1, 5)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA and TensorRT are the CPU's provider."""

    def opened(graph: Any, native: Any, _: RunOptions) -> Any:
        return onnxruntime.InferenceSession(graph, native, providers=[CPU])

    def recorded(native: Any, signature: Any, device: str, gpu_id: int) -> GraphRuns:
        assert (device, gpu_id) == ("cuda", 1)
        return GraphRuns(native, signature, "cpu", 0)

    for device in (Device.CUDA, Device.TENSORRT):
        monkeypatch.setitem(options.PROVIDERS, device, CPU)
    monkeypatch.setattr(sessions, "opened_on_gpu", opened)
    monkeypatch.setattr(gpu_runs, "GraphRuns", recorded)
    monkeypatch.setattr("onnxruntime.cuda_version", "99.0", raising=False)


def on_cuda(proto: onnx.ModelProto, folder: Path, **cuda: Any) -> Session:
    onnx.save(proto, str(folder / "model.onnx"))
    return Session(folder / "model.onnx", RunOptions(ON_CUDA, cuda=CudaOptions(1, **cuda)))


@pytest.mark.usefixtures("pretended")
def test_numbers_are_bound_and_what_cannot_be_goes_the_plain_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strings and bfloat16 are answered as on the CPU."""
    bound: list[int] = []
    run = BoundRuns.run
    monkeypatch.setattr(BoundRuns, "run", lambda *given: bound.append(1) or run(*given))
    x = {"x": normal(3, 2, 6, 6)}
    session = on_cuda(conv_norm(), tmp_path)
    wanted = Session(tmp_path / "model.onnx").run(x)["y"]
    for _ in range(2):
        assert session.run(x, ["y"])["y"].tobytes() == wanted.tobytes()
    assert len(bound) == 2
    echo = "g ({0}[N] x) => ({0}[N] y) {{ y = Identity(x) }}"
    for kind, array in (("string", np.array(["a", ""], object)), ("bfloat16", np.ones(2, BFLOAT16))):
        session = on_cuda(model(echo.format(kind)), tmp_path)
        assert session.run({"x": array})["y"].tolist() == array.tolist()
    assert len(bound) == 2


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_a_session_goes_at_once_when_nobody_holds_it(tmp_path: Path, cuda_graph: bool) -> None:
    """What it holds of the GPU is not left to a garbage collection that may come much later."""
    proto = model("g (float[2] x) => (float[2] y) { y = Add(x, x) }")
    session = on_cuda(proto, tmp_path, cuda_graph=cuda_graph)
    for _ in range(3):
        session.run({"x": np.ones(2, np.float32)})
    native = weakref.ref(session._native)
    workers = [each for each in threading.enumerate() if each.name.startswith("infold-cuda-graph")]
    assert len(workers) == cuda_graph
    gc.disable()
    try:
        del session
        for each in workers:
            each.join(20)
        assert native() is None
    finally:
        gc.enable()


@pytest.mark.usefixtures("pretended")
def test_what_cannot_be_recorded_is_refused_at_the_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the key that asks for it; and on the CPU the key means nothing."""
    with pytest.raises(
        SessionError, match=r"model.onnx: session.cuda_graph: input 'x' has shape \[-1, 2, 6, 6\]"
    ):
        on_cuda(conv_norm(), tmp_path, cuda_graph=True)
    monkeypatch.setattr(gpu_runs, "TENSORRT", CPU)
    fixed = model("g (float[2] x) => (float[2] y) { y = Add(x, x) }")
    with pytest.raises(SessionError, match=r"session.cuda_graph: is for the device cuda, not for tensorrt"):
        on_cuda(fixed, tmp_path, cuda_graph=True)
    plain = RunOptions(cuda=CudaOptions(cuda_graph=True))
    assert Session(tmp_path / "model.onnx", plain).run({"x": np.ones(2, np.float32)})["y"].tolist() == [2, 2]


@pytest.mark.usefixtures("pretended")
def test_what_runs_where_is_read_from_a_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run that is not recorded; everything is on the CPU here."""
    on_cuda(model("g (float[2] x) => (float[2] y) { z = Add(x, x) y = Mul(z, z) }"), tmp_path)
    x = {"x": np.ones(2, np.float32)}
    given = RunOptions(ON_CUDA, cuda=CudaOptions(1, cuda_graph=True))
    monkeypatch.setattr(gpu_runs, "GraphRuns", None)
    assert nodes_left(tmp_path / "model.onnx", given, x) == Left(("Add", "Mul"))


def test_a_profile_is_read_by_provider(tmp_path: Path) -> None:
    """Whatever else stands in it."""
    nodes = [("Conv", CUDA), ("Resize", CUDA), ("Shape", CPU)]
    events = [f'{{"cat": "Node", "args": {{"op_name": "{op}", "provider": "{by}"}}}}' for op, by in nodes]
    events += [
        '{"cat": "Session", "args": {}}',
        '{"cat": "Node"}',
        '{"cat": "Node", "args": {"op_name": "X"}}',
    ]
    (tmp_path / "profile.json").write_text(f"[{','.join(events)}]")
    assert operators_by_provider(tmp_path / "profile.json") == {CUDA: {"Conv", "Resize"}, CPU: {"Shape"}}


def test_onnxruntime_is_asked_for_the_gpu_first_and_never_falls_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT, CUDA, the CPU, each with its options; a range of rows is read from the model."""
    asked: list[Any] = []
    real = onnxruntime.InferenceSession

    def opened(graph: Any, native: Any, **more: Any) -> Any:
        if more["providers"] == [CPU]:
            return real(graph, native, **more)
        asked.append(more)
        return "opened"

    monkeypatch.setattr("onnxruntime.InferenceSession", opened)
    onnx.save(conv_norm(), str(tmp_path / "model.onnx"))
    for device, providers in ((Device.CUDA, [CUDA]), (Device.TENSORRT, [TENSORRT, CUDA])):
        given = RunOptions(Placement(device, ""), cuda=CudaOptions(2, most_rows=8))
        assert opened_on_gpu(str(tmp_path / "model.onnx"), session_options(given), given) == "opened"
        chosen = asked[-1]["providers"]
        assert [name for name, _ in chosen[:-1]] == providers and chosen[-1] == CPU
        assert all(told["device_id"] == "2" for _, told in chosen[:-1])
        assert asked[-1]["enable_fallback"] is False
    assert asked[-1]["providers"][0][1]["trt_profile_max_shapes"] == "x:8x2x6x6"


def test_a_graph_that_onnxruntime_will_not_record_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so at the load; other failures stay as they are."""
    said: list[str] = []

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError(said[-1])

    monkeypatch.setattr("onnxruntime.InferenceSession", refuse)
    onnx.save(conv_norm(), str(tmp_path / "model.onnx"))
    for words, told in (
        ("This session cannot use the graph capture feature", "session.cuda_graph: a part of it is left to"),
        ("something else", "onnx: something else"),
    ):
        said.append(words)
        with pytest.raises(SessionError, match=told):
            on_cuda(conv_norm(), tmp_path, cuda_graph=True)


def test_a_session_that_lands_elsewhere_is_an_error(tmp_path: Path) -> None:
    """The CPU build drops what it does not know, with a warning that pytest makes an error."""
    onnx.save(conv_norm(), str(tmp_path / "model.onnx"))
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(DeviceError, match="on CPUEx"),
    ):
        Session(tmp_path / "model.onnx", RunOptions(ON_CUDA))


def test_the_model_and_the_service_say_how_a_gpu_is_used(tmp_path: Path) -> None:
    """The model's own limit beats the service's; what is kept of it depends on all of it."""
    from infold.runtime import Batching, SessionConfig

    onnx.save(conv_norm(), str(tmp_path / "model.onnx"))
    cache = Cache(tmp_path / "cache")

    def given(device: Device = Device.TENSORRT, **session: Any) -> tuple[RunOptions, str]:
        config = ModelConfig(batching=Batching(max_rows=8), session=SessionConfig(**session))
        version = ModelVersion("m", 1, tmp_path / "model.onnx", config)
        found = options_of(version, Placement(device, "", 1, 5), 2)
        return found, cache.key(version.path, found)

    found, key = given()
    assert found.cuda == CudaOptions(1, 5, most_rows=8)
    assert given(gpu_memory_bytes=9)[0].cuda.memory_bytes == 9
    keys = [key, *(given(**{name: True})[1] for name in ("tf32", "cuda_graph", "tensorrt_fp16"))]
    assert len({*keys, given(Device.CUDA)[1]}) == 5
    assert given(Device.CPU)[1] == given(Device.CPU, tf32=True)[1]
    placed = with_engines(found, cache, key)
    assert placed.cuda.engines == tmp_path / "cache" / key / "tensorrt"
    assert placed.cuda.engines.is_dir() and cache.key(tmp_path / "model.onnx", placed) == key
    assert with_engines(given(Device.CUDA)[0], cache, key).cuda.engines is None
