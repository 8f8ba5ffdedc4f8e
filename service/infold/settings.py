"""Everything the service can be told, read once: flag beats environment beats default.

The environment is read here and nowhere else. docs/configuration.md lists every
setting; a test says so.
"""

from __future__ import annotations

import json
import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from infold.errors import ConfigError
from infold.runtime.options import Device
from infold.tensors import MODEL_NAME

__all__ = ["PREFIX", "ModelControl", "Settings", "environment_without", "variables"]

PREFIX = "INFOLD_"
DEFAULT_PORT = 8080
LINK = re.compile(r"(tcp|udp|sctp)://")


class ModelControl(StrEnum):
    """What decides which models are served."""

    NONE = "none"
    POLL = "poll"
    EXPLICIT = "explicit"


def _from_json(value: object) -> object:
    """The list that a string holds; read here and not by pydantic, which would not name the variable."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise PydanticCustomError("json_list", "Input should be a JSON list of strings") from None


def _none_if_empty(value: object) -> object:
    """An empty variable is one that is not set, as compose files and charts have it."""
    return None if value == "" else value


def _unless_link(default: int | None) -> BeforeValidator:
    """For a Service `infold` Kubernetes sets INFOLD_PORT=tcp://10.0.0.1:8080: nobody asked for that."""
    return BeforeValidator(lambda value: default if LINK.match(str(value)) else value)


OptionalPath = Annotated[Path | None, BeforeValidator(_none_if_empty)]


class Settings(BaseSettings):
    """Settings of `infold serve`; each can be given as `INFOLD_<NAME>` in the environment."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    repository: Annotated[Path, Field(description="The model repository that is served.")] = Path("models")
    model_name: Annotated[
        str,
        Field(
            pattern=rf"^({MODEL_NAME.pattern})?$",
            description="What the model is called of a folder that holds just one; empty: as the folder.",
        ),
    ] = ""
    host: Annotated[str, Field(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[
        int,
        _unless_link(DEFAULT_PORT),
        Field(ge=0, le=65535, description="Port to listen on; 0 takes a free one."),
    ] = DEFAULT_PORT
    cache_dir: Annotated[
        Path, Field(description="Where optimized graphs and measurements of loaded models are kept.")
    ] = Path("~/.cache/infold")
    device: Annotated[Device, Field(description="`cpu`, `cuda`, `tensorrt` or `auto`.")] = Device.CPU
    gpu_id: Annotated[int, Field(ge=0, le=1023, description="Number of the GPU that runs the models.")] = 0
    gpu_memory_bytes: Annotated[
        int, Field(ge=0, description="Most GPU memory of one model's session, in bytes; 0 sets no limit.")
    ] = 0
    workers: Annotated[
        int, Field(ge=1, le=256, description="Processes that answer; each loads every model.")
    ] = 1
    log_level: Annotated[
        str,
        Field(pattern="^(debug|info|warning|error)$", description="`debug`, `info`, `warning` or `error`."),
    ] = "info"
    model_control: Annotated[
        ModelControl,
        Field(
            description="`none`: what is on disk at the start; `poll`: follows the disk; `explicit`: by name."
        ),
    ] = ModelControl.NONE
    poll_s: Annotated[float, Field(gt=0, le=86400, description="Seconds between two looks of `poll`.")] = 15.0
    finished_marker: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9._-]*$",
            description="Name of a file without which a version counts as unfinished; empty: none is needed.",
        ),
    ] = ""
    required_models: Annotated[
        tuple[str, ...],
        NoDecode,
        BeforeValidator(_from_json),
        Field(description="Models without which the service is not ready, as a JSON list; `*` is all."),
    ] = ("*",)
    admin: Annotated[
        bool, Field(description="Whether callers may load, unload and roll back without `explicit`, too.")
    ] = False
    load_models: Annotated[
        tuple[str, ...],
        NoDecode,
        BeforeValidator(_from_json),
        Field(description="With `explicit`, names loaded at the start, as a JSON list; `*` is all."),
    ] = ()
    load_trial: Annotated[
        bool, Field(description="Whether a version is first loaded in a child process that is thrown away.")
    ] = True
    load_timeout_s: Annotated[
        float, Field(gt=0, description="Seconds that child is given before the version has failed.")
    ] = 600.0
    load_memory_bytes: Annotated[
        int, Field(ge=0, description="Memory it may take, in bytes; 0 leaves it to the size of the model.")
    ] = 0
    server_name: Annotated[
        str,
        Field(description="The name `/v2` answers; by default `infold`, with `triton_compat` `triton`."),
    ] = ""
    triton_compat: Annotated[
        bool, Field(description="Answers with Triton's texts and codes where its clients look at them.")
    ] = False
    triton_metrics: Annotated[
        bool, Field(description="Whether `/metrics` has the counts under Triton's names as well.")
    ] = False
    trace_endpoint: Annotated[
        str, Field(description="Where spans go, as OTLP over HTTP; empty for nowhere.")
    ] = ""
    trace_share: Annotated[
        float,
        Field(ge=0, le=1, description="Share of requests with a span where the caller does not say."),
    ] = 0.01
    max_body_bytes: Annotated[int, Field(ge=1, description="Largest request body, in bytes.")] = 64 * 2**20
    body_timeout_s: Annotated[
        float, Field(gt=0, description="Seconds a request's body may take to come before it is 408.")
    ] = 30.0
    header_timeout_s: Annotated[
        float, Field(gt=0, description="Seconds a request's headers may take to come before it is 408.")
    ] = 10.0
    write_timeout_s: Annotated[
        float, Field(gt=0, description="Seconds a client may leave its answer unread.")
    ] = 30.0
    max_connections: Annotated[
        int, Field(ge=1, description="Most connections at a time; beyond it they are answered with 503.")
    ] = 4096
    max_in_flight_bytes: Annotated[
        int, Field(ge=1, description="Most bytes of all bodies that are not answered yet; beyond it 503.")
    ] = 2**30
    compress_responses: Annotated[
        bool, Field(description="Whether tensors are compressed for callers that accept it.")
    ] = True
    deadline_s: Annotated[float, Field(gt=0, description="Seconds a request may take before it is 504.")] = (
        30.0
    )
    grace_s: Annotated[
        float,
        Field(ge=0, le=3600, description="Seconds after SIGTERM in which new requests are still answered."),
    ] = 0.0
    drain_s: Annotated[
        float, Field(ge=0, description="Seconds that accepted requests are given after SIGTERM.")
    ] = 30.0

    api_keys: Annotated[
        OptionalPath, Field(description="A TOML file of keys and what each may do; without one all may.")
    ] = None
    tls_cert: Annotated[
        OptionalPath, Field(description="The certificate, PEM, with those between it and its root.")
    ] = None
    tls_key: Annotated[
        OptionalPath, Field(description="Its private key, PEM; by default in the same file.")
    ] = None
    tls_client_ca: Annotated[
        OptionalPath, Field(description="Whose client certificates are asked for, PEM; without it none are.")
    ] = None
    observe_port: Annotated[
        Annotated[int, Field(ge=0, le=65535)] | None,
        BeforeValidator(_none_if_empty),
        _unless_link(None),
        Field(description="A port for metrics and docs alone; 0 takes a free one."),
    ] = None
    cors_origins: Annotated[
        tuple[str, ...],
        NoDecode,
        BeforeValidator(_from_json),
        Field(description="Origins whose pages may call, as a JSON list; `*` is all."),
    ] = ()

    @property
    def name(self) -> str:
        """The name `/v2` answers."""
        return self.server_name or ("triton" if self.triton_compat else "infold")

    @property
    def cache_folder(self) -> Path | None:
        """`cache_dir` with a leading `~` replaced; None for a user who has no home."""
        try:
            return self.cache_dir.expanduser()
        except RuntimeError:
            return None

    @classmethod
    def read(cls, **flags: Any) -> Self:
        """Settings from the environment with the given flags on top; None counts as not given.

        Raises:
            ConfigError: A setting makes no sense; names the variable or flag.
        """
        given = {name: value for name, value in flags.items() if value is not None}
        try:
            return cls(**given)
        except ValidationError as invalid:
            first = invalid.errors()[0]
            name = str(first["loc"][0]) if first["loc"] else "settings"
            place = f"--{name.replace('_', '-')}" if name in given else f"INFOLD_{name.upper()}"
            raise ConfigError(place, f"{first['msg']}, not {first.get('input')!r}") from invalid


def variables() -> dict[str, str]:
    """What the environment has under names that begin as those of settings do, by these names in capitals."""
    return {name.upper(): value for name, value in os.environ.items() if name.upper().startswith(PREFIX)}


def environment_without(*names: str) -> dict[str, str]:
    """The environment for a child process that is not to have these settings."""
    left_out = {f"{PREFIX}{name}".upper() for name in names}
    return {name: value for name, value in os.environ.items() if name.upper() not in left_out}
