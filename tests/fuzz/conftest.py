"""Servers for all that is fuzzed: real processes, which must be in good health afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fuzz.asking import Line, Request
from fuzz.models import write_models
from servers import Server, running

# Moderate, so that going beyond costs little.
MAX_BODY_BYTES = 4 * 2**20


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is fuzzing."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.fuzz)
            item.add_marker(pytest.mark.timeout(1200))


def settings(folder: Path) -> dict[str, str]:
    """The environment of a server that is fuzzed: models come and go by name, long bodies are refused."""
    return {
        "INFOLD_MAX_BODY_BYTES": str(MAX_BODY_BYTES),
        "INFOLD_CACHE_DIR": str(folder.parent / "cache"),  # one for all, or each would try every model anew
        "INFOLD_MODEL_CONTROL": "explicit",
        "INFOLD_LOAD_MODELS": '["*"]',
    }


@contextmanager
def healthy(models: Path, folder: Path) -> Iterator[Server]:
    """A server that in the end is alive, answers, has failed at nothing, and goes when it is told to."""
    with running(models, folder / "server.log", **settings(folder)) as server:
        yield server
        with Line(server.address) as line:
            assert line.ask(Request(b"/v2/health/live", method=b"GET")).status == 200
        assert server.process.poll() is None
        assert_calm(server)
        assert server.stop() == 0


def assert_calm(server: Server) -> None:
    """The log is JSON, and nothing in it a failure of ours; that a caller's load has failed may be there."""
    text = server.log.read_text()
    assert "Traceback" not in text, text[text.index("Traceback") :][:3000]
    others = [line for line in text.split("\n") if line and not line.startswith("{")]
    assert others == []


@pytest.fixture(scope="session")
def fuzzed_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def fuzzed(fuzzed_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server that nearly all is sent to."""
    with healthy(fuzzed_models, tmp_path_factory.mktemp("fuzzed")) as server:
        yield server


@pytest.fixture
def line(fuzzed: Server) -> Iterator[Line]:
    with Line(fuzzed.address) as opened:
        yield opened
