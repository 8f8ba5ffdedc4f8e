"""From a trained model on disk to a folded one: load, fold, prove, save, report.

Results are built in a folder of their own beside the destination and moved into
place only once they are proven. A failure at any point leaves the destination as
it was.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import onnx
import onnx_ir as ir

from infold.convert.behaviour import check_behaviour
from infold.convert.fold_report import counted, framework_json, report_json
from infold.convert.framework_proof import FrameworkProof, check_export, compare_steps
from infold.convert.frontends import onnx as onnx_frontend
from infold.convert.frontends.exported import Options
from infold.convert.frontends.isolated import Progress
from infold.convert.frontends.source import Source, open_source
from infold.convert.golden import golden_of
from infold.convert.layers import Layer, find_layers
from infold.convert.norms import with_parameters
from infold.convert.samples import draw_samples, load_samples, signature_of
from infold.convert.serving_session import ServingProof, prove_serving
from infold.convert.twin import keep_unfolded
from infold.convert.verify import Model, Proof, prove
from infold.convert.weights import check_weights
from infold.convert.writing import write_model
from infold.errors import ProofError, TargetError
from infold.fold import FoldReport, fold_batch_norms
from infold.runtime import add_disabled_optimizers, kept_child
from infold.tensors import MODEL_NAME, Tensors

__all__ = [
    "Conversion",
    "Sampling",
    "convert",
    "convert_to_repository",
    "fold_source",
    "is_version_name",
    "staging",
    "verify",
]


@dataclass(frozen=True, slots=True)
class Sampling:
    """What to prove on.

    Attributes:
        file: The user's own samples; None draws some.
        shapes: Full shapes for drawn samples, by input name.
    """

    file: Path | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def take(self, source: Source) -> Tensors:
        """Samples for a model; a framework has run on some already."""
        if source.framework is not None:
            return source.framework.samples
        signature = signature_of(source.proto)
        if self.file is not None:
            return load_samples(self.file, signature)
        return draw_samples(signature, self.shapes)


@dataclass(frozen=True, slots=True, eq=False)
class Conversion:
    """A finished conversion.

    Attributes:
        destination: The folded model.
        report: What became of each norm.
        proof: None where it was skipped.
        json: The report as written beside the model.
        serving: How it behaves when served; None where that was not tried.
        framework: Each step from the framework's own answer on; None for plain ONNX.
        notes: What the user should know of the source, a sentence each.
        source_bytes: Size of the unfolded ONNX file, external data left out.
    """

    destination: Path
    report: FoldReport
    proof: Proof | None
    json: dict[str, Any]
    serving: ServingProof | None = None
    framework: FrameworkProof | None = None
    notes: tuple[str, ...] = ()
    source_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _How:
    """How a conversion is to be done: what the arguments of `convert` say together."""

    sampling: Sampling
    options: Options
    prove_it: bool
    freeze: bool
    progress: Progress | None
    golden: bool = False
    keeps_unfolded: bool = False


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises:
        TargetError: It cannot be written.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as failure:
        raise TargetError(path, failure.strerror or str(failure)) from failure


def fold_source(source: Source, *, freeze: bool = False) -> tuple[ir.Model, ir.Model, FoldReport]:
    """The source for reading, its folded clone, and the report."""
    unfolded = source.ir()
    folded, report = fold_batch_norms(unfolded, freeze_initializers=freeze)
    return unfolded, folded, report


def convert(
    source: Path | str,
    destination: Path,
    sampling: Sampling | None = None,
    *,
    prove_it: bool = True,
    freeze: bool = False,
    options: Options | None = None,
    progress: Progress | None = None,
) -> Conversion:
    """Fold a model, prove the result and write it with its report.

    Args:
        source: An ONNX file, what a framework left on disk, or `package.module:factory`.
        destination: Where the folded ONNX goes; the report goes beside it as
            `<stem>.fold-report.json`. What is there is replaced.
        sampling: What to prove on.
        prove_it: False skips the proof; the report says so.
        freeze: Take inputs that are initializers too as constants, and drop them as inputs.
        options: How to read a source that does not say everything itself.
        progress: Told now and then what is being done.

    Raises:
        SourceError, TargetError, SamplesError: As named.
        ProofError: Framework, unfolded and folded model differ; the destination is as it was.
    """
    _require_writable(Path(source), destination)
    how = _How(sampling or Sampling(), options or Options(), prove_it, freeze, progress)
    with staging(destination.parent) as stage:
        conversion = _build(source, stage, destination, how)
        for made in sorted(stage.iterdir(), key=lambda path: path.name == destination.name):
            os.replace(made, destination.parent / made.name)  # the model last
    return conversion


def convert_to_repository(
    source: Path | str,
    repository: Path,
    name: str,
    sampling: Sampling | None = None,
    *,
    prove_it: bool = True,
    freeze: bool = False,
    options: Options | None = None,
    progress: Progress | None = None,
    keeps_unfolded: bool = False,
) -> Conversion:
    """Fold a model and add it to a model repository as the next version of `name`.

    The version's folder holds `model.onnx`, `model.fold-report.json` and `golden.npz`
    (arrays `in.<input>` and `out.<output>`: what the unfolded model answers to a few rows).
    It appears by one rename, so a server never sees half of it.

    Args:
        source: As in `convert`, and so what is not named here.
        repository: The folder of models.
        name: Of the model.
        sampling: See there.
        prove_it: See there; without a proof there is no `golden.npz`.
        freeze: See there.
        options: See there.
        progress: See there.
        keeps_unfolded: `unfolded.onnx` lies there too, and the version's `model.toml` names it as
            its shadow.

    Raises:
        As `convert`.
    """
    if not MODEL_NAME.fullmatch(name):
        raise TargetError(repository / name, "a model name is letters, digits, '.', '_' and '-', not hidden")
    parent = repository / name
    for folder in (repository, parent):
        if (folder / "model.onnx").is_file():
            detail = "holds model.onnx itself, as a model's only version; move it into a folder '1' first"
            raise TargetError(folder, detail)
    with _made(parent), staging(parent) as stage:
        version = stage / "version"
        version.mkdir()
        number = 1 + max((int(p.name) for p in parent.iterdir() if is_version_name(p.name)), default=0)
        final = parent / str(number) / "model.onnx"
        how = _How(
            sampling or Sampling(), options or Options(), prove_it, freeze, progress, True, keeps_unfolded
        )
        conversion = _build(source, version, final, how)
        while True:
            try:
                version.chmod(0o755)
                os.rename(version, parent / str(number))
                break
            except OSError as failure:
                if not (parent / str(number)).exists():
                    raise TargetError(parent / str(number), failure.strerror or "cannot write") from failure
                number += 1  # somebody else just took this number
    written = parent / str(number) / "model.onnx"
    return replace(conversion, destination=written)


def is_version_name(name: str) -> bool:
    """A folder of that name beside a model's others is one of its versions."""
    return name.isascii() and name.isdigit()


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """The folder, made if need be; what was made is gone again if nothing came of it."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise TargetError(folder, failure.strerror or str(failure)) from failure
    try:
        yield
    except BaseException:
        for each in missing:
            with suppress(OSError):
                each.rmdir()
        raise


def verify(
    unfolded: Path | str,
    folded: Path,
    sampling: Sampling | None = None,
    *,
    options: Options | None = None,
    progress: Progress | None = None,
) -> tuple[FoldReport, Proof]:
    """Prove two models equal.

    Args:
        unfolded: The model as trained: any source.
        folded: An ONNX file that should compute the same.
        sampling: What to prove on.
        options: As in `convert`.
        progress: As in `convert`.

    Returns:
        What our own folding says of the norms in `unfolded`, and the proof; sites whose
        values `folded` still has under the same name are compared one by one.

    Raises:
        SourceError, SamplesError, ProofError: As named.
    """
    sampling = sampling or Sampling()
    right = onnx_frontend.load(folded)
    opened = open_source(unfolded, options, sampling.file, sampling.shapes, progress)
    with kept_child(), opened as left:
        if left.framework is not None:
            left, _, _ = find_layers(left)
        _require_same_interface(left.proto, right.proto)
        model, _, report = fold_source(left)
        proof = prove(
            Model("unfolded", model, left.complete(), left.folder),
            Model("folded", right.ir(), right.complete(), right.folder),
            report.all_folded,
            sampling.take(left),
        )
    return report, proof


def _require_same_interface(left: onnx.ModelProto, right: onnx.ModelProto) -> None:
    a, b = signature_of(left), signature_of(right)
    for what, ours, theirs in (("inputs", a.inputs, b.inputs), ("outputs", a.outputs, b.outputs)):
        mine, yours = ([(s.name, str(s.dtype), s.rank) for s in side] for side in (ours, theirs))
        if mine != yours:
            raise ProofError(f"the {what} differ: {mine} unfolded, {yours} folded")


def _require_writable(source: Path, destination: Path) -> None:
    if destination.is_dir():
        raise TargetError(destination, "is a folder; name the file to write, ending in .onnx")
    if destination.suffix != ".onnx":
        raise TargetError(destination, "must end in .onnx")
    if not destination.parent.is_dir():
        raise TargetError(destination, f"there is no folder '{destination.parent}'")
    if destination.exists() and source.exists() and destination.samefile(source):
        raise TargetError(destination, "is the source itself; infold never overwrites a source")


@contextmanager
def staging(parent: Path) -> Iterator[Path]:
    """A hidden folder on the destination's own file system, gone afterwards.

    Raises:
        TargetError: Nothing can be written there.
    """
    try:
        stage = Path(mkdtemp(prefix=".infold-", dir=parent))
    except OSError as failure:
        raise TargetError(parent, f"cannot write here: {failure.strerror}") from failure
    try:
        yield stage
    except OSError as failure:
        raise TargetError(parent, failure.strerror or str(failure)) from failure
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _build(path: Path | str, stage: Path, final: Path, how: _How) -> Conversion:
    """Build everything inside `stage`, under its final names."""
    opened = open_source(path, how.options, how.sampling.file, how.sampling.shapes, how.progress)
    with kept_child(), opened as source:
        if source.framework is None:
            return _build_from(source, (), (), stage, final, how)
        source, layers, outputs = find_layers(source)
        notes = source.framework.notes if source.framework else ()
        if source.framework is not None and how.prove_it:
            check_export(source.framework, layers, outputs, source.proto.graph)
            notes += check_behaviour(source.proto, source.folder, source.framework.samples, outputs)
        return _build_from(source, layers, notes, stage, final, how)


def _build_from(
    source: Source, layers: tuple[Layer, ...], notes: tuple[str, ...], stage: Path, final: Path, how: _How
) -> Conversion:
    unfolded, folded, report = fold_source(source, freeze=how.freeze)
    if source.framework is not None:
        report = with_parameters(report, source.framework, layers)
    target = stage / final.name
    outcome = "proven equal" if how.prove_it else "not verified"
    written = write_model(source, folded, f"{counted(report)}; {outcome}", target)
    proof, serving, steps = None, None, None
    if how.prove_it:
        proto = onnx.load(str(target), load_external_data=False)  # what is proven is what was written
        left = Model("unfolded", unfolded, source.complete(), source.folder)
        proof = prove(
            left,
            Model("folded", folded, proto, stage),
            report.all_folded,
            how.sampling.take(source),
        )
        if not proof.passed:
            raise ProofError(proof.failure(), proof.first_off.site if proof.first_off else None)
        if source.framework is not None:
            steps = compare_steps(
                source.framework, layers, proof.results, proof.folded_results, source.proto.graph
            )
            if not steps.passed:
                raise ProofError(steps.failure())
        check_weights(folded, proto, stage)
        serving = prove_serving(target, proof)
        if how.golden:
            disabled = serving.disabled_optimizers if serving is not None else ()
            is_batched = signature_of(source.proto).is_batched
            golden = golden_of(left, target, proof, disabled, is_batched=is_batched)
            golden.write(stage)
            notes += golden.notes
            if disabled:
                add_disabled_optimizers(stage / "model.toml", disabled)
    if how.keeps_unfolded:
        keep_unfolded(source, proof, stage)
    facts = report_json(
        report,
        proof,
        source={"path": source.path.name, "sha256": source.sha256},
        result={"path": final.name, "sha256": written.sha256()},
        serving=serving,
        framework=framework_json(source.framework, steps, layers),
        notes=notes,
    )
    text = json.dumps(facts, indent=2, allow_nan=False) + "\n"
    (stage / f"{final.stem}.fold-report.json").write_text(text, encoding="utf-8")
    size = source.path.stat().st_size if source.framework is None else source.proto.ByteSize()
    return Conversion(final, report, proof, facts, serving, steps, notes, size)
