"""What goes with what in a custom resource: rules that a table of fields cannot say.

KServe's are those that its webhook refuses at the door (0.21, inference_service_validation.go).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["BEYOND_FIELDS"]


def _one_name_a_rule(document: dict[str, Any]) -> Iterator[str]:
    for group in document["spec"]["groups"]:
        for rule in group["rules"]:
            if ("alert" in rule) == ("record" in rule):
                yield f"{group['name']}: a rule with both or neither of alert and record"


def _as_the_webhook(document: dict[str, Any]) -> Iterator[str]:
    """What KServe refuses at the door, beyond types: modes and what goes with which."""
    annotations = document["metadata"].get("annotations", {})
    mode = annotations.get("serving.kserve.io/deploymentMode")
    scaler = annotations.get("serving.kserve.io/autoscalerClass")
    predictor = document["spec"]["predictor"]
    canaries = document["spec"].get("canary", [])
    if mode not in ("Standard", "Knative"):
        yield f"deploymentMode: {mode!r}, which leaves it to the cluster"
    if mode == "Knative":
        if predictor.get("scaleMetric") in ("cpu", "memory"):
            yield "scaleMetric: Knative scales on concurrency or rps"
        if canaries or "deploymentStrategy" in predictor or "autoScaling" in predictor:
            yield "canary, deploymentStrategy and autoScaling are for Standard mode"
    elif "canaryTrafficPercent" in predictor or predictor.get("scaleMetric") in ("concurrency", "rps"):
        yield "canaryTrafficPercent, concurrency and rps are for Knative mode"
    if "autoScaling" in predictor and scaler != "keda":
        yield "autoScaling: only with the autoscalerClass keda"
    if scaler == "keda" and "scaleMetric" in predictor:
        yield "scaleMetric: not with the autoscalerClass keda"
    for metric in predictor.get("autoScaling", {}).get("metrics", []):
        if metric["type"] == "External" and "value" not in metric.get("external", {}).get("target", {}):
            yield "autoScaling: an external metric without the value it aims at"
    if sum(each["trafficPercent"] for each in canaries) > 100:
        yield "canary: more than all traffic"
    names = [each["predictor"]["name"] for each in canaries]
    if len(names) != len(set(names)):
        yield "canary: two of one name"
    if any({"maxReplicas", "scaleMetric", "autoScaling"} & each["predictor"].keys() for each in canaries):
        yield "canary: scaled, which it cannot be"


BEYOND_FIELDS: dict[str, Callable[[dict[str, Any]], Iterator[str]]] = {
    "PrometheusRule": _one_name_a_rule,
    "InferenceService": _as_the_webhook,
}
