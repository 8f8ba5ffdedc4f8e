"""Parts of the protocol that infold leaves out, and says so instead of being unknown."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.exceptions import HTTPException

from infold.errors import NotServedError

__all__ = ["UNSERVED", "add_unserved"]


# Where TF-Serving and KServe v1 have a verb.
ASKED = ("/v1/models/{model}", "/v1/models/{model}/versions/{version}", "/v1/models/{model}/labels/{label}")


def _verb(name: str) -> tuple[str, ...]:
    return tuple(f"{path}:{name}" for path in ASKED)


# What it is, and where its clients ask for it.
UNSERVED = {
    "generate": ("/v2/models/{model}/generate", "/v2/models/{model}/versions/{version}/generate"),
    "generate_stream": (
        "/v2/models/{model}/generate_stream",
        "/v2/models/{model}/versions/{version}/generate_stream",
    ),
    "shared memory": ("/v2/systemsharedmemory/{rest:path}", "/v2/cudasharedmemory/{rest:path}"),
    "classify": _verb("classify"),
    "regress": _verb("regress"),
    "explain": _verb("explain"),
    "trace": ("/v2/trace/setting", "/v2/models/{model}/trace/setting"),
    "logging": ("/v2/logging",),
}


def add_unserved(app: FastAPI) -> None:
    """Answer 501 where a client of the protocol may ask for what is not served."""

    def refusal(what: str) -> None:
        async def refuse() -> None:
            raise NotServedError(what)

        for path in UNSERVED[what]:
            app.add_api_route(path, refuse, methods=["GET", "POST"], include_in_schema=False)

    for what in UNSERVED:
        refusal(what)

    async def unknown() -> None:
        """A verb that nobody has specified, where otherwise only the method would be wrong."""
        raise HTTPException(404)

    for path in _verb("{verb}"):
        app.add_api_route(path, unknown, methods=["POST"], include_in_schema=False)
