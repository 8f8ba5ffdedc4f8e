"""Shadows as /metrics and the statistics tell them: of one process, of several, and of one after another."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from infold.rest.counting import Snapshot
from infold.rest.exposition import page_of
from infold.rest.metrics import Metrics
from infold.rest.statistics import statistics
from infold.serving import Shadowed

M = "m", 1


def of(*snapshots: Snapshot, version: tuple[str, int] = M) -> dict[str, Any]:
    (found,) = statistics(snapshots, [version])["model_stats"]
    assert isinstance(found, dict)
    return found


def page(*snapshots: Snapshot) -> dict[str, float]:
    """Samples of shadows by name, with `le`."""
    return {
        sample.name.removeprefix("infold_shadow_") + sample.labels.get("le", ""): sample.value
        for family in text_string_to_metric_families(page_of(snapshots).decode())
        for sample in family.samples
        if sample.name.startswith("infold_shadow")
    }


def told() -> Metrics:
    """Three runs, two dropped, one failed."""
    metrics = Metrics()
    metrics.shadowed(*M, Shadowed.OPENED, 0.0)
    for off in (0.0, 5e-7, 0.25):
        metrics.shadowed(*M, Shadowed.RAN, off)
    for outcome in (Shadowed.DROPPED, Shadowed.DROPPED, Shadowed.FAILED):
        metrics.shadowed(*M, outcome, 0.0)
    return metrics


def test_only_a_version_with_a_shadow_has_a_field_of_it() -> None:
    """Triton's own fields are as they were."""
    metrics = told()
    with_shadow, without = of(metrics.snapshot()), of(metrics.snapshot(), version=("m", 2))
    assert with_shadow["shadow"] == {
        "count": 3,
        "mean": pytest.approx((0.25 + 5e-7) / 3),
        "max": 0.25,
        "dropped": 2,
        "failed": 1,
    }
    assert "shadow" not in without
    assert with_shadow.keys() - {"shadow"} == without.keys()


def test_a_shadow_is_told_of_before_it_has_run() -> None:
    """So that a rate has something to begin with."""
    metrics = Metrics()
    assert page(metrics.snapshot()) == {}
    metrics.shadowed(*M, Shadowed.OPENED, 0.0)
    assert of(metrics.snapshot())["shadow"] == {
        "count": 0,
        "mean": 0.0,
        "max": 0.0,
        "dropped": 0,
        "failed": 0,
    }
    assert page(metrics.snapshot())["runs_total"] == 0


def test_the_page_has_a_histogram_in_decades() -> None:
    """And three counters; the largest is no series."""
    found = page(told().snapshot())
    decades = {name.removeprefix("divergence_bucket"): n for name, n in found.items() if "bucket" in name}
    assert decades == {
        "1e-08": 1, "1e-07": 1, "1e-06": 2, "1e-05": 2, "0.0001": 2, "0.001": 2, "0.01": 2, "0.1": 2,
        "1.0": 3, "+Inf": 3,
    }  # fmt: skip
    assert (found["runs_total"], found["dropped_total"], found["failures_total"]) == (3, 2, 1)
    assert found["divergence_sum"] == 0.25 + 5e-7
    assert not any("max" in name for name in found)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2), st.sampled_from(Shadowed), st.sampled_from([0.0, 2.0**-20, 0.5, 2.0**19])
        )
    )
)
def test_counting_apart_and_summing_is_counting_together(events: list[tuple[int, Shadowed, float]]) -> None:
    """Whatever worker a run was in, and by way of JSON; the largest is the largest of all."""
    together, apart = Metrics(), [Metrics(), Metrics(), Metrics()]
    for process, outcome, off in events:
        for each in (together, apart[process]):
            each.shadowed(*M, outcome, off)
    snapshots: list[Snapshot] = [json.loads(json.dumps(each.snapshot())) for each in apart]
    assert of(*snapshots) == of(together.snapshot())
    assert page(*snapshots) == page(together.snapshot())


def test_a_worker_that_is_started_again_goes_on() -> None:
    """No total falls, nor does the largest."""
    second = Metrics()
    second.go_on_from(json.loads(json.dumps(told().snapshot())))
    second.shadowed(*M, Shadowed.RAN, 0.125)
    found = of(second.snapshot())["shadow"]
    assert (found["count"], found["max"], found["dropped"]) == (4, 0.25, 2)
