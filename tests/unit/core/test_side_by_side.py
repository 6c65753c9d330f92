"""Work on several threads: its answers come in order, few are ahead of what is asked for, and an error is told."""

import threading

import pytest

from components.core.runtime import side_by_side


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
