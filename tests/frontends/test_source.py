"""The one door to every source."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphs import conv_norm
from infold.convert import Options
from infold.convert.frontends.exported import Request
from infold.convert.frontends.formats import Format
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
