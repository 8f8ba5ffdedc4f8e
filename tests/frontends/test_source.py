"""The one door to every source."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphs import conv_norm
from infold.convert import Options
from infold.convert.frontends.child import ELSEWHERE
from infold.convert.frontends.exported import Answer, Framework, Request
from infold.convert.frontends.formats import Format
from infold.convert.frontends.isolated import run_frontend
from infold.convert.frontends.source import open_source
from infold.errors import ConfigError


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(weights=Path("w.pt")), "--weights: is for package.module:factory, and the source is onnx"),
        (Options(custom_objects=("a:B",)), "--custom-objects: is for a Keras file"),
        (Options(signature="serve"), "--signature: is for a SavedModel"),
        (Options(tag="serve"), "--tag: is for a SavedModel"),
        (Options(inputs=("x:0",)), "--inputs: is for a TensorFlow graph"),
        (Options(outputs=("y:0",)), "--outputs: is for a TensorFlow graph"),
        (Options(training_flag="t"), "--training-flag: is for a TensorFlow graph"),
    ],
)
def test_an_option_that_would_be_passed_over_is_refused(tmp_path: Path, options: Options, words: str) -> None:
    """Whoever gives weights believes that they were loaded."""
    path = tmp_path / "m.onnx"
    path.write_bytes(conv_norm().SerializeToString())
    with pytest.raises(ConfigError) as refused, open_source(path, options):
        pass
    assert words in str(refused.value)


def test_only_a_user_who_names_code_has_the_current_folder_searched() -> None:
    """A `keras.py` lying beside a model must not run because the model is converted."""
    assert not Request("m.keras", Format.KERAS).runs_own_code
    assert Request("m:f", Format.MODULE).runs_own_code
    assert Request("m.keras", Format.KERAS, Options(custom_objects=("a:B",))).runs_own_code
    assert Request("m.pt", Format.PICKLE, Options(unsafe=True)).runs_own_code


def test_why_a_second_backend_did_not_help_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first one gave stands; its note says what kept the other from leaving more open."""

    def run(request: Request, folder: Path, progress: object) -> int:
        del progress
        if request.backend == "tensorflow":
            (folder / "failure.json").write_text('{"kind": "refused", "detail": "no such op"}')
        else:
            first = Framework("keras", Format.KERAS, (), ("axis 1 is fixed",), {}, Answer({}))
            first.save(folder)
            (folder / ELSEWHERE).write_text("tensorflow")
        return 0

    monkeypatch.setattr("infold.convert.frontends.isolated._run", run)
    notes = run_frontend(Request("m.keras", Format.KERAS), tmp_path).notes
    assert notes == (
        "axis 1 is fixed",
        "tensorflow might leave more axes open, but could not be used: no such op",
    )
