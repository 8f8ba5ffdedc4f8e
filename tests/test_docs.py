"""Documentation that must not drift from the code."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from infold.fold import Reason
from infold.runtime import (
    Batching,
    Canary,
    Classification,
    ImageInput,
    ModelConfig,
    SessionConfig,
    ShadowConfig,
)
from infold.runtime.model_config import GoldenConfig, parse_config
from infold.settings import Settings

DOCS = Path(__file__).parents[1] / "docs"
README = (Path(__file__).parents[1] / "README.md").read_text()


def test_every_reason_has_its_heading_and_no_other() -> None:
    """A code in a report can be looked up."""
    headings = re.findall(r"^## (\S+)$", (DOCS / "reasons.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(reason.value for reason in Reason)


def test_every_setting_has_its_row_with_the_true_default() -> None:
    """Name, default and meaning."""
    rows = dict(re.findall(r"^\| `INFOLD_(\w+)` \|[^|]*\| `([^`]*)` \|", _configuration(), re.MULTILINE))
    fields = Settings.model_fields
    assert sorted(rows) == sorted(name.upper() for name in fields)
    for name, field in fields.items():
        assert str(field.default).removesuffix(".0") == rows[name.upper()], name


def test_every_key_of_model_toml_has_its_row_with_the_true_default() -> None:
    """The same for what a model's owner may say."""
    rows = dict(re.findall(r"^\| `([a-z0-9_.]+)` \| `([^`]*)` \|", _configuration(), re.MULTILINE))
    expected: dict[str, object] = {"versions": ModelConfig().versions, "version_labels": {}}
    sections = {
        "batching": Batching(),
        "session": SessionConfig(),
        "image": ImageInput(),
        "classification": Classification(),
        "canary": Canary(),
        "shadow": ShadowConfig(),
        "golden": GoldenConfig(),
    }
    assert {*expected, *sections} == {field.name for field in dataclasses.fields(ModelConfig)}
    for section, defaults in sections.items():
        for field in dataclasses.fields(defaults):
            expected[f"{section}.{field.name}"] = getattr(defaults, field.name)
    assert sorted(rows) == sorted(expected)
    for key, default in expected.items():
        if isinstance(default, tuple):
            shown = str(list(default))
        else:
            shown = f'"{default}"' if default in ("", "latest") else str(default)
        assert rows[key] == shown, key


def test_every_section_of_model_toml_in_the_docs_is_one() -> None:
    """What a reader copies is read; the sections of one block go together."""
    blocks = re.findall(r"^```toml\n(.*?)^```$", (DOCS / "pictures.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 5
    for block in blocks:
        assert parse_config(block, DOCS / "pictures.md").image is not None


def test_every_verb_is_in_the_readme() -> None:
    """What `infold --help` lists, a reader has met."""
    shown = subprocess.run([sys.executable, "-m", "infold", "--help"], capture_output=True, text=True).stdout
    verbs = re.findall(r"^  ([a-z]+) {2,}", shown.partition("Commands:")[2], re.MULTILINE)
    assert len(verbs) >= 5
    for verb in verbs:
        assert re.search(rf"\b{verb}\b", README), verb


@pytest.mark.parametrize("page", [*DOCS.rglob("*.md"), Path(__file__).parents[1] / "README.md"], ids=str)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    """Relative links point at files that exist."""
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def _configuration() -> str:
    return (DOCS / "configuration.md").read_text()
