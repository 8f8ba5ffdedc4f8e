"""The report as an interface for machines, and as a page for people."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest

from graphs import conv_norm, initializer, model, norm, normal, relu_only
from infold.convert import Conversion, convert, fold, html_report
from infold.convert.html_report import REMEDIES
from infold.fold import Reason

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/fold-report.schema.json").read_text())


def converted(proto: onnx.ModelProto, tmp_path: Path, *, prove_it: bool = True) -> Conversion:
    source = tmp_path / "source<&>.onnx"
    onnx.save(proto, source)
    return convert(source, tmp_path / "folded.onnx", prove_it=prove_it)


def kept_and_folded() -> onnx.ModelProto:
    """One norm that folds, and one that padding keeps."""
    return model(
        """g (float[N,3,8,8] x) => (float[N,4,8,8] y) {
            n = BatchNormalization (x, a_gamma, a_beta, a_mean, a_variance)
            c = Conv <pads=[1,1,1,1]> (n, w)
            y = BatchNormalization (c, gamma, beta, mean, variance) }""",
        {"w": normal(4, 3, 3, 3), **norm(4), **norm(3, seed=1, prefix="a_")},
    )


@pytest.mark.parametrize("prove_it", [True, False])
@pytest.mark.parametrize("proto", [conv_norm(), kept_and_folded(), relu_only()], ids=["one", "two", "none"])
def test_every_report_keeps_the_published_schema(
    proto: onnx.ModelProto, prove_it: bool, tmp_path: Path
) -> None:
    """docs/fold-report.schema.json is what readers may rely on."""
    jsonschema.validate(converted(proto, tmp_path, prove_it=prove_it).json, SCHEMA)


def test_the_schema_names_every_reason() -> None:
    """A new reason is a change of the interface."""
    listed = SCHEMA["$defs"]["refusal"]["properties"]["reason"]["enum"]
    assert sorted(listed) == sorted(reason.value for reason in Reason)


def test_errors_against_float64_are_in_the_report(tmp_path: Path) -> None:
    """Both sides of a folded norm, each against the exact result on its own data."""
    (site,) = converted(conv_norm(), tmp_path).json["sites"]
    for key in ("folded_error", "unfolded_error"):
        assert 0 <= site["proof"][key] < 2.0**-20


def test_a_moving_mean_of_ten_thousand_hurts_the_unfolded_model_more(tmp_path: Path) -> None:
    """The folded model is closer to the truth than the original, and the report can say so."""
    numbers = {**norm(4), "mean": np.full(4, 1e4, np.float32), "b": np.full(4, 1e4, np.float32)}
    proto = model(
        """g (float[N,3,6,6] x) => (float[N,4,4,4] y) {
            c = Conv (x, w, b)  y = BatchNormalization (c, gamma, beta, mean, variance) }""",
        {"w": normal(4, 3, 3, 3), **numbers},
    )
    done = converted(proto, tmp_path)
    (site,) = done.json["sites"]
    assert site["proof"]["unfolded_error"] > 30 * site["proof"]["folded_error"]
    assert done.json["proof"]["norms_closer_to_float64"] == 1


class Page(HTMLParser):
    """Collects what a page would load, and checks that its tags close."""

    VOID = frozenset({"meta", "br", "rect", "line"})

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for key, value in attrs if key in ("src", "href", "data")]
        if tag not in self.VOID and tag not in ("li", "th", "td", "tr", "p", "dd", "dt"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()


@pytest.mark.parametrize("proto", [conv_norm(), kept_and_folded(), relu_only()], ids=["one", "two", "none"])
def test_the_page_is_self_contained_and_whole(proto: onnx.ModelProto, tmp_path: Path) -> None:
    """It opens anywhere: nothing is loaded, names are escaped, every kept norm has its remedy."""
    done = converted(proto, tmp_path)
    text = html_report(done, (1234, 1200))
    page = Page()
    page.feed(text)
    assert page.open == []
    assert all(target.startswith("#") for target in page.loads)
    assert "source&lt;&amp;&gt;.onnx" in text
    assert "<script" not in text
    for decision in done.report.norms:
        assert decision.site in text
        for refusal in decision.refusals:
            assert f'id="{refusal.reason}"' in text
    assert len(re.findall("error [0-9.e+-]+, allowed", text)) == len(done.proof.sites) + len(
        done.proof.outputs
    )  # type: ignore[union-attr]


def test_every_reason_has_a_remedy_on_the_page() -> None:
    """Nobody is left with a code alone."""
    assert set(REMEDIES) == set(Reason)


def test_fold_gives_back_the_type_it_got(tmp_path: Path) -> None:
    """A model in memory stays in memory; a path becomes a path; the source is left as it is."""
    proto = conv_norm()
    before = proto.SerializeToString()
    folded, report = fold(proto)
    assert isinstance(folded, onnx.ModelProto)
    assert [node.op_type for node in folded.graph.node] == ["Conv"]
    assert proto.SerializeToString() == before
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    written, again = fold(path)
    assert written == tmp_path / "m.folded.onnx"
    assert len(again.folded) == len(report.folded) == 1
    named, _ = fold(str(path), tmp_path / "other.onnx")
    assert named == str(tmp_path / "other.onnx")
    assert onnx.load(named).graph.node == onnx.load(written).graph.node


def test_inputs_with_defaults_are_kept_unless_frozen(tmp_path: Path) -> None:
    """In IR 8 the caller may override them; on request they become constants."""
    proto = conv_norm()
    weight = initializer(proto, "w")
    for name, shape in (("w", list(weight.shape)), ("gamma", [4])):
        proto.graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    source = tmp_path / "open.onnx"
    onnx.save(proto, source)
    kept = convert(source, tmp_path / "kept.onnx")
    assert [r.reason for r in kept.report.norms[0].refusals] == [Reason.NOT_CONSTANT]
    frozen = convert(source, tmp_path / "frozen.onnx", freeze=True)
    assert len(frozen.report.folded) == 1
    assert [value.name for value in onnx.load(tmp_path / "frozen.onnx").graph.input] == ["x"]
