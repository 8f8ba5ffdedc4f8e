"""A virtual environment for each peer of a benchmark, made once with plain pip.

A peer that does not install keeps its reason beside its environment: it stays in the registry
and becomes a row with that reason.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Environment"]

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Environment:
    """Where a peer is installed, and what is.

    Attributes:
        folder: Of the environment.
        requirements: As pip takes them, the peer itself first. Without any it is the interpreter
            that runs the benchmark, and nothing is installed.
    """

    folder: Path
    requirements: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """That of its folder."""
        return self.folder.name

    @property
    def is_own(self) -> bool:
        """Whether it is the project's own environment."""
        return not self.requirements

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return Path(sys.executable) if self.is_own else self.folder / "bin" / "python"

    def missing(self) -> str | None:
        """Why it cannot be used; None if it can."""
        if self.is_own:
            return None
        if self._failure.exists():
            return self._failure.read_text().strip()
        return "not set up: run peers.py" if self._lacks_some else None

    def versions(self) -> dict[str, str]:
        """What of the requirements was installed in the end; empty where nothing was."""
        if self.is_own or not self._versions.exists():
            return {}
        found: dict[str, str] = json.loads(self._versions.read_text())
        return {each: found[each.lower()] for each in self._wanted if each.lower() in found}

    def version(self) -> str:
        """The peer's version as installed; empty for the project's own environment."""
        return next(iter(self.versions().values()), "")

    def set_up(self) -> str | None:
        """Make the environment; the reason if that fails."""
        if self.is_own or not self._lacks_some:
            return None
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._failure.unlink(missing_ok=True)
        if not self._versions.exists():
            venv.create(self.folder, with_pip=True, clear=self.folder.exists())
        pip = [str(self.python), "-m", "pip", "--disable-pip-version-check"]
        done = subprocess.run(
            [*pip, "install", "--quiet", *self.requirements], capture_output=True, text=True, cwd=ROOT
        )
        if done.returncode:
            words = done.stderr.splitlines() or [f"pip ended with {done.returncode}"]
            reason = next((line for line in words if line.startswith("ERROR")), words[-1])
            self._failure.write_text(reason + "\n")
            return reason
        listing = subprocess.run([*pip, "list", "--format=json"], capture_output=True, text=True, check=True)
        versions = {each["name"].lower(): each["version"] for each in json.loads(listing.stdout)}
        self._versions.write_text(json.dumps(versions, indent=1))
        return None

    @property
    def _wanted(self) -> list[str]:
        """Names of the requirements."""
        return [re.split(r"[=<>\[]", each)[0] for each in self.requirements]

    @property
    def _lacks_some(self) -> bool:
        """Nothing is installed, or it was before a requirement was added."""
        return len(self.versions()) < len(self._wanted)

    @property
    def _failure(self) -> Path:
        return self.folder.with_name(f"{self.name}.failure.txt")

    @property
    def _versions(self) -> Path:
        return self.folder.with_name(f"{self.name}.versions.json")
