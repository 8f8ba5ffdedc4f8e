"""`model.toml`: every key checked, every override in its order."""

from __future__ import annotations

from pathlib import Path

import pytest

from infold.errors import ConfigError
from infold.runtime import Batching, ModelConfig, SessionConfig, read_config


def config(folder: Path, text: str, base: ModelConfig | None = None) -> ModelConfig:
    path = folder / "model.toml"
    path.write_text(text, encoding="utf-8")
    return read_config(path, base)


def test_a_missing_file_changes_nothing(tmp_path: Path) -> None:
    """Defaults, or what was given."""
    base = ModelConfig(versions="all")
    assert read_config(tmp_path / "model.toml") == ModelConfig()
    assert read_config(tmp_path / "model.toml", base) is base


def test_everything_can_be_said(tmp_path: Path) -> None:
    """All keys at once, whole numbers where seconds are meant included."""
    text = """
        versions = "latest:2"
        [batching]
        max_rows = 8
        max_delay_s = 1
        capacity_rows = 64
        join = "always"
        preferred_rows = [4, 8]
        pad_to = [8]
        rows_are_independent = true
        [session]
        intra_op_threads = 2
        runs = 3
        wide = "never"
        inline = "always"
        disabled_optimizers = ["ConvBNFusion"]
    """
    assert config(tmp_path, text) == ModelConfig(
        "latest:2",
        Batching(8, 1.0, 64, "always", (4, 8), (8,), rows_are_independent=True),
        SessionConfig(2, 3, "never", "always", ("ConvBNFusion",)),
    )


def test_a_version_overrides_its_model_key_by_key(tmp_path: Path) -> None:
    """What the inner file does not mention stays as the outer one says."""
    outer = config(tmp_path, "versions = 'all'\n[batching]\nmax_rows = 8\nmax_delay_s = 0.5")
    inner = config(tmp_path, "[batching]\nmax_rows = 4\n[session]\nintra_op_threads = 1", outer)
    assert inner.versions == "all"
    assert inner.batching == Batching(4, 0.5, 256)
    assert inner.session.intra_op_threads == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'latest'", "latest"),
        ("'latest:3'", "latest:3"),
        ("'all'", "all"),
        ("[3, 1, 3]", (1, 3)),
        ("[7]", (7,)),
    ],
)
def test_forms_of_versions(tmp_path: Path, text: str, value: object) -> None:
    """A word, a word with a count, or numbers: sorted, each once."""
    assert config(tmp_path, f"versions = {text}").versions == value


@pytest.mark.parametrize(
    "text",
    [
        "'newest'",
        "'latest:0'",
        "'latest:-1'",
        "'latest:x'",
        "'latest:'",
        "[]",
        "[0]",
        "[-1]",
        "['1']",
        "[true]",
        "[1.0]",
        "3",
        "true",
        "{ a = 1 }",
        "'all:2'",
        "''",
    ],
)
def test_versions_that_make_no_sense(tmp_path: Path, text: str) -> None:
    """Anything else is an error that says what would be right."""
    with pytest.raises(ConfigError, match="'latest', 'latest:N', 'all' or a list of versions"):
        config(tmp_path, f"versions = {text}")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("version = 'all'", "version"),
        ("[batch]\nmax_rows = 1", "batch"),
        ("[batching]\nmax_row = 1", "batching.max_row"),
        ("[session]\nthreads = 1", "session.threads"),
    ],
)
def test_unknown_keys_are_errors(tmp_path: Path, text: str, place: str) -> None:
    """A typo is named with its place and the keys that exist."""
    with pytest.raises(ConfigError, match="unknown; known are") as caught:
        config(tmp_path, text)
    assert caught.value.place.endswith(f"model.toml: {place}")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("batching = 3", "batching"),
        ("session = []", "session"),
        ("[batching]\nmax_rows = 'many'", "batching.max_rows"),
        ("[batching]\nmax_rows = true", "batching.max_rows"),
        ("[batching]\nmax_rows = 1.5", "batching.max_rows"),
        ("[batching]\nmax_delay_s = '1'", "batching.max_delay_s"),
        ("[session]\nintra_op_threads = 1.0", "session.intra_op_threads"),
        ("[session]\ndisabled_optimizers = 'ConvBNFusion'", "session.disabled_optimizers"),
        ("[session]\ndisabled_optimizers = [1]", "session.disabled_optimizers"),
    ],
)
def test_wrong_types_are_errors(tmp_path: Path, text: str, place: str) -> None:
    """Each value must have the type of its default."""
    with pytest.raises(ConfigError, match="must be a") as caught:
        config(tmp_path, text)
    assert caught.value.place.endswith(f"model.toml: {place}")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[batching]\nmax_rows = 0", "batching.max_rows"),
        ("[batching]\nmax_delay_s = -0.1", "batching.max_delay_s"),
        ("[batching]\nmax_delay_s = 61", "batching.max_delay_s"),
        ("[batching]\nmax_delay_s = nan", "batching.max_delay_s"),
        ("[batching]\nmax_delay_s = inf", "batching.max_delay_s"),
        ("[batching]\nmax_rows = 300", "batching.capacity_rows"),
        ("[batching]\ncapacity_rows = 8", "batching.capacity_rows"),
        ("[session]\nintra_op_threads = -1", "session.intra_op_threads"),
        ("[session]\nintra_op_threads = 1025", "session.intra_op_threads"),
    ],
)
def test_values_out_of_range_are_errors(tmp_path: Path, text: str, place: str) -> None:
    """A number that makes no sense is refused where it stands."""
    with pytest.raises(ConfigError) as caught:
        config(tmp_path, text)
    assert caught.value.place.endswith(f"model.toml: {place}")


def test_a_file_that_is_no_toml(tmp_path: Path) -> None:
    """Broken syntax and broken encoding are one clear error."""
    with pytest.raises(ConfigError, match="not valid TOML"):
        config(tmp_path, "versions =")
    (tmp_path / "model.toml").write_bytes(b"versions = '\xff'")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_config(tmp_path / "model.toml")


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    """What cannot be read is an error, not a default."""
    (tmp_path / "model.toml").mkdir()
    with pytest.raises(ConfigError):
        read_config(tmp_path / "model.toml")
