"""The section `[shadow]` of `model.toml`."""

from pathlib import Path

import pytest

from infold.errors import ConfigError
from infold.runtime import ModelConfig, ShadowConfig
from infold.runtime.model_config import parse_config

HERE = Path("models/m/model.toml")


def parsed(*texts: str) -> ShadowConfig | None:
    """What files say, each on top of the one before."""
    config = ModelConfig()
    for text in texts:
        config = parse_config(text, HERE, config)
    return config.shadow


def test_without_a_section_there_is_no_shadow() -> None:
    """Nor is there one that is not named."""
    assert parsed("") is None
    found = parsed("[shadow]\nshare = 0.5")
    assert found is not None
    assert not found.is_named


def test_a_shadow_is_a_file_or_a_version() -> None:
    """By default one run in a hundred."""
    assert parsed('[shadow]\nfile = "unfolded.onnx"') == ShadowConfig("unfolded.onnx", 0, 0.01)
    assert parsed("[shadow]\nversion = 3\nshare = 1") == ShadowConfig("", 3, 1.0)


def test_the_nearer_file_decides_which_and_keeps_the_share() -> None:
    """Files that a converter writes go with whatever the model's own says."""
    whole = "[shadow]\nversion = 3\nshare = 0.5"
    assert parsed(whole, '[shadow]\nfile = "u.onnx"') == ShadowConfig("u.onnx", 0, 0.5)
    assert parsed('[shadow]\nfile = "u.onnx"', "[shadow]\nversion = 2") == ShadowConfig("", 2, 0.01)
    assert parsed(whole, "[shadow]\nshare = 0.25") == ShadowConfig("", 3, 0.25)
    assert parsed(whole, '[shadow]\nfile = ""') == ShadowConfig("", 0, 0.5), "none for this version"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('file = "a/b.onnx"', "file"),
        ('file = "../unfolded.onnx"', "file"),
        ('file = "/etc/passwd"', "file"),
        ('file = "a\\\\b.onnx"', "file"),
        ('file = ".."', "file"),
        ('file = "a\\u0000b"', "file"),
        ("file = 3", "file"),
        ("version = -1", "version"),
        ("version = 1.5", "version"),
        ('file = "a.onnx"\nversion = 2', "version"),
        ("share = 0", "share"),
        ("share = 1.01", "share"),
        ("share = -0.5", "share"),
        ("share = nan", "share"),
        ("share = true", "share"),
        ("rate = 0.5", "rate"),
    ],
)
def test_what_makes_no_sense_is_refused_at_its_place(text: str, place: str) -> None:
    """As in every other section."""
    with pytest.raises(ConfigError, match=rf"model\.toml: shadow\.{place}"):
        parsed(f"[shadow]\n{text}")


def test_a_shadow_that_is_no_table_is_refused() -> None:
    """It is not taken for a file."""
    with pytest.raises(ConfigError, match=r"model\.toml: shadow: must be a table"):
        parsed('shadow = "unfolded.onnx"')
