from __future__ import annotations

from attrs import Factory, define

from proglog_trio.log.origin import Origin
from proglog_trio.replication.acknowledgements import Achieved, Acknowledgements

X = Origin(bytes(16))


@define
class World:
    nexts: list[int] = Factory(list)

    def count(self, _origin: Origin, end: int) -> int:
        return sum(following >= end for following in self.nexts)


def test_a_wait_ends_when_so_many_have_it() -> None:
    world, answers = World([0, 0]), list[Achieved]()
    waits = Acknowledgements(world.count)
    waits.wait(X, 5, 2, 10.0, answers.append)
    world.nexts = [4, 0]
    waits.held_more([X])
    assert not answers
    assert waits.next_deadline == 10.0
    world.nexts = [5, 0]
    waits.held_more([X])
    assert answers == [Achieved(2, reached=True)]
    assert waits.next_deadline is None
    assert waits.waiting == 0


def test_what_is_there_already_is_answered_at_once() -> None:
    answers = list[Achieved]()
    waits = Acknowledgements(World([9, 9]).count)
    waits.wait(X, 5, 3, 10.0, answers.append)
    assert answers == [Achieved(3, reached=True)]


def test_a_wait_whose_time_is_up_says_what_was_achieved() -> None:
    world, answers = World([9, 0, 0]), list[Achieved]()
    waits = Acknowledgements(world.count)
    waits.wait(X, 5, 4, 10.0, answers.append)
    waits.advance(9.9)
    assert not answers
    waits.advance(10.0)
    assert answers == [Achieved(2, reached=False)]
    world.nexts = [9, 9, 9]
    waits.held_more([X])
    assert len(answers) == 1


def test_waits_for_different_numbers_of_nodes_do_not_hold_each_other_up() -> None:
    world, answers = World([0, 0]), dict[str, Achieved]()
    waits = Acknowledgements(world.count)
    waits.wait(X, 5, 3, 10.0, lambda achieved: answers.update(all=achieved))
    waits.wait(X, 6, 2, 5.0, lambda achieved: answers.update(two=achieved))
    world.nexts = [6, 0]
    waits.held_more([X])
    assert answers == {"two": Achieved(2, reached=True)}
    assert waits.next_deadline == 10.0
    waits.end_all()
    assert answers["all"] == Achieved(2, reached=False)
    assert waits.next_deadline is None


def test_after_the_end_nothing_waits() -> None:
    """A batch may be committed after all waits were ended: nobody would hear of other nodes, and no time would pass."""
    answers = list[Achieved]()
    waits = Acknowledgements(World([9, 0]).count)
    waits.end_all()
    waits.wait(X, 5, 2, 10.0, answers.append)
    waits.wait(X, 5, 3, 10.0, answers.append)
    assert answers == [Achieved(2, reached=True), Achieved(2, reached=False)]
    assert waits.waiting == 0
    assert waits.next_deadline is None
