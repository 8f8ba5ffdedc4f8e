"""Everything below deploy/ that names a kind is what a cluster would take."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from deploy.conformity import OLDEST, manifests_below
from deploy.custom_kinds import problems_of
from deploy.deployed import DEPLOY, OVERLAYS, only
from deploy.kustomization import compose, documents_of
from servers import ROOT


def test_the_page_names_the_oldest_release_that_is_asked() -> None:
    """What is not validated is not promised."""
    assert f"{OLDEST} and the newest" in (ROOT / "docs/kubernetes.md").read_text()


LOOSE = [
    (path, document)
    for path, document in manifests_below(DEPLOY)
    if DEPLOY / "kubernetes" not in path.parents
]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_what_a_cluster_takes(overlay: str) -> None:
    """Every object of it, as composed."""
    wrong = {
        f"{each['kind']} {each['metadata']['name']}": problems
        for each in compose(DEPLOY / "kubernetes" / overlay)
        if (problems := problems_of(each))
    }
    assert wrong == {}


@pytest.mark.parametrize(
    ("path", "document"), LOOSE, ids=[f"{path.relative_to(DEPLOY)}-{each['kind']}" for path, each in LOOSE]
)
def test_a_manifest_is_what_a_cluster_takes(path: Path, document: dict[str, Any]) -> None:
    """Every document that no overlay composes, whoever put it there."""
    assert problems_of(document) == []


RAY_POD = {"spec": {"containers": [{"name": "ray", "image": "infold:ray"}]}}
RAY_SERVICE = {
    "apiVersion": "ray.io/v1",
    "kind": "RayService",
    "metadata": {"name": "infold"},
    "spec": {
        "serveConfigV2": "applications: []",
        "rayClusterConfig": {"headGroupSpec": {"rayStartParams": {}, "template": RAY_POD}},
    },
}


def sample(kind: str) -> dict[str, Any]:
    """A good document of a kind, of our own where there is one."""
    if kind == "RayService":
        return RAY_SERVICE
    if kind in ("ClusterServingRuntime", "InferenceService"):
        file = "infold.yaml" if kind == "ClusterServingRuntime" else "samples/canary-standard.yaml"
        return documents_of(DEPLOY / "kserve" / file)[0]
    return dict(only(compose(DEPLOY / "kubernetes/overlays/fleet"), kind, NAMES.get(kind, "infold")))


@cache
def _checked(kind: str) -> dict[str, Any]:
    document = sample(kind)
    assert problems_of(document) == []
    return document


def good(kind: str) -> dict[str, Any]:
    """A document of a kind in which nothing is wrong, for a test to spoil."""
    return deepcopy(_checked(kind))


NAMES = {"PersistentVolumeClaim": "infold-models", "ConfigMap": "infold-settings"}


def put(*way: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    """Sets what lies at the end of the way."""

    def change(document: Any) -> None:
        for step in way[:-1]:
            document = document[step]
        document[way[-1]] = value

    return change


def drop(*way: str | int) -> Callable[[dict[str, Any]], None]:
    """Takes away what lies at the end of the way."""

    def change(document: Any) -> None:
        for step in way[:-1]:
            document = document[step]
        del document[way[-1]]

    return change


CONTAINER = ("spec", "template", "spec", "containers", 0)

MISTAKES = [
    ("Deployment", put("spec", "replica", value=2), "replica"),
    ("Deployment", put("spec", "minReadySeconds", value="5"), "minReadySeconds"),
    ("Deployment", drop("spec", "selector"), "selector"),
    ("Deployment", put(*CONTAINER, "readynessProbe", value={}), "readynessProbe"),
    ("Deployment", put(*CONTAINER, "ports", 0, "containerPort", value="8080"), "containerPort"),
    ("Service", put("spec", "ports", 0, "targetport", value=1), "targetport"),
    ("Service", drop("spec", "ports", 0, "port"), "port"),
    ("HorizontalPodAutoscaler", put("apiVersion", value="autoscaling/v2beta2"), "schema"),
    ("HorizontalPodAutoscaler", put("spec", "metrics", 1, "pods", "metric", value="x"), "metric"),
    ("HorizontalPodAutoscaler", drop("spec", "maxReplicas"), "maxReplicas"),
    ("PodDisruptionBudget", put("spec", "maxunavailable", value=1), "maxunavailable"),
    ("NetworkPolicy", put("spec", "ingress", 0, "ports", 0, "protocol", value=6), "protocol"),
    ("NetworkPolicy", put("spec", "egres", value=[]), "egres"),
    ("ServiceAccount", put("automountServiceAccountToken", value="no"), "automountServiceAccountToken"),
    ("ConfigMap", put("data", "INFOLD_PORT", value=8080), "INFOLD_PORT"),
    ("PersistentVolumeClaim", put("spec", "accessMode", value="ReadWriteMany"), "accessMode"),
    ("ServiceMonitor", put("spec", "endpoints", 0, "intervall", value="15s"), ".spec.endpoints[0].intervall"),
    ("ServiceMonitor", put("spec", "endpoints", 0, "interval", value=15), ".spec.endpoints[0].interval"),
    ("ServiceMonitor", drop("spec", "selector"), ".spec.selector: missing"),
    ("PrometheusRule", put("spec", "groups", 0, "rules", 0, "For", value="2m"), ".rules[0].For"),
    ("PrometheusRule", drop("spec", "groups", 0, "rules", 0, "expr"), ".rules[0].expr: missing"),
    ("PrometheusRule", drop("spec", "groups", 0, "rules", 0, "alert"), "alert and record"),
    ("ClusterServingRuntime", put("spec", "supportedFormats", value=[]), ".spec.supportedFormats"),
    (
        "ClusterServingRuntime",
        put("spec", "supportedModelFormats", 0, "autoSelect", value="true"),
        "autoSelect",
    ),
    ("ClusterServingRuntime", put("spec", "protocolVersions", value=["v4"]), ".spec.protocolVersions[0]"),
    ("ClusterServingRuntime", put("spec", "containers", 0, "arg", value=["a"]), "arg"),
    ("ClusterServingRuntime", put("spec", "volumes", 0, "emptyDirs", value={}), "emptyDirs"),
    ("ClusterServingRuntime", drop("spec", "containers"), ".spec.containers: missing"),
    ("InferenceService", put("spec", "predictor", "model", "storageURI", value="s3://a"), "storageURI"),
    ("InferenceService", put("spec", "predictor", "model", "storageUri", value="models/a"), "storageUri"),
    ("InferenceService", drop("spec", "predictor", "model", "modelFormat"), ".modelFormat: missing"),
    ("InferenceService", put("spec", "predictor", "minReplicas", value="2"), "minReplicas"),
    ("InferenceService", put("spec", "predictor", "model", "resources", value={"limit": {}}), "limit"),
    ("InferenceService", drop("spec", "canary", 0, "predictor", "name"), ".name: missing"),
    ("InferenceService", put("spec", "canary", 0, "trafficPercent", value=101), "trafficPercent"),
    ("InferenceService", put("spec", "canary", 0, "predictor", "maxReplicas", value=3), "scaled"),
    ("InferenceService", put("spec", "predictor", "canaryTrafficPercent", value=10), "Knative"),
    ("InferenceService", put("spec", "predictor", "scaleMetric", value="rps"), "Knative"),
    ("InferenceService", drop("metadata", "annotations"), "deploymentMode"),
    ("RayService", put("spec", "serveConfig", value=""), ".spec.serveConfig"),
    ("RayService", drop("spec", "rayClusterConfig", "headGroupSpec"), ".headGroupSpec: missing"),
    (
        "RayService",
        put("spec", "rayClusterConfig", "headGroupSpec", "template", value={"specs": {}}),
        "specs",
    ),
    (
        "RayService",
        put("spec", "rayClusterConfig", "workerGroupSpecs", value=[{"groupName": "w"}]),
        "missing",
    ),
    ("RayService", put("kind", value="RayServe"), "nothing here knows"),
]


@pytest.mark.parametrize(("kind", "mistake", "told"), MISTAKES, ids=[f"{k}-{t}" for k, _, t in MISTAKES])
def test_a_mistake_is_found_and_named(
    kind: str, mistake: Callable[[dict[str, Any]], None], told: str
) -> None:
    """Typos, wrong types, what is missing, and what does not go together."""
    document = good(kind)
    mistake(document)
    problems = problems_of(document)
    assert problems and told in problems[0], problems
