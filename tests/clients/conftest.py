"""Servers for the tests with real clients: one for most, and one for each thing that it may not have."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tritonclient.http import InferenceServerClient

from clients.models import COMMON, LABELS, SLOW, echo, write, write_all, write_times
from servers import Server, running


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Models of every datatype but BF16, of several inputs, shapes and versions."""
    folder = tmp_path_factory.mktemp("common")
    with running(write_all(folder / "models"), folder / "server.log") as started:
        yield started


@pytest.fixture
def triton(server: Server) -> Iterator[InferenceServerClient]:
    """Triton's client for it."""
    with InferenceServerClient(server.address) as client:
        yield client


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    """A plain client for it."""
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


@pytest.fixture(scope="session")
def bf16_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The one model that gives back BF16."""
    folder = tmp_path_factory.mktemp("bf16")
    write(folder / "models", "echo_bf16", echo("BF16"))
    with running(folder / "models", folder / "server.log") as started:
        yield started


@pytest.fixture(scope="session")
def classifying_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The model of scores again, its classes with labels."""
    folder = tmp_path_factory.mktemp("classifying")
    files = {
        "model.toml": '[classification]\nlabels = "labels.txt"\n',
        "labels.txt": "\n".join(LABELS) + "\n",
    }
    write(folder / "models", "scores", COMMON["scores"], files=files)
    with running(folder / "models", folder / "server.log") as started:
        yield started


@pytest.fixture(scope="session")
def labelled_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A model of two versions, `stable` and `canary`."""
    folder = tmp_path_factory.mktemp("labelled")
    write_times(folder / "models", "[version_labels]\nstable = 1\ncanary = 2\n")
    with running(folder / "models", folder / "server.log") as started:
        yield started


@pytest.fixture(scope="session")
def slow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A model that takes as long as it is told, one run at a time."""
    folder = tmp_path_factory.mktemp("slow")
    toml = '[session]\nruns = 1\nwide = "never"\ninline = "never"\n'
    write(folder / "models", "slow", SLOW, files={"model.toml": toml})
    with running(folder / "models", folder / "server.log") as started:
        yield started


@pytest.fixture
def managed(tmp_path: Path) -> Iterator[tuple[Server, Path]]:
    """A server of its own for a test that loads and unloads, and its repository; everything is loaded."""
    repository = tmp_path / "models"
    write_times(repository, "")
    write(repository, "plain", echo("FP32"))
    control = {"INFOLD_MODEL_CONTROL": "explicit", "INFOLD_LOAD_MODELS": '["*"]'}
    with running(repository, tmp_path / "server.log", **control) as started:
        yield started, repository
