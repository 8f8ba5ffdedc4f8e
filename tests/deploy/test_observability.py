"""Alert rules and the dashboard ask for what /metrics serves, in words that Prometheus and Grafana know."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml

from infold.rest.stages import STAGES
from infold.serving import State
from servers import ROOT

FOLDER = ROOT / "deploy/observability"
METRICS = (ROOT / "docs/metrics.md").read_text()
ALERTS = yaml.safe_load((FOLDER / "alerts.yml").read_text())
DASHBOARD = json.loads((FOLDER / "grafana/dashboards/infold.json").read_text())
DURATION = re.compile(r"(\d+(ms|[smhdwy]))+")
# What Prometheus adds to all that it scrapes, and what it serves of itself.
OF_TARGETS = {"job", "instance"}
OWN = {"up": set(), "ALERTS": {"alertname", "alertstate", "severity"}}
# Labels with values that are ours to choose, and where those are listed.
REASONS = set(re.findall(r"`(\w+)`", METRICS.partition("## Reasons")[2].partition("## Triton")[0]))
VALUES = {
    "state": {str(state) for state in State},
    "stage": set(STAGES),
    "outcome": {"success", "fail"},
    "reason": REASONS,
}


def documented() -> dict[str, set[str]]:
    """Every series and its labels, from the table that another test holds against what is served."""
    series = {name: OF_TARGETS | labels for name, labels in OWN.items()}
    rows = re.findall(r"^\| `(infold_\w+)` \| (\w+) \| ([^|]+) \|", METRICS, re.MULTILINE)
    for name, kind, labels in rows:
        known = OF_TARGETS | set(re.findall(r"`(\w+)`", labels))
        if kind == "histogram":
            series |= {f"{name}_bucket": known | {"le"}, f"{name}_sum": known, f"{name}_count": known}
        else:
            series[name] = known
    assert len(series) > 20
    return series


def rules() -> list[dict[str, Any]]:
    return [rule for group in ALERTS["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> list[tuple[str, str]]:
    """Where each expression stands, and the expression with Grafana's variables filled in."""
    found = [(f"alert {rule['alert']}", rule["expr"]) for rule in rules()]
    for panel in panels():
        for target in panel["targets"]:
            text = target["expr"].replace("$__rate_interval", "5m")
            found.append((f"panel {panel['title']}", re.sub(r"\$(job|instance|model)\b", ".*", text)))
    for variable in DASHBOARD["templating"]["list"][1:]:
        inner = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        assert inner is not None
        found.append(
            (f"variable {variable['name']}", f"sum by ({inner[2]}) ({inner[1]})".replace("$job", ".*"))
        )
    return found


def parts(node: object) -> Iterator[Any]:
    """A node of a parsed expression and all below it."""
    yield node
    for name in ("lhs", "rhs", "expr", "args", "param", "vector_selector"):
        below = getattr(node, name, None)
        for each in below if isinstance(below, list) else [below]:
            if each is not None:
                yield from parts(each)


@pytest.mark.parametrize(("place", "text"), expressions())
def test_an_expression_asks_for_series_and_labels_that_there_are(place: str, text: str) -> None:
    """It parses; every name, label and fixed value is one that is served."""
    series = documented()
    tree = promql_parser.parse(text)
    labels: set[str] = set()
    for node in parts(tree):
        if isinstance(node, promql_parser.VectorSelector):
            assert node.name in series, place
            labels |= series[node.name]
            for matcher in node.matchers.matchers:
                assert matcher.name in series[node.name], (place, matcher.name)
                for value in re.findall(r"^[\w|]+$", matcher.value):
                    assert set(value.split("|")) <= VALUES.get(matcher.name, {*value.split("|")}), (
                        place,
                        value,
                    )
    for grouped in re.findall(r"\b(?:by|on|without|ignoring|group_left) \(([^)]*)\)", text):
        assert set(re.findall(r"\w+", grouped)) <= labels, place


@pytest.mark.parametrize("family", sorted(set(re.findall(r"^\| `(infold_\w+)` \|", METRICS, re.MULTILINE))))
def test_every_family_is_on_the_dashboard(family: str) -> None:
    """Nothing is counted that nobody looks at; two would say the same as others."""
    if family in ("infold_inference_seconds_total", "infold_model_requests_total"):
        return
    assert any(family in text for place, text in expressions() if place.startswith("panel")), family


def test_the_alert_file_has_the_shape_that_prometheus_wants() -> None:
    """Its own keys and no other, durations it reads, labels and texts for whoever is woken."""
    assert set(ALERTS) == {"groups"}
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names)) >= 10
    for group in ALERTS["groups"]:
        assert set(group) == {"name", "rules"}
    for rule in rules():
        assert {"alert", "expr", "labels", "annotations"} <= set(rule) <= {
            "alert", "expr", "for", "labels", "annotations"
        }  # fmt: skip
        assert "for" not in rule or DURATION.fullmatch(rule["for"])
        assert re.fullmatch(r"Infold[A-Za-z]+", rule["alert"])
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert set(rule["annotations"]) == {"summary", "description"}


def test_an_alert_names_only_labels_that_its_result_has() -> None:
    """`{{ $labels.model }}` of a sum over all models would be empty at three in the morning."""
    series = documented()
    for rule in rules():
        named = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        grouped = re.findall(r"\bby \(([^)]*)\)", rule["expr"])
        if grouped:
            has = set.intersection(*(set(re.findall(r"\w+", each)) for each in grouped)) - {"le"}
        else:
            tree = promql_parser.parse(rule["expr"])
            names = [n.name for n in parts(tree) if isinstance(n, promql_parser.VectorSelector)]
            has = set.intersection(*(series[name] for name in names))
        assert named <= has, rule["alert"]


def test_the_dashboard_is_whole() -> None:
    """Unique ids, no panel over another, a unit, a source and a word on what each shows."""
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
    for panel in panels():
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["description"] and panel["targets"], panel["title"]
        for each in (panel, *panel["targets"]):
            assert each["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]


def test_grafana_and_prometheus_find_what_they_are_given() -> None:
    """Paths and names in their files are those of the compose file."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    prometheus = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    (scraped,) = prometheus["scrape_configs"]
    assert scraped["job_name"] == "infold"
    targets = [t for each in scraped["static_configs"] for t in each["targets"]]
    targets += [f"{name}:{each['port']}" for each in scraped["dns_sd_configs"] for name in each["names"]]
    for target in targets:
        name, _, port = target.partition(":")
        assert name in compose and port == "8080"
    inside = {line.split(":")[1]: line.split(":")[0] for line in compose["prometheus"]["volumes"]}
    for path in prometheus["rule_files"]:
        assert (ROOT / inside[path]).is_file()
    (source,) = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    assert source["uid"] == DASHBOARD["templating"]["list"][0]["current"]["value"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((FOLDER / "grafana/provisioning/dashboards/infold.yml").read_text())[
        "providers"
    ]
    inside = {line.split(":")[1]: line.split(":")[0] for line in compose["grafana"]["volumes"]}
    assert (ROOT / inside[provider["options"]["path"]] / "infold.json").is_file()
