"""What the tests of containers share; each image was built by `make image`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from containers.engine import CONVERT, CPU, docker, open_to_all
from servers import ROOT


@pytest.fixture(scope="session", autouse=True)
def images() -> None:
    """They are there, or the test says how they come to be."""
    for image in (CPU, CONVERT):
        assert docker("image", "ls", "--quiet", image), f"no {image}: `make image` builds it"


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, what the network as it was trained says of them, and what they are."""
    with np.load(ROOT / "examples/digits/samples.npz") as saved:
        images, labels = saved["in.image"], saved["label"]
    unfolded = onnxruntime.InferenceSession(
        ROOT / "examples/digits/digits.onnx", providers=["CPUExecutionProvider"]
    )
    (logits,) = unfolded.run(None, {"image": images})
    return images, logits, labels


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's own models, where a container's user can read them."""
    root = tmp_path_factory.mktemp("models")
    shutil.copytree(ROOT / "models/digits", root / "digits")
    open_to_all(root)
    return root
