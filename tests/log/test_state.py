from __future__ import annotations

import random

import pytest
from attrs import evolve

from proglog_trio.errors import FrameError
from proglog_trio.log.format.clock import from_milliseconds
from proglog_trio.log.format.envelope import EnvelopeKind, Salt
from proglog_trio.log.format.frame import Frame, decode_frame
from proglog_trio.log.format.gap_marker import GapMarker
from proglog_trio.log.format.origin import LAST_EPOCH, Origin
from proglog_trio.log.format.pending_frame import PendingFrame
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.log.producer_table import PROTECTED_MILLISECONDS
from proglog_trio.log.state import LogState
from tests.log.driving import NOON, ForeignLog, batch_of

RNG = random.Random(0)


def new_state() -> LogState:
    return LogState(b"my own d", "cluster")


def frame_of(pending_frame: PendingFrame) -> Frame:
    return decode_frame(b"".join(pending_frame.buffers))


def test_own_frames_are_chained() -> None:
    state = new_state()
    frames = []
    for number in range(3):
        pending_frame, appended = state.append(batch_of(b"a", b"b"), NOON, RNG)
        frame = frame_of(pending_frame)
        assert (appended.base_offset, appended.base_sequence) == (2 * number, 2 * number)
        assert appended.origin == frame.header.origin == state.own
        frames.append(frame)
    assert [frame.header.base_sequence for frame in frames] == [0, 2, 4]
    assert frames[0].header.previous_header_crc == 0
    assert frames[1].header.previous_header_crc == frames[0].header.header_crc
    assert frames[2].header.previous_header_crc == frames[1].header.header_crc
    assert frames[0].header.log_time < frames[1].header.log_time < frames[2].header.log_time


def test_reading_back_gives_the_same_state() -> None:
    state, again = new_state(), new_state()
    foreign = ForeignLog.make(1)
    placed = [state.append(batch_of(b"own", producer_id=3, producer_sequence=1), NOON, RNG)[0]]
    first = foreign.write(batch_of(b"one"))
    placed.append(state.append_foreign(first, first.encode(), NOON))
    skipped = foreign.write(batch_of(b"two"))
    marker = GapMarker(skipped.header.origin, 1, 2, skipped.header.header_crc, "test")
    placed.append(state.append_gap(marker))
    last = foreign.write(batch_of(b"three"))
    placed.append(state.append_foreign(last, last.encode(), NOON))
    for pending_frame in placed:
        again.read_back(pending_frame.kind, pending_frame.base_offset, frame_of(pending_frame), NOON)
    assert again.to_header(Salt(bytes(8)), 0) == state.to_header(Salt(bytes(8)), 0)
    header = state.to_header(Salt(bytes(8)), 0)
    from_header = LogState.of_header(type(header).decode(header.encode()))
    assert from_header.to_header(Salt(bytes(8)), 0) == header
    assert from_header.own is None
    assert state.origins[last.header.origin].gaps == ((1, 2),)


def test_epochs_count_up() -> None:
    state = new_state()
    state.append(batch_of(b"x"), NOON, RNG)
    assert state.own is not None
    assert state.own.epoch == 0
    state = LogState.of_header(state.to_header(Salt(bytes(8)), 0))
    state.append(batch_of(b"x"), NOON, RNG)
    assert state.own is not None
    assert state.own.epoch == 1


def test_last_epoch_is_no_end() -> None:
    """A copy of this directory that claims the last epoch must not stop this one from writing."""
    state = new_state()
    state.origins[Origin.make(state.directory_id, LAST_EPOCH, RNG)] = OriginState()
    _, appended = state.append(batch_of(b"x"), NOON, RNG)
    assert appended.origin.epoch == LAST_EPOCH
    assert len(state.origins) == 2


def test_foreign_frames_must_follow() -> None:
    state, foreign = new_state(), ForeignLog.make(1)
    first, second, third = (foreign.write(batch_of(b"%d" % number)) for number in range(3))

    def append(frame: Frame) -> None:
        state.append_foreign(frame, frame.encode(), NOON)

    with pytest.raises(FrameError, match="begins at sequence 1, the log's next is 0"):
        append(second)
    append(first)
    with pytest.raises(FrameError, match="begins at sequence 0, the log's next is 1"):
        append(first)
    other = evolve(second, header=evolve(second.header, previous_header_crc=5).sealed())
    with pytest.raises(FrameError, match="has CRC 0x00000005, the log has"):
        append(other)
    older = evolve(second, header=evolve(second.header, log_time=first.header.log_time).sealed())
    with pytest.raises(FrameError, match="is older than the one before it"):
        append(older)
    before = state.to_header(Salt(bytes(8)), 0)
    with pytest.raises(FrameError):
        append(third)
    assert state.to_header(Salt(bytes(8)), 0) == before, "what is refused changes nothing"
    append(second)
    append(third)
    assert state.origins[first.header.origin].next == 3


def test_control_frames_are_not_pulled() -> None:
    state = new_state()
    marker = GapMarker(Origin(bytes(16)), 0, 5, 0, "test").to_frame(1)
    with pytest.raises(FrameError, match="cannot be pulled"):
        state.append_foreign(marker, marker.encode(), NOON)


def test_gap_must_follow() -> None:
    state = new_state()
    with pytest.raises(FrameError, match="begins at 3, the log's next is 0"):
        state.append_gap(GapMarker(Origin(bytes(16)), 3, 5, 0, "test"))


def test_foreign_times_far_ahead_move_neither_clock_nor_table() -> None:
    foreign = ForeignLog.make(1)
    future = NOON + 10**9
    frame = foreign.write(batch_of(b"x", producer_id=1, producer_sequence=1), future)
    for state in (new_state(), new_state()):
        if state.next_offset == 0:
            state.append_foreign(frame, frame.encode(), NOON)
        else:
            state.read_back(EnvelopeKind.RECORDS, 0, frame, NOON)
        assert state.clock.high_mark < from_milliseconds(NOON)
        assert state.clock.too_far_ahead == 1
    state = new_state()
    state.read_back(EnvelopeKind.RECORDS, 0, frame, NOON)
    state.producers.max_producers = 1
    assert state.producers.find(2, 1, 0, NOON + PROTECTED_MILLISECONDS) is None, "it does not stay for ever"
