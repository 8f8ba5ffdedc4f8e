"""The server under load: where it is, which models it has, what they take."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import orjson

from infold.bench.answers import Answer
from infold.errors import ConfigError, ServerError
from infold.rest.codec import DTYPES
from infold.tensors import Dim, Signature, TensorSpec

__all__ = ["Address", "Target", "address_of"]

TIMEOUT_S = 60.0
PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens.

    Attributes:
        prefix: What stands in front of every path, without a slash at its end.
        scheme: `http` or `https`.
    """

    host: str
    port: int
    prefix: str = ""
    scheme: str = "http"

    @property
    def shown(self) -> str:
        """Host and port as a URL writes them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole address."""
        return f"{self.scheme}://{self.shown}{self.prefix}"


def address_of(url: str) -> Address:
    """An address from a URL.

    Raises:
        ConfigError: It is none, or of another protocol.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as broken:
        raise ConfigError(url, f"is no URL: {broken}") from broken
    if parts.scheme not in PORTS or not host or parts.query or parts.fragment:
        raise ConfigError(url, "must be of the form http://host:port or https://host:port")
    return Address(host, port or PORTS[parts.scheme], parts.path.rstrip("/"), parts.scheme)


class Target:
    """A server of protocol v2, asked one thing at a time.

    Args:
        address: Where it is.
        headers: Of every request.
        tls: How it is believed to be the one; None for plain HTTP.
    """

    def __init__(
        self, address: Address, headers: Sequence[tuple[str, str]] = (), tls: ssl.SSLContext | None = None
    ) -> None:
        self.address = address
        self.tls = tls
        self._headers = dict(headers)

    def check(self) -> None:
        """Return if it answers as a server of protocol v2 does.

        Raises:
            ServerError: It cannot be reached, or is another kind of server.
        """
        status, content = self._json("GET", "/v2")
        if status != 200 or not isinstance(content, dict) or "name" not in content:
            raise ServerError(
                self.address.url,
                f"is no server of Open Inference Protocol v2: it answers {status} for /v2{_error(content)}",
            )

    def models(self) -> list[str] | None:
        """Names of all models; None if the server does not tell."""
        status, content = self._json("GET", "/v2/models")
        if status == 200 and isinstance(content, dict) and isinstance(content.get("models"), list):
            return sorted(str(name) for name in content["models"])
        status, content = self._json("POST", "/v2/repository/index")  # Triton's and MLServer's way
        if status == 200 and isinstance(content, list):
            return sorted(
                {str(each["name"]) for each in content if isinstance(each, dict) and "name" in each}
            )
        return None

    def only_model(self) -> str:
        """The name of the only model.

        Raises:
            ServerError: It has none or several, or does not tell.
        """
        known = self.models()
        if known is None:
            raise ServerError(self.address.url, "does not list its models; name one with --model")
        if len(known) != 1:
            raise ServerError(self.address.url, f"has {_listed(known)}; name one with --model")
        return known[0]

    def signature(self, model: str, version: int | None) -> Signature:
        """What a model takes and gives.

        Raises:
            ServerError: There is no such model; says which there are.
        """
        status, content = self._json("GET", model_path(model, version))
        if status != 200:
            known = self.models()
            has = "" if known is None else f"; it has {_listed(known)}"
            what = f"'{model}'" if version is None else f"'{model}' version {version}"
            raise ServerError(self.address.url, f"answers {status} for model {what}{_error(content)}{has}")
        try:
            return Signature(_specs(content["inputs"]), _specs(content["outputs"]))
        except (KeyError, TypeError, ValueError, AttributeError) as broken:
            detail = f"describes model '{model}' in a way that is not protocol v2: {broken!r}"
            raise ServerError(self.address.url, detail) from broken

    def ask(self, wire_path: str, content: bytes, headers: dict[str, str]) -> Answer:
        """The answer to one request.

        Raises:
            ServerError: It is not 200.
        """
        status, raw, length = self._request("POST", wire_path, content, headers)
        if status != 200:
            text = _error(_decoded(raw)) or f": {raw[:200].decode('utf-8', 'replace')}"
            raise ServerError(self.address.url, f"answers {status} for the first request{text}")
        return (int(length) if length is not None and length.isdigit() else None, raw)

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self.address.host, self.address.port
        if self.tls is None:
            return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=self.tls)

    def _json(self, method: str, path: str) -> tuple[int, Any]:
        status, raw, _ = self._request(method, path, b"{}" if method == "POST" else None, {})
        return status, _decoded(raw)

    def _request(
        self, method: str, path: str, content: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes, str | None]:
        connection = self._connection()
        try:
            connection.request(method, self.address.prefix + path, content, {**headers, **self._headers})
            response = connection.getresponse()
            return response.status, response.read(), response.getheader("Inference-Header-Content-Length")
        except OSError as failure:
            detail = f"cannot be reached: {failure.strerror or failure}"
            raise ServerError(self.address.url, detail) from failure
        except http.client.HTTPException as failure:
            detail = f"does not speak HTTP: {type(failure).__name__}: {failure}"
            raise ServerError(self.address.url, detail) from failure
        finally:
            connection.close()


def model_path(model: str, version: int | None) -> str:
    """The path of a model, or of one version of it."""
    path = f"/v2/models/{quote(model, safe='')}"
    return path if version is None else f"{path}/versions/{version}"


def _specs(described: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    specs = []
    for each in described:
        name, datatype = str(each["name"]), each["datatype"]
        if datatype not in DTYPES:
            raise ValueError(f"'{name}' is a {datatype}, which cannot be sent")
        dims: list[Dim] = [None if length < 0 else int(length) for length in each["shape"]]
        # A scalar and a shape that is not known at all look alike on the wire.
        specs.append(TensorSpec(name, DTYPES[datatype], tuple(dims) if dims else None))
    return tuple(specs)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "no models"


def _decoded(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None


def _error(content: Any) -> str:
    """What a server says for itself, as the end of a sentence."""
    return f": {content['error']}" if isinstance(content, dict) and content.get("error") else ""
