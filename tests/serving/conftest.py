"""What tests of managers share, and threads to run fake models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infold.runtime import Cache
from infold.serving import Runners
from shelves import Shelf


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """One for all tests: each graph is measured once."""
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """An empty repository."""
    return Shelf(tmp_path / "models")


@pytest.fixture
def runners() -> Iterator[Runners[Any]]:
    """One core, so that what comes second waits."""
    made: Runners[Any] = Runners(1)
    yield made
    made.close()
