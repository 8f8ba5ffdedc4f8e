"""The application that `serve run infold.cluster.ray_serve:app` and a Serve config file build."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import BackpressureConfig
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig

from infold import logs
from infold.cluster.arguments import INGRESS, Arguments, Replicas, arguments_of, settings_of
from infold.cluster.ingress import Ingress
from infold.cluster.pulling import Pulled, is_url
from infold.cluster.questions import Question
from infold.cluster.ray_handles import Replicas as Deployed
from infold.cluster.ray_handles import gather
from infold.cluster.replica import ModelReplica, Task
from infold.errors import ConfigError
from infold.rest.counting import Snapshot
from infold.serving import ModelRepository

__all__ = ["app"]

RETRY_AFTER_S = 1.0
# Ray looks for requests that go on so often; what a deployment is given beyond its drain.
MARGIN_S = 5.0


class OneReplica(ModelReplica):
    """As `ModelReplica`, asked in plain values."""

    async def ask(self, question: tuple[Any, ...], body: bytes) -> tuple[Any, ...]:  # type: ignore[override]  # as Ray carries it
        """See `ModelReplica.ask`."""
        return tuple(await super().ask(Question(*question), body))

    async def __del__(self) -> None:
        """As Ray ends a replica: once, when it has given it no request for a while."""
        await self.close()


@serve.ingress()
class OneIngress:
    """The ingress as Ray runs it.

    Args:
        arguments: Of the builder.
        handles: Of each model's deployment.
    """

    def __init__(self, arguments: Arguments, handles: Mapping[str, DeploymentHandle[Any]]) -> None:
        settings = settings_of(arguments.settings)
        logs.configure(settings.log_level)
        names = sorted(handles)
        of_model = {name: settings_of(arguments.settings_of(name)) for name in names}
        deployed = {name: Deployed(name, handles[name]) for name in names}
        may_sleep = frozenset(n for n, each in arguments.models.items() if each.min_replicas == 0)
        self.ingress = Ingress(settings, of_model, deployed, may_sleep)
        self.ingress.whole.of_ingresses = self._gather

    def __serve_build_asgi_app__(self) -> Ingress:
        return self.ingress

    async def snapshot(self) -> Snapshot:
        """What this ingress has counted."""
        return self.ingress.snapshot()

    async def _gather(self) -> list[Snapshot]:
        context = serve.get_replica_context()
        own = serve.get_deployment_handle(context.deployment, context.app_name)
        return await gather(own, "snapshot")


def app(args: dict[str, Any]) -> Application:
    """The application: a deployment a model, and an ingress before them.

    Args:
        args: See docs/ray.md.

    Raises:
        ConfigError: One makes no sense, or there is no model; names it.
    """
    arguments = _with_all_models(arguments_of(args))
    handles = {name: _model(name, arguments) for name in arguments.models}
    ingress = serve.deployment(OneIngress, name=INGRESS, **_options(arguments.ingress, arguments.settings))
    return ingress.bind(arguments, handles)


def _with_all_models(arguments: Arguments) -> Arguments:
    if arguments.models:
        return arguments
    settings = settings_of(arguments.settings)
    if is_url(arguments.repository):
        names = Pulled(arguments.repository, Path()).names()
    else:
        names = list(ModelRepository(Path(arguments.repository), settings.finished_marker).list())
    if not names:
        raise ConfigError("repository", f"there is no model in {arguments.repository}")
    given = arguments.model_dump(exclude={"models"})
    return arguments_of({**given, "models": list(names)})


def _model(name: str, arguments: Arguments) -> Application:
    said = arguments.models[name]
    settings = arguments.settings_of(name)
    task = Task(name, arguments.repository, settings, arguments.device)
    deployment = serve.deployment(
        OneReplica,
        name=name,
        # Always there, so that Ray always tells a replica to begin.
        user_config={"versions": said.versions},
        **_options(said, settings),
    )
    return deployment.bind(task)


def _options(said: Replicas, given: Mapping[str, Any]) -> dict[str, Any]:
    """What Ray is told of a deployment."""
    settings = settings_of(given)
    options: dict[str, Any] = {
        "max_ongoing_requests": said.max_ongoing_requests,
        "max_queued_requests": said.max_queued_requests,
        "backpressure_config": BackpressureConfig(retry_after_s=RETRY_AFTER_S),
        # The ingress writes a line a request, as infold does everywhere; Ray would write two more.
        "logging_config": LoggingConfig(enable_access_log=False),
        "ray_actor_options": {"num_cpus": said.num_cpus, "num_gpus": said.num_gpus},
        # A replica that is to go still answers for so long, as a service does after SIGTERM.
        "graceful_shutdown_wait_loop_s": max(0.5, settings.grace_s),
        "graceful_shutdown_timeout_s": settings.grace_s + settings.drain_s + MARGIN_S,
    }
    most = said.max_replicas or max(1, said.min_replicas)
    if most == said.min_replicas:
        options["num_replicas"] = most
    else:
        options["autoscaling_config"] = {
            "min_replicas": said.min_replicas,
            "max_replicas": most,
            "target_ongoing_requests": said.target_ongoing_requests,
            **said.autoscaling,
        }
    return options
