"""One bench from beginning to end: find or start the server, prepare requests, load it, report."""

from __future__ import annotations

import asyncio
import mimetypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import uvloop

from infold.bench.answers import Judge, read_answer
from infold.bench.bare import measure_bare
from infold.bench.loops import ClosedLoad, OpenLoad, Timing, Work
from infold.bench.noise import Noise
from infold.bench.outcomes import Load
from infold.bench.report import Report, label, lateness
from infold.bench.requests import Body, binary_body, framed, json_body, request_tensors
from infold.bench.schedule import auto_rates, falls_away
from infold.bench.served import served
from infold.bench.target import Target, address_of, model_path
from infold.errors import ConfigError, RepositoryError, SamplesError, ServerError
from infold.runtime import available_cores, choose_device
from infold.runtime.options import Device
from infold.serving import ModelRepository
from infold.serving.repository import ModelVersion
from infold.serving.versions import wanted
from infold.tensors import Tensors

__all__ = ["Loops", "Plan", "bench"]

Progress = Callable[[str, float], None]

TICK_S = 0.5
MOST_CALLERS = 4096
MOST_RATE = 1e6
# For a closed loop that only finds the rates of an open one.
PROBE_CALLERS = (1, 8, 32)


class Loops(StrEnum):
    """Which loops run."""

    CLOSED = "closed"
    OPEN = "open"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of a bench.

    Attributes:
        source: `http://host:port`, or a model repository folder.
        model: Its name; None takes the only one.
        version: None takes the one that is served by default.
        loops: Which loops run.
        concurrency: Callers of each closed load.
        rates: Requests a second of each open load; None takes them from the closed loop's peak.
        timing: Length of each load.
        body: `json`, `binary`, or a file that is sent as it is.
        path: Where requests go; None is the model's infer path.
        content_type: Of a file; None guesses from its name.
        samples, shapes, rows: See `request_tensors`.
        headers: Sent with every request.
        device: What runs the models of a repository.
    """

    source: str
    model: str | None = None
    version: int | None = None
    loops: Loops = Loops.BOTH
    concurrency: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    rates: tuple[float, ...] | None = None
    timing: Timing = field(default_factory=lambda: Timing(3.0, 0.5))
    body: str = "json"
    path: str | None = None
    content_type: str | None = None
    samples: Path | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    rows: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    device: Device = Device.CPU

    def check(self) -> None:
        """Return if it makes sense.

        Raises:
            ConfigError: Something does not; names the option.
        """
        if not self.concurrency or not all(1 <= each <= MOST_CALLERS for each in self.concurrency):
            raise ConfigError("--concurrency", f"must be numbers between 1 and {MOST_CALLERS}")
        if self.rates is not None and not (self.rates and all(0 < each <= MOST_RATE for each in self.rates)):
            raise ConfigError("--rates", f"must be 'auto', or rates above 0 and up to {MOST_RATE:,.0f}/s")
        if not 0 < self.timing.seconds <= 3600:
            raise ConfigError("--seconds", "must be above 0 and at most 3600")
        if not 0 <= self.timing.warmup_s <= 3600:
            raise ConfigError("--warmup", "must be between 0 and 3600 seconds")
        if self.path is not None and not self.path.startswith("/"):
            raise ConfigError("--path", "must start with /")
        if self.body not in ("json", "binary"):
            if not Path(self.body).is_file():
                raise ConfigError("--body", f"{self.body!r} is neither 'json', 'binary' nor a file")
        elif self.content_type is not None:
            raise ConfigError("--content-type", "goes with a file as --body")
        for name, value in self.headers:
            if not name.strip() or not (name + value).isprintable():
                raise ConfigError("--header", "must be of the form 'Name: value'")


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
        return run.against(Target(address_of(plan.source), plan.headers), None, (os.getpid(),))
    version = _chosen(Path(plan.source), plan.model, plan.version)
    run.say("starting infold serve")
    with served(Path(plan.source), str(plan.device)) as server:
        target = Target(address_of(server.url), plan.headers)
        return run.against(target, version, (os.getpid(), server.process))


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

    def against(self, target: Target, version: ModelVersion | None, processes: tuple[int, ...]) -> Report:
        """Load this server; `version` is what it serves, where that is known."""
        plan = self._plan
        if version is None:
            target.check()
        model = version.name if version else plan.model
        if model is None and (plan.path is None or plan.body in ("json", "binary")):
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
        if plan.path is not None or plan.body not in ("json", "binary") or not references:
            try:
                references = [read_answer(answer) for answer in first]
            except ValueError as broken:
                raise ServerError(target.address.url, str(broken)) from broken
        wires = [framed(target.address, path, body, plan.headers) for body in bodies]
        work = Work(target.address.host, target.address.port, wires, Judge(references))
        noise, before = Noise(processes), time.monotonic()
        loads = self._drive(work)
        self._tell_noise(noise.cores(time.monotonic() - before), own_server=version is not None)
        if work.judge.first_wrong:
            self._notes.insert(0, f"wrong answers, the first: {work.judge.first_wrong}")
        where = str(plan.source) if version is not None else target.address.url
        return Report(f"{model or path} on {where}", (*bare, *loads), tuple(self._notes))

    def _requests(self, target: Target, model: str | None) -> list[Tensors]:
        """Tensors of the requests; for a file, of the bare line, if they can be had."""
        plan = self._plan
        if model is None:
            return []
        try:
            signature = target.signature(model, plan.version)
            return request_tensors(signature, plan.samples, plan.shapes, plan.rows)
        except (ServerError, SamplesError):
            if plan.body in ("json", "binary"):
                raise
            return []

    def _bodies(self, requests: Sequence[Tensors]) -> list[Body]:
        plan = self._plan
        if plan.body == "json":
            return [json_body(tensors) for tensors in requests]
        if plan.body == "binary":
            return [binary_body(tensors) for tensors in requests]
        guessed = mimetypes.guess_type(plan.body)[0] or "application/octet-stream"
        try:
            content = Path(plan.body).read_bytes()
        except OSError as failure:
            raise SamplesError(f"{plan.body}: {failure.strerror or failure}") from failure
        return [Body(content, {"Content-Type": plan.content_type or guessed})]

    def _drive(self, work: Work) -> list[Load]:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, _leaving(runner.get_loop()):
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
                    raise ServerError(f"http://{work.host}:{work.port}", "answers nothing; see --loop closed")
            return loads + await self._open(work, rates)
        finally:
            ticker.cancel()

    async def _closed(self, work: Work, callers: Sequence[int]) -> list[Load]:
        loads = []
        for number, count in enumerate(callers, 1):
            self.say(f"closed loop, {count} callers ({number} of {len(callers)})")
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
        self._notes.append(
            f"{others} used {cores:.1f} of {os.cpu_count() or available_cores()} cores meanwhile"
        )


@contextmanager
def _leaving(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """SIGTERM and SIGHUP end the loop, and then the process as they do elsewhere.

    A handler that raises would do so inside some callback of the loop, and get lost there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []

    def leave(number: int) -> None:
        asked.append(number)
        for task in asyncio.all_tasks(loop):
            task.cancel()

    numbers = [signal.SIGTERM, signal.SIGHUP]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] is not signal.SIG_IGN:
            loop.add_signal_handler(number, leave, number)
    try:
        yield
    except asyncio.CancelledError:
        if asked:
            sys.exit(128 + asked[0])
        raise
    finally:
        for number in numbers:
            if before[number] is not signal.SIG_IGN:
                loop.remove_signal_handler(number)
            signal.signal(number, before[number])
