"""A Triton repository on disk, and what is loaded of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from graphs import model
from infold.errors import ConfigError, LoadError
from infold.runtime import Batching, Device, ModelConfig, Placement, SessionConfig
from infold.serving import Asked, ModelManager, ModelRepository, Servable, State, Work
from infold.serving.presenting import placed
from infold.tensors import Array

CPU, CUDA = Placement(Device.CPU, "asked for"), Placement(Device.CUDA, "asked for")
LOOKUP = """g (int64[N] index) => (float[N] value, float[N] same)
    <float[3] table = {10, 20, 30}> { value = Gather (table, index)  same = Identity (value) }"""
DOUBLE = "g (float[N,4] x) => (float[N,4] y) { y = Add (x, x) }"
LOOKUP_CONFIG = """
    platform: "onnxruntime_onnx"  max_batch_size: 8  dynamic_batching {}
    input { name: "index" data_type: TYPE_INT64 dims: [1] reshape { shape: [] } }
    output { name: "value" data_type: TYPE_FP32 dims: [1] reshape { shape: [] } }
"""


def put(root: Path, name: str, text: str, config: str | None = None, file: str = "1/model.onnx") -> Path:
    """A version of a model, and what its owner wrote for Triton."""
    path = root / name / file
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model(text), str(path))
    if config is not None:
        (root / name / "config.pbtxt").write_text(config)
    return root / name


async def loaded(root: Path, placement: Placement = CPU) -> tuple[ModelManager, dict[str, Servable]]:
    """Whatever is there, by its name."""
    manager = ModelManager(ModelRepository(root), placement)
    await manager.reconcile()
    catalogue = manager.catalogue
    return manager, {name: catalogue.versions(name)[-1] for name in catalogue.models()}


async def answers(servable: Servable, tensors: Mapping[str, Array]) -> dict[str, Array]:
    return await servable.answer(Work(lambda: Asked(tensors), lambda results: results))


def reason(root: Path, placement: Placement = CPU) -> str:
    """Why the one model there does not load."""

    async def load() -> str:
        manager, models = await loaded(root, placement)
        (servable,) = models.values()
        await manager.close()
        assert servable.state is State.FAILED
        return servable.reason

    return asyncio.run(load())


# -- the listing --------------------------------------------------------------------------------------


def test_what_is_written_for_triton_is_overridden_by_model_toml_key_by_key(tmp_path: Path) -> None:
    """Of the model, and then of the version."""
    folder = put(tmp_path, "m", DOUBLE, "max_batch_size: 8 instance_group { count: 2 }")
    put(tmp_path, "m", DOUBLE, file="2/model.onnx")
    (folder / "model.toml").write_text("versions = 'all'\n[batching]\nmax_delay_s = 0.5")
    (folder / "2" / "model.toml").write_text("[session]\nruns = 5")
    repository = ModelRepository(tmp_path)
    first, second = repository.list()["m"]
    assert first.config == ModelConfig("all", Batching(8, 0.5), SessionConfig(runs=2))
    assert second.config == ModelConfig("all", Batching(8, 0.5), SessionConfig(runs=5))
    assert repository.policy("m") == "all"
    assert first.triton is second.triton is not None
    (folder / "config.pbtxt").unlink()
    assert repository.list()["m"][0].triton is None


def test_a_file_is_read_once_for_all_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each listing."""
    from infold.serving import repository as module

    put(tmp_path, "m", DOUBLE, "")
    put(tmp_path, "m", DOUBLE, file="2/model.onnx")
    read, count = module.read_triton_config, 0

    def counted(path: Path) -> object:
        nonlocal count
        count += 1
        return read(path)

    monkeypatch.setattr(module, "read_triton_config", counted)
    assert len(ModelRepository(tmp_path).list()["m"]) == 2
    assert count == 1


def test_versions_are_found_by_the_name_that_their_file_has(tmp_path: Path) -> None:
    """Others are none."""
    put(tmp_path, "m", DOUBLE, 'default_model_filename: "net.onnx"', "1/net.onnx")
    put(tmp_path, "m", DOUBLE, file="2/model.onnx")
    (version,) = ModelRepository(tmp_path).list()["m"]
    assert version.path == tmp_path / "m" / "1" / "net.onnx"


def test_a_name_is_the_folders(tmp_path: Path) -> None:
    """Or is not said."""
    put(tmp_path, "m", DOUBLE, 'name: "m"')
    assert list(ModelRepository(tmp_path).list()) == ["m"]
    put(tmp_path, "m", DOUBLE, 'name: "n"')
    with pytest.raises(ConfigError, match=r"m/config.pbtxt: name: 'n' is not 'm'"):
        ModelRepository(tmp_path).list()


def test_a_model_of_another_backend_is_refused_though_it_has_no_version_here(tmp_path: Path) -> None:
    """To pass it over would be to answer that there is none."""
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "model.plan").touch()
    (tmp_path / "m" / "config.pbtxt").write_text('platform: "tensorrt_plan"')
    with pytest.raises(ConfigError, match="'tensorrt_plan' is not served"):
        ModelRepository(tmp_path).list()


def test_a_configuration_can_be_given_in_place_of_the_file(tmp_path: Path) -> None:
    """Which then says nothing; nor does `model.toml` of what a configuration may say."""
    folder = put(tmp_path, "m", DOUBLE, "max_batch_size: 8 version_policy { all {} }")
    (folder / "model.toml").write_text("[session]\nruns = 3\n[version_labels]\nstable = 1")
    (folder / "1/model.toml").write_text("[batching]\nmax_rows = 5")
    repository = ModelRepository(tmp_path)
    listing = repository.listing("m", '{"max_batch_size": 4}')
    assert listing.policy == "latest"
    (version,) = listing.versions
    assert (version.config.batching.max_rows, version.config.session.runs) == (4, 0)
    assert version.config.version_labels == {"stable": 1}
    assert version != repository.listing("m").versions[0]
    for override, said in (('{"name": "n"}', "name: 'n' is not 'm'"), ("[]", "is no JSON object")):
        with pytest.raises(ConfigError, match=f"{folder}: config: {said}"):
            repository.listing("m", override)


def test_there_is_a_version_whatever_is_said_about_it(tmp_path: Path) -> None:
    """Under the name that its file has, if that is said."""
    put(tmp_path, "a", DOUBLE, 'default_model_filename: "net.onnx"', "1/net.onnx")
    put(tmp_path, "b", DOUBLE, "no sense")
    put(tmp_path, "c", DOUBLE, 'default_model_filename: "net.onnx"')
    repository = ModelRepository(tmp_path)
    assert [name for name in repository.names() if repository.has_version(name)] == ["a", "b"]


# -- loading ------------------------------------------------------------------------------------------


async def test_a_model_answers_in_the_shapes_that_are_declared(tmp_path: Path) -> None:
    """Alone and joined; with the outputs that are declared."""
    put(tmp_path, "lookup", LOOKUP, LOOKUP_CONFIG)
    (tmp_path / "lookup" / "model.toml").write_text("[batching]\njoin = 'always'")
    manager, models = await loaded(tmp_path)
    servable = models["lookup"]
    assert [each.wire_shape() for each in servable.signature.inputs] == [[-1, 1]]
    assert [each.name for each in servable.signature.outputs] == ["value"]
    requests = [np.array([[row % 3]] * (1 + row % 2)) for row in range(20)]
    results = await asyncio.gather(*(answers(servable, {"index": each}) for each in requests))
    for given, result in zip(requests, results, strict=True):
        assert list(result) == ["value"]
        assert result["value"].tolist() == (given * 10.0 + 10).tolist()
    await manager.close()


async def test_requests_without_a_batch_axis_are_answered_one_by_one(tmp_path: Path) -> None:
    """Though `model.toml` wants them joined; first lengths may differ, and are not bounded."""
    text = "g (float[N] a, float[M] b) => (float[K] y) { y = Concat <axis = 0> (a, b) }"
    config = " ".join(
        f"{kind} {{ name: '{name}' data_type: TYPE_FP32 dims: -1 }}"
        for kind, name in (("input", "a"), ("input", "b"), ("output", "y"))
    )
    folder = put(tmp_path, "m", text, config)
    (folder / "model.toml").write_text("[batching]\njoin = 'always'\nmax_rows = 4")
    manager, models = await loaded(tmp_path)
    a, b = np.arange(5, dtype=np.float32), np.arange(7, dtype=np.float32)
    requests = [{"a": a[:n], "b": b} for n in range(6)]
    results = await asyncio.gather(*(answers(models["m"], each) for each in requests))
    assert [len(result["y"]) for result in results] == [7, 8, 9, 10, 11, 12]
    await manager.close()


async def test_a_load_by_name_brings_its_own_configuration(tmp_path: Path) -> None:
    """In place of the file; one that does not fit leaves what is served as it is."""
    put(tmp_path, "lookup", LOOKUP, LOOKUP_CONFIG)
    manager = ModelManager(ModelRepository(tmp_path), CPU, asked={})
    tensors = '"input": [{"name": "index", "dataType": "TYPE_INT64", "dims": [1], "reshape": {"shape": []}}]'
    output = '"output": [{"name": "same", "data_type": "TYPE_FP32", "dims": [1], "reshape": {}}]'
    await manager.load("lookup", f'{{"maxBatchSize": 2, {tensors}, {output}}}')
    servable = manager.catalogue.find("lookup")
    assert [each.name for each in servable.signature.outputs] == ["same"]
    assert (await answers(servable, {"index": np.array([[2]])}))["same"].tolist() == [[30]]
    with pytest.raises(LoadError, match="TYPE_INT8 declared, the model's is TYPE_INT64"):
        await manager.load("lookup", f'{{"maxBatchSize": 2, {tensors.replace("INT64", "INT8")}, {output}}}')
    with pytest.raises(LoadError, match="config: unknown field 'foo' of ModelConfig"):
        await manager.load("lookup", '{"foo": 1}')
    assert manager.catalogue.find("lookup") is servable
    await manager.load("lookup")
    assert [each.name for each in manager.catalogue.find("lookup").signature.outputs] == ["value"]
    await manager.close()


def test_what_differs_from_the_model_is_not_served(tmp_path: Path) -> None:
    """With a reason that names both."""
    put(tmp_path, "m", LOOKUP, LOOKUP_CONFIG.replace("TYPE_INT64", "TYPE_INT32"))
    assert reason(tmp_path) == (
        f"{tmp_path}/m/config.pbtxt: input 'index'.data_type: TYPE_INT32 declared, the model's is TYPE_INT64"
    )


def test_a_warm_up_that_fails_is_a_load_that_fails(tmp_path: Path) -> None:
    """In the shapes that are declared, with what lies in the model's own folder."""
    sample = 'inputs { key: "index" value { data_type: TYPE_INT64 dims: [1] input_data_file: "i" } }'
    warmup = f'model_warmup {{ name: "far" batch_size: 2 {sample} }}'
    folder = put(tmp_path, "m", LOOKUP, LOOKUP_CONFIG + warmup)
    (folder / "warmup").mkdir()
    (folder / "warmup" / "i").write_bytes(np.array([7], "<i8").tobytes())
    assert f"{folder}/config.pbtxt: model_warmup 'far': " in reason(tmp_path)
    (folder / "warmup" / "i").write_bytes(np.array([2], "<i8").tobytes())

    async def load() -> State:
        manager, models = await loaded(tmp_path)
        state = models["m"].state
        await manager.close()
        return state

    assert asyncio.run(load()) is State.READY


def test_a_model_that_wants_a_gpu_is_not_run_without_one(tmp_path: Path) -> None:
    """With the remedy; one that wants the CPU has it everywhere."""
    put(tmp_path, "m", DOUBLE, "instance_group [ { kind: KIND_CPU }, { kind: KIND_GPU } ]")
    assert reason(tmp_path) == (
        f"{tmp_path}/m/config.pbtxt: instance_group: asks for a GPU; start infold with --device cuda"
    )
    (version,) = ModelRepository(tmp_path).list()["m"]
    assert placed(version, CUDA) is CUDA
    (tmp_path / "m" / "config.pbtxt").write_text("instance_group { kind: KIND_CPU }")
    (version,) = ModelRepository(tmp_path).list()["m"]
    assert placed(version, CPU) is CPU
    assert placed(version, CUDA).device is Device.CPU
    (tmp_path / "m" / "config.pbtxt").unlink()
    (version,) = ModelRepository(tmp_path).list()["m"]
    assert placed(version, CUDA) is CUDA


async def test_hints_that_are_not_used_are_told_once_at_load(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not at each listing, and not all of very many."""
    caplog.set_level(logging.INFO)
    put(tmp_path, "few", DOUBLE, "optimization {} response_cache { enable: true }")
    put(tmp_path, "none", DOUBLE, "max_batch_size: 4")
    many = " ".join(f'parameters {{ key: "p{number}" value {{}} }}' for number in range(1000))
    put(tmp_path, "many", DOUBLE, many)
    manager, _ = await loaded(tmp_path)
    await manager.reconcile()
    await manager.close()
    told = {each.__dict__["model"]: each for each in caplog.records if each.message == "hints not used"}
    assert len([each for each in caplog.records if each.message == "hints not used"]) == 2
    assert told["few"].__dict__["hints"] == ["optimization", "response_cache"]
    assert len(told["many"].__dict__["hints"]) == 51
    assert told["many"].__dict__["hints"][-1] == "and 950 more"
    assert {each.levelno for each in told.values()} == {logging.INFO}
