"""What every fault works with: the server, its repository, the books, and orders to load and unload."""

from __future__ import annotations

import http.client
import json
import random
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.clock import Clock
from faults.host import Host
from faults.ledger import Ledger
from faults.models import CONFIGS, MODELS, graph
from faults.timeline import Timeline
from servers import slow_model
from shelves import Shelf

__all__ = ["Stage", "until"]

PATIENCE_S = 60.0
CUT_S = 10.0  # after a kill, in which it explains what is cut
# What an order is answered with while a worker dies; it is given again then.
UNANSWERED = "not all workers have answered"


def until(holds: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S) -> None:
    """Return once something holds; fail if it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(0.02)


@dataclass(slots=True)
class Stage:
    """The scene of all faults.

    Attributes:
        host: The server.
        shelf: Its repository.
        timeline: What it may answer.
        ledger: The books.
        clock: Its wall clock.
        dice: Decides.
        newest: Version of each model that was put there last.
    """

    host: Host
    shelf: Shelf
    timeline: Timeline
    ledger: Ledger
    clock: Clock
    dice: random.Random
    newest: dict[str, int] = field(default_factory=dict)

    # -- the repository -------------------------------------------------------------------------

    def set_up(self) -> None:
        """Every model is there with its first version, and one that takes as long as it is told."""
        slow_model(self.shelf.root)
        for name in MODELS:
            if name in CONFIGS:
                self.shelf.configure(name, CONFIGS[name])
            self.put(name, 1)
            self.newest[name] = 1
            self.timeline.appears(name, None)

    def is_served(self) -> None:
        """All that is there answers from now on."""
        for name in MODELS:
            for version in self.timeline.living(name):
                self.timeline.is_sure(name, version)
            self.timeline.is_sure(name, None)

    def put(self, name: str, version: int) -> Path:
        """A sound version lies there from now on, renamed into its place."""
        self.timeline.appears(name, version)
        return self.shelf.put(name, version, graph=graph(name, version).SerializeToString())

    def kept(self, name: str) -> int:
        """How many versions of a model are served."""
        return 2 if "latest:2" in CONFIGS.get(name, "") else 1

    def swap(self, name: str) -> None:
        """The next version is put there and loaded, and what is not wanted any more is gone."""
        version = self.newest[name] + 1
        self.put(name, version)
        self.load_newest(name, version)

    def load_newest(self, name: str, version: int) -> None:
        """A version that lies there is loaded in the place of the oldest."""
        leaving = [each for each in self.timeline.living(name) if each <= version - self.kept(name)]
        for each in leaving:
            self.timeline.is_doubtful(name, each)
        status, text = self.order("load", name)
        assert status == 200, text
        self.newest[name] = version
        self.timeline.is_sure(name, version)
        for each in leaving:
            self.timeline.vanishes(name, each)
            shutil.rmtree(self.shelf.root / name / str(each))

    # -- the service ----------------------------------------------------------------------------

    def ask(
        self, method: str, path: str, body: object = None, *, is_patient: bool = True
    ) -> tuple[int, bytes]:
        """Status and body of an answer, over a connection of its own.

        Args:
            method: Of HTTP.
            path: That is asked.
            body: As JSON.
            is_patient: Whether what a process that was killed has cut is asked again.
        """
        while True:
            connection = http.client.HTTPConnection(*self.host.address, timeout=PATIENCE_S)
            try:
                connection.request(method, path, None if body is None else json.dumps(body))
                answer = connection.getresponse()
                return answer.status, answer.read()
            except (OSError, http.client.HTTPException):
                kills = [kill.at for kill in self.host.kills]
                if not is_patient or not kills or time.monotonic() - kills[-1] > CUT_S:
                    raise
            finally:
                connection.close()

    def order(self, what: str, name: str, **parameters: Any) -> tuple[int, str]:
        """Status and text of a load or unload; where a worker died meanwhile, of the next one."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            path = f"/v2/repository/models/{name}/{what}"
            status, body = self.ask("POST", path, {"parameters": parameters})
            text = str(json.loads(body)["error"]) if body else ""
            if UNANSWERED not in text:
                return status, text
            assert time.monotonic() < deadline, "an order is never obeyed"
            time.sleep(0.1)

    def rows(self) -> dict[tuple[str, str], tuple[str, str]]:
        """The index: state and reason, by model and version."""
        status, body = self.ask("POST", "/v2/repository/index")
        assert status == 200, body
        found = json.loads(body)
        return {(row["name"], row.get("version", "")): (row.get("state", ""), row["reason"]) for row in found}

    def is_ready(self) -> bool:
        """Every worker is there and answers for every model."""
        return self.ask("GET", "/v2/health/ready")[0] == 200

    def total(self, family: str) -> float:
        """The sum of a family's samples on the page of metrics, or of those that begin as it does."""
        status, page = self.ask("GET", "/metrics")
        assert status == 200
        start = re.escape(family if "{" in family else family + "{")
        found = re.findall(rf"^{start}.*}} (\S+)$", page.decode(), re.MULTILINE)
        return sum(map(float, found))
