"""One network in three files, one of each framework: the same answers over HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest

from infold.convert import Sampling, convert_to_repository
from servers import running

pytestmark = pytest.mark.frameworks

DIGITS = Path(__file__).parents[2] / "examples" / "digits"


def test_keras_pytorch_and_onnx_give_the_same_answers(tmp_path: Path) -> None:
    """Every norm folded, every image's logits equal within rounding, whatever the file."""
    sampling = Sampling(DIGITS / "samples.npz")
    for name in ("onnx", "keras", "pt2"):
        done = convert_to_repository(DIGITS / f"digits.{name}", tmp_path / "models", name, sampling)
        assert (len(done.report.folded), len(done.report.kept)) == (5, 0), name
    with np.load(DIGITS / "samples.npz") as saved:
        images, labels = saved["in.image"], saved["label"]
    tensor = {
        "name": "image",
        "datatype": "FP32",
        "shape": list(images.shape),
        "data": images.reshape(-1).tolist(),
    }
    body = json.dumps({"inputs": [tensor]}).encode()
    logits = {}
    with running(tmp_path / "models", tmp_path / "log") as server:
        for name in ("onnx", "keras", "pt2"):
            with urlopen(Request(f"{server.url}/v2/models/{name}/infer", body)) as reply:
                (output,) = json.load(reply)["outputs"]
            assert output["name"] == "logits"
            logits[name] = np.array(output["data"]).reshape(output["shape"])
    assert (logits["onnx"].argmax(axis=1) == labels).all()
    for name in ("keras", "pt2"):
        assert np.abs(logits[name] - logits["onnx"]).max() <= 1e-5 * np.abs(logits["onnx"]).max(), name
