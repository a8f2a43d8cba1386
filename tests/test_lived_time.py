from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.lived_time import MAX_IN_A_ROW, LivedTime

READINGS = st.lists(
    st.one_of(st.sampled_from([0.0, 0.001, 0.1, 1.0, 1e6, 1e9, -5.0]), st.floats(-1, 1e10)), max_size=60
)


def test_a_pause_does_not_count_nor_does_a_moment_after_it() -> None:
    time = LivedTime(10.0, patience=0.25, grace=0.5)
    assert time.advance(10.5, due=11.0) == 0.0
    assert time.advance(3600.0, due=11.0) == 3589.5
    assert time.now == 10.5
    assert time.reading_of(11.0) == 3601.0
    time.advance(3600.4, due=11.0)
    assert time.now == 10.5
    time.advance(3600.75, due=11.0)
    assert time.now == 10.75
    assert (time.pauses, time.paused) == (1, 3590.0)


def test_what_is_a_little_late_is_no_pause() -> None:
    time = LivedTime(0.0, patience=0.25, grace=0.5)
    assert time.advance(1.25, due=1.0) == 0.0
    assert time.now == 1.25


def test_nothing_was_due_so_nothing_was_late() -> None:
    time = LivedTime(0.0, patience=0.25)
    assert time.advance(1e9, due=None) == 0.0
    assert time.now == 1e9


def test_a_clock_that_goes_back_stands() -> None:
    time = LivedTime(5.0)
    assert time.advance(1.0, due=2.0) == 0.0
    assert time.now == 5.0


def test_a_loop_that_is_always_late_gets_on() -> None:
    time = LivedTime(0.0, patience=0.25, grace=0.25)
    due = 0.0
    for number in range(100):
        time.advance(10.0 * number + 10.0, due + 0.1)
        if time.now >= due + 0.1:
            due += 0.1
    assert due >= 0.1 * (100 // (MAX_IN_A_ROW + 1))


@given(
    READINGS,
    st.sampled_from([0.0, 0.1, 2.5, math.inf]),
    st.sampled_from([0.0, 0.1, 2.5]),
    st.sampled_from([0.0, 0.05, 1.0, 40.0]),
)
def test_whatever_the_clock_does(steps: list[float], patience: float, grace: float, period: float) -> None:
    """Lived time never goes back, is never ahead of the clock, and what is due comes when its reading has."""
    time = LivedTime(100.0, patience, grace)
    reading, furthest, due = 100.0, 100.0, 100.0 + period
    for step in steps:
        reading += step
        furthest = max(reading, furthest)
        before, wanted = time.now, time.reading_of(due)
        lost = time.advance(reading, due)
        assert before <= time.now
        assert lost >= 0.0
        assert lost == 0.0 or reading > wanted + patience - 1e-3
        if not lost and reading >= wanted:
            assert time.now >= due
        if time.now >= due:
            due = time.now + period
        assert time.reading_of(time.now + period) - time.paused >= time.now + period
        assert time.now + time.paused <= furthest + grace + 1e-3
