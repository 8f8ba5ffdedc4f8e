"""Whose run is next, and on how many cores; numbers for a clock, words for requests."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from infold.serving.batch_queue import BatchQueue, Ticket
from infold.serving.dispatch import Dispatcher, Job, Lane


def lane(cores: int = 1, runs: int = 9, wide: int = 0, max_rows: int = 1, delay: float = 0.0) -> Lane[str]:
    return Lane(BatchQueue(max_rows, delay, 1000), cores, runs, wide)


def dispatcher(cores: int, *lanes: Lane[str]) -> Dispatcher[str]:
    made: Dispatcher[str] = Dispatcher(cores)
    for each in lanes:
        made.add(each)
    return made


def ask(where: Lane[str], what: str, at: float) -> None:
    where.queue.offer(Ticket(what, 1, None, at))


def taken(job: Job[str] | None) -> list[str] | None:
    return None if job is None else [ticket.payload for ticket in job.tickets]


def test_who_has_waited_longest_is_next_whatever_model() -> None:
    """And no more runs are given out than there are cores."""
    one, other = lane(), lane()
    subject = dispatcher(2, one, other)
    for index, where in enumerate((other, one, one, other)):
        ask(where, f"r{index}", float(index))
    first, second = subject.next(9), subject.next(9)
    assert (taken(first), taken(second)) == (["r0"], ["r1"])
    assert subject.next(9) is None
    assert not subject.has_more
    assert first is not None
    subject.finished(first)
    assert subject.has_more
    assert taken(subject.next(9)) == ["r2"]


def test_a_run_that_needs_more_cores_than_are_free_is_not_overtaken() -> None:
    """Else it would wait for ever behind small ones."""
    broad, small = lane(cores=2), lane()
    subject = dispatcher(2, broad, small)
    ask(small, "s0", 0.0)
    ask(broad, "b1", 1.0)
    ask(small, "s2", 2.0)
    first = subject.next(9)
    assert taken(first) == ["s0"]
    assert subject.next(9) is None
    assert first is not None
    subject.finished(first)
    assert taken(subject.next(9)) == ["b1"]
    assert subject.next(9) is None


def test_only_a_request_that_finds_all_idle_gets_all_cores() -> None:
    """Whatever else waits or runs, of this model or another, makes it a narrow one."""
    one, other = lane(wide=4), lane(wide=4)
    subject = dispatcher(4, one, other)
    ask(one, "alone", 0.0)
    job = subject.next(1)
    assert job is not None
    assert (job.is_wide, job.cores) == (True, 4)
    ask(other, "meanwhile", 1.0)
    assert subject.next(2) is None
    subject.finished(job)
    ask(one, "behind", 2.0)
    two, three = subject.next(3), subject.next(3)
    assert two is not None
    assert three is not None
    assert [(taken(each), each.is_wide, each.cores) for each in (two, three)] == [
        (["meanwhile"], False, 1),
        (["behind"], False, 1),
    ]


def test_a_model_takes_no_more_runs_than_its_plan_says() -> None:
    """The cores it leaves go to others."""
    one, other = lane(runs=1), lane()
    subject = dispatcher(3, one, other)
    for index in range(3):
        ask(one, f"a{index}", float(index))
    ask(other, "b", 9.0)
    assert [taken(subject.next(9)) for _ in range(3)] == [["a0"], ["b"], None]


def test_what_waits_for_company_does_not_hold_up_others() -> None:
    """Until it is due; then it was first."""
    waiting, quick = lane(max_rows=4, delay=1.0), lane()
    subject = dispatcher(1, waiting, quick)
    ask(waiting, "w", 0.0)
    ask(quick, "q", 0.1)
    assert subject.due() == 0.1
    job = subject.next(0.5)
    assert taken(job) == ["q"]
    assert subject.due() == 1.0
    assert job is not None
    subject.finished(job)
    assert taken(subject.next(1.0)) == ["w"]


@given(
    st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=60),
    st.integers(1, 5),
    st.tuples(*[st.integers(1, 4)] * 3),
)
def test_cores_are_never_given_out_twice_and_nothing_is_lost(
    events: list[tuple[int, bool]], cores: int, costs: tuple[int, int, int]
) -> None:
    """Whatever comes in whatever order, everything is run once."""
    lanes = [lane(cores=cost, wide=cores if cost == 1 else 0) for cost in costs]
    subject = dispatcher(cores, *lanes)
    running: list[Job[str]] = []
    done: list[str] = []

    def pull(now: float) -> None:
        while (job := subject.next(now)) is not None:
            running.append(job)
        assert sum(job.cores for job in running) <= cores

    for index, (which, ends_one) in enumerate(events):
        ask(lanes[which], str(index), float(index))
        pull(float(index))
        if ends_one and running:
            job = running.pop(0)
            done += taken(job) or []
            subject.finished(job)
            pull(float(index))
    while running:
        job = running.pop(0)
        done += taken(job) or []
        subject.finished(job)
        pull(1e9)
    assert sorted(done, key=int) == [str(index) for index in range(len(events))]
    assert subject.is_idle
