"""What a peer gets that asks for frames by sequence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.stored_frame import StoredFrame
from proglog_trio.log.frame_lookup import FoundFrames
from tests.log.driving import OpenLog, batch_of
from tests.log.repairing import CONFIG, Written, write_log

WRITTEN = write_log()
ORIGINS = sorted(WRITTEN.log.origins)


def overlapping(written: Written, origin: Origin, first: int, following: int) -> list[StoredFrame]:
    return [
        frame
        for frame in written.frames.values()
        if frame.header.origin == origin
        and frame.header.base_sequence < following
        and frame.header.next_sequence > first
    ]


def everything(written: Written, origin: Origin, first: int, following: int, max_bytes: int) -> list[bytes]:
    """Ask again and again, as a peer does."""
    frames: list[bytes] = []
    cursor = first
    while cursor < following:
        found: FoundFrames = written.log.frames(origin, cursor, following, max_bytes)
        assert found.next_sequence > cursor
        assert len(found.frames) <= 1 or sum(map(len, found.frames)) <= max_bytes
        frames += found.frames
        cursor = found.next_sequence
    return frames


@given(
    origin=st.sampled_from(ORIGINS),
    first=st.integers(0, 30),
    count=st.integers(0, 30),
    size=st.sampled_from([1, 300, 9999]),
)
def test_whole_frames_of_a_range(origin: Origin, first: int, count: int, size: int) -> None:
    expected = [frame.data for frame in overlapping(WRITTEN, origin, first, first + count)]
    assert everything(WRITTEN, origin, first, first + count, size) == (expected if count else [])
    assert not WRITTEN.log.damage.places()


def test_damaged_frames_are_left_out_and_reported() -> None:
    for victim in list(WRITTEN.frames.values()):
        written = write_log()
        log = written.log
        files = log.catalog.containing(victim.base_offset)
        written.disk.flip(files.store, victim.end - 1, 0x04)
        origin = victim.header.origin
        found = everything(written, origin, 0, log.origins[origin].next, 500)
        assert found == [
            frame.data for frame in overlapping(written, origin, 0, 1 << 60) if frame.base_offset != victim.base_offset
        ]
        (damage,) = log.damage.places()
        assert damage.sequences == (origin, victim.header.base_sequence, victim.header.next_sequence)


@pytest.mark.parametrize("with_index", [False, True])
def test_lost_segments_are_passed_over(with_index: bool) -> None:
    written = write_log()
    files, following = written.closed[1], written.closed[2]
    written.disk.delete(files.store)
    if with_index:
        written.disk.delete(files.index)
    written.log.catalog._loaded.clear()
    for origin in ORIGINS:
        assert everything(written, origin, 0, 100, 500) == [
            frame.data
            for frame in overlapping(written, origin, 0, 100)
            if not files.base_offset <= frame.base_offset < following.base_offset
        ]


def test_unknown_origin_and_empty_range() -> None:
    assert WRITTEN.log.frames(Origin(bytes(16)), 0, 10, 100) == FoundFrames([], 10)
    assert WRITTEN.log.frames(ORIGINS[0], 5, 5, 100) == FoundFrames([], 5)


def test_what_is_not_durable_is_not_given() -> None:
    written = write_log()
    log = written.log
    log.append_soon(batch_of(b"not yet"), lambda _: None)
    (own,) = {origin for origin in log._state.origins if origin not in log.origins or origin == log._state.own}
    known = log.origins[own].next if own in log.origins else 0
    assert log.frames(own, known, known + 1, 100).frames == []
    written.opened.commit()
    assert len(log.frames(own, known, known + 1, 100).frames) == 1


def test_after_another_opening() -> None:
    written = write_log()
    written.opened.close()
    opened = OpenLog.open(written.disk, 5, config=CONFIG)
    for origin in ORIGINS:
        found = opened.log.frames(origin, 0, 1 << 40, 1 << 20)
        assert found.frames == [frame.data for frame in overlapping(written, origin, 0, 1 << 40)]
