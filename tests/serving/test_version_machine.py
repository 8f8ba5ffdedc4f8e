"""Versions appear, vanish, change and fail in any order: what the plan makes of it, step by step.

The machine does what the manager does with a plan, and knows besides what nobody tells the plan: which
files can be loaded.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from infold.serving import Load, State, Unload, plan
from infold.serving.versions import fallbacks, wanted

NUMBERS = st.integers(1, 6)
POLICIES = st.sampled_from(["latest", "latest:1", "latest:2", "latest:3", "all", (1, 3), (2, 4, 6)])


class VersionMachine(RuleBasedStateMachine):
    """One model on a disk that somebody works on, and a manager that is interrupted between any two steps."""

    def __init__(self) -> None:
        super().__init__()
        self.policy: str | tuple[int, ...] = "latest"
        self.disk: dict[int, int] = {}  # the file that lies there, by version
        self.bad: set[int] = set()  # files that do not load
        self.files = 0
        self.held: dict[int, State] = {}
        self.tried: dict[int, int] = {}
        self.in_memory: dict[int, int] = {}  # the file that answers, by version
        self.loading: int | None = None
        self.rejected: set[int] = set()  # rolled back from

    @initialize(policy=POLICIES)
    def begin(self, policy: str | tuple[int, ...]) -> None:
        self.policy = policy

    # -- somebody works on the disk ---------------------------------------------------------------

    @rule(number=NUMBERS, is_bad=st.booleans())
    def put(self, number: int, is_bad: bool) -> None:
        """A version appears, or another file takes its place."""
        self.files += 1
        self.disk[number] = self.files
        if is_bad:
            self.bad.add(self.files)

    @rule(number=NUMBERS)
    def vanish(self, number: int) -> None:
        self.disk.pop(number, None)

    @rule(number=NUMBERS)
    def reject(self, number: int) -> None:
        self.rejected.add(number)

    @rule()
    def forgive(self) -> None:
        self.rejected.clear()

    # -- the manager ------------------------------------------------------------------------------

    @precondition(lambda self: self.loading is None)
    @rule()
    def step(self) -> None:
        """One action; a load has begun, and ends later."""
        self.act()

    @precondition(lambda self: self.loading is not None)
    @rule()
    def finish(self) -> None:
        """The load that is under way ends, whatever has become of the file meanwhile."""
        self.end_load()

    @rule()
    def settle(self) -> None:
        """The manager works until nothing is left to do, and nobody disturbs it."""
        if self.loading is not None:
            self.end_load()
        steps = 0
        while self.act():
            steps += 1
            assert steps <= 2 * (len(self.held) + len(self.disk)), "it does not come to rest"
            if self.loading is not None:
                self.end_load()
        self.give_up()
        assert self.planned() is None
        self.check_at_rest()

    # -- what must hold ---------------------------------------------------------------------------

    @invariant()
    def answers_of_what_is_ready(self) -> None:
        """And of nothing else."""
        assert set(self.in_memory) == {n for n, state in self.held.items() if state is State.READY}

    def check_at_rest(self) -> None:
        """All that is wanted and loads is served as it lies there, and as little else as can be."""
        aspired = set(self.aspired)
        serving = set(self.in_memory)
        for number in aspired:
            if self.disk[number] not in self.bad:
                assert self.in_memory.get(number) == self.disk[number]
        assert len(serving) <= len(aspired), "more is loaded than the policy wants"
        if aspired <= serving or (isinstance(self.policy, tuple) and aspired & serving):
            assert serving <= aspired, "something is served that nobody wants"
        if not isinstance(self.policy, tuple):
            able = {n for n in self.disk if self.disk[n] not in self.bad and n not in self.rejected}
            assert len(serving) >= min(len(able), len(aspired)), "an older one could have stood in"
        if not aspired:
            assert not serving, "something is served that nobody wants"
        if self.could_answer:
            assert serving, "a model is left without an answer"

    @property
    def aspired(self) -> list[int]:
        return wanted(self.disk, self.policy, self.rejected)

    @property
    def could_answer(self) -> bool:
        """Something lies there that is wanted, or would be if what is newer were not there, and loads."""
        numbers = self.policy if isinstance(self.policy, tuple) else self.disk
        return any(n in self.disk and self.disk[n] not in self.bad for n in numbers if n not in self.rejected)

    # -- its workings -----------------------------------------------------------------------------

    def planned(self) -> Load | Unload | None:
        changed = [n for n in self.held if n in self.disk and self.tried.get(n) != self.disk[n]]
        return plan(self.disk, self.held, self.policy, changed, self.rejected)

    def give_up(self) -> None:
        """What has failed and is neither wanted nor stands in is forgotten, as the manager does it."""
        kept = self.aspired
        if any(self.held[number] is not State.READY for number in kept):
            kept += fallbacks(self.disk, self.policy, self.rejected)
        for number, state in self.held.items():
            if state is State.FAILED and number not in kept:
                self.held[number] = State.UNLOADED

    def act(self) -> bool:
        """Carry out one action; False where there is none."""
        had_answer = bool(self.in_memory)
        match self.planned():
            case Load(number):
                assert number in self.disk
                self.tried[number] = self.disk[number]
                self.loading = number
                if self.held.get(number) is not State.READY:  # else the one before answers on
                    self.held[number] = State.LOADING
            case Unload(number):
                assert self.held[number] is State.READY
                self.held[number] = State.UNLOADED
                del self.in_memory[number]
                assert self.in_memory or not had_answer or not self.aspired, "the last one that answered went"
            case None:
                return False
        return True

    def end_load(self) -> None:
        number, self.loading = self.loading, None
        assert number is not None
        file = self.tried[number]
        if file not in self.bad:
            self.held[number] = State.READY
            self.in_memory[number] = file
        elif self.held[number] is not State.READY:
            self.held[number] = State.FAILED


TestVersionMachine = VersionMachine.TestCase
TestVersionMachine.settings = settings(max_examples=200, stateful_step_count=40)
