from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.client.observed_times import APART, MAX_OBSERVED, ObservedTimes
from proglog_trio.log.format.clock import HybridClock, from_milliseconds, is_too_far_ahead

NOON = 1_700_000_000_000
SKEWS = st.integers(-90_000, 50_000) | st.sampled_from([10 * 60_000, 3_600_000, 365 * 86_400_000])


def test_the_greatest_is_asked_for() -> None:
    observed = ObservedTimes()
    assert observed.greatest() == 0
    for time in (5, 77, 6):
        observed.add(time)
    assert observed.greatest() == 77


@given(st.lists(SKEWS, max_size=12))
def test_a_clock_that_lies_spoils_no_honest_cause_for_long(skews: list[int]) -> None:
    """After one answer for each lie, what is sent is later than every cause that the node's clock can follow."""
    observed, clock = ObservedTimes(), HybridClock()
    times = [from_milliseconds(NOON + skew) for skew in skews]
    for time in times:
        observed.add(time)
    for _ in range(len(skews) + 1):
        asked = observed.greatest()
        log_time = clock.tick(NOON, asked)
        observed.answered(asked, log_time)
    assert log_time > max((time for time in times if not is_too_far_ahead(time + APART, NOON)), default=0)
    observed.moved()
    assert not times or observed.greatest() == max(times)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1))
def test_it_is_bounded_and_keeps_the_greatest(times: list[int]) -> None:
    observed = ObservedTimes()
    for time in times:
        observed.add(time)
    assert observed.greatest() == max(times)
    assert len(observed._times) <= MAX_OBSERVED


@pytest.mark.parametrize("wrong", [-1, 2**64])
def test_what_is_no_log_time_is_said_at_once(wrong: int) -> None:
    with pytest.raises(ValueError, match="is no log time"):
        ObservedTimes().add(wrong)
