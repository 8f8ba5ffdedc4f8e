"""`infold serve --device cuda`, a real process: many callers, models that come and go."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest

from graphs import conv_norm, model, normal
from infold.runtime import Placement
from oracle import session
from servers import running


def repository(root: Path, **models: onnx.ModelProto) -> Path:
    for name, proto in models.items():
        (root / name / "1").mkdir(parents=True)
        onnx.save(proto, str(root / name / "1" / "model.onnx"))
    return root


def asked(client: httpx.Client, name: str, x: Any) -> Any:
    tensor = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.tolist()}
    answer = client.post(f"/v2/models/{name}/infer", json={"inputs": [tensor]})
    assert answer.status_code == 200, answer.text
    (output,) = answer.json()["outputs"]
    return np.array(output["data"], np.float32).reshape(output["shape"])


def test_everybody_gets_their_own_answer(placement: Placement, tmp_path: Path) -> None:
    """Eight callers, requests of 1 to 5 rows, joined and filled up; as the CPU has it."""
    root, wanted = repository(tmp_path / "models", net=conv_norm()), session(conv_norm())
    wrong: list[object] = []
    environment = {"INFOLD_DEVICE": str(placement.device), "INFOLD_CACHE_DIR": str(tmp_path / "cache")}
    with running(root, tmp_path / "log", **environment) as server:

        def call(seed: int) -> None:
            try:
                with httpx.Client(base_url=server.url, timeout=30) as client:
                    for n in range(10):
                        x = normal((seed + n) % 5 + 1, 2, 6, 6, seed=100 * seed + n)
                        if not np.allclose(
                            asked(client, "net", x), wanted.run(["y"], {"x": x})[0], rtol=0, atol=1e-3
                        ):
                            wrong.append((seed, n))
            except Exception as failure:
                wrong.append(failure)

        threads = [threading.Thread(target=call, args=(seed,)) for seed in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(120)
        told = httpx.get(f"{server.url}/v2/models/net/config").json()
        assert server.stop() == 0
    assert not wrong
    kind = "KIND_GPU" if placement.device.is_gpu else "KIND_CPU"
    assert told["instance_group"][0]["kind"] == kind
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    (plan,) = [line for line in lines if "plan chosen" in line.values()]
    assert plan["model"] == "net"


@pytest.mark.gpu
def test_a_model_that_is_unloaded_leaves_the_gpu(cuda: Placement, free_bytes: Any, tmp_path: Path) -> None:
    """And again; what stays is CUDA's own."""
    weights = normal(67108864)
    large = model(
        "g (float[N, 1] x) => (float[N] y) { z = Add(x, w) y = ReduceMax<axes = [1], keepdims = 0>(z) }",
        {"w": weights},
    )
    root = repository(tmp_path / "models", large=large, net=conv_norm())
    environment = {
        "INFOLD_DEVICE": str(cuda.device),
        "INFOLD_CACHE_DIR": str(tmp_path / "cache"),
        "INFOLD_MODEL_CONTROL": "explicit",
        "INFOLD_LOAD_MODELS": '["net"]',
    }
    with (
        running(root, tmp_path / "log", **environment) as server,
        httpx.Client(base_url=server.url, timeout=120) as client,
    ):
        asked(client, "net", normal(1, 2, 6, 6))
        before = free_bytes()
        for _ in range(3):
            assert client.post("/v2/repository/models/large/load").status_code == 200
            assert asked(client, "large", np.ones((2, 1), np.float32)).shape == (2,)
            assert before - free_bytes() > 256 * 2**20
            assert client.post("/v2/repository/models/large/unload").status_code == 200
            assert before - free_bytes() < 64 * 2**20
        asked(client, "net", normal(1, 2, 6, 6))
