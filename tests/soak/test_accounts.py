import math

from tests.observed.member import Happening, Kind
from tests.observed.notes import Notes
from tests.soak.accounts import FalseFailure, Reach, false_failures, in_words, reach


def notes_of(*happenings: Happening) -> Notes:
    notes = Notes()
    for happening in happenings:
        notes.note(happening)
    return notes


def test_a_false_failure_lasts_until_the_member_is_seen_again_and_is_laid_to_who_declared_it() -> None:
    notes = notes_of(
        Happening(0.0, "a", Kind.JOIN, "x"),
        Happening(1.0, "a", Kind.SUSPECTS, "x"),
        Happening(5.0, "y", Kind.DECLARES_DEAD, "x"),
        Happening(5.0, "y", Kind.FAILED, "x"),
        Happening(5.2, "a", Kind.FAILED, "x"),
        Happening(5.4, "y", Kind.JOIN, "x"),
        Happening(6.2, "a", Kind.JOIN, "x"),
        Happening(9.0, "a", Kind.FAILED, "x"),
    )
    first, second, last = false_failures(notes)
    assert (first.observer, first.declared_by, round(first.seconds, 3)) == ("y", "y", 0.4)
    assert (second.observer, second.declared_by, round(second.seconds, 3)) == ("a", "y", 1.0)
    assert last == FalseFailure("a", "x", math.inf, "")


def test_members_that_only_joined_have_not_failed() -> None:
    assert false_failures(notes_of(Happening(0.0, "a", Kind.JOIN, "x"), Happening(0.1, "a", Kind.JOIN, "x"))) == []


def test_an_event_reaches_some_once_some_twice_and_some_never() -> None:
    notes = notes_of(
        Happening(1.0, "a", Kind.EVENT, "deploy"),
        Happening(1.5, "b", Kind.EVENT, "deploy"),
        Happening(1.7, "b", Kind.EVENT, "deploy"),
        Happening(4.0, "d", Kind.EVENT, "deploy"),
        Happening(1.9, "c", Kind.EVENT, "other"),
    )
    assert reach(notes, "deploy", 0.5, ["a", "b", "c", "d"]) == Reach(
        3.5, frozenset("d"), frozenset("c"), frozenset("b")
    )
    assert reach(notes, "unknown", 0.5, ["a"]) == Reach(0.0, frozenset(), frozenset("a"), frozenset())


def test_values_in_words() -> None:
    assert in_words([]) == "none"
    assert in_words([3.0, 1.0, 2.0]) == "median 2.00, 95 % 3.00, highest 3.00"
