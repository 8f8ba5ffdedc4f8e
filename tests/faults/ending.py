"""SIGTERM under load, and another server in the place of the one that went."""

from __future__ import annotations

import json
import threading

from faults.models import MODELS
from faults.stage import Stage, until

__all__ = ["end_and_begin_again"]

ASKED = 100  # answers of the next server
SPINS = 400_000  # some tenths of a second
AT_ONCE = 4


def end_and_begin_again(stage: Stage) -> str:
    """What was accepted is answered, the exit code is 0, and the next server answers as the last one did."""
    lives = [(name, version) for name in MODELS for version in (None, *stage.timeline.living(name))]
    with Slow(stage) as slow:
        for life in lives:
            stage.timeline.is_doubtful(*life)
            stage.timeline.appears(*life)
        code = stage.host.stop()
    stage.host.start()
    for life in lives:
        stage.timeline.is_sure(*life)
    assert code == 0, f"exit code {code}"
    assert slow.answers == [(200, float(SPINS))] * AT_ONCE, slow.answers
    until(stage.is_ready, "the next server to be ready")
    answered = stage.ledger.answered
    until(lambda: stage.ledger.answered > answered + ASKED, "callers to be answered again")
    return "exit code 0"


class Slow:
    """Requests that take a while, of which the service says that they are under way.

    Attributes:
        answers: Status and number of each.
    """

    def __init__(self, stage: Stage) -> None:
        self.answers: list[tuple[int, float]] = []
        self._stage = stage
        self._callers = [threading.Thread(target=self._ask) for _ in range(AT_ONCE)]

    def __enter__(self) -> Slow:
        """All of them are under way."""
        for caller in self._callers:
            caller.start()
        family = 'infold_requests_in_flight{model="slow"'
        until(lambda: self._stage.total(family) == AT_ONCE, "slow requests to be under way")
        return self

    def __exit__(self, *failure: object) -> None:
        """All are answered, or have failed."""
        for caller in self._callers:
            caller.join()

    def _ask(self) -> None:
        entry = {"name": "n", "shape": [1], "datatype": "INT64", "data": [SPINS]}
        try:
            asked = {"inputs": [entry]}
            status, body = self._stage.ask("POST", "/v2/models/slow/infer", asked, is_patient=False)
            total = json.loads(body)["outputs"][0]["data"][0] if status == 200 else -1.0
        except Exception as failure:
            self.answers.append((0, float(len(repr(failure)))))
        else:
            self.answers.append((status, total))
