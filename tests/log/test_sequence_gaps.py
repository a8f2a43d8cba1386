"""Gaps in what a reader gives, by origin and sequence."""

from __future__ import annotations

from proglog_trio.errors import DataLoss
from proglog_trio.log.chunk import Chunk
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.position import Position, Range
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.log.log import Log
from proglog_trio.log.sequence_gaps import SequenceGap, SequenceGapFinder
from tests.log.repairing import Written, write_log

ORIGIN = Origin(bytes(range(16)))


def read_from(log: Log, position: Position, *, skip_missing: bool = True, max_bytes: int = 300) -> list[Chunk]:
    reader = log.reader_at_position(position, skip_missing=skip_missing)
    chunks = []
    while reader.next_offset < log.next_offset:
        try:
            chunks.append(reader.read(max_bytes, log.next_offset))
        except DataLoss:
            assert not skip_missing
    reader.close()
    return chunks


def sequence_gaps_of(chunks: list[Chunk]) -> list[SequenceGap]:
    return [gap for chunk in chunks for gap in chunk.sequence_gaps]


def gaps(written: Written) -> list[SequenceGap]:
    return [
        SequenceGap(origin, first, following, marked=True)
        for origin, state in written.log.origins.items()
        for first, following in state.gaps
    ]


def unmarked(sequence_gaps: list[SequenceGap]) -> list[SequenceGap]:
    return [gap for gap in sequence_gaps if not gap.marked]


def test_gap_markers_are_told_with_what_a_reader_needs_to_mark_them_too() -> None:
    written = write_log()
    sequence_gaps = sequence_gaps_of(read_from(written.log, Position.empty()))
    assert {(gap.origin, gap.from_sequence, gap.to_sequence) for gap in sequence_gaps} == {
        (gap.origin, gap.from_sequence, gap.to_sequence) for gap in gaps(written)
    }
    assert not unmarked(sequence_gaps)
    headers = [frame.header for frame in written.frames.values()]
    for gap in sequence_gaps:
        after = [each for each in headers if (each.origin, each.base_sequence) == (gap.origin, gap.to_sequence)]
        assert all(each.previous_header_crc == gap.next_header_crc for each in after)


def test_every_damaged_frame_is_a_hole_of_its_origin() -> None:
    for skip_missing in (True, False):
        written = write_log()
        for frame in written.frames.values():
            files = written.log.catalog.containing(frame.base_offset)
            for position in (frame.end - 1, frame.position + 7):
                content = written.disk.content(files.store)
                written.disk.flip(files.store, position, 0x08)
                sequence_gaps = unmarked(
                    sequence_gaps_of(read_from(written.log, Position.empty(), skip_missing=skip_missing))
                )
                header = frame.header
                last = max(each.base_offset for each in written.frames.values() if each.header.origin == header.origin)
                if frame.base_offset == last and files == written.log.catalog.active.files:
                    assert sequence_gaps == [], "nothing comes after it that would show it"
                else:
                    assert sequence_gaps == [SequenceGap(header.origin, header.base_sequence, header.next_sequence)]
                written.disk.put(files.store, content)


def test_lost_segment_is_told_by_the_header_of_the_next() -> None:
    written = write_log()
    files, following = written.closed[1], written.log.catalog.segments[2]
    written.disk.delete(files.store)
    written.log.catalog._loaded.clear()
    sequence_gaps = unmarked(sequence_gaps_of(read_from(written.log, Position.empty())))
    lost = {
        (frame.header.origin, sequence)
        for frame in written.frames.values()
        if files.base_offset <= frame.base_offset < following.base_offset
        for sequence in range(frame.header.base_sequence, frame.header.next_sequence)
    }
    told = {(gap.origin, each) for gap in sequence_gaps for each in range(gap.from_sequence, gap.to_sequence)}
    assert lost <= told
    in_gaps = {(gap.origin, each) for gap in gaps(written) for each in range(gap.from_sequence, gap.to_sequence)}
    assert told <= lost | in_gaps


def test_what_lies_before_the_position_is_no_hole() -> None:
    written = write_log()
    position = written.log.position
    assert sequence_gaps_of(read_from(written.log, position)) == []
    start = Position({ORIGIN: Range(0, 5)})
    finder = SequenceGapFinder(start)
    assert finder.enter_segment({ORIGIN: OriginState(0, 5)}) == []
    assert finder.enter_segment({ORIGIN: OriginState(0, 8)}) == [SequenceGap(ORIGIN, 5, 8)]
    assert finder.enter_segment({ORIGIN: OriginState(0, 8)}) == []


def test_what_retention_removed_is_a_hole_too() -> None:
    written = write_log()
    log = written.log
    oldest = log.catalog.load(log.catalog.segments[1]).header
    log.durable.forget_segments(1, oldest)
    sequence_gaps = unmarked(sequence_gaps_of(read_from(log, Position.empty())))
    removed = {origin: state.next for origin, state in oldest.origins.items() if state.next}
    assert {gap.origin: (gap.from_sequence, gap.to_sequence) for gap in sequence_gaps} == {
        origin: (0, following) for origin, following in removed.items()
    }
