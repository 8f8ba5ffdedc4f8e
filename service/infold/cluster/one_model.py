"""One model of a repository, and which of its versions a cluster is to serve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infold.errors import ConfigError
from infold.runtime.model_config import versions_of
from infold.serving import ModelRepository
from infold.serving.repository import Listing

__all__ = ["OneModel", "Wish"]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a deployment's `user_config` says.

    Attributes:
        versions: Which are served; None leaves it to the model's own configuration.
    """

    versions: str | tuple[int, ...] | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any] | None, place: str = "user_config") -> Wish:
        """The wish that a `user_config` holds; its `revision` may be anything.

        Ray tells replicas of a config that is another than before, and they look at the repository again.

        Raises:
            ConfigError: It has a key that nobody knows, or a value that makes no sense.
        """
        for key in config or {}:
            if key not in ("versions", "revision"):
                raise ConfigError(f"{place}.{key}", "unknown; known are versions, revision")
        versions = (config or {}).get("versions")
        found = None if versions is None else versions_of(versions, f"{place}.versions")
        return cls(found)


class OneModel(ModelRepository):
    """A repository in which there is one model, whatever lies beside it.

    Args:
        root: The folder.
        name: Of the model.
        marker: As `ModelRepository`.

    Attributes:
        wish: Which versions are wanted.
    """

    def __init__(self, root: Path, name: str, marker: str = "") -> None:
        super().__init__(root, marker)
        self.name = name
        self.wish = Wish()

    def names(self) -> tuple[str, ...]:
        """The one, if it is there."""
        return tuple(name for name in super().names() if name == self.name)

    def listing(self, name: str, override: str | None = None) -> Listing:
        """As `ModelRepository.listing`, with the versions that are wished for."""
        found = super().listing(name, override)
        return found if self.wish.versions is None else replace(found, policy=self.wish.versions)
