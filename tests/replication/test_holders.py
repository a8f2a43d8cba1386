from __future__ import annotations

from collections.abc import Collection

from proglog_trio.log.origin import Origin
from proglog_trio.replication.holders import MOST_HOLDERS, Holders
from proglog_trio.replication.messages import HolderNews

ME, A, B = b"me------", b"a-------", b"b-------"
X, Y = Origin(bytes(15) + b"x"), Origin(bytes(15) + b"y")


def holders() -> tuple[Holders, list[tuple[bytes, list[Origin]]]]:
    told: list[tuple[bytes, list[Origin]]] = []

    def note(directory_id: bytes, origins: Collection[Origin]) -> None:
        told.append((directory_id, list(origins)))

    return Holders(ME, note), told


def test_what_a_holder_has_only_grows_within_one_opening() -> None:
    known, told = holders()
    known.learn(A, 1, {X: 5, Y: 1})
    known.learn(A, 1, {X: 3, Y: 2})
    assert told == [(A, [X, Y]), (A, [Y])]
    assert known.count(X, 5, {A, B}) == 1
    assert known.count(X, 6, {A, B}) == 0


def test_a_later_opening_replaces_what_was_said_of_an_earlier_one_and_never_the_other_way_round() -> None:
    known, _ = holders()
    known.learn(A, 2, {X: 5})
    known.learn(A, 3, {X: 1})
    assert known.count(X, 2, {A}) == 0
    known.learn(A, 2, {X: 9})
    assert known.count(X, 2, {A}) == 0


def test_only_living_disks_count_and_never_my_own() -> None:
    known, told = holders()
    known.learn(ME, 9, {X: 100})
    assert not told
    known.learn(A, 1, {X: 5})
    known.learn(B, 1, {X: 5})
    assert known.count(X, 5, {A, B, ME}) == 2
    assert known.count(X, 5, {B}) == 1


def test_news_names_only_what_is_asked_for() -> None:
    known, _ = holders()
    known.learn(A, 7, {X: 5, Y: 2})
    assert known.news_of(A, {Y}) == HolderNews(A, 7, {Y: 2})
    assert known.news_of(B, {Y}) is None
    known.forget_origins([Y])
    assert known.news_of(A, {Y}) is None
    known.forget(A)
    assert list(known.known()) == []


def test_the_number_of_holders_is_bounded() -> None:
    known, _ = holders()
    for number in range(MOST_HOLDERS + 10):
        known.learn(number.to_bytes(8, "big"), 1, {X: 1})
    assert len(tuple(known.known())) == MOST_HOLDERS
