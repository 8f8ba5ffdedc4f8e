"""What is counted, in Triton's names: the numbers its boards and autoscaling rules divide."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from infold.errors import (
    AbandonedError,
    DeadlineExceededError,
    InfoldError,
    InvalidInputError,
    QueueFullError,
    SessionError,
)
from infold.rest.app import create_app
from infold.rest.counting import Snapshot
from infold.rest.metrics import Metrics
from infold.rest.triton_metrics import EVERY_REASON, FAMILIES, REASONS, triton_page
from infold.serving import Spent
from infold.settings import Settings

ERRORS: list[InfoldError] = [
    QueueFullError(8),
    DeadlineExceededError(1.0),
    AbandonedError(),
    SessionError("m", "x"),
    InvalidInputError("inputs", "x"),
    InvalidInputError("inputs", "x"),
]


def busy() -> Metrics:
    """Three requests of eight rows shared a run; six were refused."""
    metrics = Metrics()
    for wait, took in ((0.5, 1.0), (0.25, 0.75), (0.125, 0.5)):
        metrics.waited("m", 1, wait)
        metrics.of_model("m", 1).answered.add(took)
    metrics.batch_ran("m", 1, 3, 8, Spent(0.001, 0.02, 0.3))
    for failure in ERRORS:
        failure.asked_of = "m", 1
        metrics.refused(failure)
    return metrics


def values(page: bytes) -> dict[tuple[str, ...], float]:
    """Every sample by name and the values of its labels, as Prometheus reads them.

    prometheus_client's own reader adds to the name of a counter what it has not.
    """
    found = {}
    for name, labels, value in re.findall(r"^(\w+)\{(.*)\} (\S+)$", page.decode(), re.M):
        texts = re.findall(r'\w+="((?:[^"\\]|\\.)*)"', labels)
        found[name, *(each.encode().decode("unicode_escape") for each in texts)] = float(value)
    return found


def test_a_joined_run_and_six_refusals() -> None:
    """Requests are counted as requests, rows as inferences, runs as executions, times in microseconds."""
    page = triton_page([busy().snapshot({("m", 1): (5, 20, 4)})])
    m = ("m", "1")
    assert values(page) == {
        ("nv_inference_request_success", *m): 3,
        ("nv_inference_request_failure", "m", "1", "REJECTED"): 2,
        ("nv_inference_request_failure", "m", "1", "CANCELED"): 1,
        ("nv_inference_request_failure", "m", "1", "BACKEND"): 1,
        ("nv_inference_request_failure", "m", "1", "OTHER"): 2,
        ("nv_inference_count", *m): 8,
        ("nv_inference_exec_count", *m): 1,
        ("nv_inference_request_duration_us", *m): 2_250_000,
        ("nv_inference_queue_duration_us", *m): 875_000,
        ("nv_inference_compute_input_duration_us", *m): 3_000,
        ("nv_inference_compute_infer_duration_us", *m): 60_000,
        ("nv_inference_compute_output_duration_us", *m): 900_000,
        ("nv_inference_pending_request_count", *m): 4,
    }


def test_types_are_told_of_the_very_names() -> None:
    """Not of names that end in `_total`, which no board asks for."""
    page = triton_page([busy().snapshot()]).decode()
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.M))
    assert types == {name: family.kind for name, family in FAMILIES.items()}
    assert set(re.findall(r"^# HELP (\S+) \S", page, re.M)) == set(FAMILIES)
    for name in re.findall(r"^(\w+)\{", page, re.M):
        assert name in types


def test_a_model_that_was_asked_nothing_is_there_with_zeros() -> None:
    """Or a rule that divides by it would find nothing."""
    metrics = Metrics()
    metrics.of_model("idle", 7)
    found = values(triton_page([metrics.snapshot({("idle", 7): (0, 0, 0)})]))
    assert len(found) == len(FAMILIES) - 1 + len(EVERY_REASON)
    assert set(found.values()) == {0}


def test_processes_together_tell_what_one_would() -> None:
    """Also by way of JSON, and with what a worker had counted that was started again."""
    one: Snapshot = json.loads(json.dumps(busy().snapshot({("m", 1): (1, 1, 1)})))
    again = busy()
    again.go_on_from(one)
    summed = values(triton_page([one, again.snapshot({("m", 1): (1, 1, 1)})]))
    alone = values(triton_page([busy().snapshot({("m", 1): (1, 1, 1)})]))
    gauge = "nv_inference_pending_request_count"
    for key, value in alone.items():
        assert summed[key] == (2 if key[0] == gauge else 3) * value, key


def test_what_was_refused_for_nobody_is_nobody_s_failure() -> None:
    """Triton has no row without a model."""
    metrics = Metrics()
    metrics.refused(QueueFullError(8))
    assert b"nv_inference_request_failure{" not in triton_page([metrics.snapshot()])


def test_a_name_is_told_as_a_label_whatever_is_in_it() -> None:
    """A folder's name may have quotes, backslashes and line ends."""
    name = 'a"b\\c\nd'
    metrics = Metrics()
    metrics.of_model(name, 1).answered.add(0.5)
    page = triton_page([metrics.snapshot()])
    assert values(page)["nv_inference_request_success", name, "1"] == 1


def test_every_reason_of_theirs_is_one_of_the_four() -> None:
    """And the words of ours are none that we do not have, but for one that is to come."""
    assert set(REASONS.values()) | {"OTHER"} == set(EVERY_REASON)
    ours = {failure.reason for failure in ERRORS}
    assert set(REASONS) <= ours | {"in_flight_bytes", "queue_too_long"}


def test_every_family_has_its_row_in_the_documentation() -> None:
    """With its type, and no other has."""
    page = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    rows = dict(re.findall(r"^\| `(nv_\w+)` \| (\w+) \|", page, re.M))
    assert rows == {name: family.kind for name, family in FAMILIES.items()}


@pytest.mark.parametrize("is_wanted", [True, False])
async def test_they_are_on_the_page_only_where_they_are_wanted(tmp_path: Path, is_wanted: bool) -> None:
    """Behind our own, which do not change."""
    settings = Settings(repository=tmp_path, cache_dir=tmp_path / "c", triton_metrics=is_wanted)
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client,
    ):
        page = (await client.get("/metrics")).text
    assert page.startswith("# HELP infold_build_info")
    families = {family.name for family in text_string_to_metric_families(page)}
    assert {name for name in families if name.startswith("nv_")} == (set(FAMILIES) if is_wanted else set())
    assert "infold_refusals" in families
