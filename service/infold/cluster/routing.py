"""Who answers a path: one model, the application as a whole, or any replica at all. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Kind", "Target", "target_of"]


class Kind(StrEnum):
    """Who answers."""

    MODEL = "model"
    ANY = "any"
    ALIVE = "alive"
    LIVE = "live"
    READY = "ready"
    SERVER = "server"
    MODELS = "models"
    METRICS = "metrics"
    STATISTICS = "statistics"
    INDEX = "index"
    ORDER = "order"
    OPENAPI = "openapi"


@dataclass(frozen=True, slots=True)
class Target:
    """Who answers a request.

    Attributes:
        kind: Who.
        route: The pattern of the path, for metrics: there are few.
        model: Whose the path is; None where it names none.
        version: That the path names, a number or a label.
    """

    kind: Kind
    route: str
    model: str | None = None
    version: str | None = None


_WHOLE = {
    ("GET", "/"): Kind.ALIVE,
    ("GET", "/v2/health/live"): Kind.LIVE,
    ("GET", "/v2/health/ready"): Kind.READY,
    ("GET", "/v2"): Kind.SERVER,
    ("GET", "/v2/"): Kind.SERVER,
    ("GET", "/v2/models"): Kind.MODELS,
    ("GET", "/v2/models/stats"): Kind.STATISTICS,
    ("GET", "/metrics"): Kind.METRICS,
    ("POST", "/v2/repository/index"): Kind.INDEX,
    ("GET", "/openapi.json"): Kind.OPENAPI,
}
_STATISTICS = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/stats")
_INDEX = re.compile(r"/v2/repository/[^/]+/index")
_ORDER = re.compile(r"/v2/repository/(?:[^/]+/)?models/[^/]+/(?:load|unload|rollback)")
_MODEL = re.compile(r"/v[12]/models/([^/:]+)(?:[/:].*)?", re.DOTALL)
# The two that carry tensors; whatever else there is of a model is asked seldom.
_INFER = re.compile(r"/v2/models/[^/]+(?:/versions/[^/]+)?/infer")
_PREDICT = re.compile(r"/v1/models/[^/:]+(?:/(?:versions|labels)/[^/:]+)?:predict")


def target_of(method: str, path: str) -> Target:
    """Who answers a request; what nobody knows goes to any replica, which says so in infold's words.

    Args:
        method: In capitals.
        path: Decoded, and without what the application is mounted below.
    """
    if (whole := _WHOLE.get((method, path))) is not None:
        return Target(whole, path)
    if method == "GET" and (found := _STATISTICS.fullmatch(path)):
        return Target(Kind.STATISTICS, "/v2/models/{model}/stats", found[1], found[2])
    if method == "POST" and _INDEX.fullmatch(path):
        return Target(Kind.INDEX, "/v2/repository/index")
    if method == "POST" and _ORDER.fullmatch(path):
        return Target(Kind.ORDER, "/v2/repository/models/{model}")
    if (found := _MODEL.fullmatch(path)) is None or path == "/v2/models/stats":
        return Target(Kind.ANY, "unmatched")
    if _INFER.fullmatch(path):
        return Target(Kind.MODEL, "/v2/models/{model}/infer", found[1])
    if _PREDICT.fullmatch(path):
        return Target(Kind.MODEL, "/v1/models/{model}:predict", found[1])
    return Target(Kind.MODEL, "/models/{model}", found[1])
