"""What the application builder can be told, in a Serve config's `args` or after `serve run`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from infold.cluster.one_model import Wish
from infold.cluster.pulling import is_url
from infold.errors import ConfigError
from infold.runtime.options import Device
from infold.settings import ModelControl, Settings
from infold.tensors import MODEL_NAME

__all__ = ["INGRESS", "Arguments", "Replicas", "arguments_of", "settings_of"]

# The deployment that callers reach; the others have the names of their models.
INGRESS = "Ingress"
# What one process alone decides: here that is Ray's, the builder's, or has no socket to hold for.
NOT_HERE = {
    "host": "http_options of the Serve config say where Ray's proxies listen",
    "port": "http_options of the Serve config say where Ray's proxies listen",
    "workers": "max_replicas says how many processes answer for a model",
    "repository": "it is an argument of its own",
    "device": "it is an argument of its own",
    "model_control": "which models and versions are served is in models, and in user_config",
    "poll_s": "which models and versions are served is in models, and in user_config",
    "load_models": "which models and versions are served is in models, and in user_config",
    "required_models": "every model of the application is required",
    "admin": "one replica would obey, and the others not",
    "max_connections": "connections are Ray's proxies'",
    "header_timeout_s": "connections are Ray's proxies'",
    "write_timeout_s": "connections are Ray's proxies'",
    "tls_cert": "connections are Ray's proxies'",
    "tls_key": "connections are Ray's proxies'",
    "tls_client_ca": "connections are Ray's proxies'",
    "observe_port": "connections are Ray's proxies'",
}
# Whatever the environment of a node says of these.
FIXED: dict[str, Any] = {
    "workers": 1,
    "model_control": ModelControl.NONE,
    "load_models": (),
    "required_models": ("*",),
    "admin": False,
    "tls_cert": None,
    "tls_key": None,
    "tls_client_ca": None,
    "observe_port": None,
}
FOREVER = ConfigDict(frozen=True, extra="forbid")


class Replicas(BaseModel):
    """How many processes answer, and with what.

    Attributes:
        min_replicas: At least so many; with 0 the first request waits for one to start.
        max_replicas: At most so many; by default `min_replicas`, which never changes then.
        target_ongoing_requests: Requests in flight at each replica that are right; more start others.
        max_ongoing_requests: Most requests at a time that a replica is given.
        max_queued_requests: Most that wait for a replica, at each ingress; beyond it 503.
        num_cpus: Cores that a replica reserves, and runs take no more.
        num_gpus: GPUs that a replica reserves.
        autoscaling: Anything else of Ray's `autoscaling_config`.
    """

    model_config = FOREVER

    min_replicas: Annotated[int, Field(ge=0)] = 1
    max_replicas: Annotated[int, Field(ge=1)] | None = None
    target_ongoing_requests: Annotated[float, Field(gt=0)] = 16
    max_ongoing_requests: Annotated[int, Field(ge=1)] = 256
    max_queued_requests: Annotated[int, Field(ge=0)] = 256
    num_cpus: Annotated[float, Field(ge=0)] = 1
    num_gpus: Annotated[float, Field(ge=0)] = 0
    autoscaling: dict[str, Any] = {}


class OfModel(Replicas):
    """What can be said of one model.

    Attributes:
        versions: As in `model.toml`, and in the place of that; a `user_config` says otherwise later.
        settings: Settings of infold, on top of those for all models.
    """

    versions: str | list[int] | None = None
    settings: dict[str, Any] = {}


class OfIngress(Replicas):
    """What can be said of the ingress, which passes requests on and costs little.

    It reserves something all the same: with nothing, Ray would run it where nothing is to run.
    """

    target_ongoing_requests: Annotated[float, Field(gt=0)] = 64
    max_ongoing_requests: Annotated[int, Field(ge=1)] = 1024
    max_queued_requests: Annotated[int, Field(ge=0)] = 1024
    num_cpus: Annotated[float, Field(ge=0)] = 0.1


def _models(value: object) -> object:
    """`digits,iris`, as a command line has it, or a list is those models with nothing said of them."""
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",") if name.strip()]
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return {name: {} for name in value}
    if isinstance(value, Mapping):
        return {name: {} if said is None else said for name, said in value.items()}
    return value


class Arguments(BaseModel):
    """What the application builder is told.

    Attributes:
        repository: A path that every node has, or a URL that fsspec knows.
        models: Those that are served, with what is said of each; empty for all that there are.
        ingress: What callers reach.
        settings: Settings of infold for all models.
        device: `cpu`, `cuda` or `auto`.
    """

    model_config = FOREVER

    repository: Annotated[str, Field(min_length=1)] = "models"
    models: Annotated[dict[str, OfModel], BeforeValidator(_models)] = {}
    ingress: OfIngress = OfIngress()
    settings: dict[str, Any] = {}
    device: Device = Device.CPU

    def settings_of(self, model: str | None = None) -> dict[str, Any]:
        """What is said of settings for a model, or for all."""
        return self.settings | (self.models[model].settings if model in self.models else {})


def arguments_of(given: Mapping[str, Any]) -> Arguments:
    """The arguments as the builder is given them, checked as far as that goes without the repository.

    Raises:
        ConfigError: One makes no sense; names it.
    """
    try:
        found = Arguments(**given)
    except ValidationError as invalid:
        first = invalid.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "args"
        unknown = first["type"] == "extra_forbidden"
        detail = "there is no such argument" if unknown else f"{first['msg']}, not {first.get('input')!r}"
        raise ConfigError(place, detail) from invalid
    for name, model in found.models.items():
        place = f"models.{name}"
        if not MODEL_NAME.fullmatch(name) or name == INGRESS:
            raise ConfigError(place, "is no name for a model here")
        _check_replicas(model, place)
        Wish.of({"versions": model.versions}, place)
        settings_of(found.settings_of(name), f"{place}.settings")
        if found.device is Device.CUDA and model.num_gpus == 0:
            raise ConfigError(f"{place}.num_gpus", "device is cuda, and a replica without a GPU sees none")
    _check_replicas(found.ingress, "ingress")
    if found.ingress.min_replicas == 0:
        raise ConfigError("ingress.min_replicas", "must be at least 1, or nobody would answer health")
    settings_of(found.settings)
    if is_url(found.repository):
        return found
    return found.model_copy(update={"repository": str(Path(found.repository).expanduser().absolute())})


def _check_replicas(replicas: Replicas, place: str) -> None:
    most = replicas.max_replicas
    if most is not None and most < replicas.min_replicas:
        raise ConfigError(f"{place}.max_replicas", f"{most} is less than min_replicas")


def settings_of(given: Mapping[str, Any], place: str = "settings", **more: Any) -> Settings:
    """Infold's settings from the environment of this process, with these on top.

    Args:
        given: By name.
        place: Where they stand, for errors.
        more: Those that are not for users to say.

    Raises:
        ConfigError: One makes no sense here; names it.
    """
    for name in given:
        if name in NOT_HERE:
            raise ConfigError(f"{place}.{name}", f"is not infold's to say here: {NOT_HERE[name]}")
    try:
        return Settings(**FIXED, **given, **more)
    except ValidationError as invalid:
        first = invalid.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        where = f"{place}.{name}" if name in given else f"INFOLD_{name.upper()}"
        unknown = first["type"] == "extra_forbidden"
        detail = "there is no such setting" if unknown else f"{first['msg']}, not {first.get('input')!r}"
        raise ConfigError(where, detail) from invalid
