"""Work on several threads: its answers come in order, few are ahead of what is asked for, and an error is told."""

import threading
import time

import pytest

from components.core.runtime import Room, side_by_side


def test_answers_come_in_order_whichever_is_ready_first():
    """Of two at a time the first waits for the second, which one thread could not."""
    later = threading.Event()

    def call(number):
        if number == 0:
            assert later.wait(30)
        later.set()
        return number * 10

    assert list(side_by_side(call, range(9), 2)) == [number * 10 for number in range(9)]


def test_few_are_made_before_they_are_asked_for():
    made, taken = [], []
    for answer in side_by_side(lambda number: made.append(number) or number, range(50), 3):
        taken.append(answer)
        assert len(made) <= len(taken) + 3
    assert taken == sorted(made) == list(range(50))


def test_an_error_comes_out_where_its_answer_would():
    def call(number):
        if number == 3:
            raise ValueError("three")
        return number

    found = side_by_side(call, range(9), 2)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(found)


def test_no_more_is_taken_than_there_is_and_the_largest_has_it_all():
    room, taken, seen, lock = Room(10), [], [], threading.Lock()

    def call(amount):
        with room.of(amount):
            with lock:
                taken.append(amount)
                seen.append(list(taken))
            time.sleep(0.002)
            with lock:
                taken.remove(amount)
        return amount

    given = [4, 4, 4, 99, 0, 10, 3, 3, 3, 3]
    assert list(side_by_side(call, given, 4)) == given
    assert all(sum(now) <= 10 or [n for n in now if n] == [99] for now in seen)
    assert any(len(now) > 1 for now in seen)
    assert room.free == 10


def test_room_comes_back_from_who_fails():
    room = Room(3)
    with pytest.raises(ValueError, match="broken"), room.of(2):
        raise ValueError("broken")
    assert room.free == 3
