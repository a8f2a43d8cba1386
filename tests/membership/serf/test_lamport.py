from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.membership.serf.lamport import HIGHEST_LAMPORT_TIME, LamportClock


def test_a_clock_begins_at_one_and_ticks() -> None:
    clock = LamportClock()
    assert clock.time == 1
    assert clock.tick() == 2
    clock.witness(1)
    assert clock.time == 2
    clock.witness(2)
    assert clock.time == 3
    clock.witness(40)
    assert clock.time == 41


@given(st.lists(st.one_of(st.none(), st.integers(0, HIGHEST_LAMPORT_TIME))))
def test_a_clock_never_goes_back_and_stays_above_what_it_saw(times: list[int | None]) -> None:
    clock = LamportClock()
    for time in times:
        before = clock.time
        if time is None:
            assert clock.tick() == min(before + 1, HIGHEST_LAMPORT_TIME)
        else:
            clock.witness(time)
            assert clock.time >= before
            assert clock.time > time or clock.time == HIGHEST_LAMPORT_TIME
