"""The one table of what is served: which scope of a key each method and path takes.

Pure. The routes of the app are held against it by a test, and docs/access.md too; what
is not in it takes a key, but no scope.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = [
    "GRANTED",
    "RULES",
    "KeyScope",
    "Rule",
    "action_of",
    "is_order",
    "model_of",
    "routed_path",
    "rule_of",
]


class KeyScope(StrEnum):
    """What a key may be good for; `open` takes none."""

    OPEN = "open"
    INFER = "infer"
    OBSERVE = "observe"
    ADMIN = "admin"


# What a key can be given.
GRANTED = (KeyScope.INFER, KeyScope.OBSERVE, KeyScope.ADMIN)

PARAMETER = re.compile(r"\{(\w+)(:path)?\}")


@dataclass(frozen=True, slots=True)
class Rule:
    """What some methods on some paths take.

    Attributes:
        scope: Of the key.
        methods: GET speaks for HEAD, too.
        paths: `{name}` stands for what has no slash, `{name:path}` for anything.
        is_on_both: Served on the second port as on the first, where there are two.
    """

    scope: KeyScope
    methods: tuple[str, ...]
    paths: tuple[str, ...]
    is_on_both: bool = False


def _of_model(*endings: str) -> tuple[str, ...]:
    """Paths of a model and of one version of it."""
    return tuple(f"/v2/models/{{model}}{version}{ending}" for ending in endings for version in ("", VERSION))


def _of_v1(*endings: str) -> tuple[str, ...]:
    return tuple(
        f"/v1/models/{{model}}{version}{ending}" for ending in endings for version in ("", VERSION, LABEL)
    )


VERSION, LABEL = "/versions/{version}", "/labels/{label}"
REPOSITORY = "/v2/repository/{repository}"
GET, POST, ASK = ("GET",), ("POST",), ("GET", "POST")
CHANGE = ("POST", "PUT", "PATCH", "DELETE")

# The first that fits speaks: where the router has "stats" before the name of a model, so has this.
RULES = (
    Rule(KeyScope.OPEN, GET, ("/", "/v2/health/live", "/v2/health/ready"), is_on_both=True),
    Rule(KeyScope.OBSERVE, GET, ("/metrics", "/v2/models/stats", *_of_model("/stats"))),
    Rule(KeyScope.OBSERVE, POST, ("/v2/repository/index", f"{REPOSITORY}/index")),
    Rule(KeyScope.OBSERVE, GET, ("/docs", "/docs/assets{rest:path}", "/openapi.json")),
    Rule(KeyScope.ADMIN, CHANGE, ("/v2/repository/{rest:path}",)),
    Rule(KeyScope.ADMIN, ASK, ("/v2/logging", "/v2/trace/setting", "/v2/models/{model}/trace/setting")),
    Rule(KeyScope.INFER, GET, _of_model("/ready"), is_on_both=True),
    Rule(KeyScope.INFER, POST, (*_of_model("/infer"), *_of_v1(":{verb}"))),
    Rule(KeyScope.INFER, GET, ("/v2", "/v2/", "/v2/models", *_of_model("", "/config"))),
    Rule(KeyScope.INFER, GET, _of_v1("", "/metadata")),
    Rule(KeyScope.INFER, ASK, _of_model("/generate", "/generate_stream")),
    Rule(KeyScope.INFER, ASK, ("/v2/systemsharedmemory/{rest:path}", "/v2/cudasharedmemory/{rest:path}")),
)


def _pattern(path: str) -> str:
    pattern, end = "", 0
    for found in PARAMETER.finditer(path):
        pattern += re.escape(path[end : found.start()]) + (".*" if found[2] else "[^/]+")
        end = found.end()
    return pattern + re.escape(path[end:])


# Routers end their patterns with `$`, which lets a line break pass behind the path; so does this, or
# a path with one would be served by a route and unknown here.
_PATTERNS = [(rule, re.compile(f"(?:{'|'.join(map(_pattern, rule.paths))})\n?", re.DOTALL)) for rule in RULES]
_MODEL = re.compile(r"/v[12](?:/repository(?:/[^/]+)??)?/models/([^/:]+)", re.DOTALL)


def rule_of(method: str, path: str) -> Rule | None:
    """What a request takes; None where nobody knows the path.

    Args:
        method: In capitals.
        path: As the router sees it: decoded, and without what it is mounted below.
    """
    if method == "HEAD":
        method = "GET"
    for rule, pattern in _PATTERNS:
        if method in rule.methods and pattern.fullmatch(path):
            return rule
    return None


def routed_path(scope: Mapping[str, Any]) -> str:
    """The path of a request as the router sees it, where this app is mounted below another one."""
    path: str = scope["path"]
    below: str = scope.get("root_path", "")
    return path.removeprefix(below) if below and path.startswith(f"{below}/") else path


def is_order(method: str, path: str) -> bool:
    """It would change the service, so that who asked is written down."""
    if method in ("GET", "HEAD"):
        return False
    rule = rule_of(method, path)
    return rule is not None and rule.scope is KeyScope.ADMIN


def action_of(path: str) -> str:
    """The last word of a path: `load`, `unload`."""
    return path.rstrip("/\n").rpartition("/")[2]


def model_of(path: str) -> str | None:
    """The model that a path names."""
    found = _MODEL.match(path)
    return found[1] if found else None
