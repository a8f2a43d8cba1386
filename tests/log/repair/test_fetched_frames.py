"""Frames of peers: each sound, and each following from what stands around it."""

from __future__ import annotations

import pytest
from attrs import evolve

from proglog_trio.errors import FrameError
from proglog_trio.log.format.checksum import crc32c
from proglog_trio.log.format.frame import Frame
from proglog_trio.log.format.gap_marker import GapMarker
from proglog_trio.log.format.record import pack_values
from proglog_trio.log.repair.fetched_frames import FRAME_OVERHEAD_BYTES, MAX_VERSIONS, FetchedFrames
from proglog_trio.log.repair.missing_ranges import Piece, Stretch
from tests.log.driving import NOON, ForeignLog, batch_of


def chain(count: int) -> list[Frame]:
    foreign = ForeignLog.make(3)
    return [foreign.write(batch_of(b"%d" % number, b"twice"), NOON + number) for number in range(count)]


def stretch_of(frames: list[Frame], first: int, following: int) -> Stretch:
    """Return the stretch in which frames[first:following] are missing."""
    left = frames[first - 1].header.header_crc if first else 0
    right = frames[following].header.previous_header_crc if following < len(frames) else None
    pieces = Piece(frames[first].header.base_sequence, frames[following - 1].header.next_sequence, None, -1, 10)
    return Stretch(frames[0].header.origin, left, right, (pieces,))


def forged(frame: Frame, *, more: int = 0, **changes: int) -> Frame:
    """Return a frame that is sound by itself, and is not the one that the origin wrote.

    Args:
        frame: the right one.
        more: how many more records the payload has than the header says.
        changes: log_time, previous_header_crc or count.
    """
    header = frame.header
    count = changes.get("count", header.count)
    payload = pack_values([b"x"] * (count + more))
    header = evolve(
        header,
        count=count,
        log_time=changes.get("log_time", header.log_time),
        previous_header_crc=changes.get("previous_header_crc", header.previous_header_crc),
        payload_length=len(payload),
        payload_crc=crc32c(payload),
    )
    return Frame(header.sealed(), payload)


def fitting(frames: list[Frame], given: list[Frame], first: int, following: int) -> tuple[list[Frame], list[str]]:
    fetched = FetchedFrames()
    for frame in given:
        fetched.add(frame.encode())
    refused: list[str] = []
    chosen = fetched.fitting(stretch_of(frames, first, following), refused)
    return [frame for frame in given if any(each.data == frame.encode() for each in chosen.values())], refused


def test_frames_that_are_not_sound_are_refused() -> None:
    (frame,) = chain(1)
    data = frame.encode()
    fetched = FetchedFrames()
    for broken, words in (
        (data[:-1], "cut off"),
        (data + b"x", "stand behind"),
        (data[:-1] + b"x", "CRC"),
        (b"", "cut off"),
        (GapMarker(frame.header.origin, 0, 3, 0, "why").to_frame(1).encode(), "holds no records"),
        (forged(frame, more=1).encode(), "is not what its header says"),
    ):
        with pytest.raises(FrameError, match=words):
            fetched.add(broken)
    assert fetched.add_all([data[:-1], data, data]) == 1
    assert len(fetched.refused) == 1
    assert fetched.held_bytes == len(data) + FRAME_OVERHEAD_BYTES


def test_what_is_held_is_bounded() -> None:
    frames = chain(3)
    size = len(frames[0].encode()) + FRAME_OVERHEAD_BYTES
    fetched = FetchedFrames(max_bytes=2 * size)
    assert fetched.add_all(frame.encode() for frame in frames) == 2
    assert len(fetched._by_base) == 2, "nothing is kept of one that is not taken"
    versions = [forged(frames[0], log_time=number).encode() for number in range(MAX_VERSIONS + 3)]
    assert FetchedFrames().add_all(versions) == MAX_VERSIONS


@pytest.mark.parametrize("following", [4, 6])
def test_a_whole_stretch(following: int) -> None:
    frames = chain(6)
    chosen, refused = fitting(frames, frames, 1, following)
    assert (chosen, refused) == (frames[1:following], [])


def test_parts_of_a_stretch_that_are_held_from_a_side() -> None:
    frames = chain(8)
    assert fitting(frames, frames[1:3], 1, 6) == (frames[1:3], [])
    assert fitting(frames, frames[4:6], 1, 6) == (frames[4:6], [])
    assert fitting(frames, [frames[1], frames[5]], 1, 6) == ([frames[1], frames[5]], [])
    assert fitting(frames, frames[2:5], 1, 6) == ([], []), "nothing vouches for them"


def test_a_lie_is_not_taken_where_the_next_frame_tells() -> None:
    frames = chain(4)
    lie = forged(frames[2])
    chosen, refused = fitting(frames, [lie], 2, 3)
    assert chosen == []
    assert "does not follow" in refused[0]
    assert fitting(frames, [lie, frames[2]], 2, 3) == ([frames[2]], [])
    # The lie fits from the left, but what it must lead to is there.
    first_lie = forged(frames[1])
    chosen, refused = fitting(frames, [first_lie, frames[2]], 1, 3)
    assert chosen == [frames[2]]
    assert "does not follow" in refused[0]


def test_a_frame_that_does_not_follow_what_is_there() -> None:
    frames = chain(4)
    stranger = forged(frames[1], previous_header_crc=77)
    chosen, refused = fitting(frames, [stranger], 1, 3)
    assert chosen == []
    assert "does not follow the frame that the log has before it" in refused[0]


def test_frames_with_other_bounds() -> None:
    frames = chain(4)
    fetched = FetchedFrames()
    fetched.add(forged(frames[1], count=7).encode())
    refused: list[str] = []
    assert fetched.fitting(stretch_of(frames, 1, 3), refused) == {}
    assert "are one frame at a peer" in refused[0]
