from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.membership.swim import broadcasts as broadcasts_module
from proglog_trio.membership.swim.broadcasts import BroadcastQueue, retransmit_limit


@pytest.mark.parametrize(
    ("multiplier", "members", "limit"),
    [(4, 1, 4), (4, 9, 4), (4, 10, 8), (4, 99, 8), (4, 100, 12), (2, 1000, 8), (4, 0, 0)],
)
def test_the_limit(multiplier: int, members: int, limit: int) -> None:
    assert retransmit_limit(multiplier, members) == limit


def test_each_is_sent_up_to_the_limit() -> None:
    queue, finished = BroadcastQueue(2), list[str]()
    queue.add(b"abc", "x", lambda: finished.append("x"))
    assert queue.for_packet(5, 2, 100) == [b"abc"]
    assert finished == []
    assert queue.for_packet(5, 2, 100) == [b"abc"]
    assert finished == ["x"]
    assert queue.for_packet(5, 2, 100) == []
    assert len(queue) == 0


def test_a_newer_one_replaces_an_older_one_about_the_same() -> None:
    queue, finished = BroadcastQueue(2), list[str]()
    queue.add(b"old", "x", lambda: finished.append("old"))
    queue.add(b"none")
    queue.add(b"none")
    queue.for_packet(5, 2, 100)
    queue.add(b"new", "x", lambda: finished.append("new"))
    assert finished == ["old"]
    assert len(queue) == 3
    assert queue.for_packet(5, 2, 5) == [b"new"]


def test_fewest_sent_first_then_large_then_new() -> None:
    queue = BroadcastQueue(4)
    for message in (b"a", b"bb", b"c", b"dddd"):
        queue.add(message)
    assert queue.for_packet(5, 0, 8) == [b"dddd", b"bb", b"c", b"a"]
    queue.add(b"e")
    assert queue.for_packet(5, 0, 8) == [b"e", b"dddd", b"bb", b"c"]


def test_what_does_not_fit_waits_and_smaller_ones_go() -> None:
    queue = BroadcastQueue(4)
    for message in (b"x" * 50, b"y" * 30, b"z" * 5):
        queue.add(message)
    assert queue.for_packet(5, 2, 40) == [b"y" * 30, b"z" * 5]
    assert queue.for_packet(5, 2, 6) == []
    assert queue.for_packet(5, 2, 0) == []
    assert queue.for_packet(5, 2, 60) == [b"x" * 50, b"z" * 5]


def test_a_full_queue_drops_what_was_sent_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcasts_module, "MAX_BROADCASTS", 3)
    queue, finished = BroadcastQueue(4), list[str]()
    for name in ("a", "b"):
        queue.add(name.encode(), name, lambda name=name: finished.append(name))  # type: ignore[misc]  # str
    queue.for_packet(5, 0, 1)
    for name in ("c", "d"):
        queue.add(name.encode(), name, lambda name=name: finished.append(name))  # type: ignore[misc]  # str
    assert len(queue) == 3
    assert queue.dropped == 1
    assert finished == ["b"]
    queue.add(b"again", "b")
    assert len(queue) == 3


@st.composite
def steps(draw: st.DrawFn) -> list[tuple[bytes, str | None] | tuple[int, int, int]]:
    add = st.tuples(st.binary(max_size=12), st.sampled_from([None, "a", "b", "c"]))
    take = st.tuples(st.integers(0, 120), st.integers(0, 3), st.integers(0, 40))
    return draw(st.lists(st.one_of(add, take), max_size=60))


@given(steps(), st.integers(1, 4))
def test_against_a_naive_model(done: list[tuple[bytes, str | None] | tuple[int, int, int]], multiplier: int) -> None:
    queue, finished = BroadcastQueue(multiplier), list[int]()
    model: list[tuple[int, int, int, bytes, str | None]] = []  # transmits, -length, -number, message, subject
    expected_finished: list[int] = []
    for number, step in enumerate(done):
        if len(step) == 2:
            message, subject = step
            queue.add(message, subject, lambda number=number: finished.append(number))  # type: ignore[misc]  # int
            replaced = [entry for entry in model if subject is not None and entry[4] == subject]
            expected_finished += [-entry[2] for entry in replaced]
            model = [entry for entry in model if entry not in replaced]
            model.append((0, -len(message), -number, message, subject))
        else:
            members, overhead, room = step
            taken = []
            for entry in sorted(model, key=lambda entry: entry[:3]):
                if room > overhead and overhead + len(entry[3]) <= room:
                    room -= overhead + len(entry[3])
                    taken.append(entry)
            assert queue.for_packet(members, overhead, step[2]) == [entry[3] for entry in taken]
            model = [entry for entry in model if entry not in taken]
            for entry in taken:
                if entry[0] + 1 < retransmit_limit(multiplier, members):
                    model.append((entry[0] + 1, *entry[1:]))
                else:
                    expected_finished.append(-entry[2])
        assert len(queue) == len(model)
        assert finished == expected_finished
