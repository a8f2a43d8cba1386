"""When a log that has no room takes records again."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from proglog_trio.log.room import MAX_LOOKS_LEFT_OUT, Room

MEBIBYTE = 1 << 20


def test_the_reserve_is_kept_by_looking() -> None:
    room = Room(256 * MEBIBYTE)
    assert not room.looked(256 * MEBIBYTE)
    assert room.looked(256 * MEBIBYTE - 1)
    assert room.reason == (
        "the log takes no more records since less than 256 MiB are free on its disk; it goes on when there is room"
    )
    assert not room.looked(256 * MEBIBYTE), "not at the very edge, where it would end again at once"
    assert room.looked(280 * MEBIBYTE)
    assert room.reason is None


@pytest.mark.parametrize("reserve", [0, 1000])
def test_what_did_not_fit_is_waited_for(reserve: int) -> None:
    room = Room(reserve)
    room.failed("a write failed", 500)
    assert not room.looked(499 + reserve)
    assert room.looked(500 + reserve + reserve // 16)
    assert room.reason is None


def test_a_disk_that_says_it_has_room_and_refuses_is_tried_more_and_more_rarely() -> None:
    """A quota, a disk without inodes, a limit of the file's size."""
    room = Room()
    looks = []
    for _ in range(12):
        room.failed("a write failed", 10)
        count = 1
        while not room.looked(1 << 40):
            count += 1
        looks.append(count)
    assert looks[:5] == [1, 2, 4, 8, 16]
    assert looks[-1] == MAX_LOOKS_LEFT_OUT + 1
    room.written()
    room.failed("a write failed", 10)
    assert room.looked(1 << 40), "it did write meanwhile"


@given(st.lists(st.one_of(st.integers(0, 5000), st.just("fails"), st.just("written"))))
def test_what_has_ended_stays_ended(steps: list[int | str]) -> None:
    room = Room(1000)
    room.failed("a write failed", 1)
    room.ends("a sync failed")
    for step in steps:
        if step == "fails":
            room.failed("a write failed", 1)
        elif step == "written":
            room.written()
        else:
            assert not room.looked(int(step))
        assert (room.reason, room.is_passing) == ("a sync failed", False)
