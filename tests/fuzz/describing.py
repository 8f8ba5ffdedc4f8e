"""schemathesis, pointed at a server: what its description allows is sent, and what it does not.

Apart from the tests, so that only those who run them load it.
"""

from __future__ import annotations

import re
from typing import Any

import httpx
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from fuzz.models import MODELS
from fuzz.sizes import scaled

__all__ = ["failures_at"]

CHECKS = {
    "ours": [not_a_server_error],
    "described": [status_code_conformance, content_type_conformance, response_schema_conformance],
}
# Of these models, beside names that are drawn.
KNOWN = sorted(MODELS)[::5]
# The model in a path that is described for it alone.
MODEL = re.compile(r"/v[12]/models/(\w+)")


class Caller:
    """Sends cases to a server over one session, and checks every answer.

    Attributes:
        failures: By check and operation, the first of each.
    """

    def __init__(self, url: str, session: Any) -> None:
        self.described = schemathesis.openapi.from_dict(httpx.get(f"{url}/openapi.json").json())
        self.failures: dict[str, dict[str, str]] = {name: {} for name in CHECKS}
        self._to = {"base_url": url, "session": session}

    def ask_all(self) -> None:
        """Every operation is asked, in all ways there are; of those of one model, the models in `KNOWN`."""
        for operation in [each.ok() for each in self.described.get_all_operations()]:
            if (found := MODEL.match(operation.path)) and found[1] in set(MODELS) - set(KNOWN):
                continue
            names = [parameter.name for parameter in operation.path_parameters]
            for mode in GenerationMode:
                self._ask_drawn(operation, mode)
                for model in self._known(operation) if names else ():
                    values = {name: model if name == "model" else "1" for name in names}
                    self._ask_drawn(operation, mode, path_parameters=values)
            self._ask_edges(operation)

    def _known(self, operation: Any) -> list[str]:
        # What loads and unloads must leave the models of other tests alone.
        return ["spare"] if "/repository/" in operation.path else KNOWN

    def _ask_drawn(self, operation: Any, mode: GenerationMode, **fixed: Any) -> None:
        @settings(max_examples=scaled(30), phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode, **fixed))
        def ask(case: Any) -> None:
            self._ask(case)

        try:
            ask()
        except Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE  # nothing of it can be wrong

    def _ask_edges(self, operation: Any) -> None:
        """Each limit, each missing part, each wrong type, each verb that is not there."""
        modes, config = list(GenerationMode), self.described.config.generation_for(operation=operation)
        for case in self.described.iter_coverage_cases(
            operation, generation_modes=modes, generation_config=config
        ):
            self._ask(case)

    def _ask(self, case: Any) -> None:
        answer = case.call(**self._to)
        for name, checks in CHECKS.items():
            try:
                case.validate_response(answer, checks=checks)
            except FailureGroup as failure:
                self.failures[name].setdefault(case.operation.label, str(failure))


def failures_at(url: str) -> dict[str, dict[str, str]]:
    """What is wrong with a server's answers to all that was sent, by check and operation."""
    with requests.Session() as session:
        caller = Caller(url, session)
        caller.ask_all()
    return caller.failures
