"""What tests of managers share."""

from __future__ import annotations

from pathlib import Path

import pytest

from infold.runtime import Cache
from shelves import Shelf


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """One for all tests: each graph is measured once."""
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """An empty repository."""
    return Shelf(tmp_path / "models")
