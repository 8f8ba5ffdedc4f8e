"""Who answers which path."""

import pytest

from infold.cluster.routing import Kind, Target, target_of
from infold.rest.access.scopes import RULES


@pytest.mark.parametrize(
    ("method", "path", "target"),
    [
        ("POST", "/v2/models/m/infer", Target(Kind.MODEL, "/v2/models/{model}/infer", "m")),
        ("POST", "/v2/models/m/versions/2/infer", Target(Kind.MODEL, "/v2/models/{model}/infer", "m")),
        ("POST", "/v1/models/m:predict", Target(Kind.MODEL, "/v1/models/{model}:predict", "m")),
        ("POST", "/v1/models/m/labels/a:predict", Target(Kind.MODEL, "/v1/models/{model}:predict", "m")),
        ("GET", "/v2/models/m/ready", Target(Kind.MODEL, "/models/{model}", "m")),
        ("GET", "/v2/models/m", Target(Kind.MODEL, "/models/{model}", "m")),
        ("GET", "/v2/models/stats", Target(Kind.STATISTICS, "/v2/models/stats")),
        ("POST", "/v2/models/stats/infer", Target(Kind.MODEL, "/v2/models/{model}/infer", "stats")),
        ("GET", "/v2/models/m/stats", Target(Kind.STATISTICS, "/v2/models/{model}/stats", "m")),
        (
            "GET",
            "/v2/models/m/versions/3/stats",
            Target(Kind.STATISTICS, "/v2/models/{model}/stats", "m", "3"),
        ),
        ("POST", "/v2/repository/any/index", Target(Kind.INDEX, "/v2/repository/index")),
        ("POST", "/v2/repository/models/m/load", Target(Kind.ORDER, "/v2/repository/models/{model}")),
        ("POST", "/v2/repository/r/models/m/unload", Target(Kind.ORDER, "/v2/repository/models/{model}")),
        ("GET", "/v2/health/ready", Target(Kind.READY, "/v2/health/ready")),
        ("POST", "/v2/health/ready", Target(Kind.ANY, "unmatched")),
        ("GET", "/docs", Target(Kind.ANY, "unmatched")),
        ("GET", "/v2/models/", Target(Kind.ANY, "unmatched")),
        ("GET", "/nowhere", Target(Kind.ANY, "unmatched")),
    ],
)
def test_a_path_has_one_that_answers(method: str, path: str, target: Target) -> None:
    """The model it names, or all, or whoever can say that nobody knows it."""
    assert target_of(method, path) == target


def test_no_order_reaches_a_single_replica() -> None:
    """It would obey, and the others not: what takes the scope `admin` of a key is refused for all."""
    for rule in RULES:
        for path in rule.paths:
            shown = (
                path.replace("{model}", "m")
                .replace("{repository}", "r")
                .replace("{rest:path}", "models/m/load")
            )
            if rule.scope == "admin" and "repository" in path:
                assert target_of("POST", shown).kind is Kind.ORDER, shown
