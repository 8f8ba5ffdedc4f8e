"""The table of scopes and the app's routes say the same of every path there is."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.routing import BaseRoute, Match, Mount, Route

from infold.rest.access.scopes import (
    GRANTED,
    RULES,
    KeyScope,
    action_of,
    is_order,
    model_of,
    routed_path,
    rule_of,
)
from infold.rest.app import create_app
from infold.settings import Settings

ROOT = Path(__file__).parents[3]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
# Of paths that name things, each once by a word that is no other's.
FILLED = {
    "model": "m",
    "version": "3",
    "label": "stable",
    "repository": "r",
    "verb": "classify",
    "rest": "a/b",
}


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> Sequence[BaseRoute]:
    """All that the app serves."""
    root = tmp_path_factory.mktemp("app")
    (root / "models").mkdir()
    return list(leaves(create_app(Settings(repository=root / "models", cache_dir=root)).router.routes))


def leaves(routes: Sequence[BaseRoute]) -> Iterator[BaseRoute]:
    """Routes themselves, whatever they are included by."""
    for route in routes:
        below = getattr(route, "routes", None)
        if isinstance(route, Mount) or not below:
            yield route
        else:
            yield from leaves(below)


def served(route: BaseRoute) -> list[tuple[str, str]]:
    """Methods and paths of a route, with something in the place of every parameter."""
    if isinstance(route, Mount):
        return [("GET", f"{route.path}/some.js")]
    assert isinstance(route, Route), route
    path = route.path.replace(":path}", "}").format(**FILLED)
    return [(method, path) for method in sorted(route.methods or ())]


def scope_of(method: str, path: str) -> KeyScope | None:
    rule = rule_of(method, path)
    return None if rule is None else rule.scope


def test_every_route_of_the_app_has_its_scope(routes: Sequence[BaseRoute]) -> None:
    """A route that nobody put into the table would be served to any key."""
    asked = [pair for route in routes for pair in served(route)]
    assert len(asked) > 60
    assert [pair for pair in asked if rule_of(*pair) is None] == []


def test_every_path_of_the_table_is_a_route(routes: Sequence[BaseRoute]) -> None:
    """What is in it and not served protects nothing, and misleads."""
    asked = {path for route in routes for _, path in served(route)} | {"/docs/assets/some.js"}
    for rule in RULES:
        for path in rule.paths:
            if path not in ("/v2/repository/{rest:path}", "/docs/assets{rest:path}"):
                assert path.replace(":path}", "}").format(**FILLED) in asked, path


EXPECTED = {
    KeyScope.OPEN: ["GET /", "HEAD /", "GET /v2/health/live", "GET /v2/health/ready"],
    KeyScope.INFER: [
        "GET /v2", "GET /v2/models", "GET /v2/models/m", "GET /v2/models/m/versions/1/config",
        "GET /v2/models/m/ready", "POST /v2/models/m/infer", "POST /v2/models/stats/infer",
        "POST /v1/models/m:predict", "POST /v1/models/m/labels/stable:predict", "GET /v1/models/m/metadata",
        "POST /v2/models/m/versions/1/infer", "GET /v2/models/m/versions/stats",
    ],
    KeyScope.OBSERVE: [
        "GET /metrics", "GET /v2/models/stats", "GET /v2/models/m/stats", "GET /v2/models/m/versions/1/stats",
        "POST /v2/repository/index", "POST /v2/repository/mine/index", "GET /docs", "GET /openapi.json",
        "GET /docs/assets/swagger-ui.css", "HEAD /docs/assets/swagger-ui.css",
    ],
    KeyScope.ADMIN: [
        "POST /v2/repository/models/m/load", "POST /v2/repository/models/m/unload",
        "POST /v2/repository/r/models/index/load", "DELETE /v2/repository/models/m", "POST /v2/logging",
        "POST /v2/repository/anything/that/comes/later", "GET /v2/trace/setting",
    ],
    None: [
        "GET /v3", "POST /metrics", "GET /metricsx", "GET //metrics", "OPTIONS /metrics", "DELETE /",
        "POST /v2/health/live", "GET /v2/models/", "GET /v2/repository/models/m/load", "GET ", "GET x",
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("scope", "asked"), [(scope, each) for scope, some in EXPECTED.items() for each in some]
)
def test_what_takes_which_scope(scope: KeyScope | None, asked: str) -> None:
    """Said once more in other words than the table's."""
    method, _, path = asked.partition(" ")
    assert scope_of(method, path) is scope


PIECES = st.sampled_from(
    ["v1", "v2", "models", "stats", "m", "versions", "1", "labels", "load", "unload", "index", "infer",
     "ready", "repository", "metrics", "docs", "assets", "health", "live", "config", "m:predict", "m:x",
     "logging", "", "trace", "setting",
     "openapi.json", "metadata", "\n", "%2F", "..", "generate", "systemsharedmemory"]
)  # fmt: skip
PATHS = st.builds(
    lambda pieces, end: "/" + "/".join(pieces) + end,
    st.lists(PIECES, max_size=7),
    st.sampled_from(["", "", "\n", "/", "\n\n", "\r", " "]),
)


@given(st.sampled_from(METHODS), PATHS)
@example("POST", "/v2/repository/models/m/load\n")
@example("GET", "/metrics\n")
@example("GET", "/v2/models/stats\n")
@example("GET", "/docs/assets/\n")
def test_a_path_takes_the_scope_of_the_route_that_serves_it(
    routes: Sequence[BaseRoute], method: str, path: str
) -> None:
    """However it is spelled: a path that a route takes and the table does not know goes around all scopes."""
    asked = {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}
    for route in routes:
        matched, _ = route.matches(asked)
        if matched is Match.FULL:
            scopes = {scope_of(each, plain) for each, plain in served(route)}
            assert scope_of(method, path) in scopes and None not in scopes
            return


def test_an_order_is_what_changes_the_service() -> None:
    """Reading of the same settings is none."""
    assert is_order("POST", "/v2/repository/models/m/load")
    assert is_order("DELETE", "/v2/repository/models/m")
    assert is_order("POST", "/v2/logging\n")
    assert not is_order("GET", "/v2/logging")
    assert not is_order("POST", "/v2/repository/index")
    assert not is_order("POST", "/v2/models/m/infer")
    assert not is_order("POST", "/nowhere")


@pytest.mark.parametrize(
    ("path", "action", "model"),
    [
        ("/v2/repository/models/resnet/load", "load", "resnet"),
        ("/v2/repository/mine/models/resnet/unload\n", "unload", "resnet"),
        ("/v2/models/m/trace/setting", "setting", "m"),
        ("/v2/logging", "logging", None),
        ("/v2/repository/models/a\nb/load", "load", "a\nb"),
    ],
)
def test_an_order_tells_what_and_which_model(path: str, action: str, model: str | None) -> None:
    """For the line in the log."""
    assert (action_of(path), model_of(path)) == (action, model)


@pytest.mark.parametrize(
    ("path", "below", "seen"),
    [
        ("/metrics", "", "/metrics"),
        ("/at/metrics", "/at", "/metrics"),
        ("/at", "/at", "/at"),
        ("/atmetrics", "/at", "/atmetrics"),
        ("/metrics", "/at", "/metrics"),
    ],
)
def test_a_path_below_another_app_is_seen_as_the_router_sees_it(path: str, below: str, seen: str) -> None:
    """Or everything would be unknown there, and open to every key."""
    assert routed_path({"path": path, "root_path": below}) == seen


def test_the_table_of_the_docs_is_that_of_the_code() -> None:
    """Row by row: scope, methods, paths, ports."""
    text = (ROOT / "docs/access.md").read_text()
    rows = [
        tuple(cell.strip() for cell in line.split("|")[1:-1])
        for line in text.splitlines()
        if line.startswith(("| `open`", *(f"| `{scope}`" for scope in GRANTED)))
    ]
    expected = [
        (
            f"`{rule.scope}`",
            ", ".join(rule.methods),
            " ".join(f"`{path}`" for path in rule.paths),
            "both" if rule.is_on_both else "second" if rule.scope is KeyScope.OBSERVE else "main",
        )
        for rule in RULES
    ]
    assert rows == expected
