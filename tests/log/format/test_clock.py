from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from proglog_trio.log.format.clock import (
    FURTHEST_AHEAD_MILLISECONDS,
    HybridClock,
    from_milliseconds,
    is_too_far_ahead,
    to_milliseconds,
)

MILLISECONDS = st.integers(0, 2**40)


@given(MILLISECONDS)
def test_units(milliseconds: int) -> None:
    assert to_milliseconds(from_milliseconds(milliseconds)) == milliseconds
    assert to_milliseconds(from_milliseconds(milliseconds) + 0xFFFF) == milliseconds
    assert to_milliseconds(from_milliseconds(milliseconds) + 0x10000) == milliseconds + 1


@given(st.lists(st.tuples(st.sampled_from(["tick", "witness"]), MILLISECONDS, MILLISECONDS), max_size=30))
def test_times_only_grow(steps: list[tuple[str, int, int]]) -> None:
    clock = HybridClock()
    last = -1
    for what, wall, other in steps:
        time = from_milliseconds(other)
        if what == "tick":
            given_out = clock.tick(wall, time)
            assert given_out > last
            assert given_out > time or is_too_far_ahead(time, wall)
            assert given_out >= from_milliseconds(wall)
            last = given_out
        else:
            clock.witness(time, wall)
            if not is_too_far_ahead(time, wall):
                last = max(last, time)
        assert clock.high_mark >= last


WALLS = st.integers(-(2**62), 2**66) | MILLISECONDS
LOG_TIMES = st.integers(0, 2**64 - 1)


@example([("recall", 0, 2**64 - 1), ("tick", 0, 0)])
@given(st.lists(st.tuples(st.sampled_from(["tick", "witness", "recall"]), WALLS, LOG_TIMES), max_size=30))
def test_whatever_clocks_say_a_time_can_be_given_out(steps: list[tuple[str, int, int]]) -> None:
    clock = HybridClock()
    last = -1
    for what, wall, time in steps:
        if what == "tick":
            given_out = clock.tick(wall, time)
            assert last < given_out < 2**63 + 2**48
            last = given_out
        elif what == "witness":
            clock.witness(time, wall)
        else:
            clock.recall(time)


@given(MILLISECONDS, st.lists(LOG_TIMES, max_size=20))
def test_nobody_moves_the_clock_far_beyond_the_wall_clock(wall: int, times: list[int]) -> None:
    clock = HybridClock()
    for time in times:
        clock.witness(time, wall)
        clock.tick(wall, time)
    assert clock.ahead(wall) <= FURTHEST_AHEAD_MILLISECONDS + 1
    assert clock.too_far_ahead == 2 * sum(is_too_far_ahead(time, wall) for time in times)


def test_times_too_far_ahead_are_counted_and_not_followed() -> None:
    clock = HybridClock()
    clock.witness(from_milliseconds(160_000), 100_000)
    assert to_milliseconds(clock.high_mark) == 160_000
    clock.witness(from_milliseconds(160_001), 100_000)
    assert (to_milliseconds(clock.high_mark), clock.too_far_ahead) == (160_000, 1)
