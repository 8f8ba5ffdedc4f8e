"""The service against its own description, by schemathesis: what it allows is sent, and what it does not."""

from __future__ import annotations

import pytest

from servers import Server


@pytest.fixture(scope="module")
def failures(fuzzed: Server) -> dict[str, dict[str, str]]:
    """What is wrong with answers, by check and operation."""
    pytest.importorskip("schemathesis")
    from fuzz.describing import failures_at

    return failures_at(fuzzed.url)


def test_nothing_that_is_described_fails(failures: dict[str, dict[str, str]]) -> None:
    """With models that exist and others, and bodies that are allowed or not: never 5xx."""
    assert failures["ours"] == {}


def test_every_answer_is_as_described(failures: dict[str, dict[str, str]]) -> None:
    """A status that is declared, a content type that is declared, a body of the form that is declared."""
    assert failures["described"] == {}
