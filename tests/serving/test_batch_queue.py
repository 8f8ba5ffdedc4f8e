import pytest
from hypothesis import given
from hypothesis import strategies as st

from infold.errors import QueueFullError
from infold.serving import BatchQueue, Ticket


def ticket(
    name: str, rows: int = 1, key: str = "k", at: float = 0.0, deadline: float | None = None
) -> Ticket[str]:
    return Ticket(name, rows, key, at, deadline)


def names(tickets: list[Ticket[str]]) -> list[str]:
    return [each.payload for each in tickets]


def test_without_a_delay_whatever_waits_leaves_together() -> None:
    """A delay of zero means: never wait for company, but take what is there."""
    queue: BatchQueue[str] = BatchQueue(8, 0.0, 100)
    for name in "abc":
        queue.offer(ticket(name, at=5.0))
    assert queue.due() == 5.0
    batch = queue.take(5.0)
    assert names(batch) == ["a", "b", "c"]
    assert queue.due() is None


def test_with_a_delay_the_oldest_decides_when_the_batch_leaves() -> None:
    """Company that comes later does not make the first one wait longer."""
    queue: BatchQueue[str] = BatchQueue(8, 0.010, 100)
    queue.offer(ticket("a", at=1.0))
    queue.offer(ticket("b", at=1.009))
    assert queue.due() == pytest.approx(1.010)
    assert queue.take(1.009) == []
    assert names(queue.take(1.0101)) == ["a", "b"]


def test_a_full_batch_leaves_at_once_whatever_the_delay() -> None:
    """Nothing is gained by waiting when no row more would fit."""
    queue: BatchQueue[str] = BatchQueue(4, 60.0, 100)
    queue.offer(ticket("a", rows=3, at=1.0))
    queue.offer(ticket("b", rows=1, at=2.0))
    due = queue.due()
    assert due is not None
    assert due <= 2.0
    assert names(queue.take(2.0)) == ["a", "b"]


def test_requests_of_different_keys_never_share_a_batch() -> None:
    """Only equal dtypes and trailing shapes can be joined."""
    queue: BatchQueue[str] = BatchQueue(8, 0.0, 100)
    for name, key in (("a", "x"), ("b", "y"), ("c", "x")):
        queue.offer(ticket(name, key=key))
    assert names(queue.take(0.0)) == ["a", "c"]
    assert names(queue.take(0.0)) == ["b"]


def test_a_small_late_request_does_not_overtake_a_large_early_one() -> None:
    """Order of arrival holds within a key, even where a gap could be filled."""
    queue: BatchQueue[str] = BatchQueue(4, 0.0, 100)
    for name, rows in (("a", 3), ("b", 2), ("c", 1)):
        queue.offer(ticket(name, rows=rows))
    assert names(queue.take(0.0)) == ["a"]
    assert names(queue.take(0.0)) == ["b", "c"]


def test_a_full_queue_refuses_and_keeps_what_it_has() -> None:
    """The bound is on rows; the refused request leaves no trace."""
    queue: BatchQueue[str] = BatchQueue(4, 0.0, 5)
    queue.offer(ticket("a", rows=4))
    with pytest.raises(QueueFullError):
        queue.offer(ticket("b", rows=2))
    queue.offer(ticket("c", rows=1))
    assert queue.rows == 5


def test_withdrawn_and_expired_requests_never_run() -> None:
    """Who has left, or cannot be answered in time any more, takes no place in a batch."""
    queue: BatchQueue[str] = BatchQueue(8, 0.0, 100)
    gone, late, alive = ticket("gone"), ticket("late", deadline=1.0), ticket("alive", deadline=3.0)
    for each in (gone, late, alive):
        queue.offer(each)
    assert queue.withdraw(gone)
    assert not queue.withdraw(gone)
    assert names(queue.take(2.0)) == ["alive"]
    assert not queue.withdraw(late)
    assert (len(queue), queue.rows) == (0, 0)


@given(st.lists(st.integers(1, 8), max_size=30))
def test_everything_offered_comes_out_once_in_order(sizes: list[int]) -> None:
    """Draining a queue gives back each request exactly once, in order of arrival."""
    queue: BatchQueue[str] = BatchQueue(8, 0.0, 1000)
    for index, rows in enumerate(sizes):
        queue.offer(ticket(str(index), rows))
    seen: list[str] = []
    while len(queue):
        seen += names(queue.take(0.0))
    assert seen == [str(index) for index in range(len(sizes))]
