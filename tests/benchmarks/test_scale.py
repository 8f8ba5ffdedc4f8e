"""The simulation of a fleet: beside queues that are solved on paper, and beside the page that shows it."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infold.serving.plan import Plan

SCALE = Path(__file__).parents[2] / "benchmarks" / "scale"
MODULES = (
    *("agenda", "bars", "capacity", "cluster", "experiments", "fleet_sections", "process", "sections"),
    *("service_sections", "service_times", "simulate", "theory", "writing"),
)
SECTIONS = (
    *("measured", "theory", "reality", "capacity", "latency"),
    *("policies", "depth", "node", "spare", "autoscaling"),
)


@pytest.fixture(scope="module")
def scale() -> Iterator[SimpleNamespace]:
    """The benchmark's modules; none of their names stays behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCALE)
        for name in MODULES:
            patch.delitem(sys.modules, name, raising=False)
        yield SimpleNamespace(**{name: __import__(name) for name in MODULES})
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def times(scale: SimpleNamespace) -> Any:
    """Those that are checked in."""
    return scale.service_times.ServiceTimes.read()


@pytest.fixture(scope="module")
def page() -> str:
    """docs/scale.md."""
    return (SCALE.parents[1] / "docs" / "scale.md").read_text()


def one_second(rows: int) -> float:
    """A run that always takes as long."""
    return 1.0


def test_simulated_waits_are_those_on_paper(scale: SimpleNamespace) -> None:
    """M/M/c, M/D/c, M/G/1 and batches: within what so many draws let one expect."""
    compared = scale.experiments.textbook()
    assert len(compared) >= 6
    for each in compared:
        assert each.simulated == pytest.approx(each.expected, rel=0.1), each.name


def test_formulas_agree_where_they_meet(scale: SimpleNamespace) -> None:
    """One server, or batches of one, is the same queue by three formulas."""
    theory = scale.theory
    single = theory.pollaczek_khinchine_wait(0.8, 1.0, 1.0)
    assert single == pytest.approx(2.0)
    assert theory.fixed_wait(0.8, 1.0, 1) == pytest.approx(single, rel=1e-6)
    assert theory.bulk_wait(0.8, one_second, 1) == pytest.approx(single, rel=1e-6)
    assert theory.erlang_wait(0.8, 1.0, 1) == pytest.approx(theory.pollaczek_khinchine_wait(0.8, 1.0, 2.0))


def test_the_interpreter_limits_a_process_that_reads_json(scale: SimpleNamespace) -> None:
    """However many cores it has, one body is read at a time; as bytes the cores are the limit."""
    of_json = scale.service_times.Times(0.0, 0.5, lambda rows: 0.5, Plan(1, 8, 0, 1, 0))
    assert scale.cluster.closed_loop(of_json, 8, 32, 400) == pytest.approx(2.0, rel=0.02)
    of_bytes = scale.service_times.Times(0.0, 0.0, one_second, Plan(1, 8, 0, 1, 0))
    assert scale.cluster.closed_loop(of_bytes, 8, 32, 2000) == pytest.approx(8.0, rel=0.02)


def test_the_loop_takes_its_core_from_the_runs(scale: SimpleNamespace) -> None:
    """Where all cores run, what the event loop does makes runs longer: no core is there twice."""
    times = scale.service_times.Times(0.2, 0.0, lambda rows: 0.8, Plan(1, 2, 0, 1, 0))
    assert scale.cluster.closed_loop(times, 2, 16, 400) == pytest.approx(2.0, rel=0.03)


def test_every_request_is_answered_refused_or_lost(scale: SimpleNamespace) -> None:
    """None vanishes, be the queue short and a node dead; what is refused is what does not fit."""
    cluster = scale.cluster
    times = scale.service_times.Times(0.001, 0.0, lambda rows: 0.1, Plan(1, 2, 0, 1, 0), 0.0, 1000)
    fleet = cluster.Fleet(times, 4, 2, 2, 1e6, 2, 1e-4, capacity_rows=4)
    calls = cluster.Cluster(fleet, [(160.0, 20.0)], 3)  # twice what it can carry
    calls.kill_node(1, 10.0, 2.0)
    outcome = calls.run()
    assert outcome.sent == len(outcome.answered) + len(outcome.refused) + len(outcome.lost)
    assert outcome.sent == pytest.approx(160 * 20, rel=0.1)
    assert len(outcome.answered) == pytest.approx(80 * 10 + 40 * 10, rel=0.05)
    assert outcome.lost and not outcome.between(12.0).lost
    full = 0.001 * 8 + 0.1 * 4  # four wait, two run, two at a time
    assert outcome.quantile_ms(1.0) < 1e3 * full * 2


def test_a_queue_without_bound_refuses_nobody(scale: SimpleNamespace) -> None:
    """And below capacity a queue of the default depth does not either."""
    cluster = scale.cluster
    times = scale.service_times.Times(0.0, 0.0, lambda rows: 0.1, Plan(1, 1, 0, 1, 0))
    crowd = cluster.Cluster(cluster.Fleet(times, 1, 1, capacity_rows=10**9), [(20.0, 50.0)], 1).run()
    calm = cluster.Cluster(cluster.Fleet(times, 1, 1), [(5.0, 50.0)], 1).run()
    assert not crowd.refused and not calm.refused
    assert crowd.sent == pytest.approx(1000, rel=0.1)


def test_a_busier_fleet_is_slower(scale: SimpleNamespace, times: Any) -> None:
    """Under every policy, and never quicker than the request itself."""
    body = times.cases["c"]
    for policy in scale.cluster.Policy:
        high = [
            scale.experiments.steady(body, times, share, policy).quantile_ms(0.99) for share in (0.5, 0.9)
        ]
        assert 1e3 * (body.loop_s + body.free_s) < high[0] < high[1], policy


def test_capacity_is_arithmetic(scale: SimpleNamespace, times: Any) -> None:
    """Nodes at their limit carry the rate, one fewer would be too full."""
    for letter, body in times.cases.items():
        need, node = scale.capacity.need_of(body, times), scale.capacity.NODE
        assert need.cores == pytest.approx(1e5 * body.cpu_s)
        assert need.nodes == max(need.nodes_by_cores, need.nodes_by_card), letter
        assert need.nodes * need.most_per_node["network"] * node.busy_card >= 1e5
        inside = min(most for part, most in need.most_per_node.items() if part != "network") * node.busy_cores
        assert (need.nodes_by_cores - 1) * inside < 1e5 <= need.nodes_by_cores * inside


@pytest.mark.parametrize("name", SECTIONS)
def test_the_page_says_what_the_script_prints(
    scale: SimpleNamespace, times: Any, page: str, name: str
) -> None:
    """Every figure of docs/scale.md comes from the checked-in service times and fixed seeds."""
    assert tuple(scale.sections.SECTIONS) == tuple(re.findall(r"<!-- /(\w+) -->", page)) == SECTIONS
    found = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", page, re.DOTALL)
    assert found is not None
    assert found[1] == scale.sections.SECTIONS[name](times)


def test_the_plots_are_those_of_the_script(scale: SimpleNamespace, times: Any) -> None:
    """Drawn from the same outcomes, and on the page."""
    docs = SCALE.parents[1] / "docs"
    for name, text in scale.simulate.plots(times).items():
        assert (docs / name).read_text() == text, name


def test_a_run_on_all_cores_pays_for_the_loop_too(scale: SimpleNamespace) -> None:
    """A lone request has both cores; what the event loop does meanwhile makes its run longer."""
    plan = Plan(1, 2, 2, 1, 0)
    times = scale.service_times.Times(0.1, 0.0, lambda rows: 2.0, plan, 1.0)
    cluster = scale.cluster
    agenda, ended = scale.agenda.Agenda(), []
    told = (lambda request: ended.append(agenda.now), ended.append, ended.append)
    process = scale.process.Process(agenda, times, 2, *told)
    for at in (0.0, 0.5):
        agenda.at(at, process.arrive, cluster.Request(at))
    agenda.run()
    assert ended == pytest.approx([1.2, 2.2])
