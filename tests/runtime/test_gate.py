"""Many or one."""

from __future__ import annotations

import threading

from infold.runtime.gate import Gate


def test_many_are_inside_at_a_time() -> None:
    """None waits for another."""
    gate, all_in = Gate(), threading.Barrier(4)

    def passing() -> None:
        with gate.shared():
            all_in.wait(20)

    threads = [threading.Thread(target=passing) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(20)
    assert not all_in.broken


def test_one_alone_waits_for_the_others_and_goes_before_those_that_come_later() -> None:
    """Or a busy server would never record."""
    gate, told = Gate(), []
    inside, leave, wants = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with gate.shared():
            inside.set()
            assert leave.wait(20)
            told.append("first")

    def alone() -> None:
        wants.set()
        with gate.alone():
            assert gate._inside == 0
            told.append("alone")

    def later() -> None:
        with gate.shared():
            assert not gate._is_alone
            told.append("later")

    threads = [threading.Thread(target=each) for each in (first, alone, later)]
    threads[0].start()
    assert inside.wait(20)
    threads[1].start()
    assert wants.wait(20)
    while not gate._wanted_alone:  # it is inside `alone` within a few instructions
        pass
    threads[2].start()
    leave.set()
    for each in threads:
        each.join(20)
    assert told == ["first", "alone", "later"]


def test_whoever_fails_inside_leaves() -> None:
    """Both ways."""
    gate = Gate()
    for way in (gate.shared, gate.alone, gate.shared, gate.alone):
        try:
            with way():
                raise ValueError
        except ValueError:
            pass
    assert (gate._inside, gate._is_alone, gate._wanted_alone) == (0, False, 0)
