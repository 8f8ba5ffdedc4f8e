"""What the manifests name exists, and what they decide holds together."""

from __future__ import annotations

import re
from itertools import chain
from typing import Any

import pytest

from deploy.alerts import ALERTS, RULE, rule_of
from deploy.deployed import DEPLOY, OVERLAYS, environment_of, only, pod_of
from deploy.kustomization import Document, compose, documents_of
from infold.serving.lifecycle import State
from infold.settings import PREFIX, Settings
from servers import ROOT

DOCS = ROOT / "docs"
SIZES = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    """Each that is there to be applied."""
    return str(request.param)


@pytest.fixture
def objects(overlay: str) -> list[Document]:
    """As composed."""
    return compose(DEPLOY / "kubernetes" / overlay)


@pytest.fixture
def container(objects: list[Document]) -> Any:
    """The one container of the Deployment's pod."""
    (found,) = pod_of(objects)["containers"]
    return found


def selects(labels: dict[str, str], selector: dict[str, str]) -> bool:
    """Whether an object with these labels is chosen."""
    return selector.items() <= labels.items()


def bytes_of(quantity: str) -> int:
    """Of a quantity of memory."""
    return int(quantity[:-2]) * SIZES[quantity[-2:]]


def test_every_setting_is_one_and_is_taken(overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is no setting is silently not read; one with a wrong value stops the start."""
    environment = environment_of(overlay)
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    assert environment.keys() <= known
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings.read()
    for name in environment:
        field = name.removeprefix(PREFIX).lower()
        assert getattr(settings, field) != Settings.model_fields[field].default or field in SAID_ALL_THE_SAME


# Defaults that a manifest states, since its other lines rest on them.
SAID_ALL_THE_SAME = {"port", "drain_s", "poll_s", "max_in_flight_bytes"}


def test_selectors_choose_the_pods_and_nothing_else_is_chosen(objects: list[Document]) -> None:
    """Deployment, Services, budget, policy and spreading all mean the same pods."""
    deployment = only(objects, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        only(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        only(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(each["spec"]["selector"] for each in objects if each["kind"] == "Service"),
        *(each["labelSelector"]["matchLabels"] for each in pod_of(objects)["topologySpreadConstraints"]),
    ]
    assert len(selectors) == 7
    assert all(selector and selects(labels, selector) for selector in selectors)


def test_every_port_that_is_named_exists(objects: list[Document], container: Any, overlay: str) -> None:
    """Probes, Services and policy name ports of the container, and those are where infold listens."""
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    settings = environment_of(overlay)
    assert ports == {"http": int(settings["INFOLD_PORT"]), "observe": int(settings["INFOLD_OBSERVE_PORT"])}
    probes = [container[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "readiness", "liveness")]
    services = [
        port["targetPort"] for each in objects if each["kind"] == "Service" for port in each["spec"]["ports"]
    ]
    policy = only(objects, "NetworkPolicy")["spec"]["ingress"]
    allowed = [port["port"] for rule in policy for port in rule["ports"]]
    assert {*probes, *services, *allowed} <= ports.keys()
    assert sorted(services) == sorted(allowed) == ["http", "observe"]


def test_every_volume_is_mounted_and_every_mount_has_one(objects: list[Document], container: Any) -> None:
    """And every folder that infold writes is one, since its root file system is read-only."""
    volumes = {volume["name"]: volume for volume in pod_of(objects)["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert sorted(volumes) == sorted(mount["name"] for mount in mounts.values())
    for folder in ("/cache", "/tmp"):
        assert "emptyDir" in volumes[mounts[folder]["name"]]
    claims = [each["metadata"]["name"] for each in objects if each["kind"] == "PersistentVolumeClaim"]
    used = [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in volumes.values()
        if "persistentVolumeClaim" in volume
    ]
    assert claims == used


def test_every_path_of_a_setting_is_there(container: Any, overlay: str) -> None:
    """In the image, or on a volume: what is set to a path that nobody has does not start."""
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    image = set(
        re.findall(
            r"INFOLD_(?:REPOSITORY|CACHE_DIR)=(/\w+)",
            (ROOT / "Dockerfile").read_text(),
        )
    )
    for name in ("INFOLD_REPOSITORY", "INFOLD_CACHE_DIR", "INFOLD_API_KEYS"):
        path = environment_of(overlay).get(name)
        assert path is None or any(path == each or path.startswith(f"{each}/") for each in mounts | image), (
            name
        )


def test_the_pod_may_do_nothing(objects: list[Document], container: Any) -> None:
    """No root, no rights, no writing, no token; and no variables of Services, which would be settings."""
    pod, account = pod_of(objects), only(objects, "ServiceAccount")
    assert pod["serviceAccountName"] == account["metadata"]["name"]
    assert pod["automountServiceAccountToken"] is account["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    user = re.search(r"^USER (\d+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert user is not None and pod["securityContext"]["runAsUser"] == int(user[1])
    assert pod["securityContext"]["fsGroup"] == int(user[1])
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_a_rolling_update_loses_no_request(objects: list[Document], overlay: str) -> None:
    """A pod leaves after its successor answers; it answers on for the grace, and has time to finish."""
    deployment, pod, settings = only(objects, "Deployment"), pod_of(objects), environment_of(overlay)
    grace_s, drain_s = float(settings["INFOLD_GRACE_S"]), float(settings["INFOLD_DRAIN_S"])
    deadline_s = float(settings.get("INFOLD_DEADLINE_S", Settings.model_fields["deadline_s"].default))
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert grace_s >= 10
    assert drain_s >= deadline_s
    assert pod["terminationGracePeriodSeconds"] >= grace_s + drain_s + 10
    assert "replicas" not in deployment["spec"]
    assert only(objects, "HorizontalPodAutoscaler")["spec"]["minReplicas"] >= 2
    assert only(objects, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_loading_is_never_taken_for_death(objects: list[Document], container: Any) -> None:
    """A first load may take twice as long as one trial; liveness asks what loading leaves alone."""
    startup, liveness = container["startupProbe"], container["livenessProbe"]
    waits_s = startup["periodSeconds"] * startup["failureThreshold"]
    assert waits_s >= 2 * Settings.model_fields["load_timeout_s"].default
    assert only(objects, "Deployment")["spec"]["progressDeadlineSeconds"] > waits_s
    assert liveness["httpGet"]["path"] == startup["httpGet"]["path"] == "/v2/health/live"
    assert container["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
    assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 60


def test_bodies_cannot_fill_the_memory(container: Any, overlay: str) -> None:
    """All bodies together have a quarter of the limit; more CPU than is asked for is not counted on."""
    resources = container["resources"]
    assert resources["requests"] == resources["limits"]
    in_flight = int(environment_of(overlay)["INFOLD_MAX_IN_FLIGHT_BYTES"])
    assert in_flight * 4 <= bytes_of(resources["limits"]["memory"])


def test_the_image_is_ours(container: Any, overlay: str) -> None:
    """As docker-compose.yml names it; with CUDA it is the other one, on a device."""
    compose_file = (ROOT / "docker-compose.yml").read_text()
    is_cuda = environment_of(overlay).get("INFOLD_DEVICE") == "cuda"
    assert container["image"] == ("infold:cuda" if is_cuda else "infold:cpu")
    assert "infold:cpu" in compose_file
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) is is_cuda


def test_the_autoscaler_scales_the_deployment(objects: list[Document]) -> None:
    """By name, and by what the requests of its container say."""
    scaler, deployment = only(objects, "HorizontalPodAutoscaler"), only(objects, "Deployment")
    target = scaler["spec"]["scaleTargetRef"]
    assert (target["apiVersion"], target["kind"]) == (deployment["apiVersion"], deployment["kind"])
    assert target["name"] == deployment["metadata"]["name"]
    first = scaler["spec"]["metrics"][0]
    assert (first["type"], first["resource"]["name"]) == ("Resource", "cpu")


def adapter_rule() -> Any:
    """The one rule for prometheus-adapter."""
    (values,) = documents_of(DEPLOY / "kubernetes/prometheus-adapter.yaml")
    (rule,) = values["rules"]["custom"]
    return rule


def test_the_autoscaler_asks_for_the_metric_that_the_adapter_makes() -> None:
    """By the same name, from a family that infold has, with labels that the adapter maps."""
    scaler = only(compose(DEPLOY / "kubernetes/overlays/observed"), "HorizontalPodAutoscaler")
    (asked,) = [each["pods"] for each in scaler["spec"]["metrics"] if each["type"] == "Pods"]
    rule = adapter_rule()
    series = rule["seriesQuery"].partition("{")[0]
    assert re.fullmatch(rule["name"]["matches"], series)
    assert asked["metric"]["name"] == rule["name"]["as"]
    assert rule["resources"]["overrides"].keys() == {"namespace", "pod"}
    assert rule["metricsQuery"].count("<<.LabelMatchers>>") == rule["metricsQuery"].count("<<.GroupBy>>") == 2


def queries() -> dict[str, str]:
    """Every query below deploy/kubernetes and deploy/kserve, by where it stands."""
    rules = only(compose(DEPLOY / "kubernetes/overlays/observed"), "PrometheusRule")
    found = {rule["alert"]: rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"]}
    (sample,) = documents_of(DEPLOY / "kserve/samples/autoscaling-queue.yaml")
    (metric,) = sample["spec"]["predictor"]["autoScaling"]["metrics"]
    found["KEDA"] = metric["external"]["metric"]["query"]
    return found | {"adapter": adapter_rule()["metricsQuery"], "series": adapter_rule()["seriesQuery"]}


@pytest.mark.parametrize("query", queries().values(), ids=queries())
def test_a_query_asks_for_what_infold_counts(query: str) -> None:
    """Families, stages, reasons and states are those that docs/metrics.md has."""
    page = (DOCS / "metrics.md").read_text()
    words = {*re.findall(r"`(\w+)`", page), *State}
    for family in re.findall(r"\binfold_\w+", query):
        assert re.sub(r"_(sum|count|bucket)$", "", family) in words
    said = re.findall(r'(?:stage|reason|state)=~?"([^"]+)"', query)
    assert set(chain.from_iterable(each.split("|") for each in said)) <= words


def test_alerts_are_the_same_with_and_without_kubernetes() -> None:
    """Where there is a file of them for Prometheus alone, ours are written from it by `alerts.py`."""
    if not ALERTS.is_file():
        pytest.skip("there is no such file yet")
    assert RULE.read_text() == rule_of(ALERTS.read_text())


def test_what_is_scraped_is_there(objects: list[Document], overlay: str) -> None:
    """The monitor selects the Service of metrics alone, by a port that it has; the alert knows its job."""
    monitors = [each for each in objects if each["kind"] == "ServiceMonitor"]
    assert bool(monitors) is (overlay != "base")
    services = [each for each in objects if each["kind"] == "Service"]
    for monitor in monitors:
        (chosen,) = [
            each
            for each in services
            if selects(each["metadata"]["labels"], monitor["spec"]["selector"]["matchLabels"])
        ]
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["port"] in [port["name"] for port in chosen["spec"]["ports"]]
        job = chosen["metadata"]["labels"][monitor["spec"]["jobLabel"]]
        assert f'job="{job}"' in queries()["InfoldDown"]
        has_keys = "INFOLD_API_KEYS" in environment_of(overlay)
        assert ("authorization" in endpoint) is has_keys


def test_services_make_one_variable_that_is_a_setting(
    objects: list[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pods of the namespace that ask for variables of Services get it, and infold starts all the same."""
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    made = {
        f"{each['metadata']['name'].upper().replace('-', '_')}_PORT"
        for each in objects
        if each["kind"] == "Service"
    }
    assert made & known == {"INFOLD_PORT"}  # so docs/kubernetes.md speaks of it
    monkeypatch.setenv("INFOLD_PORT", "tcp://10.0.0.1:8080")
    assert Settings.read().port == 8080


def test_only_those_who_may_reach_it(objects: list[Document]) -> None:
    """Callers to the one port, monitoring to the other, and out of the pod nothing but names."""
    policy = only(objects, "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    callers, monitoring = policy["ingress"]
    assert callers["from"][0] == {"podSelector": {}}
    assert [each.keys() for each in monitoring["from"]] == [{"namespaceSelector"}]
    (names,) = policy["egress"]
    assert [port["port"] for port in names["ports"]] == [53, 53]
