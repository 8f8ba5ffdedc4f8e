"""What errors of Ray's mean to a caller; and Ray reads the files that are deployed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infold.cluster.arguments import arguments_of
from infold.rest.problems import headers_of, status_of

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore")]

FILES = Path(__file__).parents[2] / "deploy" / "ray"


def all_failures() -> list[tuple[Exception, str]]:
    """Each with the beginning of what is said."""
    from ray.exceptions import ActorDiedError, ActorUnavailableError, NodeDiedError, WorkerCrashedError
    from ray.serve._private.common import DeploymentID
    from ray.serve.exceptions import (
        BackPressureError,
        DeploymentUnavailableError,
        ReplicaUnavailableError,
        RequestCancelledError,
    )

    lost = "model 'm' is not ready: the replica that had the request is gone"
    return [
        (BackPressureError(7, 7), "model 'm': 7 requests wait for a replica already"),
        (BackPressureError(7, 7, 503, 3.5), "model 'm': 7 requests wait for a replica already"),
        (DeploymentUnavailableError(DeploymentID("m", "a")), "model 'm' is not ready: none of its replicas"),
        (ActorDiedError(), lost),
        (ActorUnavailableError("away", None), lost),
        (NodeDiedError("gone"), lost),
        (WorkerCrashedError(), lost),
        (RequestCancelledError("id"), lost),
        (ReplicaUnavailableError("r"), lost),
    ]


def test_where_asking_again_helps_it_is_a_503_that_says_when() -> None:
    """And never a word of Ray's."""
    from infold.cluster.ray_handles import meaning_of

    for failure, said in all_failures():
        found = meaning_of(failure, "m")
        assert status_of(found) == 503 and str(found).startswith(said), failure
        wait = "4" if getattr(failure, "retry_after_s", None) else "1"
        assert headers_of(found) == [(b"retry-after", wait.encode())]


def test_a_bug_is_a_bug() -> None:
    """What our own code raises in a replica is told of in the log, and is a 500."""
    from ray.exceptions import RayTaskError

    from infold.cluster.ray_handles import meaning_of

    bug = RayTaskError("ask", "a traceback", KeyError("x"))
    assert meaning_of(bug, "m") is bug


def test_the_files_that_are_deployed_say_what_ray_and_infold_know() -> None:
    """Field by field, for a typo is a silent default in Ray's schema."""
    import yaml

    service = yaml.safe_load((FILES / "rayservice.yaml").read_text())
    known = {"excludeHeadPodFromServeSvc", "serveConfigV2", "rayClusterConfig"}
    assert service["spec"].keys() == known
    for config in (
        yaml.safe_load((FILES / "serve.yaml").read_text()),
        yaml.safe_load(service["spec"]["serveConfigV2"]),
    ):
        _check(config)


def _check(config: dict[str, Any]) -> None:
    from ray.serve.schema import HTTPOptionsSchema, ServeApplicationSchema, ServeDeploySchema

    read = ServeDeploySchema(**config)
    assert config.keys() <= ServeDeploySchema.model_fields.keys()
    assert config["http_options"].keys() <= HTTPOptionsSchema.model_fields.keys()
    for application in config["applications"]:
        assert application.keys() <= ServeApplicationSchema.model_fields.keys()
        arguments = arguments_of(application["args"])
        assert {each.name for each in read.applications[0].deployments} <= arguments.models.keys()


def test_the_application_is_what_ray_can_build() -> None:
    """A deployment a model and the ingress, with what was said of each."""
    from ray.serve._private.build_app import build_app

    from infold.cluster.ray_serve import app

    said = {"digits": {"max_replicas": 4, "num_cpus": 0.5}}
    models = Path(__file__).parents[2] / "models"
    built = build_app(app({"repository": str(models), "models": said}), name="infold")
    deployments = {each.name: each for each in built.deployments}
    assert deployments.keys() == {"digits", "Ingress"} and built.ingress_deployment_name == "Ingress"
    config = deployments["digits"]._deployment_config
    assert (config.autoscaling_config.min_replicas, config.autoscaling_config.max_replicas) == (1, 4)
    assert config.user_config == {"versions": None}
    assert deployments["digits"].ray_actor_options["num_cpus"] == 0.5
    every = build_app(app({"repository": str(models)}), name="infold")
    assert {each.name for each in every.deployments} == {"digits", "Ingress"}
