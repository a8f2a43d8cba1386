from __future__ import annotations

from typing import cast

from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.log.format.clock import FURTHEST_AHEAD_MILLISECONDS, LATEST_MILLISECONDS
from proglog_trio.replication.events import PeerClockChanged
from proglog_trio.replication.local_node import LocalNode
from proglog_trio.replication.peers.peer_clocks import (
    FRESH_SECONDS,
    OFF_MILLISECONDS,
    RIGHT_MILLISECONDS,
    ClockWatch,
    PeerClocks,
)

NOON = 1_700_000_000_000
YEAR = 365 * 86_400_000
SKEWS = st.integers(-60_000, 60_000) | st.integers(-50 * YEAR, 50 * YEAR)


@given(SKEWS, st.floats(0, 3600), st.floats(0, 1))
def test_the_true_difference_lies_within_the_uncertainty(skew: int, took: float, answered: float) -> None:
    clocks = PeerClocks()
    # It read its clock some part of the way before the answer arrived.
    theirs = NOON - int(took * answered * 1000) + skew
    clocks.answered("b", theirs, NOON, took, 5.0)
    reading = clocks.reading_of("b", 5.0)
    assert reading is not None
    assert abs(reading.ahead - skew) <= reading.uncertainty


@given(st.lists(st.tuples(SKEWS, st.floats(0, 60)), max_size=20))
def test_it_is_told_once_when_a_clock_is_off_and_once_when_it_is_right_again(
    answers: list[tuple[int, float]],
) -> None:
    clocks = PeerClocks()
    is_off = False
    for number, (skew, took) in enumerate(answers):
        change = clocks.answered("b", NOON + skew - int(took * 500), NOON, took, float(number))
        if change is not None:
            assert change.is_off is not is_off
            is_off = change.is_off
        assert clocks.is_off("b") is is_off
        if abs(skew) - took * 1000 - 3 > OFF_MILLISECONDS:
            assert is_off
        if abs(skew) + took * 1000 + 3 < RIGHT_MILLISECONDS:
            assert not is_off
        if number % 3 == 0:
            clocks.disconnected("b")


def test_what_a_peer_says_is_neither_kept_for_ever_nor_believed_beyond_reason() -> None:
    clocks = PeerClocks()
    assert isinstance(clocks.answered("b", 2**64 - 1, NOON, -1.0, 0.0), PeerClockChanged)
    reading = clocks.reading_of("b", 0.0)
    assert reading is not None
    assert reading.ahead <= LATEST_MILLISECONDS
    assert clocks.reading_of("b", FRESH_SECONDS + 1) is None
    clocks.disconnected("b")
    assert clocks.reading_of("b", 0.0) is None
    assert clocks.is_off("b"), "so that it is not told again with each connection"
    clocks.forget("b")
    assert not clocks.is_off("b")


@given(st.lists(SKEWS, max_size=7))
def test_most_must_agree(skews: list[int]) -> None:
    clocks = PeerClocks()
    for number, skew in enumerate(skews):
        clocks.answered(f"n{number}", NOON + skew, NOON, 0.0, 0.0)
    near = sum(abs(skew) < FURTHEST_AHEAD_MILLISECONDS - 5 for skew in skews)
    far = sum(abs(skew) > FURTHEST_AHEAD_MILLISECONDS + 5 for skew in skews)
    if near > len(skews) - near:
        assert clocks.confirm_mine(1.0)
    if far * 2 >= len(skews):
        assert not clocks.confirm_mine(1.0)
    assert not clocks.confirm_mine(FRESH_SECONDS + 1)


@given(st.floats(0, 3600))
def test_how_long_an_answer_took_is_known_to_2_ms(took: float) -> None:
    node = cast("LocalNode", Clock())
    watch = ClockWatch(node)
    assert watch.round_trip_to("b") is None
    watch.peers.answered("b", NOON, NOON, took, 0.0)
    known = watch.round_trip_to("b")
    assert known is not None
    assert known <= took < known + 0.002001


@frozen
class Clock:
    """A node that has a clock and nothing else."""

    def clock(self) -> float:
        return 1.0
