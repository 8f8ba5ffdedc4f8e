"""One bench from beginning to end: find or start the server, prepare requests, load it, report."""

from __future__ import annotations

import asyncio
import mimetypes
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import uvloop

from infold.bench.answers import Judge, read_answer
from infold.bench.bare import measure_bare
from infold.bench.loops import ClosedLoad, OpenLoad, Work
from infold.bench.noise import Noise
from infold.bench.outcomes import Load
from infold.bench.plan import Loops, Plan
from infold.bench.report import Report, label, lateness
from infold.bench.requests import Body, binary_body, framed, json_body, request_tensors
from infold.bench.schedule import auto_rates, falls_away
from infold.bench.served import served
from infold.bench.signals import signals_leave
from infold.bench.target import Target, address_of, model_path
from infold.bench.words import noise_note
from infold.errors import RepositoryError, SamplesError, ServerError
from infold.runtime import available_cores, choose_device
from infold.serving import ModelRepository
from infold.serving.repository import ModelVersion
from infold.serving.versions import wanted
from infold.tensors import Tensors

__all__ = ["bench"]

Progress = Callable[[str, float], None]

TICK_S = 0.5
# For a closed loop that only finds the rates of an open one.
PROBE_CALLERS = (1, 8, 32)

OCTETS = "application/octet-stream"
# Of files that infold takes and that not every machine knows by name.
TYPES = {".webp": "image/webp", ".npy": "application/x-npy"}


def bench(plan: Plan, progress: Progress | None = None) -> Report:
    """Put load on a server and report how it bore it.

    Args:
        plan: What to do.
        progress: Told what is going on, and for how many seconds already.

    Raises:
        ConfigError: The plan makes no sense.
        ServerError: The server cannot be reached, has no such model, or refuses the first request.
        SamplesError: The inputs do not fit the model.
        RepositoryError, SessionError: The repository or its model cannot be used.
    """
    plan.check()
    run = _Run(plan, progress or (lambda what, seconds: None))
    if "://" in plan.source:
        address = address_of(plan.source)
        tls = plan.tls.context() if address.scheme == "https" else None
        return run.against(Target(address, plan.headers, tls), None)
    version = _chosen(Path(plan.source), plan.model, plan.version)
    run.say("starting infold serve")
    with served(Path(plan.source), str(plan.device)) as url:
        return run.against(Target(address_of(url), plan.headers), version)


def _chosen(root: Path, model: str | None, version: int | None) -> ModelVersion:
    """The version of the model that the server will answer with."""
    repository = ModelRepository(root)
    found = repository.list()
    listed = ", ".join(found) or "no models"
    if model is None and len(found) != 1:
        raise RepositoryError(root, f"holds {listed}" + ("; name one with --model" if found else ""))
    name = model or next(iter(found))
    if name not in found:
        raise RepositoryError(root, f"holds no model '{name}', but {listed}")
    numbers = wanted([each.number for each in found[name]], repository.policy(name))
    if version is not None and version not in numbers:
        shown = ", ".join(map(str, numbers)) or "none"
        raise RepositoryError(root, f"model '{name}': version {version} is not served; {shown} is")
    if not numbers:
        raise RepositoryError(root, f"model '{name}': its model.toml wants no version that is here")
    return next(each for each in found[name] if each.number == (version or numbers[0]))


class _Run:
    """A bench under way."""

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self._plan = plan
        self._progress = progress
        self._began = time.monotonic()
        self._what = ""
        self._notes: list[str] = []

    def say(self, what: str) -> None:
        """Tell what is going on now."""
        self._what = what
        self._progress(what, time.monotonic() - self._began)

    def against(self, target: Target, version: ModelVersion | None) -> Report:
        """Load this server; `version` is what it serves, where that is known."""
        plan = self._plan
        takes_tensors = plan.sends_tensors
        if version is None and (takes_tensors or plan.path is None):  # a file may go to any server
            target.check()
        model = version.name if version else plan.model
        if model is None and (plan.path is None or takes_tensors):
            model = target.only_model()
        requests = self._requests(target, model)
        bodies, path = self._bodies(requests), plan.path or model_path(model or "", plan.version) + "/infer"
        bare: list[Load] = []
        references: list[Tensors] = []
        if version is not None and requests:
            self.say("bare onnxruntime")
            disabled = version.config.session.disabled_optimizers
            bare, references = measure_bare(
                version.path, requests, choose_device(plan.device), disabled, plan.timing
            )
        first = [target.ask(path, body.content, dict(body.headers)) for body in bodies]
        if plan.path is not None or not takes_tensors or not references:
            try:
                references = [read_answer(answer) for answer in first]
            except ValueError as broken:
                raise ServerError(target.address.url, str(broken)) from broken
        wires = [framed(target.address, path, body, plan.headers) for body in bodies]
        work = Work(target.address.host, target.address.port, wires, Judge(references), target.tls)
        noise, before = Noise(os.getpid()), time.monotonic()
        loads = self._drive(work)
        self._tell_noise(noise.cores(time.monotonic() - before), own_server=version is not None)
        if work.judge.first_wrong:
            self._notes.insert(0, f"wrong answers, the first: {work.judge.first_wrong}")
        where = str(plan.source) if version is not None else target.address.url
        rows = f", {plan.rows} rows a request" if plan.rows else ""
        return Report(f"{model or path} on {where}{rows}", (*bare, *loads), tuple(self._notes))

    def _requests(self, target: Target, model: str | None) -> list[Tensors]:
        """Tensors of the requests; for a file, of the bare line, if they can be had."""
        plan = self._plan
        if model is None:
            return []
        try:
            signature = target.signature(model, plan.version)
            return request_tensors(signature, plan.samples, plan.shapes, plan.rows)
        except (ServerError, SamplesError):
            if plan.sends_tensors:
                raise
            return []

    def _bodies(self, requests: Sequence[Tensors]) -> list[Body]:
        plan = self._plan
        if plan.body == "json":
            return [json_body(tensors) for tensors in requests]
        if plan.body == "binary":
            return [binary_body(tensors) for tensors in requests]
        guessed = TYPES.get(Path(plan.body).suffix.lower()) or mimetypes.guess_type(plan.body)[0] or OCTETS
        try:
            content = Path(plan.body).read_bytes()
        except OSError as failure:
            raise SamplesError(f"{plan.body}: {failure.strerror or failure}") from failure
        headers = {"Content-Type": plan.content_type or guessed}
        if headers["Content-Type"] == OCTETS:  # nothing but a tensor
            headers["Inference-Header-Content-Length"] = "0"
        return [Body(content, headers)]

    def _drive(self, work: Work) -> list[Load]:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, signals_leave(runner.get_loop()):
            return runner.run(self._all_loads(work))

    async def _all_loads(self, work: Work) -> list[Load]:
        ticker = asyncio.get_running_loop().create_task(self._tick())
        plan = self._plan
        try:
            loads: list[Load] = []
            if plan.loops is not Loops.OPEN:
                loads += await self._closed(work, plan.concurrency)
            if plan.loops is Loops.CLOSED:
                return loads
            rates = plan.rates
            if rates is None:
                known = loads or await self._closed(work, PROBE_CALLERS)
                rates = auto_rates(max(load.answers_per_s for load in known))
                if not rates[0]:
                    raise ServerError(work.place, "answers nothing; see --loop closed")
            return loads + await self._open(work, rates)
        finally:
            ticker.cancel()

    async def _closed(self, work: Work, callers: Sequence[int]) -> list[Load]:
        loads = []
        for number, count in enumerate(callers, 1):
            who = "1 caller" if count == 1 else f"{count} callers"
            self.say(f"closed loop, {who} ({number} of {len(callers)})")
            load = ClosedLoad(work, self._plan.timing, count)
            loads.append(await load.run())
            self._tell_failure(loads[-1], load.first_failure)
        return loads

    async def _open(self, work: Work, rates: Sequence[float]) -> list[Load]:
        loads: list[Load] = []
        for number, rate in enumerate(sorted(rates), 1):
            self.say(f"open loop, {rate:,.0f}/s ({number} of {len(rates)})")
            load = OpenLoad(work, self._plan.timing, rate)
            loads.append(await load.run())
            self._tell_failure(loads[-1], load.first_failure)
            if falls_away(loads) and number < len(rates):
                self._notes.append(f"stopped at {label(loads[-1])}: right answers fall away")
                break
        if late := lateness(loads):
            self._notes.append(late)
        return loads

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.say(self._what)

    def _tell_failure(self, load: Load, failure: str | None) -> None:
        if load.failed and failure:
            self._notes.append(f"{label(load)}, the first failure: {failure}")

    def _tell_noise(self, cores: float | None, *, own_server: bool) -> None:
        if cores is None:
            return
        others = "other processes" if own_server else "processes other than this client"
        self._notes.append(noise_note(others, cores, os.cpu_count() or available_cores()))
