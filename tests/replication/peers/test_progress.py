from __future__ import annotations

from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.log.format.origin import Origin
from proglog_trio.replication.messages import HolderNews
from proglog_trio.replication.peers import progress as progress_module
from proglog_trio.replication.peers.progress import MAX_HOLDERS, ProgressTracker

ME, A, B = b"me------", b"a-------", b"b-------"
X, Y = Origin(bytes(15) + b"x"), Origin(bytes(15) + b"y")


def holders() -> tuple[ProgressTracker, list[tuple[bytes, list[Origin]]]]:
    told: list[tuple[bytes, list[Origin]]] = []

    def note(directory_id: bytes, origins: Collection[Origin]) -> None:
        told.append((directory_id, list(origins)))

    return ProgressTracker(ME, note), told


def test_what_a_holder_has_only_grows_within_one_opening() -> None:
    known, told = holders()
    known.learn(A, 1, {X: 5, Y: 1})
    known.learn(A, 1, {X: 3, Y: 2})
    assert told == [(A, [X, Y]), (A, [Y])]
    assert known.count(X, 0, 5, {A, B}) == 1
    assert known.count(X, 0, 6, {A, B}) == 0


def test_a_later_opening_replaces_what_was_said_of_an_earlier_one_and_never_the_other_way_round() -> None:
    known, _ = holders()
    known.learn(A, 2, {X: 5})
    known.learn(A, 3, {X: 1})
    assert known.count(X, 0, 2, {A}) == 0
    known.learn(A, 2, {X: 9})
    assert known.count(X, 0, 2, {A}) == 0


def test_only_living_disks_count_and_never_my_own() -> None:
    known, told = holders()
    known.learn(ME, 9, {X: 100})
    assert not told
    known.learn(A, 1, {X: 5})
    known.learn(B, 1, {X: 5})
    assert known.count(X, 0, 5, {A, B, ME}) == 2
    assert known.count(X, 0, 5, {B}) == 1


def test_news_names_only_what_is_asked_for() -> None:
    known, _ = holders()
    known.learn(A, 7, {X: 5, Y: 2})
    assert known.news_of(A, {Y}) == HolderNews(A, 7, {Y: 2})
    assert known.news_of(B, {Y}) is None
    known.forget_origins([Y])
    assert known.news_of(A, {Y}) is None
    known.forget(A)
    assert list(known.known()) == []


def _id(number: int) -> bytes:
    return number.to_bytes(8, "big")


def test_a_new_holder_takes_the_place_of_the_one_that_is_gone_longest() -> None:
    living = {_id(0)}
    known = ProgressTracker(ME, lambda _directory_id, _origins: None, lambda: living)
    for number in range(MAX_HOLDERS):
        known.learn(_id(number), 1, {X: 1})
    known.learn(_id(1), 1, {X: 2})  # heard of again
    for number in range(MAX_HOLDERS, MAX_HOLDERS + 10):
        known.learn(_id(number), 1, {X: 1})
        living.add(_id(number))
    assert len(tuple(known.known())) == MAX_HOLDERS == known.entries
    assert known.count(X, 0, 1, living) == 11
    assert {_id(number) for number in range(2, 12)}.isdisjoint(known.known())
    assert _id(1) in known.known()


def test_where_all_are_alive_the_one_that_was_silent_longest_makes_room() -> None:
    known = ProgressTracker(ME, lambda _directory_id, _origins: None, lambda: [_id(number) for number in range(10_000)])
    for number in range(MAX_HOLDERS + 1):
        known.learn(_id(number), 1, {X: 1})
    assert set(known.known()) == {_id(number) for number in range(1, MAX_HOLDERS + 1)}


_news = st.tuples(
    st.integers(0, 9), st.integers(1, 2), st.dictionaries(st.integers(0, 39), st.integers(1, 9), max_size=40)
)


@given(st.lists(st.one_of(_news, st.sets(st.integers(0, 9), max_size=5)), max_size=40))
def test_what_is_kept_is_bounded_and_the_living_are_heard(
    steps: list[tuple[int, int, dict[int, int]] | set[int]],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress_module, "MAX_HOLDERS", 6)
        patch.setattr(progress_module, "MAX_ORIGINS", 30)
        patch.setattr(progress_module, "MAX_ENTRIES", 100)
        living: set[bytes] = set()
        known = ProgressTracker(ME, lambda _directory_id, _origins: None, lambda: living)
        for step in steps:
            if isinstance(step, set):
                living = {_id(number) for number in step}
                continue
            number, opened, told = step
            before = known._holders.get(_id(number))
            nexts = {Origin(_id(0) + _id(origin)): following for origin, following in told.items()}
            known.learn(_id(number), opened, nexts)
            holder = known._holders[_id(number)]
            assert len(known._holders) <= 6
            assert known.entries == sum(len(each.nexts) for each in known._holders.values()) <= 100
            assert len(holder.nexts) <= 30
            if before is not None and opened < before.opened:
                continue
            missing = {origin for origin in nexts if origin not in holder.nexts}
            if missing:
                # It has all that one may have, or a share as large as that of any node that is alive.
                most = max(len(each.nexts) for each in known._holders.values())
                assert len(holder.nexts) == 30 or len(holder.nexts) >= most - 1
            else:
                assert all(known.count(origin, 0, nexts[origin], {_id(number)}) == 1 for origin in nexts)


def test_those_who_are_gone_make_room_for_the_origins_of_the_living(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "MAX_ENTRIES", 1000)
    origins = {Origin(_id(0) + _id(number)): 1 for number in range(150)}
    living = {A}
    known = ProgressTracker(ME, lambda _directory_id, _origins: None, lambda: living)
    for number in range(40):
        known.learn(_id(number), 1, origins)
        assert known.entries <= 1000
    known.learn(A, 1, origins)
    assert sum(known.count(origin, 0, 1, living) for origin in origins) == len(origins)


def test_what_one_holder_forgets_others_still_have() -> None:
    known, _ = holders()
    known.learn(A, 1, {X: 5, Y: 1}, {X: ((1, 2),)})
    known.learn(B, 1, {X: 5})
    known.forget_origins([X], A)
    assert known.entries == 2
    assert (known.count(X, 0, 1, {A, B}), known.count(Y, 0, 1, {A, B})) == (1, 1)
    known.forget_origins([X], ME)
    assert known.entries == 2
