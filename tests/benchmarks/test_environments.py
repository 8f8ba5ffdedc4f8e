"""Environments of peers, as their files tell of them."""

import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_an_environment_from_before_a_requirement_is_not_set_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever adds a requirement need not delete environments by hand."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    from environments import Environment

    folder = tmp_path / "peer"
    old = Environment(folder, ("Peer[extra]==1.0",))
    assert "not set up" in old.missing()
    folder.with_name("peer.versions.json").write_text(json.dumps({"peer": "1.0", "other": "2"}))
    assert old.missing() is None and old.set_up() is None and old.version() == "1.0"
    assert "not set up" in Environment(folder, ("Peer[extra]==1.0", "pillow==13.0.0")).missing()
    assert Environment(folder).missing() is None
