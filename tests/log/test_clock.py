from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.log.clock import HybridClock, from_milliseconds, is_too_far_ahead, to_milliseconds

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
            assert given_out > max(last, time)
            assert given_out >= from_milliseconds(wall)
            last = given_out
        else:
            clock.witness(time, wall)
            if not is_too_far_ahead(time, wall):
                last = max(last, time)
        assert clock.high_mark >= last


def test_times_too_far_ahead_are_counted_and_not_followed() -> None:
    clock = HybridClock()
    clock.witness(from_milliseconds(160_000), 100_000)
    assert to_milliseconds(clock.high_mark) == 160_000
    clock.witness(from_milliseconds(160_001), 100_000)
    assert (to_milliseconds(clock.high_mark), clock.too_far_ahead) == (160_000, 1)
