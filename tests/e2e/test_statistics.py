"""Statistics over a real socket, by Triton's own client: of one process, and of two as one."""

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.http import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from servers import Server, running

LOOKUP = """<ir_version: 8, opset_import: ["": 17]>
    lookup (int64[batch] index) => (float[batch] value)
    <float[3] table = {10, 20, 30}> { value = Gather(table, index) }"""
STAGES = ("compute_input", "compute_infer", "compute_output")


@pytest.fixture(scope="module", params=["1", "2"])
def lookup(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One process, or two on one socket."""
    root = tmp_path_factory.mktemp("lookup")
    folder = root / "models/lookup/1"
    folder.mkdir(parents=True)
    onnx.save(onnx.parser.parse_model(LOOKUP), str(folder / "model.onnx"))
    with running(root / "models", root / "server.log", INFOLD_WORKERS=request.param) as started:
        yield started


def ask(server: Server, *indices: int) -> None:
    """Over a connection of its own."""
    with InferenceServerClient(server.address) as client:
        sent = InferInput("index", [len(indices)], "INT64")
        client.infer("lookup", [sent.set_data_from_numpy(np.array(indices))])


def told(server: Server) -> dict[str, Any]:
    with InferenceServerClient(server.address) as client:
        (found,) = client.get_inference_statistics("lookup", "1")["model_stats"]
    assert isinstance(found, dict)
    return found


def test_what_was_asked_meanwhile_is_what_they_grow_by(lookup: Server) -> None:
    """Three answers of six rows in all, two refusals; every stage took its time."""
    before = told(lookup)
    for indices in ((0,), (1, 2), (0, 1, 2)):
        ask(lookup, *indices)
    for _ in range(2):
        with pytest.raises(InferenceServerException):
            ask(lookup, 3)
    after = told(lookup)

    def grown(*path: str) -> int:
        old: Any = before
        new: Any = after
        for key in path:
            old, new = old[key], new[key]
        return int(new - old)

    assert grown("inference_count") == 6
    assert grown("execution_count") == 3
    assert grown("inference_stats", "success", "count") == 3
    assert grown("inference_stats", "fail", "count") == 2
    spent = 0
    for stage in STAGES:
        assert grown("inference_stats", stage, "count") == 3
        spent += grown("inference_stats", stage, "ns")
    assert 0 < spent < grown("inference_stats", "success", "ns")
    assert grown("inference_stats", "fail", "ns") > 0
    assert after["last_inference"] > before["last_inference"]
    counts = {each["batch_size"]: each["compute_infer"]["count"] for each in after["batch_stats"]}
    assert sum(counts.values()) == after["execution_count"]
    assert sum(rows * count for rows, count in counts.items()) == after["inference_count"]
    assert set(counts) >= {1, 2, 3}


def test_the_page_for_prometheus_says_the_same(lookup: Server) -> None:
    """In its own families, in seconds."""
    ask(lookup, 0, 1)
    found = told(lookup)
    page = httpx.get(f"{lookup.url}/metrics").text
    values = {
        (sample.name, sample.labels.get("outcome") or sample.labels.get("stage")): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.labels.get("model") == "lookup" and "le" not in sample.labels
    }
    for outcome in ("success", "fail"):
        ended = found["inference_stats"][outcome]
        assert values["infold_inferences_total", outcome] == ended["count"]
        assert round(values["infold_inference_seconds_total", outcome] * 1e9) == ended["ns"]
    assert round(values["infold_stage_seconds_sum", "queue"] * 1e9) == found["inference_stats"]["queue"]["ns"]
    assert values["infold_stage_seconds_count", "queue"] == found["inference_stats"]["queue"]["count"]
    assert int(values["infold_last_run_timestamp_seconds", None] * 1000) == found["last_inference"]
    assert values["infold_run_rows_sum", None] == found["inference_count"]
    assert values["infold_model_requests_total", None] == found["inference_stats"]["success"]["count"]
