"""The numbers on /metrics: equal to prometheus_client's own, and summable."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as TheirHistogram
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from infold.errors import AbandonedError, DeadlineExceededError, QueueFullError
from infold.rest.counting import LEAST_FAR_FIRST, Histogram, Snapshot, state_of_all, total
from infold.rest.exposition import page_of
from infold.rest.metrics import (
    BATCHES,
    COUNTERS,
    GAUGES,
    HISTOGRAMS,
    LATEST,
    OF_MODEL,
    RUNS,
    SECONDS,
    Metrics,
)
from infold.serving import Shadowed, Spent, State, Took

FAMILIES = sum(map(len, (COUNTERS, HISTOGRAMS, GAUGES, LATEST))) + 2  # states, and the build

observations = st.lists(
    st.one_of(st.floats(0, 100, allow_nan=False), st.sampled_from(SECONDS)),  # bounds themselves, too
    max_size=30,
)


@given(observations)
def test_buckets_are_those_of_prometheus_client(values: list[float]) -> None:
    """Same bucket for every value, bounds included; same count and sum."""
    registry = CollectorRegistry()
    theirs = TheirHistogram("h", "h", buckets=SECONDS, registry=registry)
    ours = Histogram(SECONDS)
    for value in values:
        theirs.observe(value)
        ours.observe(value)
    (family,) = registry.collect()
    cumulative = [sample.value for sample in family.samples if sample.name == "h_bucket"]
    assert cumulative == [sum(ours.counts[: n + 1]) for n in range(len(ours.counts))]
    assert registry.get_sample_value("h_sum") == ours.sum


@given(st.lists(st.integers(0, 2), max_size=40))
def test_counting_apart_and_summing_is_counting_together(who: list[int]) -> None:
    """Whatever process a request came to, the page is the same."""
    together = Metrics()
    apart = [Metrics(), Metrics(), Metrics()]
    for number, process in enumerate(who):
        for each in (together, apart[process]):
            count(each, number)
    page = page_of([each.snapshot() for each in apart])
    assert samples(page) == pytest.approx(samples(page_of([together.snapshot()])))


def test_a_snapshot_survives_json() -> None:
    """It crosses a channel of JSON lines."""
    metrics = Metrics()
    for number in range(5):
        count(metrics, number)
    copied: Snapshot = json.loads(json.dumps(metrics.snapshot()))
    assert samples(page_of([copied])) == samples(page_of([metrics.snapshot()]))


def test_a_successor_goes_on_counting() -> None:
    """Totals never fall when a process is replaced; what it held is not what its successor holds."""
    first, second = Metrics(), Metrics()
    for number in range(5):
        count(first, number)
    first.state_changed("gone", 1, "ready", "")
    first.restarts, second.restarts = 3, 4
    second.go_on_from(first.snapshot())
    count(second, 0)
    assert (
        samples(page_of([second.snapshot()]))[
            'infold_http_requests_total{method="POST",route="/a",status="200"}'
        ]
        == 4
    )
    assert 'infold_model_state{model="gone"' not in page_of([second.snapshot()]).decode()
    assert samples(page_of([second.snapshot()]))["infold_worker_restarts_total{}"] == 4


@pytest.mark.parametrize(
    ("states", "all_together"),
    [
        (["ready", "ready"], "ready"),
        (["ready", "loading"], "loading"),
        (["ready", "failed"], "failed"),
        (["draining", "ready"], "ready"),
        (["unloaded", "draining"], "draining"),
    ],
)
def test_the_state_of_several_processes(states: list[str], all_together: str) -> None:
    """Failed in any, else the one that is least far."""
    assert state_of_all(states) == all_together
    page = samples(
        page_of(
            [
                {"counters": {}, "histograms": {}, "gauges": {}, "states": [("m", "1", s)], "latest": {}}
                for s in states
            ]
        )
    )
    shown = {name for name, value in page.items() if name.startswith("infold_model_state") and value}
    assert shown == {f'infold_model_state{{model="m",state="{all_together}",version="1"}}'}


def test_every_state_has_its_rank() -> None:
    """A new one would have none."""
    assert sorted(LEAST_FAR_FIRST) == sorted(State)


def test_nothing_summed_is_nothing() -> None:
    """The page has its families all the same."""
    assert total([]) == {"counters": {}, "histograms": {}, "gauges": {}, "states": [], "latest": {}}
    assert len(re.findall("^# TYPE", page_of([]).decode(), re.MULTILINE)) == FAMILIES


def test_the_page_is_what_prometheus_reads() -> None:
    """Every family once, with a help text and samples of its own; no sample twice; buckets that rise."""
    metrics = Metrics()
    for number in range(8):
        count(metrics, number)
    page = page_of([metrics.snapshot({("m", 1): (2, 3, 1)}), metrics.snapshot()]).decode()
    assert page.endswith("\n")
    families = list(text_string_to_metric_families(page))
    assert len({family.name for family in families}) == len(families) == FAMILIES
    assert all(family.documentation and family.samples for family in families)
    seen = [(each.name, tuple(sorted(each.labels.items()))) for f in families for each in f.samples]
    assert len(set(seen)) == len(seen)
    assert all(name.startswith("infold_") for name, _ in seen)
    assert not any(BATCHES in name or RUNS in name for name, _ in seen), "a label for each number of rows"
    for family in families:
        if family.type == "histogram":
            check_histogram(family.samples)


def check_histogram(samples: Sequence[Sample]) -> None:
    """Of every set of labels the buckets rise to the count."""
    rising: dict[str, float] = {}
    for each in samples:
        labels = str(sorted((key, value) for key, value in each.labels.items() if key != "le"))
        if each.name.endswith("_bucket"):
            assert each.value >= rising.get(labels, 0.0)
            rising[labels] = each.value
        elif each.name.endswith("_count"):
            assert each.value == rising[labels]


def test_what_is_told_of_outcomes_stages_and_nulls(monkeypatch: pytest.MonkeyPatch) -> None:
    """By label; a stage's time counts for each request of the run, a run's own once."""
    monkeypatch.setattr("time.time", lambda: 1234.5)
    metrics = Metrics()
    counts = metrics.of_model("m", 1)
    counts.answered.add(1.5)
    counts.answered.add(0.5)
    counts.refused.add(0.25)
    counts.nulls.count += 7
    counts.stages.answered(0.5, Took(8, 0.25, 0.0, 0.125, 2.0, 0.0625))
    metrics.waited("m", 1, 4.0)
    metrics.refused(QueueFullError(8))
    metrics.batch_ran("m", 1, 3, 8, Spent(0.5, 0.25, 0.125))
    metrics.of_model("idle", 1)
    page = page_of([metrics.snapshot()])
    found = samples(page)
    assert b'infold_last_run_timestamp_seconds{model="idle"' not in page, "it has none"
    told: dict[tuple[str, str], float] = {
        ("infold_inferences_total", 'outcome="success",'): 2,
        ("infold_inferences_total", 'outcome="fail",'): 1,
        ("infold_inference_seconds_total", 'outcome="success",'): 2.0,
        ("infold_inference_seconds_total", 'outcome="fail",'): 0.25,
        ("infold_stage_seconds_sum", 'stage="read",'): 0.5,
        ("infold_stage_seconds_sum", 'stage="decode",'): 0.25,
        ("infold_stage_seconds_sum", 'stage="queue",'): 4.0,
        ("infold_stage_seconds_sum", 'stage="batch",'): 0.125,
        ("infold_stage_seconds_sum", 'stage="compute",'): 2.0,
        ("infold_stage_seconds_sum", 'stage="encode",'): 0.0625,
        ("infold_stage_seconds_count", 'stage="encode",'): 1,
        ("infold_null_values_total", ""): 7,
        ("infold_model_requests_total", ""): 3,
        ("infold_run_rows_sum", ""): 8,
        ("infold_run_rows_count", ""): 1,
        ("infold_run_seconds_sum", ""): 0.875,
        ("infold_last_run_timestamp_seconds", ""): 1234.5,
    }
    assert {key: found.get(f'{key[0]}{{model="m",{key[1]}version="1"}}') for key in told} == told


def test_every_family_has_its_row_in_the_documentation() -> None:
    """With its labels, and no other has."""
    page = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    rows = {
        name: (kind, tuple(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in re.findall(r"^\| `(infold_\w+)` \| (\w+) \| ([^|]+) \|", page, re.MULTILINE)
    }
    tables = {"counter": COUNTERS, "histogram": HISTOGRAMS, "gauge": {**GAUGES, **LATEST}}
    families = {name: (kind, row[1]) for kind, table in tables.items() for name, row in table.items()}
    assert set(rows) & {RUNS, BATCHES} == set()
    families["infold_model_state"] = "gauge", (*OF_MODEL, "state")
    families["infold_build_info"] = "gauge", ("version",)
    assert rows == families


def count(metrics: Metrics, number: int) -> None:
    """One request, its run, and now and then a failure."""
    metrics.answered("/a" if number % 2 == 0 else "/b", "POST", 200, number / 1000)
    metrics.waited("m", number % 3, number / 2000)
    took = Took(number, number / 900, 0.0, number / 800, number / 700, number / 600)
    metrics.of_model("m", number % 3).stages.answered(number / 1000, took)
    metrics.refused((DeadlineExceededError(1.0), AbandonedError())[number % 2])
    metrics.batch_ran("m", number % 3, 2, number, Spent(number / 300, number / 200, number / 600))
    if number % 4 == 0:
        metrics.batch_failed("m", number % 3, 2)
    metrics.shadowed("m", number % 3, Shadowed.RAN, number / 1000)
    metrics.state_changed("m", number % 3, "ready", "")


def samples(page: bytes) -> dict[str, float]:
    """Every sample of a page by its name and labels."""
    found = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found
