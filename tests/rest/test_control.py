"""Orders to load and unload, as all workers together carry them out; and what is told of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import msgspec
import pytest

from infold.errors import InfoldError, LoadError, ModelControlError, ModelNotFoundError
from infold.rest.control import TOPIC, Control, asked_at_start, rejected_at_start
from infold.rest.counting import LEAST_FAR_FIRST
from infold.rest.peers import Handler, Peers
from infold.rest.v2_models import INDEX_WORDS, index, least_far
from infold.serving import ModelManager, ModelState, State
from infold.settings import ModelControl, Settings

DONE: Mapping[str, Any] = {"asked": {}, "rejected": {}, "problem": None, "is_unknown": False}
PROBLEM = {**DONE, "problem": "no such thing"}
UNKNOWN = {**DONE, "is_unknown": True}


class FakePeers(Peers):
    """Workers that give these answers."""

    def __init__(self, answers: Sequence[object]) -> None:
        super().__init__()
        self.answers = list(answers)
        self.asked: list[tuple[str, object]] = []
        self.handlers: dict[str, Handler] = {}

    def on(self, topic: str, handler: Handler) -> None:
        """See `Peers`."""
        self.handlers[topic] = handler

    async def gather(
        self,
        topic: str,
        payload: object = None,
        timeout_s: float = 1.0,
        *,
        kept: bool = False,
        shared: bool = False,
    ) -> list[object]:
        """See `Peers`."""
        assert (kept, shared, timeout_s >= 60) == (False, True, True)
        self.asked.append((topic, payload))
        return self.answers


class FakeManager(ModelManager):
    """Does nothing, or fails at it."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.obeyed: list[tuple[str, ...]] = []

    @property
    def asked(self) -> Mapping[str, str | None]:
        """See `ModelManager`."""
        return {"m": None, "n": "{}"}

    async def load(self, name: str, override: str | None = None) -> None:
        """See `ModelManager`."""
        self._obey("load", name, str(override))

    @property
    def rejected(self) -> dict[str, list[int]]:
        """See `ModelManager`."""
        return {"m": [3]}

    async def unload(self, name: str) -> None:
        """See `ModelManager`."""
        self._obey("unload", name)

    async def roll_back(self, name: str, version: int) -> None:
        """See `ModelManager`."""
        self._obey("roll back", name, str(version))

    def _obey(self, *order: str) -> None:
        self.obeyed.append(order)
        if self.failure is not None:
            raise self.failure


def control_over(*answers: object, is_allowed: bool = True) -> tuple[Control, FakePeers]:
    """Orders to workers that answer so."""
    peers = FakePeers(answers)
    return Control(FakeManager(), peers, is_allowed=is_allowed), peers


async def outcome(what: str, *answers: object) -> InfoldError | None:
    """What is raised of an order that the workers answer so."""
    control, _ = control_over(*answers)
    try:
        await (control.load("m", None) if what == "load" else control.unload("m"))
    except InfoldError as failure:
        return failure
    return None


# -- giving orders ------------------------------------------------------------------------------------


async def test_an_order_is_given_to_all() -> None:
    """With all that it takes."""
    control, peers = control_over(DONE, DONE)
    await control.load("m", '{"max_batch_size": 1}')
    await control.unload("m")
    assert peers.asked == [
        (TOPIC, {"model": "m", "what": "load", "config": '{"max_batch_size": 1}', "version": 0}),
        (TOPIC, {"model": "m", "what": "unload", "config": None, "version": 0}),
    ]


async def test_where_callers_may_not_give_orders_nobody_is_asked() -> None:
    """They are told how they might."""
    control, peers = control_over(DONE, is_allowed=False)
    for order in (control.load("m", None), control.unload("m")):
        with pytest.raises(ModelControlError, match="--model-control explicit"):
            await order
    assert peers.asked == []


@pytest.mark.parametrize("what", ["load", "unload"])
async def test_one_worker_that_cannot_or_does_not_answer_fails_the_order(what: str) -> None:
    """Whichever it is; what is wrong is told rather than that something is."""
    for answers in permutations([DONE, DONE, None]):
        failure = await outcome(what, *answers)
        assert isinstance(failure, LoadError)
        assert str(failure) == f"failed to {what} 'm', not all workers have answered"
    for answers in permutations([DONE, None, PROBLEM, UNKNOWN]):
        failure = await outcome(what, *answers)
        assert isinstance(failure, LoadError)
        assert str(failure) == f"failed to {what} 'm', no such thing"


async def test_a_model_is_unknown_if_no_worker_knows_it() -> None:
    """One that was started since it was unloaded may never have known it."""
    assert isinstance(await outcome("unload", UNKNOWN, UNKNOWN), ModelNotFoundError)
    assert await outcome("unload", UNKNOWN, DONE) is None
    assert await outcome("unload", DONE, UNKNOWN) is None


# -- obeying ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "problem", "is_unknown"),
    [
        (None, None, False),
        (LoadError("m", "it is broken"), "it is broken", False),
        (ModelNotFoundError("m"), None, True),
        (InfoldError("something else"), "something else", False),
    ],
)
async def test_a_worker_answers_what_came_of_an_order(
    failure: Exception | None, problem: str | None, is_unknown: bool
) -> None:
    """And in any case all that it has been asked for; as JSON."""
    peers, manager = FakePeers([]), FakeManager(failure)
    Control(manager, peers, is_allowed=True)
    answer = await peers.handlers[TOPIC]({"model": "m", "what": "load", "config": "{}"})
    assert answer == {
        "asked": {"m": None, "n": "{}"},
        "rejected": {"m": [3]},
        "problem": problem,
        "is_unknown": is_unknown,
    }
    assert msgspec.json.decode(msgspec.json.encode(answer)) == answer
    await peers.handlers[TOPIC]({"model": "m", "what": "unload"})
    await peers.handlers[TOPIC]({"model": "m", "what": "roll back", "version": 3})
    assert manager.obeyed == [("load", "m", "{}"), ("unload", "m"), ("roll back", "m", "3")]


async def test_alone_an_order_is_obeyed_at_once() -> None:
    """By this process, through the same way; a mistake of ours is no success."""
    manager = FakeManager()
    control = Control(manager, Peers(), is_allowed=True)
    await control.load("m", None)
    assert manager.obeyed == [("load", "m", "None")]
    manager.failure = RuntimeError("what")
    with pytest.raises(LoadError, match="not all workers have answered"):
        await control.unload("m")


def test_a_worker_begins_with_what_the_others_have_been_asked() -> None:
    """The first ones with what the settings say; where models are not loaded by name, with nothing."""
    settings = Settings(model_control=ModelControl.EXPLICIT, load_models=("a", "*"))
    later = Peers(earlier={TOPIC: {**PROBLEM, "asked": {"m": None, "n": "{}"}}, "metrics": {}})
    assert asked_at_start(settings, Peers()) == {"a": None, "*": None}
    assert asked_at_start(settings, Peers(earlier={"metrics": {}})) == {"a": None, "*": None}
    assert asked_at_start(settings, later) == {"m": None, "n": "{}"}
    assert asked_at_start(settings, Peers(earlier={TOPIC: DONE})) == {}
    assert rejected_at_start(Peers()) == {}
    assert rejected_at_start(Peers(earlier={TOPIC: {**DONE, "rejected": {"m": [3]}}})) == {"m": [3]}
    for other in (ModelControl.NONE, ModelControl.POLL):
        assert asked_at_start(Settings(model_control=other, load_models=("a",)), later) is None


def test_settings_take_names_from_the_environment_and_refuse_what_makes_no_sense(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A list is JSON."""
    monkeypatch.setenv("INFOLD_MODEL_CONTROL", "explicit")
    monkeypatch.setenv("INFOLD_LOAD_MODELS", '["a", "*"]')
    settings = Settings.read(repository=tmp_path)
    assert (settings.model_control, settings.load_models) == (ModelControl.EXPLICIT, ("a", "*"))
    wrong = {
        "MODEL_CONTROL": ["all"],
        "POLL_S": ["0", "nan", "inf", "x"],
        "LOAD_MODELS": ["a", "[1]", '"a"', "{"],
    }
    for name, value in [(name, value) for name, values in wrong.items() for value in values]:
        with monkeypatch.context() as changed:
            changed.setenv(f"INFOLD_{name}", value)
            with pytest.raises(InfoldError, match=f"INFOLD_{name}"):
                Settings.read()


# -- what is told of all workers ----------------------------------------------------------------------


def test_a_version_is_where_the_worker_is_that_is_least_far() -> None:
    """It failed if it failed in any; whatever the order of the workers."""
    for number, state in enumerate(LEAST_FAR_FIRST):
        for further in LEAST_FAR_FIRST[number:]:
            here, there = ModelState("m", 1, State(state), "r"), ModelState("m", 1, State(further))
            for workers in permutations([[here], [there], []]):
                (found,) = least_far(workers)
                assert found.state == state
    assert least_far([]) == least_far([[], []]) == []


def test_each_model_and_version_is_told_once_and_in_order() -> None:
    """A model whose folder cannot be read by one worker comes before its versions."""
    refused = ModelState("a", None, State.FAILED, "model.toml: no")
    one = [ModelState("b", 10, State.READY), ModelState("a", 1, State.READY)]
    other = [ModelState("b", 10, State.UNLOADED), refused, ModelState("b", 9, State.READY)]
    expected = [refused, one[1], other[2], one[0]]
    assert least_far([one, other]) == least_far([other, one]) == expected


def test_the_index_has_every_version_and_every_other_model() -> None:
    """In the protocol's words; what nobody loaded has a name alone."""
    states = [
        ModelState("b", 1, State.UNLOADED),
        ModelState("b", 2, State.READY),
        ModelState("c", 1, State.FAILED, "no graph"),
        ModelState("d", None, State.FAILED, "model.toml: no"),
        ModelState("e", 1, State.LOADING),
        ModelState("f", 1, State.DRAINING),
    ]
    rows = index(["a", "b", "c", "d", "z"], states, only_ready=False)
    assert rows == [
        {"name": "a"},
        {"name": "b", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"},
        {"name": "b", "version": "2", "state": "READY", "reason": ""},
        {"name": "c", "version": "1", "state": "UNAVAILABLE", "reason": "no graph"},
        {"name": "d", "state": "UNAVAILABLE", "reason": "model.toml: no"},
        {"name": "e", "version": "1", "state": "LOADING", "reason": ""},
        {"name": "f", "version": "1", "state": "UNLOADING", "reason": ""},
        {"name": "z"},
    ]
    assert index(["a"], states, only_ready=True) == [rows[2]]
    assert set(INDEX_WORDS) == set(State)


def test_a_version_that_failed_in_one_worker_is_unavailable_in_the_index() -> None:
    """With that worker's reason."""
    workers = [[ModelState("m", 1, State.READY)], [ModelState("m", 1, State.FAILED, "out of memory")]]
    assert index(["m"], least_far(workers), only_ready=False) == [
        {"name": "m", "version": "1", "state": "UNAVAILABLE", "reason": "out of memory"}
    ]
