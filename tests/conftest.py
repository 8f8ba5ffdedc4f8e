"""What holds for every test: the same examples on every run, and no cache but an empty one of our own."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=25, database=None)
settings.load_profile("ci")

CACHE = pytest.StashKey[str]()
VARIABLE = "INFOLD_CACHE_DIR"


def pytest_configure(config: pytest.Config) -> None:
    """Servers share a cache, and not the user's: what an earlier run has learnt would hide mistakes."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of a shell's job in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)  # or servers under test would ignore it, too
    if not hasattr(config, "workerinput"):  # processes of xdist have their parent's
        config.stash[CACHE] = os.environ[VARIABLE] = tempfile.mkdtemp(prefix="infold-cache-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """It goes with the run."""
    if CACHE in config.stash:
        shutil.rmtree(config.stash[CACHE], ignore_errors=True)
