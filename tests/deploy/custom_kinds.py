"""What the custom resources that we write may hold, one table a kind, after their definitions.

After: Prometheus operator's monitoring/v1, KServe 0.21's serving v1alpha1 and v1beta1, KubeRay's
ray/v1. The tables have what we use, and refuse the rest: who needs a field adds it here after
looking it up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deploy.beyond_fields import BEYOND_FIELDS
from deploy.conformity import CONTAINER, POD_TEMPLATE, SERVICE, VOLUME, is_core, problems_of_core
from deploy.fields import Fields, ListOf, MapOf, Number, OneOf, Own, Shape, Text, check

__all__ = ["KINDS", "problems_of"]

NAME = Text(r"[a-z]([-a-z0-9]*[a-z0-9])?")
DURATION = Text(r"\d+(ms|s|m|h)")
QUANTITY = Text(r"\d+(\.\d+)?(m|k|M|G|Ki|Mi|Gi)?")
WORDS = MapOf(Text())

METADATA = Fields({"name": NAME, "namespace": NAME, "labels": WORDS, "annotations": WORDS}, ("name",))


def _kind(version: str, kind: str, spec: Shape) -> dict[tuple[str, str], Fields]:
    whole = {"apiVersion": OneOf((version,)), "kind": OneOf((kind,)), "metadata": METADATA, "spec": spec}
    return {(version, kind): Fields(whole, ("metadata", "spec"))}


SECRET_KEY = Fields({"name": NAME, "key": Text(), "optional": bool}, ("name", "key"))

SERVICE_MONITOR = Fields(
    {
        "selector": Fields({"matchLabels": WORDS}, ("matchLabels",)),
        "namespaceSelector": Fields({"any": bool, "matchNames": ListOf(NAME)}),
        "jobLabel": Text(),
        "targetLabels": ListOf(Text()),
        "podTargetLabels": ListOf(Text()),
        "endpoints": ListOf(
            Fields(
                {
                    "port": Text(),
                    "path": Text("/.*"),
                    "scheme": OneOf(("http", "https")),
                    "interval": DURATION,
                    "scrapeTimeout": DURATION,
                    "honorLabels": bool,
                    "authorization": Fields({"type": Text(), "credentials": SECRET_KEY}, ("credentials",)),
                    "tlsConfig": Fields(
                        {
                            "serverName": Text(),
                            "insecureSkipVerify": bool,
                            "ca": Fields({"secret": SECRET_KEY, "configMap": SECRET_KEY}),
                        }
                    ),
                },
                ("port",),  # else the operator takes every port
            )
        ),
    },
    ("selector", "endpoints"),
)

RULE = Fields(
    {
        "alert": Text(r"[A-Z]\w*"),
        "record": Text(r"[a-zA-Z_:][\w:]*"),
        "expr": Text(),
        "for": DURATION,
        "keep_firing_for": DURATION,
        "labels": WORDS,
        "annotations": WORDS,
    },
    ("expr",),
)

PROMETHEUS_RULE = Fields(
    {
        "groups": ListOf(
            Fields({"name": Text(), "interval": DURATION, "rules": ListOf(RULE)}, ("name", "rules"))
        )
    },
    ("groups",),
)

RUNTIME = Fields(
    {
        "supportedModelFormats": ListOf(
            Fields(
                {"name": Text(), "version": Text(), "autoSelect": bool, "priority": Number(1)},
                ("name",),
            )
        ),
        "protocolVersions": ListOf(OneOf(("v1", "v2", "grpc-v1", "grpc-v2"))),
        "multiModel": bool,
        "disabled": bool,
        "containers": ListOf(CONTAINER),
        "volumes": ListOf(VOLUME),
        "labels": WORDS,
        "annotations": WORDS,
        "nodeSelector": WORDS,
        "tolerations": ListOf(
            Fields(
                {
                    "key": Text(),
                    "operator": OneOf(("Exists", "Equal")),
                    "value": Text(),
                    "effect": OneOf(("NoSchedule", "PreferNoSchedule", "NoExecute")),
                }
            )
        ),
    },
    ("supportedModelFormats", "protocolVersions", "containers"),
)


def _as_container(value: object) -> Iterator[str]:
    """Fields that a `model` has in common with a container."""
    if isinstance(value, dict):
        yield from CONTAINER.ask({"name": "kserve-container"} | value)


METRIC_TARGET = Fields(
    {
        "type": OneOf(("Utilization", "AverageValue", "Value")),
        "averageUtilization": Number(1, 100),
        "averageValue": QUANTITY,
        "value": QUANTITY,
    },
    ("type",),
)

SCALING_METRIC = Fields(
    {
        "type": OneOf(("Resource", "External")),
        "resource": Fields({"name": OneOf(("cpu", "memory")), "target": METRIC_TARGET}, ("name", "target")),
        "external": Fields(
            {
                "metric": Fields(
                    {
                        "backend": OneOf(("prometheus", "graphite")),
                        "serverAddress": Text(r"https?://.+"),
                        "query": Text(),
                        "namespace": NAME,
                    },
                    ("backend", "serverAddress", "query"),
                ),
                "target": METRIC_TARGET,
            },
            ("metric", "target"),
        ),
    },
    ("type",),
)

RESOURCES = Own(lambda value: _as_container({"resources": value}))

MODEL = Fields(
    {
        "modelFormat": Fields({"name": Text(), "version": Text()}, ("name",)),
        "protocolVersion": OneOf(("v1", "v2", "grpc-v1", "grpc-v2")),
        "runtime": NAME,
        "storageUri": Text(r"(s3|gs|hf|pvc|oci|https?)://.+"),
        "resources": RESOURCES,
        "args": ListOf(Text()),
        "env": Own(lambda value: _as_container({"env": value})),
    },
    (
        "modelFormat",
        "runtime",
        "storageUri",
    ),  # without a runtime KServe looks for one itself, and takes another
)

PREDICTOR_SHAPES: dict[str, Shape] = {
    "name": NAME,
    "model": MODEL,
    "minReplicas": Number(),
    "maxReplicas": Number(),
    "scaleMetric": OneOf(("cpu", "memory", "concurrency", "rps")),
    "scaleTarget": Number(1),
    "containerConcurrency": Number(),
    "canaryTrafficPercent": Number(0, 100),
    "timeout": Number(),
    "autoScaling": Fields({"metrics": ListOf(SCALING_METRIC)}, ("metrics",)),
    "deploymentStrategy": Own(lambda value: _strategy(value)),
    "terminationGracePeriodSeconds": Number(),
    "serviceAccountName": NAME,
    "enableServiceLinks": bool,
    "labels": WORDS,
    "annotations": WORDS,
}

CANARY = Fields(
    {
        "trafficPercent": Number(0, 100),
        "predictor": Fields(PREDICTOR_SHAPES, ("name", "model")),
    },
    ("trafficPercent", "predictor"),
)

INFERENCE_SERVICE = Fields(
    {"predictor": Fields(PREDICTOR_SHAPES, ("model",)), "canary": ListOf(CANARY)}, ("predictor",)
)

RAY_GROUP: dict[str, Shape] = {
    "rayStartParams": MapOf(Text(r"[\s\S]*")),
    "template": POD_TEMPLATE,
}

RAY_CLUSTER = Fields(
    {
        "rayVersion": Text(r"\d+\.\d+\.\d+"),
        "enableInTreeAutoscaling": bool,
        "autoscalerOptions": Fields(
            {
                "upscalingMode": OneOf(("Default", "Conservative", "Aggressive")),
                "idleTimeoutSeconds": Number(),
                "image": Text(),
                "resources": RESOURCES,
            }
        ),
        "headGroupSpec": Fields(
            RAY_GROUP
            | {"serviceType": OneOf(("ClusterIP", "NodePort", "LoadBalancer")), "headService": SERVICE},
            ("rayStartParams", "template"),
        ),
        "workerGroupSpecs": ListOf(
            Fields(
                RAY_GROUP
                | {
                    "groupName": NAME,
                    "replicas": Number(),
                    "minReplicas": Number(),
                    "maxReplicas": Number(),
                    "numOfHosts": Number(1),
                },
                ("groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"),
            )
        ),
    },
    ("headGroupSpec",),
)

RAY_SERVICE = Fields(
    {
        "serveConfigV2": Text(),
        "rayClusterConfig": RAY_CLUSTER,
        "serveService": SERVICE,
        "serviceUnhealthySecondThreshold": Number(),
        "deploymentUnhealthySecondThreshold": Number(),
        "excludeHeadPodFromServeSvc": bool,
        "upgradeStrategy": Fields({"type": OneOf(("NewCluster", "None"))}, ("type",)),
    },
    ("serveConfigV2", "rayClusterConfig"),
)


def _strategy(value: object) -> Iterator[str]:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "any"}]}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template, "strategy": value}
    for problem in problems_of_core({"apiVersion": "apps/v1", "kind": "Deployment", "spec": spec}):
        yield problem.removeprefix(".spec.strategy")


KINDS: dict[tuple[str, str], Fields] = (
    _kind("monitoring.coreos.com/v1", "ServiceMonitor", SERVICE_MONITOR)
    | _kind("monitoring.coreos.com/v1", "PrometheusRule", PROMETHEUS_RULE)
    | _kind("serving.kserve.io/v1alpha1", "ClusterServingRuntime", RUNTIME)
    | _kind("serving.kserve.io/v1alpha1", "ServingRuntime", RUNTIME)
    | _kind("serving.kserve.io/v1beta1", "InferenceService", INFERENCE_SERVICE)
    | _kind("ray.io/v1", "RayService", RAY_SERVICE)
    | _kind("ray.io/v1", "RayCluster", RAY_CLUSTER)
)


def problems_of(document: dict[str, Any]) -> list[str]:
    """What a cluster would not take of a document, each with its place; empty for a good one."""
    if is_core(document):
        return list(problems_of_core(document))
    fields = KINDS.get((document.get("apiVersion", ""), document.get("kind", "")))
    if fields is None:
        return [f"{document.get('apiVersion')} {document.get('kind')}: a kind that nothing here knows"]
    problems = list(check(document, fields, ""))
    more = BEYOND_FIELDS.get(document["kind"])
    return problems if problems or more is None else list(more(document))
