"""PyTorch networks: exported unfolded, every norm known by name, nothing opened that runs code."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import helper
from safetensors.torch import save_file
from torch import nn

from frontends import torch_networks as networks
from infold.convert.frontends import onnx as onnx_frontend
from infold.convert.frontends.exported import Answer, Exported, Options, Request
from infold.convert.frontends.formats import Format, recognise
from infold.convert.frontends.pytorch import open_model
from infold.convert.frontends.pytorch.screening import screen_archive, screen_script
from infold.convert.frontends.source import open_source
from infold.convert.frontends.tidy import tidy
from infold.convert.samples import draw_samples, load_samples, signature_of
from infold.errors import SourceError
from infold.fold import FoldReport, fold_batch_norms
from oracle import session

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # TorchScript as a whole
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),  # torch.export copying its own graphs
]

HERE = "frontends.torch_networks"
IMAGE = {"": (1, 3, 9, 9)}
# What a norm's value may be computed by, written out or not.
ARITHMETIC = ("BatchNormalization", "Add", "Sub", "Mul", "Div")
TORCH_PARITY, FOLD_PARITY = 1e-5, 1e-4


class Run:
    """One export with all that is to be compared."""

    def __init__(self, source: str, format_: Format | None = None, **asked: Any) -> None:
        request = Request(source, format_ or recognise(source), asked.pop("options", Options()), **asked)
        self.exported: Exported = open_model(request)
        self.proto = onnx_frontend.in_memory(tidy(self.exported.proto)).proto
        signature = signature_of(self.proto)
        if request.samples is not None:
            self.samples = load_samples(request.samples, signature)
        else:
            self.samples = draw_samples(signature, request.shapes or self.exported.shapes)
        self.answer: Answer = self.exported.run(self.samples)

    @property
    def layers(self) -> list[str]:
        return [norm.layer for norm in self.exported.norms]

    @property
    def notes(self) -> str:
        return " | ".join(self.exported.notes)

    def values(self) -> dict[str, np.ndarray]:
        """Every value of the unfolded graph that arithmetic computes."""
        model = onnx.ModelProto()
        model.CopyFrom(self.proto)
        names = {value.name for value in model.graph.output}
        for node in model.graph.node:
            if node.op_type in ARITHMETIC and node.output[0] not in names:
                model.graph.output.append(helper.make_empty_tensor_value_info(node.output[0]))
        asked = [value.name for value in model.graph.output]
        found = session(model).run(asked, dict(self.samples))
        made = {node.output[0]: node.op_type for node in model.graph.node}
        return {name: value for name, value in zip(asked, found, strict=True) if made.get(name) in ARITHMETIC}

    def places(self) -> dict[str, list[str]]:
        """Of each norm, the names of the values that its calls are found at."""
        values = self.values()
        places: dict[str, list[str]] = {}
        for call in self.answer.calls:
            same = [
                name
                for name, value in values.items()
                if value.shape == call.value.shape and difference(value, call.value) < 1e-4
            ]
            assert same, f"the value of {self.layers[call.norm]} is nowhere in the graph"
            places.setdefault(self.layers[call.norm], []).append(same[-1])
        return places

    def fold(self) -> tuple[onnx.ModelProto, FoldReport]:
        folded, report = fold_batch_norms(onnx_frontend.in_memory(self.proto).ir())
        return ir.to_proto(folded), report

    def assert_parity(self) -> FoldReport:
        """The unfolded graph is the framework's network, and so is the folded one."""
        folded, report = self.fold()
        for model, allowed in ((self.proto, TORCH_PARITY), (folded, FOLD_PARITY)):
            outputs = session(model).run(None, dict(self.samples))
            for (name, want), got in zip(self.answer.outputs.items(), outputs, strict=True):
                assert got.shape == want.shape and got.dtype == want.dtype
                assert difference(got, want) <= allowed, name
        assert [value.name for value in self.proto.graph.output] == list(self.answer.outputs)
        return report


def difference(got: np.ndarray, want: np.ndarray) -> float:
    """The largest difference, over the largest value."""
    largest = np.abs(want.astype(np.float64)).max(initial=1e-30)
    return float(np.abs(got.astype(np.float64) - want.astype(np.float64)).max(initial=0.0) / largest)


def first_dims(proto: onnx.ModelProto) -> list[str | int]:
    values = (*proto.graph.input, *proto.graph.output)
    dims = [value.type.tensor_type.shape.dim[0] for value in values]
    return [dim.dim_param or dim.dim_value for dim in dims]


def refusal(source: str, format_: Format | None = None, **asked: Any) -> str:
    """The one line that a bad source is refused with."""
    with pytest.raises(SourceError) as refused:
        Run(source, format_, **asked)
    line = str(refused.value)
    assert "\n" not in line
    assert len(line) < 700
    return line


# -- every layer ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def layers() -> Run:
    return Run(f"{HERE}:layers", shapes=networks.SHAPES)


def test_every_layer_is_exported_unfolded_and_folds_where_algebra_allows(layers: Run) -> None:
    """One branch a layer: the graph is torch's network before and after folding, and each norm is found."""
    report = layers.assert_parity()
    folded = {decision.output for decision in report.folded}
    places = layers.places()
    for layer in networks.FOLDED:
        assert all(place in folded for place in places[layer]), f"{layer} was not folded"
    for layer in networks.KEPT:
        assert not any(place in folded for place in places[layer]), f"{layer} was folded"
    assert len(places["shared.norm"]) == 2
    assert all(place in folded for place in places["shared.norm"])


def test_the_table_holds_every_norm_of_the_module_as_torch_keeps_it(layers: Run) -> None:
    """Names are those of named_modules(); arrays are the module's own."""
    module = networks.layers()
    own = dict(module.named_modules())
    expected = {*networks.FOLDED, *networks.KEPT, networks.WITHOUT_STATISTICS, "shared.norm"}
    assert set(layers.layers) == expected
    for norm in layers.exported.norms:
        torch_norm = own[norm.layer]
        if isinstance(torch_norm, networks.Written):
            np.testing.assert_array_equal(norm.gamma, torch_norm.gamma.detach().double().flatten().numpy())
            np.testing.assert_array_equal(norm.variance, torch_norm.moving_var.double().flatten().numpy())
            assert (norm.kind, norm.axis, norm.epsilon, norm.momentum) == ("Written", 1, 2e-5, None)
            continue
        assert isinstance(torch_norm, nn.modules.batchnorm._BatchNorm)
        assert norm.kind == type(torch_norm).__name__
        assert (norm.epsilon, norm.momentum) == (torch_norm.eps, torch_norm.momentum)
        assert norm.gamma.dtype == np.float64
        if torch_norm.running_var is not None:
            assert norm.variance is not None
            np.testing.assert_array_equal(norm.variance, torch_norm.running_var.double().numpy())
            assert norm.keeps == (None if torch_norm.momentum is None else 0.9)


def test_parts_a_norm_lacks_are_ones_zeros_and_nothing(layers: Run) -> None:
    """affine=False has no gamma and beta, track_running_stats=False no statistics."""
    by_name = {norm.layer: norm for norm in layers.exported.norms}
    plain = by_name["plain.norm"]
    assert (plain.gamma == 1).all() and (plain.beta == 0).all() and plain.trainable is None
    bare = by_name[networks.WITHOUT_STATISTICS]
    assert bare.mean is None and bare.variance is None and bare.trainable is True


def test_what_the_user_must_know_is_noted(layers: Run) -> None:
    """A norm that cannot be folded and why, weights nobody gave."""
    assert "training mode" not in layers.notes  # a new module always is
    assert "'no_statistics.norm' keeps no running statistics" in layers.notes
    assert "track_running_stats=True" in layers.notes
    assert "no --weights were given" in layers.notes
    assert len(layers.exported.notes) == 2


def test_inputs_and_outputs_keep_the_users_names_and_an_open_batch(layers: Run) -> None:
    """forward()'s argument names, the keys of its dictionary, one symbol for the batch."""
    assert [value.name for value in layers.proto.graph.input] == ["line", "image", "volume", "row"]
    assert layers.proto.graph.output[0].name == "conv1d_out"
    assert set(first_dims(layers.proto)) == {"batch"}
    rng = np.random.default_rng(0)
    five = {
        name: rng.standard_normal((5, *shape[1:])).astype(np.float32)
        for name, shape in networks.SHAPES.items()
    }
    want = layers.exported.run(five).outputs
    for got, expected in zip(session(layers.proto).run(None, five), want.values(), strict=True):
        assert difference(got, expected) <= TORCH_PARITY


# -- files ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """Trained a little, so that the running statistics have moved."""
    torch.manual_seed(0)
    module = networks.small()
    head = nn.Linear(4 * 7 * 7, 2)
    data, labels = torch.randn(64, 3, 9, 9) * 2 + 1, torch.arange(64) % 2
    optimizer = torch.optim.SGD([*module.parameters(), *head.parameters()], 0.05)
    for _ in range(12):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(head(module(data)), labels)
        loss.backward()
        optimizer.step()
    assert (module[1].running_mean.abs() > 0.01).any()
    return module


@pytest.fixture(scope="module")
def files(trained: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """One network in every kind of file."""
    folder = tmp_path_factory.mktemp("torch")
    made = {
        name: folder / name
        for name in (
            "open.pt2", "fixed.pt2", "training.pt2", "scripted.pt", "traced.pt", "frozen.pt", "whole.pt",
            "state.pt", "legacy.pt", "state.safetensors", "parallel.pt", "checkpoint.pt",
        )
    }  # fmt: skip
    example = (torch.randn(2, 3, 9, 9),)
    batch = ({0: torch.export.Dim("batch")},)
    trained.eval()
    torch.export.save(torch.export.export(trained, example, dynamic_shapes=batch), made["open.pt2"])
    torch.export.save(torch.export.export(trained, example), made["fixed.pt2"])
    torch.jit.script(trained).save(made["scripted.pt"])
    torch.jit.trace(trained, example).save(made["traced.pt"])
    torch.jit.freeze(torch.jit.script(trained)).save(made["frozen.pt"])
    trained.train()
    training = torch.export.export(trained, example, dynamic_shapes=batch)
    torch.export.save(training, made["training.pt2"])
    torch.save(trained, made["whole.pt"])
    state = trained.state_dict()
    torch.save(state, made["state.pt"])
    torch.save(state, made["legacy.pt"], _use_new_zipfile_serialization=False)
    torch.save({f"module.{name}": value for name, value in state.items()}, made["parallel.pt"])
    torch.save({"epoch": 3, "model_state_dict": state}, made["checkpoint.pt"])
    save_file(state, made["state.safetensors"])
    return made


@pytest.fixture(scope="module")
def truth(trained: nn.Module) -> Any:
    def compute(samples: Mapping[str, np.ndarray]) -> np.ndarray:
        trained.eval()
        with torch.no_grad():
            return trained(torch.from_numpy(next(iter(samples.values())))).numpy()

    return compute


@pytest.mark.parametrize("name", ["open.pt2", "fixed.pt2", "training.pt2", "scripted.pt", "traced.pt"])
def test_a_file_with_its_network_gives_all_norms_and_the_same_answers(
    files: Mapping[str, Path], trained: nn.Module, truth: Any, name: str
) -> None:
    """torch.export archives and TorchScript: names, statistics, values of every norm, parity."""
    run = Run(str(files[name]), shapes={} if name.endswith("pt2") else IMAGE)
    report = run.assert_parity()
    assert difference(run.answer.outputs["output"], truth(run.samples)) < 1e-6
    assert run.layers == ["1", "4"]
    assert [norm.kind for norm in run.exported.norms] == ["BatchNorm2d", "BatchNorm2d"]
    np.testing.assert_array_equal(run.exported.norms[0].mean, trained[1].running_mean.double().numpy())
    assert run.exported.norms[0].keeps == 0.9
    folded = {decision.output for decision in report.folded}
    assert {place for places in run.places().values() for place in places} == folded
    assert len(folded) == 2
    assert first_dims(run.proto) == ([2, 2] if name == "fixed.pt2" else ["batch", "batch"])


def test_a_graph_captured_in_training_mode_is_exported_for_inference(files: Mapping[str, Path]) -> None:
    """Its flags are cleared, and the user is told what that cannot reach."""
    run = Run(str(files["training.pt2"]))
    assert "captured in training mode" in run.notes
    assert not any(node.op_type == "Dropout" for node in run.proto.graph.node)


def test_a_fixed_batch_stays_and_is_told(files: Mapping[str, Path]) -> None:
    """The archive's own example gives the shape; the note says how to capture an open one."""
    run = Run(str(files["fixed.pt2"]))
    assert "fixed batch of 2" in run.notes and "torch.export.Dim" in run.notes
    assert run.samples["input"].shape == (2, 3, 9, 9)


def test_a_frozen_program_has_no_norms_left_and_says_so(files: Mapping[str, Path], truth: Any) -> None:
    """torch.jit.freeze folded them."""
    run = Run(str(files["frozen.pt"]), shapes=IMAGE)
    assert run.layers == [] and "frozen" in run.notes
    assert difference(run.answer.outputs["output"], truth(run.samples)) < 1e-5
    run.assert_parity()


@pytest.mark.parametrize(
    "name", ["state.pt", "legacy.pt", "state.safetensors", "parallel.pt", "checkpoint.pt"]
)
def test_weights_fill_the_network_that_code_builds(files: Mapping[str, Path], truth: Any, name: str) -> None:
    """A state dict in any form; a prefix of DataParallel and a checkpoint around it are told."""
    run = Run(f"{HERE}:small", options=Options(weights=files[name]), shapes=IMAGE)
    run.assert_parity()
    assert difference(run.answer.outputs["output"], truth(run.samples)) < 1e-6
    assert run.layers == ["1", "4"]
    assert ("'module.'" in run.notes) == (name == "parallel.pt")
    assert ("'model_state_dict'" in run.notes) == (name == "checkpoint.pt")


def test_a_whole_pickled_module_is_opened_only_by_those_who_trust_it(
    files: Mapping[str, Path], truth: Any
) -> None:
    """Refused with what it means; --unsafe opens it."""
    line = refusal(str(files["whole.pt"]), shapes=IMAGE)
    assert "runs whatever code" in line and "--unsafe" in line and "state_dict" in line
    run = Run(str(files["whole.pt"]), options=Options(unsafe=True), shapes=IMAGE)
    run.assert_parity()
    assert difference(run.answer.outputs["output"], truth(run.samples)) < 1e-6
    assert "training mode" in run.notes


@pytest.mark.parametrize("source", ["open.pt2", "scripted.pt", "module"])
def test_the_child_process_hands_everything_over(
    files: Mapping[str, Path], truth: Any, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same through `open_source`, the only door the converter uses."""
    monkeypatch.chdir(Path(__file__).parents[1])
    options = Options(weights=files["state.safetensors"]) if source == "module" else None
    name = f"{HERE}:small" if source == "module" else str(files[source])
    with open_source(name, options, shapes=IMAGE) as found:
        assert found.framework is not None
        assert found.framework.name.startswith("torch 2.")
        assert [norm.layer for norm in found.framework.norms] == ["1", "4"]
        assert len(found.framework.answer.calls) == 2
        got = session(found.proto).run(None, dict(found.framework.samples))[0]
        assert difference(got, truth(found.framework.samples)) < TORCH_PARITY
        _, report = fold_batch_norms(found.ir())
        assert len(report.folded) == 2


# -- modules --------------------------------------------------------------------------------------


def test_a_batch_of_one_sample_leaves_the_batch_open() -> None:
    """The user's --shape has one row; the exported model takes any."""
    run = Run(f"{HERE}:small", shapes=IMAGE)
    assert run.samples["input"].shape[0] == 1
    assert first_dims(run.proto) == ["batch", "batch"]


def test_every_axis_is_open_that_the_code_leaves_open() -> None:
    """Height, width and length may be others than the sample's, where nothing in forward() fixes them."""
    run = Run(f"{HERE}:Spatial", shapes={"image": (1, 3, 16, 16), "line": (1, 4, 10)})
    assert len(run.assert_parity().folded) == 3
    assert not any("axis" in note or "only" in note for note in run.exported.notes)
    rng = np.random.default_rng(0)
    for rows, height, width, length in ((1, 16, 16, 10), (3, 21, 34, 5), (2, 64, 9, 31)):
        other = {
            "image": rng.standard_normal((rows, 3, height, width)).astype(np.float32),
            "line": rng.standard_normal((rows, 4, length)).astype(np.float32),
        }
        folded, _ = run.fold()
        want = run.exported.run(other).outputs
        for model, allowed in ((run.proto, TORCH_PARITY), (folded, FOLD_PARITY)):
            for got, expected in zip(session(model).run(None, other), want.values(), strict=True):
                assert difference(got, expected) <= allowed


def test_axes_that_the_code_fixes_stay_and_are_numbers() -> None:
    """A dense layer behind Flatten fixes height and width; so does a branch on them, within bounds."""
    run = Run(f"{HERE}:Flat", shapes={"x": (1, 3, 9, 9)})
    dims = run.proto.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 3, 9, 9]
    assert "takes 'x' as [batch, 3, 9, 9] only" in run.notes
    assert len(run.assert_parity().folded) == 1
    bounded = Run(f"{HERE}:Sized", shapes={"x": (1, 3, 9, 9)})
    assert "axis 2 of 'x' may be 2 to 19 only" in bounded.notes


def test_where_only_the_batch_can_be_opened_the_rest_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fixed in silence."""
    actual = torch.export.export

    def export(*args: Any, dynamic_shapes: Any, **more: Any) -> Any:
        if any(axes and len(axes) > 1 for axes in dynamic_shapes.values()):
            raise AssertionError("a guard it cannot follow")
        return actual(*args, dynamic_shapes=dynamic_shapes, **more)

    monkeypatch.setattr(torch.export, "export", export)
    run = Run(f"{HERE}:small", shapes=IMAGE)
    assert "takes 'input' as [batch, 3, 9, 9] only" in run.notes
    assert first_dims(run.proto) == ["batch", "batch"]


def test_code_that_is_random_or_trains_in_inference_mode_is_refused() -> None:
    """Two calls that differ, and modules that forward() switches back."""
    line = refusal(f"{HERE}:dropping", shapes={"": (2, 4)})
    assert "other numbers on each call" in line and "training=self.training" in line
    line = refusal(f"{HERE}:Training", shapes={"": (2, 4)})
    assert "switches 'norm' to training" in line and "take train() out" in line


def test_a_norm_in_the_top_module_raises_no_doubt() -> None:
    """What a network computes beside its layers is nobody's norm by name."""
    run = Run(f"{HERE}:OnTop", shapes={"": (2, 4)})
    run.assert_parity()
    assert "does not normalize" not in run.notes and "''" not in run.notes
    assert "" not in run.layers


def test_a_scripted_branch_that_is_not_taken_is_no_training_mode(tmp_path: Path) -> None:
    """Nor is a dropout that drops nothing; attention has the one and the other."""
    torch.jit.script(networks.Asking().eval()).save(tmp_path / "asking.pt")
    run = Run(str(tmp_path / "asking.pt"), shapes={"": (2, 8)})
    run.assert_parity()
    assert run.layers == ["norm"]
    torch.jit.script(nn.MultiheadAttention(8, 2).eval()).save(tmp_path / "attention.pt")
    shapes = dict.fromkeys(("query", "key", "value"), (2, 5, 8))
    line = refusal(str(tmp_path / "attention.pt"), shapes=shapes)
    assert "training mode" not in line and "cannot be written as ONNX" in line


def test_scripted_dictionaries_are_refused_with_the_remedy(tmp_path: Path) -> None:
    """The exporter's own words say nothing of them."""
    torch.jit.script(networks.Answering()).save(tmp_path / "answering.pt")
    line = refusal(str(tmp_path / "answering.pt"), shapes={"": (2, 4)})
    assert "dictionaries" in line and "flat tuple" in line


def test_an_archive_of_another_kind_is_called_by_its_name(tmp_path: Path, files: Mapping[str, Path]) -> None:
    """--from pt2 on a Keras or TorchScript file."""
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        for name in ("config.json", "metadata.json", "model.weights.h5"):
            archive.writestr(name, "{}")
    assert "is a keras file" in refusal(str(tmp_path / "other.keras"), Format.PT2)
    assert "is a torchscript file" in refusal(str(files["scripted.pt"]), Format.PT2)


def test_factories_may_be_classes_instances_and_wrapped_networks() -> None:
    """A class is called, an instance taken, DataParallel taken off."""
    run = Run(f"{HERE}:INSTANCE", shapes={"": (1, 4)})
    assert run.layers == ["1"] and "training mode" not in run.notes
    run.assert_parity()
    lazy = Run(f"{HERE}:Lazy", shapes={"x": (1, 3, 9, 9)})
    assert lazy.layers == ["norm"] and lazy.exported.norms[0].gamma.shape == (4,)
    lazy.assert_parity()
    wrapped = Run(f"{HERE}:wrapped", shapes=IMAGE)
    assert wrapped.layers == ["1", "4"]


def test_integer_inputs_and_optional_ones_come_from_samples(tmp_path: Path) -> None:
    """Token ids keep their type; an argument that is not given keeps its default."""
    ids = np.array([[1, 5, 9, 0, 3]], np.int64)
    np.savez(tmp_path / "ids.npz", ids=ids)
    run = Run(f"{HERE}:Tokens", samples=tmp_path / "ids.npz")
    run.assert_parity()
    assert [value.name for value in run.proto.graph.input] == ["ids"]
    assert list(run.answer.outputs) == ["output_0", "output_1"]
    assert set(first_dims(run.proto)) == {"batch"}
    np.savez(tmp_path / "both.npz", ids=ids, mask=np.ones((1, 5)))
    both = Run(f"{HERE}:Tokens", samples=tmp_path / "both.npz")
    both.assert_parity()
    assert [value.name for value in both.proto.graph.input] == ["ids", "mask"]
    line = refusal(f"{HERE}:Tokens", shapes={"ids": (1, 5)})
    assert "takes integers" in line and "--samples" in line


def test_half_precision_stays_half(tmp_path: Path) -> None:
    """A network in float16 takes and gives float16."""
    run = Run(f"{HERE}:Half", shapes=IMAGE)
    got = session(run.proto).run(None, dict(run.samples))[0]
    assert got.dtype == np.float16
    assert difference(got, run.answer.outputs["output"]) < 5e-3


def test_code_that_fixes_the_batch_is_exported_with_that_batch() -> None:
    """And the user is told."""
    run = Run(f"{HERE}:FixedBatch", shapes={"x": (2, 4)})
    assert first_dims(run.proto) == [2, 2]
    assert "fixes the first axis of 'x' at 2" in run.notes


def test_a_module_that_only_looks_like_a_norm_is_told_not_listed() -> None:
    """Moving statistics that inference does not use make no norm."""
    run = Run(f"{HERE}:pretending", shapes={"": (2, 4)})
    assert run.layers == []
    assert "'1' (Pretending) has moving statistics but does not normalize by them" in run.notes


def test_statistics_kept_outside_the_state_dict_are_told(tmp_path: Path) -> None:
    """A norm from scratch keeps them as plain attributes: no state dict holds what they learned."""
    torch.save(networks.layers().state_dict(), tmp_path / "state.pt")
    run = Run(f"{HERE}:layers", options=Options(weights=tmp_path / "state.pt"), shapes=networks.SHAPES)
    assert "'written.norm' keeps its moving statistics as plain attributes" in run.notes
    assert "register_buffer" in run.notes


UNUSUAL = {
    "activated": ("Activated", 1, 1e-4),
    "pinned": ("Pinned", 1, 1e-3),
    "own": ("Own", 1, 1e-5),
    "on_the_last": ("OnTheLast", 3, 1e-2),
}


def test_norms_that_are_no_module_of_the_library_are_norms_all_the_same(tmp_path: Path) -> None:
    """The library's function, a multiply-add, a subclass, another axis: by factory, archive and script."""
    with torch.no_grad():
        module, example = networks.unusual().eval(), torch.randn(2, 3, 9, 9)
        torch.export.save(torch.export.export(module, (example,)), tmp_path / "unusual.pt2")
        torch.jit.trace(module, (example,)).save(tmp_path / "unusual.pt")
    image = {"": (2, 3, 9, 9)}
    for source in (f"{HERE}:unusual", str(tmp_path / "unusual.pt2"), str(tmp_path / "unusual.pt")):
        run = Run(source, shapes=image)
        run.assert_parity()
        found = {norm.layer: (norm.kind, norm.axis % 4, norm.epsilon) for norm in run.exported.norms}
        assert found == UNUSUAL
        # A script shows what its batch_norm operators give, and nothing of arithmetic.
        assert set(run.places()) == ({"activated", "own"} if source.endswith(".pt") else set(UNUSUAL))


def test_outputs_that_are_one_value_or_an_input_have_names_of_their_own() -> None:
    """Nothing is merged or renamed; what is None is left out."""
    run = Run(f"{HERE}:Echo", shapes=IMAGE)
    run.assert_parity()
    assert [value.name for value in run.proto.graph.input] == ["x"]
    assert list(run.answer.outputs) == ["output_x", "again", "input"]


def test_an_input_without_a_batch_is_fixed_and_told(tmp_path: Path) -> None:
    """The other input's batch stays open."""
    run = Run(f"{HERE}:Weighted", shapes={"x": (1, 4), "matrix": (4, 3)})
    run.assert_parity()
    assert "fixes the first axis of 'matrix' at 4" in run.notes
    assert first_dims(run.proto)[1] == 4 and isinstance(first_dims(run.proto)[0], str)
    extra = Run(f"{HERE}:Weighted", shapes={"x": (1, 4), "matrix": (4, 3), "extra": (1, 3)})
    extra.assert_parity()
    assert [value.name for value in extra.proto.graph.input] == ["x", "matrix", "extra"]


def test_nested_and_keyword_inputs_of_an_archive_are_flat_in_the_graph(tmp_path: Path) -> None:
    """A shared norm's value is kept before it is changed in place."""
    batch = {0: torch.export.Dim("batch", min=2, max=64)}
    image = torch.randn(2, 3, 6, 6)
    program = torch.export.export(
        networks.Nested().eval(),
        ((image, image),),
        {"bias": torch.randn(2, 4, 6, 6)},
        dynamic_shapes={"pair": (batch, batch), "bias": batch},
    )
    torch.export.save(program, tmp_path / "nested.pt2")
    run = Run(str(tmp_path / "nested.pt2"))
    run.assert_parity()
    assert [value.name for value in run.proto.graph.input] == ["pair_0", "pair_1", "bias"]
    assert len(run.places()["norm"]) == 2
    assert set(first_dims(run.proto)) == {"batch"}


# -- nothing runs that the user did not trust -----------------------------------------------------


class Payload:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def rewritten(source: Path, target: Path, change: Mapping[str, bytes]) -> Path:
    """An archive with some members replaced, or added; keys are ends of names."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        names = old.namelist()
        for name in names:
            content = next((value for end, value in change.items() if name.endswith(end)), old.read(name))
            new.writestr(name, content)
        for end, content in change.items():
            if not any(name.endswith(end) for name in names):
                new.writestr(f"{root}/{end}", content)
    return target


def described(source: Path) -> dict[str, Any]:
    with zipfile.ZipFile(source) as archive:
        name = next(each for each in archive.namelist() if each.endswith("models/model.json"))
        return json.loads(archive.read(name))


def test_an_archive_with_a_crafted_pickle_is_refused_before_it_is_opened(
    files: Mapping[str, Path], tmp_path: Path
) -> None:
    """torch.export.load itself would fall back to a full unpickle."""
    proof = tmp_path / "pwned"
    buffer = io.BytesIO()
    torch.save({"evil": Payload(proof)}, buffer)
    plain = pickle.dumps(Payload(proof))
    for end in ("data/sample_inputs/model.pt", "data/constants/opaque_obj_0", "data/weights/more.pkl"):
        for content in (buffer.getvalue(), plain):
            crafted = rewritten(files["open.pt2"], tmp_path / "crafted.pt2", {end: content})
            line = refusal(str(crafted))
            assert "refused" in line
            assert not proof.exists()


def test_weights_that_an_archive_declares_pickled_are_screened_too(
    files: Mapping[str, Path], tmp_path: Path
) -> None:
    """Their files have no telling name; the description says that they are pickles."""
    proof = tmp_path / "pwned"
    with zipfile.ZipFile(files["open.pt2"]) as archive:
        name = next(each for each in archive.namelist() if each.endswith("model_weights_config.json"))
        config = json.loads(archive.read(name))
    first = next(iter(config["config"].values()))
    first["use_pickle"] = True
    change = {
        "model_weights_config.json": json.dumps(config).encode(),
        first["path_name"]: pickle.dumps(Payload(proof)),
    }
    assert "would run code" in refusal(str(rewritten(files["open.pt2"], tmp_path / "crafted.pt2", change)))
    assert not proof.exists()


def test_code_in_the_description_of_a_graph_is_refused(files: Mapping[str, Path], tmp_path: Path) -> None:
    """Symbolic shapes are evaluated as Python, names compiled, operators taken from all of torch."""
    proof = tmp_path / "pwned"
    evil = f"__import__('pathlib').Path({str(proof)!r}).touch()"
    quiet = "open(chr(112), chr(119))"

    def crafted(change: Any) -> str:
        content = described(files["open.pt2"])
        change(content)
        raw = json.dumps(content).encode()
        return refusal(str(rewritten(files["open.pt2"], tmp_path / "crafted.pt2", {"model.json": raw})))

    def symbols(content: Any) -> Iterator[dict[str, Any]]:
        if isinstance(content, dict):
            if "expr_str" in content:
                yield content
            for value in content.values():
                yield from symbols(value)
        elif isinstance(content, list):
            for value in content:
                yield from symbols(value)

    def graph(content: Any) -> Any:
        return content["graph_module"]["graph"]

    for code in (evil, quiet):
        assert "symbolic shape" in crafted(lambda c, code=code: next(symbols(c)).update(expr_str=code))
    for target in ("torch.os.system", "torch.ops.load_library", "_operator.call", "torch.ops.aten.save"):
        assert "operator" in crafted(lambda c, t=target: graph(c)["nodes"][0].update(target=t))
    assert "name that is none" in crafted(lambda c: graph(c)["nodes"][0].update(name=f"x = {evil} #"))
    assert "module to import" in crafted(
        lambda c: c["graph_module"]["module_call_graph"][0]["signature"].update(
            in_spec='[1, {"default_factory_module": "antigravity"}]'
        )
    )
    assert not proof.exists() and not (Path.cwd() / "p").exists()


def test_guards_in_an_archive_are_never_compiled(files: Mapping[str, Path], tmp_path: Path) -> None:
    """They are Python text; infold has no use for them."""
    proof = tmp_path / "pwned"
    content = described(files["open.pt2"])
    content["guards_code"] = [f"__import__('pathlib').Path({str(proof)!r}).touch() is None"]
    crafted = rewritten(
        files["open.pt2"], tmp_path / "crafted.pt2", {"model.json": json.dumps(content).encode()}
    )
    Run(str(crafted)).assert_parity()
    assert not proof.exists()


def test_the_users_own_files_in_an_archive_are_left_alone(files: Mapping[str, Path], tmp_path: Path) -> None:
    """torch.export.save(extra_files=...) may hold any text; nothing reads it."""
    program = torch.export.load(files["open.pt2"])
    extra = {"labels.json": '{"class 1": "a dog; (a cat)"}'}
    torch.export.save(program, tmp_path / "extra.pt2", extra_files=extra)
    assert Run(str(tmp_path / "extra.pt2")).layers == ["1", "4"]


def test_compiled_code_in_an_archive_is_refused(files: Mapping[str, Path], tmp_path: Path) -> None:
    """torch.export.load would load the library."""
    end = "data/aotinductor/model/model.so"
    crafted = rewritten(files["open.pt2"], tmp_path / "crafted.pt2", {end: b"\x7fELF"})
    assert "compiled code" in refusal(str(crafted))


def test_weights_and_whole_pickles_are_never_unpickled_unasked(tmp_path: Path) -> None:
    """Neither as the source nor as --weights, in the new form nor the old."""
    proof = tmp_path / "pwned"
    for new in (True, False):
        path = tmp_path / f"evil{new}.pt"
        torch.save({"a": Payload(proof)}, path, _use_new_zipfile_serialization=new)
        assert "--unsafe" in refusal(str(path))
        line = refusal(f"{HERE}:small", options=Options(weights=path), shapes=IMAGE)
        assert "would run code" in line
    raw = tmp_path / "raw.pkl"
    raw.write_bytes(pickle.dumps(Payload(proof)))
    refusal(str(raw))
    assert not proof.exists()


def test_a_script_that_touches_files_is_refused(tmp_path: Path) -> None:
    """A TorchScript program may write where it likes."""
    proof = tmp_path / "pwned"

    class Writing(nn.Module):
        def __init__(self, path: str) -> None:
            super().__init__()
            self.path = path

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.save(x, self.path)
            return x

    torch.jit.script(Writing(str(proof))).save(tmp_path / "writing.pt")
    assert "reads or writes files" in refusal(str(tmp_path / "writing.pt"), shapes={"": (1, 4)})
    assert not proof.exists()


# -- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "shapes", "words"),
    [
        ("no.such.module:factory", IMAGE, ("no module named 'no'", "current folder")),
        (f"{HERE}:nothing", IMAGE, ("has no 'nothing'", "it has")),
        (f"{HERE}:SEED", IMAGE, ("is a int", "name a function or a class")),
        (f"{HERE}:not_a_module", IMAGE, ("gave a dict", "torch.nn.Module")),
        (f"{HERE}:with_argument", IMAGE, ("without arguments", "width")),
        (f"{HERE}:failing", IMAGE, ("ValueError: the config file is missing", "torch_networks.py, line")),
        (f"{HERE}:small", {}, ("give the shape of its input 'input'", "--shape 1,3,224,224", "--samples")),
        (f"{HERE}:layers", {"": (1, 3)}, ("--shape NAME=", "line, image, volume, row")),
        (f"{HERE}:layers", {"line": (1, 4, 10)}, ("give the shape of its input 'image'", "--shape image=")),
        (f"{HERE}:small", {"picture": (1, 3, 9, 9)}, ("takes no 'picture'", "it takes input")),
        (f"{HERE}:small", {"": (1, 5, 9, 9)}, ("fails on input [1, 5, 9, 9]", "channels", "--shape")),
        (f"{HERE}:Brain", IMAGE, ("bfloat16", ".float()")),
        (f"{HERE}:Exotic", {"": (2, 4)}, ("bessel_j0", "'body.1'", "no ONNX form")),
        (f"{HERE}:Deciding", {"": (2, 4)}, ("decides on values", "torch.where", "torch_networks.py")),
        (f"{HERE}:Counting", {"": (2, 4)}, ("gives a int as 'output_1'", "return tensors only")),
    ],
)
def test_a_module_that_cannot_be_used_is_refused_in_one_line(
    source: str, shapes: dict[str, tuple[int, ...]], words: tuple[str, ...]
) -> None:
    """With what is wrong and what to do."""
    line = refusal(source, shapes=shapes)
    for word in words:
        assert word in line


def test_weights_that_do_not_fit_are_refused_by_name(files: Mapping[str, Path], tmp_path: Path) -> None:
    """Missing, unexpected and wrongly shaped entries, the first few of them."""
    state = torch.load(files["state.pt"], weights_only=True)
    state["more"] = torch.ones(2)
    del state["1.running_mean"]
    torch.save(state, tmp_path / "names.pt")
    state = torch.load(files["state.pt"], weights_only=True)
    state["0.weight"] = torch.ones(2, 2)
    torch.save(state, tmp_path / "shapes.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "cut.safetensors").write_bytes(files["state.safetensors"].read_bytes()[:200])
    (tmp_path / "cut.pt").write_bytes(files["state.pt"].read_bytes()[:-300])

    def line(path: Path) -> str:
        return refusal(f"{HERE}:small", options=Options(weights=path), shapes=IMAGE)

    assert "it lacks 1.running_mean; the network has no more" in line(tmp_path / "names.pt")
    assert "0.weight [2, 2] where the network has [8, 3, 3, 3]" in line(tmp_path / "shapes.pt")
    assert "no state dict" in line(tmp_path / "list.pt")
    assert "damaged" in line(tmp_path / "cut.safetensors")
    assert "damaged" in line(tmp_path / "cut.pt")
    assert "no such file" in line(tmp_path / "none.pt")
    assert "is a pt2 file, not weights" in line(files["open.pt2"])
    assert "is a torchscript file, not weights" in line(files["scripted.pt"])


def test_weights_without_their_network_are_refused_with_the_remedy(files: Mapping[str, Path]) -> None:
    """Whichever form they have."""
    for name in ("state.pt", "legacy.pt", "checkpoint.pt", "state.safetensors"):
        if name.endswith(".safetensors"):
            with pytest.raises(SourceError, match="--weights"):
                recognise(str(files[name]))
        else:
            assert "package.module:factory DEST.onnx --weights" in refusal(str(files[name]))


def test_damaged_archives_and_other_versions_are_refused(files: Mapping[str, Path], tmp_path: Path) -> None:
    """One clear line, whatever the file was."""
    for name, kind, screen in (
        ("open.pt2", Format.PT2, screen_archive),
        ("scripted.pt", Format.TORCHSCRIPT, screen_script),
    ):
        content = bytearray(files[name].read_bytes())
        (tmp_path / "cut.pt2").write_bytes(content[:-200])
        assert "damaged" in refusal(str(tmp_path / "cut.pt2"), kind, shapes=IMAGE)
        for place in range(64, len(content), len(content) // 200):
            content[place] ^= 0xFF
            (tmp_path / "flipped.pt2").write_bytes(content)
            with contextlib.suppress(SourceError):  # nothing else is raised; some bytes nobody reads
                screen(tmp_path / "flipped.pt2")
            content[place] ^= 0xFF
    newer = described(files["open.pt2"])
    newer["schema_version"]["major"] = 99
    raw = json.dumps(newer).encode()
    line = refusal(str(rewritten(files["open.pt2"], tmp_path / "newer.pt2", {"model.json": raw})))
    assert "cannot open it" in line and "export it again" in line


def test_a_program_traced_in_training_mode_is_refused(tmp_path: Path) -> None:
    """Its flags are constants that eval() does not reach."""
    module = networks.small().train()
    with warnings.catch_warnings(action="ignore"):
        traced = torch.jit.trace(module, (torch.randn(2, 3, 9, 9),), check_trace=False)
    traced.save(tmp_path / "traced.pt")
    line = refusal(str(tmp_path / "traced.pt"), shapes=IMAGE)
    assert "traced in training mode ('1')" in line and "module.eval() before torch.jit.trace" in line


def test_a_scripted_module_left_in_training_mode_is_exported_for_inference(tmp_path: Path) -> None:
    """Scripted modules keep their flags as attributes, so eval() reaches them."""
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.ReLU(inplace=True))
    torch.jit.script(module.train()).save(tmp_path / "scripted.pt")
    run = Run(str(tmp_path / "scripted.pt"), shapes=IMAGE)
    run.assert_parity()
    assert "was in training mode" in run.notes
    assert run.layers == ["1"] and len(run.answer.calls) == 1
    run.places()


class TwoInputs(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor, unread: torch.Tensor) -> torch.Tensor:
        return self.body(x)


def test_a_script_keeps_the_inputs_that_nothing_reads(tmp_path: Path) -> None:
    """The exporter drops them; they are the model's inputs all the same, with its batch."""
    image = torch.randn(2, 3, 9, 9)
    torch.jit.trace(TwoInputs(networks.small().eval()), (image, image)).save(tmp_path / "two.pt")
    run = Run(str(tmp_path / "two.pt"), shapes={"x": (1, 3, 9, 9), "unread": (1, 2)})
    run.assert_parity()
    assert [value.name for value in run.proto.graph.input] == ["x", "unread"]
    assert set(first_dims(run.proto)) == {"batch"}
    assert run.layers == ["body.1", "body.4"]
    assert "--shape x=" in refusal(str(tmp_path / "two.pt"))
    assert "x, unread" in refusal(str(tmp_path / "two.pt"), shapes=IMAGE)
    line = refusal(str(tmp_path / "two.pt"), shapes={"x": (1, 5, 9, 9), "unread": (1,)})
    assert "fails on x [1, 5, 9, 9]" in line and "5 channels" in line


def test_an_operator_that_onnx_lacks_is_named_in_scripts_too(tmp_path: Path) -> None:
    """With the layer that uses it."""
    torch.jit.trace(networks.Exotic().eval(), (torch.randn(2, 4),)).save(tmp_path / "exotic.pt")
    line = refusal(str(tmp_path / "exotic.pt"), shapes={"": (2, 4)})
    assert "special_bessel_j0" in line and "'body.1'" in line and "no ONNX form" in line


def test_a_lowered_training_graph_is_refused(tmp_path: Path) -> None:
    """Decomposed training operators have no way back to inference."""
    program = torch.export.export(networks.small().train(), (torch.randn(2, 3, 9, 9),))
    torch.export.save(program.run_decompositions(), tmp_path / "lowered.pt2")
    line = refusal(str(tmp_path / "lowered.pt2"))
    assert "captured in training mode and lowered" in line and "module.eval()" in line


def test_a_lowered_inference_graph_keeps_its_norms(tmp_path: Path) -> None:
    """The core operator of a norm is known as well."""
    program = torch.export.export(networks.small().eval(), (torch.randn(2, 3, 9, 9),))
    torch.export.save(program.run_decompositions(), tmp_path / "lowered.pt2")
    run = Run(str(tmp_path / "lowered.pt2"))
    assert run.layers == ["1", "4"] and len(run.answer.calls) == 2
    run.assert_parity()


def test_a_norm_written_by_hand_is_found_in_archives_and_scripts(tmp_path: Path) -> None:
    """There is no module in an archive: its tensors' names and its arithmetic tell."""
    module = networks.set_statistics(nn.Sequential(nn.Conv2d(3, 8, 3), networks.Written(8, 4)))
    for name in ("moving_mean", "moving_var"):
        value = getattr(module[1], name)
        delattr(module[1], name)
        module[1].register_buffer(name, value)
    with torch.no_grad():
        program = torch.export.export(module.eval(), (torch.randn(2, 3, 9, 9),))
    torch.export.save(program, tmp_path / "written.pt2")
    run = Run(str(tmp_path / "written.pt2"))
    run.assert_parity()
    (norm,) = run.exported.norms
    assert (norm.layer, norm.kind, norm.axis, norm.epsilon) == ("1", "Written", 1, 2e-5)
    assert len(run.places()["1"]) == 1
    with torch.no_grad():
        torch.jit.trace(module, (torch.randn(2, 3, 9, 9),)).save(tmp_path / "written.pt")
    script = Run(str(tmp_path / "written.pt"), shapes=IMAGE)
    script.assert_parity()
    (traced,) = script.exported.norms
    assert (traced.layer, traced.kind, traced.axis, traced.epsilon) == ("1", "Written", 1, 2e-5)
    np.testing.assert_array_equal(traced.variance, norm.variance)
