from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.membership.serf.seen import MAX_AT_ONE_TIME, MAX_BYTES, RING_SIZE, RecentRing


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 3)), max_size=300))
def test_what_is_within_the_window_is_taken_once(items: list[tuple[int, int]]) -> None:
    ring: RecentRing[int] = RecentRing()
    clock = 1
    seen: set[tuple[int, int]] = set()
    for time, item in items:
        clock = max(clock, time + 1)
        new = ring.add(time, item, clock)
        if clock > RING_SIZE and time < clock - RING_SIZE:
            assert not new
        else:
            assert new == ((time, item) not in seen)
            seen.add((time, item))


def test_history_is_not_taken() -> None:
    ring: RecentRing[int] = RecentRing(lowest=5)
    assert not ring.add(4, 1, 10)
    assert ring.add(5, 1, 10)
    assert list(ring.items()) == [(5, [1])]


def test_one_time_holds_a_bounded_number() -> None:
    ring: RecentRing[int] = RecentRing()
    assert [ring.add(7, item, 8) for item in range(MAX_AT_ONE_TIME + 3)].count(True) == MAX_AT_ONE_TIME


def test_the_oldest_go_when_there_are_too_many_bytes_and_do_not_come_again() -> None:
    ring: RecentRing[bytes] = RecentRing(len)
    size = MAX_BYTES // 4
    for time in range(1, 5):
        assert ring.add(time, bytes(size), time + 1)
    assert ring.add(5, b"x", 6)
    assert [time for time, _ in ring.items()] == [2, 3, 4, 5]
    assert not ring.add(1, bytes(size), 6)
    assert not ring.add(6, bytes(MAX_BYTES + 1), 7)
    assert ring.add(600, bytes(size), 601)


def test_bytes_are_given_back_when_a_place_is_used_again() -> None:
    ring: RecentRing[bytes] = RecentRing(len)
    for time in range(1, 40):
        assert ring.add(time * RING_SIZE, bytes(MAX_BYTES), time * RING_SIZE + 1)
    assert ring._bytes == MAX_BYTES
