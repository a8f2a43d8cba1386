from __future__ import annotations

from attrs import Factory, define
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.log.format.origin import Origin
from proglog_trio.replication.peers.acknowledgements import (
    LEAST_SETTLED_TO_SWEEP,
    AcknowledgementResult,
    Acknowledgements,
)

X = Origin(bytes(16))


@define
class World:
    nexts: list[int] = Factory(list)

    def count(self, _origin: Origin, _first: int, end: int) -> int:
        return sum(following >= end for following in self.nexts)


def test_a_wait_ends_when_so_many_have_it() -> None:
    world, answers = World([0, 0]), list[AcknowledgementResult]()
    waits = Acknowledgements(world.count)
    waits.wait(X, 0, 5, 2, 10.0, answers.append)
    world.nexts = [4, 0]
    waits.held_more([X])
    assert not answers
    assert waits.next_deadline == 10.0
    world.nexts = [5, 0]
    waits.held_more([X])
    assert answers == [AcknowledgementResult(2, reached=True)]
    assert waits.next_deadline is None
    assert waits.waiting == 0


def test_what_is_there_already_is_answered_at_once() -> None:
    answers = list[AcknowledgementResult]()
    waits = Acknowledgements(World([9, 9]).count)
    waits.wait(X, 0, 5, 3, 10.0, answers.append)
    assert answers == [AcknowledgementResult(3, reached=True)]


def test_a_wait_whose_time_is_up_says_what_was_achieved() -> None:
    world, answers = World([9, 0, 0]), list[AcknowledgementResult]()
    waits = Acknowledgements(world.count)
    waits.wait(X, 0, 5, 4, 10.0, answers.append)
    waits.advance(9.9)
    assert not answers
    waits.advance(10.0)
    assert answers == [AcknowledgementResult(2, reached=False)]
    world.nexts = [9, 9, 9]
    waits.held_more([X])
    assert len(answers) == 1


def test_waits_for_different_numbers_of_nodes_do_not_hold_each_other_up() -> None:
    world, answers = World([0, 0]), dict[str, AcknowledgementResult]()
    waits = Acknowledgements(world.count)
    waits.wait(X, 0, 5, 3, 10.0, lambda achieved: answers.update(all=achieved))
    waits.wait(X, 0, 6, 2, 5.0, lambda achieved: answers.update(two=achieved))
    world.nexts = [6, 0]
    waits.held_more([X])
    assert answers == {"two": AcknowledgementResult(2, reached=True)}
    assert waits.next_deadline == 10.0
    waits.end_all()
    assert answers["all"] == AcknowledgementResult(2, reached=False)
    assert waits.next_deadline is None


def test_after_the_end_nothing_waits() -> None:
    """A batch may be committed after all waits were ended: no news would come, and no time would pass."""
    answers = list[AcknowledgementResult]()
    waits = Acknowledgements(World([9, 0]).count)
    waits.end_all()
    waits.wait(X, 0, 5, 2, 10.0, answers.append)
    waits.wait(X, 0, 5, 3, 10.0, answers.append)
    assert answers == [AcknowledgementResult(2, reached=True), AcknowledgementResult(2, reached=False)]
    assert waits.waiting == 0
    assert waits.next_deadline is None


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("wait"), st.integers(1, 300), st.integers(0, 1000)),
            st.tuples(st.just("hold"), st.integers(1, 300), st.just(0)),
            st.tuples(st.just("time"), st.integers(0, 20), st.just(0)),
        ),
        max_size=300,
    ),
    st.integers(1, 50),
)
def test_settled_waits_take_no_room_and_each_is_settled_once(steps: list[tuple[str, int, int]], repeat: int) -> None:
    world, now = World([0]), 0.0
    waits = Acknowledgements(world.count)
    answers: dict[int, list[AcknowledgementResult]] = {}
    for kind, number, deadline in steps:
        if kind == "wait":
            for _ in range(repeat):
                answered = answers.setdefault(len(answers), [])
                waits.wait(X, 0, number, 2, now + deadline, answered.append)
        elif kind == "hold":
            world.nexts = [max(number, world.nexts[0])]
            waits.held_more([X])
        else:
            now += number
            waits.advance(now)
        assert all(len(answered) <= 1 for answered in answers.values())
        live = sum(not answered for answered in answers.values())
        assert waits.waiting == live
        assert len(waits._deadlines) <= 2 * live + LEAST_SETTLED_TO_SWEEP + 1
        assert (waits.next_deadline is None) == (live == 0)
    waits.end_all()
    assert all(len(answered) == 1 for answered in answers.values())


def test_one_wait_that_lasts_keeps_nothing_that_is_settled() -> None:
    world = World([0])
    waits = Acknowledgements(world.count)
    waits.wait(X, 0, 10**9, 2, 300.0, lambda _: None)
    for number in range(10_000):
        waits.wait(X, 0, number + 1, 2, 300.0 + number, lambda _: None)
        world.nexts = [number + 1]
        waits.held_more([X])
    assert waits.waiting == 1
    assert len(waits._deadlines) <= LEAST_SETTLED_TO_SWEEP + 2
