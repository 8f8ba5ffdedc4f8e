"""From file to file: atomic, reported, proven."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import infold.convert.pipeline as pipeline
from graphs import conv_norm, dense_norm, model, norm, normal, relu_only
from infold import __version__
from infold.convert import Sampling, convert, convert_to_repository, verdict, verify
from infold.errors import ProofError, SamplesError, SourceError, TargetError
from infold.fold import FoldReport, fold_batch_norms
from infold.tensors import BFLOAT16
from oracle import assert_equal_within_rounding, run

DIGITS = Path(__file__).parents[2] / "examples" / "digits"


def save(proto: onnx.ModelProto, folder: Path, name: str = "source.onnx") -> Path:
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return path


def listing(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder, hidden or not, with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def flip_sign(folded: ir.Model) -> None:
    """Turn the sign of the first channel of the first folded weight."""
    for value in folded.graph.initializers.values():
        assert value.const_value is not None
        if value.const_value.shape.rank() > 1:
            array = value.const_value.numpy().copy()
            array[0] = -array[0]
            value.const_value = ir.Tensor(array, name=value.name)
            return


@pytest.fixture
def broken_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folding that gets one sign wrong."""

    def fold(graph: ir.Model, *, freeze_initializers: bool) -> tuple[ir.Model, FoldReport]:
        folded, report = fold_batch_norms(graph, freeze_initializers=freeze_initializers)
        flip_sign(folded)
        return folded, report

    monkeypatch.setattr(pipeline, "fold_batch_norms", fold)


# -- what is written ------------------------------------------------------------------------------


def test_convert_writes_a_folded_model_that_computes_the_same(tmp_path: Path) -> None:
    """The file on disk, loaded by itself, equals the source within rounding."""
    source, target = save(conv_norm(), tmp_path), tmp_path / "folded.onnx"
    done = convert(source, target)
    assert done.destination == target
    assert done.proof is not None and done.proof.passed
    written = onnx.load(str(target))
    onnx.checker.check_model(written, full_check=True)
    assert [node.op_type for node in written.graph.node] == ["Conv"]
    assert_equal_within_rounding(conv_norm(), written, {"x": normal(2, 2, 6, 6)})
    assert source.read_bytes() == conv_norm().SerializeToString()


def test_inputs_and_outputs_are_written_exactly_as_they_were(tmp_path: Path) -> None:
    """Names, dtypes, symbols, even documentation of the interface."""
    proto = conv_norm()
    proto.graph.input[0].doc_string = "an image"
    convert(save(proto, tmp_path), tmp_path / "folded.onnx")
    written = onnx.load(str(tmp_path / "folded.onnx"))
    assert list(written.graph.input) == list(proto.graph.input)
    assert list(written.graph.output) == list(proto.graph.output)
    assert [(o.domain, o.version) for o in written.opset_import] == [("", 17)]
    assert written.ir_version == proto.ir_version


def test_inferred_shapes_are_not_written(tmp_path: Path) -> None:
    """Only shapes that the source stated go out: an inferred one may be wrong for other inputs."""
    proto = model(
        """g (float[N,2,6,6] x) => (float[N,4,4,4] z) {
            c = Conv (x, w)  y = BatchNormalization (c, gamma, beta, mean, variance)  z = Relu (y) }""",
        {"w": normal(4, 2, 3, 3), **norm(4)},
    )
    convert(save(proto, tmp_path), tmp_path / "folded.onnx")
    stated = {value.name for value in onnx.load(str(tmp_path / "folded.onnx")).graph.value_info}
    assert not stated & {"c", "y"}


def test_the_model_carries_where_it_comes_from(tmp_path: Path) -> None:
    """Version, digest of the source and verdict are in the file itself; the source's own stay."""
    proto = conv_norm()
    proto.metadata_props.add(key="author", value="somebody")
    source = save(proto, tmp_path)
    convert(source, tmp_path / "folded.onnx")
    metadata = {p.key: p.value for p in onnx.load(str(tmp_path / "folded.onnx")).metadata_props}
    assert metadata == {
        "author": "somebody",
        "infold.version": __version__,
        "infold.source_sha256": sha256(source.read_bytes()).hexdigest(),
        "infold.verdict": "1 of 1 folded, 0 kept; proven equal",
    }


def test_the_same_source_gives_the_same_bytes(tmp_path: Path) -> None:
    """Two conversions, two equal files."""
    source = save(conv_norm(), tmp_path)
    for name in ("a.onnx", "b.onnx"):
        convert(source, tmp_path / name, prove_it=False)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_the_report_is_written_beside_the_model(tmp_path: Path) -> None:
    """Valid JSON with every key that machines read, the same as is returned."""
    source, target = save(conv_norm(), tmp_path), tmp_path / "folded.onnx"
    done = convert(source, target)
    facts = json.loads((tmp_path / "folded.fold-report.json").read_text())
    assert facts == done.json
    assert set(facts) == {
        "schema_version", "infold", "versions", "source", "result", "verdict", "norms", "folded", "kept",
        "nodes_before", "nodes_after", "sites", "proof", "serving", "framework", "notes",
    }  # fmt: skip
    assert facts["schema_version"] == 1 and facts["infold"] == __version__
    assert facts["source"] == {"path": "source.onnx", "sha256": sha256(source.read_bytes()).hexdigest()}
    assert facts["result"] == {"path": "folded.onnx", "sha256": sha256(target.read_bytes()).hexdigest()}
    assert (facts["norms"], facts["folded"], facts["kept"]) == (1, 1, 0)
    assert (facts["nodes_before"], facts["nodes_after"]) == (2, 1)
    (site,) = facts["sites"]
    assert (site["site"], site["outcome"], site["into"], site["into_op"]) == ("bn", "folded", "conv", "Conv")
    assert (site["channels"], site["refusals"], site["is_norm"]) == (4, [], True)
    assert site["proof"]["passed"] and site["proof"]["value"] == "y" and site["proof"]["fan_in"] == 18
    assert 0 <= site["proof"]["max_abs"] <= site["proof"]["bound"]
    assert facts["proof"]["verified"] and facts["proof"]["samples"] == 8
    assert facts["proof"]["oracle"].startswith("onnxruntime")
    assert [each["value"] for each in facts["proof"]["outputs"]] == ["y"]
    assert facts["verdict"].startswith("1 of 1 folded, 0 kept; verified on 8 samples")


def test_a_kept_norm_is_reported_with_its_reason(tmp_path: Path) -> None:
    """Not folding is no error; the report says why and what the norm does."""
    proto = model(
        "g (float[N,4] x) => (float[N,4] y) { [bn] y = BatchNormalization (x, gamma, beta, mean, variance) }",
        norm(4),
    )
    done = convert(save(proto, tmp_path), tmp_path / "folded.onnx")
    (site,) = done.json["sites"]
    assert site["outcome"] == "kept" and site["proof"] is None and site["into"] is None
    assert site["refusals"][0]["reason"] == "graph-input"
    assert "0 of 1 folded, 1 kept" in done.json["verdict"]


def test_a_model_without_norms_is_exported_and_says_so(tmp_path: Path) -> None:
    """Nothing to fold is fine: the model is written all the same."""
    done = convert(save(relu_only(), tmp_path), tmp_path / "folded.onnx")
    assert done.proof is not None and done.proof.passed
    assert verdict(done.report, done.proof).startswith("no norms found; verified on 8 samples")
    assert [node.op_type for node in onnx.load(str(tmp_path / "folded.onnx")).graph.node] == ["Relu"]


def test_without_a_proof_the_report_says_so(tmp_path: Path) -> None:
    """In the JSON, in the verdict and in the model."""
    done = convert(save(conv_norm(), tmp_path), tmp_path / "folded.onnx", prove_it=False)
    assert done.proof is None
    assert done.json["proof"] == {"verified": False, "why": "skipped by --no-verify"}
    assert done.json["verdict"].endswith("not verified")
    metadata = {p.key: p.value for p in onnx.load(str(tmp_path / "folded.onnx")).metadata_props}
    assert metadata["infold.verdict"].endswith("not verified")


def test_external_weights_are_read_and_written_inline(tmp_path: Path) -> None:
    """A small model ends up as one file, wherever its weights lay."""
    inside = tmp_path / "in"
    inside.mkdir()
    source = inside / "source.onnx"
    onnx.save(conv_norm(), str(source), save_as_external_data=True, location="w.data", size_threshold=0)
    convert(source, tmp_path / "folded.onnx")
    written = onnx.load(str(tmp_path / "folded.onnx"), load_external_data=False)
    assert all(t.data_location == onnx.TensorProto.DEFAULT for t in written.graph.initializer)
    assert_equal_within_rounding(conv_norm(), written, {"x": normal(2, 2, 6, 6)})


def test_large_weights_go_to_a_file_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit of a protobuf the weights are written beside the model, and it still runs."""
    monkeypatch.setattr("infold.convert.writing.INLINE_LIMIT_BYTES", 100)
    proto = dense_norm(600, 500)  # onnx_ir keeps tensors of up to 1 MiB inside
    done = convert(save(proto, tmp_path), tmp_path / "folded.onnx")
    assert done.proof is not None and done.proof.passed
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "folded.fold-report.json", "folded.onnx", "folded.onnx.data", "source.onnx",
    ]  # fmt: skip
    digest = sha256((tmp_path / "folded.onnx").read_bytes() + (tmp_path / "folded.onnx.data").read_bytes())
    assert done.json["result"]["sha256"] == digest.hexdigest()
    written = onnx.load(str(tmp_path / "folded.onnx"))
    assert_equal_within_rounding(proto, written, {"x": normal(2, 600)})


def test_the_users_own_samples_are_used(tmp_path: Path) -> None:
    """The proof counts the rows that the user brought."""
    np.savez(tmp_path / "s.npz", x=normal(3, 2, 6, 6))
    done = convert(save(conv_norm(), tmp_path), tmp_path / "f.onnx", Sampling(tmp_path / "s.npz"))
    assert done.proof is not None and done.proof.rows == 3
    assert (done.proof.samples["x"] == normal(3, 2, 6, 6)).all()


# -- what is left alone ---------------------------------------------------------------------------


@pytest.mark.usefixtures("broken_fold")
@pytest.mark.parametrize("existing", [True, False])
def test_a_failed_proof_leaves_everything_as_it_was(tmp_path: Path, existing: bool) -> None:
    """No model, no report, no scratch folder; what was there before is still there."""
    source, target = save(conv_norm(), tmp_path), tmp_path / "folded.onnx"
    if existing:
        target.write_bytes(b"the old one")
        (tmp_path / "folded.fold-report.json").write_text("{}")
    before = listing(tmp_path)
    with pytest.raises(ProofError) as caught:
        convert(source, target)
    assert caught.value.site == "bn"
    assert "first norm that is off is 'bn'" in str(caught.value)
    assert listing(tmp_path) == before


def test_a_bad_source_leaves_everything_as_it_was(tmp_path: Path) -> None:
    """The destination is not touched before the source has been understood."""
    (tmp_path / "source.onnx").write_bytes(b"")
    before = listing(tmp_path)
    with pytest.raises(SourceError):
        convert(tmp_path / "source.onnx", tmp_path / "folded.onnx")
    assert listing(tmp_path) == before


def test_bad_samples_leave_everything_as_it_was(tmp_path: Path) -> None:
    """Neither do samples that do not fit leave half a result."""
    source = save(conv_norm(), tmp_path)
    before = listing(tmp_path)
    with pytest.raises(SamplesError):
        convert(source, tmp_path / "folded.onnx", Sampling(shapes={"x": (1, 2)}))
    assert listing(tmp_path) == before


def test_an_existing_destination_is_replaced(tmp_path: Path) -> None:
    """Converting again overwrites model and report."""
    target = tmp_path / "folded.onnx"
    target.write_bytes(b"the old one")
    convert(save(relu_only(), tmp_path), target, prove_it=False)
    onnx.load(str(target))


@pytest.mark.parametrize("spelling", ["source.onnx", "sub/../source.onnx", "link.onnx", "hard.onnx"])
def test_the_source_is_never_overwritten(tmp_path: Path, spelling: str) -> None:
    """Under whatever name it is given as the destination."""
    source = save(conv_norm(), tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.onnx").symlink_to(source)
    (tmp_path / "hard.onnx").hardlink_to(source)
    with pytest.raises(TargetError, match="never overwrites a source"):
        convert(source, tmp_path / spelling)
    assert source.read_bytes() == conv_norm().SerializeToString()


@pytest.mark.parametrize(
    ("destination", "words"),
    [
        ("folded.pb", "must end in .onnx"),
        ("folded", "must end in .onnx"),
        ("missing/folded.onnx", "no folder"),
        ("source.onnx/folded.onnx", "no folder"),
        ("sub", "is a folder"),
        ("sub.onnx", "is a folder"),
    ],
)
def test_destinations_that_make_no_sense(tmp_path: Path, destination: str, words: str) -> None:
    """Told before anything is computed."""
    source = save(conv_norm(), tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub.onnx").mkdir()
    with pytest.raises(TargetError, match=words):
        convert(source, tmp_path / destination)


def test_a_report_that_cannot_be_written_is_a_target_error(tmp_path: Path) -> None:
    """A folder stands where the report should go: nothing is half written."""
    source = save(relu_only(), tmp_path)
    (tmp_path / "folded.fold-report.json").mkdir()
    with pytest.raises(TargetError):
        convert(source, tmp_path / "folded.onnx", prove_it=False)
    assert not (tmp_path / "folded.onnx").exists()
    assert not list(tmp_path.glob(".infold-*"))


def test_a_crash_of_the_runtime_is_a_proof_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child dies; the command says so and writes nothing."""
    import sys

    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nkill -SEGV $$\n")
    script.chmod(0o755)
    source = save(conv_norm(), tmp_path)
    monkeypatch.setattr(sys, "executable", str(script))
    before = listing(tmp_path)
    with pytest.raises(ProofError, match="onnxruntime crashed on the unfolded model: .*SIGSEGV"):
        convert(source, tmp_path / "folded.onnx")
    assert listing(tmp_path) == before


# -- repository -----------------------------------------------------------------------------------


def test_a_repository_gets_version_after_version(tmp_path: Path) -> None:
    """1, then 2, each with model, report and golden answers; nothing else stays."""
    source = save(conv_norm(), tmp_path)
    for number in (1, 2):
        done = convert_to_repository(source, tmp_path / "models", "net")
        assert done.destination == tmp_path / "models" / "net" / str(number) / "model.onnx"
        assert sorted(path.name for path in done.destination.parent.iterdir()) == [
            "golden.npz", "model.fold-report.json", "model.onnx",
        ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "models" / "net").iterdir()) == ["1", "2"]


def test_a_version_follows_the_largest(tmp_path: Path) -> None:
    """Gaps and other files do not confuse the count."""
    folder = tmp_path / "models" / "net"
    for name in ("3", "10", "notes"):
        (folder / name).mkdir(parents=True)
    done = convert_to_repository(save(relu_only(), tmp_path), tmp_path / "models", "net", prove_it=False)
    assert done.destination.parent.name == "11"


def test_a_folder_with_an_odd_digit_is_no_version(tmp_path: Path) -> None:
    """A superscript two counts as a digit for Python's isdigit and is no number."""
    folder = tmp_path / "models" / "net"
    (folder / "\N{SUPERSCRIPT TWO}").mkdir(parents=True)
    done = convert_to_repository(save(relu_only(), tmp_path), tmp_path / "models", "net", prove_it=False)
    assert done.destination.parent.name == "1"


def test_golden_answers_are_the_unfolded_model_s(tmp_path: Path) -> None:
    """A few rows of inputs and what the source answers to them."""
    done = convert_to_repository(save(conv_norm(), tmp_path), tmp_path / "models", "net")
    with np.load(done.destination.parent / "golden.npz") as golden:
        assert set(golden.files) == {"in.x", "out.y"}
        assert golden["in.x"].shape == (4, 2, 6, 6)
        assert (run(conv_norm(), {"x": golden["in.x"]})[0] == golden["out.y"]).all()


def test_a_model_that_takes_and_gives_bfloat16_is_proven_and_has_golden_answers(tmp_path: Path) -> None:
    """On onnxruntime itself; its golden file is good for proving it again."""
    between_casts = model(
        """g (bfloat16[n,3] x) => (bfloat16[n,4] y) {
            f = Cast <to=1> (x)  h = Gemm (f, w, b)
            z = BatchNormalization (h, gamma, beta, mean, variance)  y = Cast <to=16> (z) }""",
        {"w": normal(3, 4, seed=3), "b": normal(4, seed=4), **norm(4)},
    )
    source = save(between_casts, tmp_path)
    done = convert_to_repository(source, tmp_path / "models", "halves")
    assert done.report.all_folded
    assert done.proof is not None
    assert done.proof.oracle.startswith("onnxruntime")
    golden = done.destination.with_name("golden.npz")
    _, again = verify(source, done.destination, Sampling(golden))
    assert again.passed
    assert again.samples["x"].dtype == BFLOAT16
    assert again.samples["x"].shape == (4, 3)


def test_golden_answers_of_a_model_without_a_batch_axis_are_whole(tmp_path: Path) -> None:
    """Rows that are no requests are not cut."""
    proto = model("g (float[9,2] x) => (float[9,2] y) { y = Relu (x) }")
    done = convert_to_repository(save(proto, tmp_path), tmp_path / "models", "net")
    with np.load(done.destination.parent / "golden.npz") as golden:
        assert golden["in.x"].shape == (9, 2)


@pytest.mark.parametrize("name", ["", ".hidden", "..", "a/b", "a b"])
def test_names_that_no_model_can_have(tmp_path: Path, name: str) -> None:
    """Nothing that leaves the repository or hides in it."""
    source = save(relu_only(), tmp_path)
    before = listing(tmp_path)
    with pytest.raises(TargetError, match="model name"):
        convert_to_repository(source, tmp_path / "models", name)
    assert listing(tmp_path) == before


def test_a_repository_that_is_a_file(tmp_path: Path) -> None:
    """One clear error."""
    (tmp_path / "models").write_text("")
    with pytest.raises(TargetError):
        convert_to_repository(save(relu_only(), tmp_path), tmp_path / "models", "net")


@pytest.mark.usefixtures("broken_fold")
def test_a_failed_proof_leaves_the_repository_as_it_was(tmp_path: Path) -> None:
    """No version, no empty model folder, no scratch."""
    source = save(conv_norm(), tmp_path)
    (tmp_path / "models").mkdir()
    before = listing(tmp_path)
    with pytest.raises(ProofError):
        convert_to_repository(source, tmp_path / "models", "net")
    assert listing(tmp_path) == before


# -- models of every kind, end to end -------------------------------------------------------------

BN = "BatchNormalization <epsilon=0.001>"
PARAMETERS = "gamma, beta, mean, variance"


def kinds() -> dict[str, onnx.ModelProto]:
    """Models that stress one place of the proof each."""
    dense = {"w": normal(3, 4), "k": normal(4, seed=1), "l": normal(4, seed=2)}
    empty_outputs = conv_norm(opset=9)
    empty_outputs.graph.node[1].output.extend(["", "", "", ""])
    return {
        "matmul-pure-scale-between": model(
            """g (float[N,3] x) => (float[N,4] y) {
                a = Relu (x)  h = MatMul (a, w)  s = Mul (h, k)  y = Relu (s) }""",
            {"w": dense["w"], "k": dense["k"]},
        ),
        "matmul-rank-3-between": model(
            """g (float[N,5,3] x) => (float[N,5,4] y) {
                a = Relu (x)  h = MatMul (a, w)  s = Mul (h, k)  t = Add (s, l)  y = Relu (t) }""",
            dense,
        ),
        "matmul-weight-first": model(
            f"""g (float[N,3,5] x) => (float[N,4,5] y) {{
                a = Relu (x)  h = MatMul (w, a)  n = {BN} (h, {PARAMETERS})  y = Relu (n) }}""",
            {"w": normal(4, 3), **norm(4)},
        ),
        "gemm-bias-by-row": model(
            f"""g (float[3,8] x) => (float[8,4] y) {{
                h = Gemm <transA=1, alpha=0.5, beta=2.0> (x, w, b)  y = {BN} (h, {PARAMETERS}) }}""",
            {"w": dense["w"], "b": normal(8, 1), **norm(4)},
        ),
        "conv-transpose": model(
            f"""g (float[N,4,5,5] x) => (float[N,6,11,11] y) {{
                h = ConvTranspose <group=2, strides=[2,2]> (x, w, b)  y = {BN} (h, {PARAMETERS}) }}""",
            {"w": normal(4, 3, 3, 3), "b": normal(6), **norm(6)},
        ),
        "float16": conv_norm(dtype="float16"),
        "empty-extra-outputs": empty_outputs,
        "norm-in-a-branch": model(
            f"""g (float[N,2,5,5] x, bool p) => (float[N,4,3,3] y) {{
                y = If (p) <
                  then_branch = t () => (float[N,4,3,3] m) {{ c = Conv (x, w)  m = {BN} (c, {PARAMETERS}) }},
                  else_branch = e () => (float[N,4,3,3] n) {{ n = Conv (x, w) }}> }}""",
            {"w": normal(4, 2, 3, 3), **norm(4)},
        ),
        "convolution-of-a-constant": model(
            f"""g (float[1,4,3,3] x) => (float[1,4,3,3] z) {{
                c = Conv (k, w)  y = {BN} (c, {PARAMETERS})  z = Add (x, y) }}""",
            {"k": normal(1, 2, 5, 5), "w": normal(4, 2, 3, 3), **norm(4)},
        ),
        "scores-as-words": model(
            f"""g (float[N,3] x) => (float[N,4] y, string[N] words) {{
                h = Gemm (x, w)  y = {BN} (h, {PARAMETERS})
                i = ArgMax <axis=1, keepdims=0> (y)  words = Cast <to=8> (i) }}""",
            {"w": dense["w"], **norm(4)},
        ),
        "norm-read-twice": model(
            f"""g (float[N,2,5,5] x) => (float[N,4,3,3] y, float[N,4,3,3] z) {{
                c = Conv (x, w)  n = {BN} (c, {PARAMETERS})  y = Relu (n)  z = Neg (n) }}""",
            {"w": normal(4, 2, 3, 3), **norm(4)},
        ),
    }


@pytest.mark.parametrize("kind", kinds())
def test_convert_proves_models_of_every_kind(tmp_path: Path, kind: str) -> None:
    """Folded, proven and written, without a fall back and without a false alarm."""
    done = convert(save(kinds()[kind], tmp_path), tmp_path / "folded.onnx")
    assert done.proof is not None and done.proof.passed
    assert done.report.folded and not done.report.kept
    assert done.proof.oracle.startswith("onnxruntime")
    assert {site["site"] for site in done.json["sites"] if site["is_norm"]}


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_what_the_runtime_lacks_the_reference_evaluator_proves(tmp_path: Path, dtype: str) -> None:
    """Onnxruntime has no Conv in these types: another oracle, and its name in the report."""
    done = convert(save(conv_norm(dtype=dtype), tmp_path), tmp_path / "folded.onnx")
    assert done.proof is not None and done.proof.passed
    assert done.json["proof"]["oracle"].startswith(f"onnx {onnx.__version__} reference evaluator")


def test_an_old_opset_is_proven_too(tmp_path: Path) -> None:
    """Opset 6 spells inference `is_test=1`; whoever can run it, the proof names its oracle."""
    proto = model(
        """g (float[N,2,6,6] x) => (float[N,4,4,4] y) {
            c = Conv (x, w)  y = BatchNormalization <is_test=1> (c, gamma, beta, mean, variance) }""",
        {"w": normal(4, 2, 3, 3), **norm(4)},
        opset=6,
        ir_version=4,
    )
    done = convert(save(proto, tmp_path), tmp_path / "folded.onnx")
    assert done.proof is not None and done.proof.passed and done.proof.oracle
    assert len(done.report.folded) == 1


def test_an_opset_above_the_runtime_s_converts(tmp_path: Path) -> None:
    """Brought down first, then folded, proven and written at what onnxruntime loads."""
    proto = conv_norm(opset=onnx.defs.onnx_opset_version())
    done = convert(save(proto, tmp_path), tmp_path / "folded.onnx")
    assert done.proof is not None and done.proof.passed and done.proof.oracle.startswith("onnxruntime")
    written = onnx.load(str(tmp_path / "folded.onnx"))
    run(written, {"x": normal(1, 2, 6, 6)})


# -- verify ---------------------------------------------------------------------------------------


def edited(proto: onnx.ModelProto, change: Callable[[np.ndarray[Any, Any]], None]) -> onnx.ModelProto:
    """The model with its first weight changed."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    tensor = next(t for t in made.graph.initializer if len(t.dims) > 1)
    array = onnx.numpy_helper.to_array(tensor).copy()
    change(array)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return made


def test_verify_two_equal_files(tmp_path: Path) -> None:
    """What convert wrote is proven again from the two files alone, site by site."""
    source = save(conv_norm(), tmp_path)
    convert(source, tmp_path / "folded.onnx", prove_it=False)
    report, proof = verify(source, tmp_path / "folded.onnx")
    assert proof.passed and len(report.folded) == 1
    assert [site.site for site in proof.sites] == ["bn"]


def test_verify_two_different_files(tmp_path: Path) -> None:
    """One weight that differs is found, and the site is named."""
    source = save(conv_norm(), tmp_path)
    convert(source, tmp_path / "folded.onnx", prove_it=False)

    def halve(array: np.ndarray[Any, Any]) -> None:
        array[2] *= 0.5

    wrong = save(edited(onnx.load(str(tmp_path / "folded.onnx")), halve), tmp_path, "wrong.onnx")
    _, proof = verify(source, wrong)
    assert not proof.passed
    assert proof.first_off is not None and proof.first_off.site == "bn"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("g (float[N,4] z) => (float[N,4] y) { y = Relu (z) }", "inputs differ"),
        ("g (float[N,4] x) => (float[N,4] z) { z = Relu (x) }", "outputs differ"),
        ("g (double[N,4] x) => (double[N,4] y) { y = Relu (x) }", "inputs differ"),
        ("g (float[N,4] x, float[N,4] z) => (float[N,4] y) { y = Add (x, z) }", "inputs differ"),
        ("g (float[N,4] x) => (float[N] y) { y = ReduceSum <keepdims=0> (x, k) }", "the outputs differ"),
    ],
)
def test_verify_files_with_different_interfaces(tmp_path: Path, text: str, words: str) -> None:
    """Models that cannot be compared are told apart from models that differ."""
    weights = {"k": np.array([1], np.int64)} if "k)" in text else {}
    other = save(model(text, weights), tmp_path, "other.onnx")
    with pytest.raises(ProofError, match=words):
        verify(save(relu_only(), tmp_path), other)


# -- the shipped example --------------------------------------------------------------------------


def test_the_shipped_digits_network_folds_wholly(tmp_path: Path) -> None:
    """Five norms, five folded, proven on the samples that come with it."""
    np.savez(tmp_path / "s.npz", **{"in.image": np.load(DIGITS / "samples.npz")["in.image"]})
    done = convert(DIGITS / "digits.onnx", tmp_path / "digits.onnx", Sampling(tmp_path / "s.npz"))
    assert [(len(done.report.folded), len(done.report.kept))] == [(5, 0)]
    assert done.proof is not None and done.proof.rows == 20
    assert done.proof.outputs[0].argmax_agreement == 1.0


@pytest.fixture(scope="module")
def digits_split() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Held-out images and labels: the split of examples/digits/train.py."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[:, np.newaxis]
    labels = digits.target.astype(np.int64)
    _, images, _, labels = train_test_split(images, labels, test_size=0.25, stratify=labels, random_state=0)
    return images, labels


@pytest.mark.parametrize("folded", [False, True])
def test_the_digits_network_reads_digits(
    tmp_path: Path, folded: bool, digits_split: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
) -> None:
    """98 % of images it has never seen, and all twenty samples, before and after folding."""
    path = DIGITS / "digits.onnx"
    if folded:
        convert(path, tmp_path / "digits.onnx", prove_it=False)
        path = tmp_path / "digits.onnx"
    proto = onnx.load(str(path))
    images, labels = digits_split
    assert (run(proto, {"image": images})[0].argmax(axis=1) == labels).mean() >= 0.98
    with np.load(DIGITS / "samples.npz") as samples:
        assert (run(proto, {"image": samples["in.image"]})[0].argmax(axis=1) == samples["label"]).all()
