"""BentoML: a service with workers; bytes come as a file, as its documentation has it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType
from model import WORKERS, Model

OctetStream = Annotated[Path, ContentType("application/octet-stream")]
Jpeg = Annotated[Path, ContentType("image/jpeg")]


@bentoml.service(workers=WORKERS, traffic={"timeout": 60})
class Bench:
    """JSON, bytes and pictures on routes of their own."""

    def __init__(self) -> None:
        self.model = Model()

    @bentoml.api
    def json(self, data: list[float]) -> dict[str, list[float]]:
        """JSON in and out."""
        return {"data": self.model.run(self.model.of_numbers(data)).ravel().tolist()}

    @bentoml.api
    def jpeg(self, content: Jpeg, /) -> dict[str, list[float]]:
        """A picture in, JSON out."""
        return {"data": self.model.run(self.model.of_picture(content.read_bytes())).ravel().tolist()}

    @bentoml.api
    def raw(self, content: OctetStream, /, context: bentoml.Context) -> OctetStream:
        """Bytes in and out, each by way of a temporary file."""
        answer = Path(context.temp_dir) / "y.bin"
        answer.write_bytes(self.model.run(self.model.of_bytes(content.read_bytes())).tobytes())
        return answer
