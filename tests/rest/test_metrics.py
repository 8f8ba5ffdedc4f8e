"""The numbers on /metrics: equal to prometheus_client's own, and summable."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as TheirHistogram
from prometheus_client.parser import text_string_to_metric_families

from infold.rest.counting import LEAST_FAR_FIRST, Histogram, Snapshot, state_of_all, total
from infold.rest.exposition import page_of
from infold.rest.metrics import SECONDS, Metrics
from infold.serving import Spent, State

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
    second.go_on_from(first.snapshot())
    count(second, 0)
    assert (
        samples(page_of([second.snapshot()]))[
            'infold_http_requests_total{method="POST",route="/a",status="200"}'
        ]
        == 4
    )
    assert "gone" not in page_of([second.snapshot()]).decode()


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
    assert len(re.findall("^# TYPE", page_of([]).decode(), re.MULTILINE)) == 16


def count(metrics: Metrics, number: int) -> None:
    """One request, its run, and now and then a failure."""
    metrics.answered("/a" if number % 2 == 0 else "/b", "POST", 200, number / 1000)
    metrics.waited("m", number % 3, number / 2000)
    metrics.batch_ran("m", number % 3, 2, number, Spent(number / 300, number / 200, number / 600))
    if number % 4 == 0:
        metrics.batch_failed("m", number % 3, 2)
    metrics.state_changed("m", number % 3, "ready", "")


def samples(page: bytes) -> dict[str, float]:
    """Every sample of a page by its name and labels."""
    found = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found
