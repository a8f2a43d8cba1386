"""Holes in what a reader gives, by origin and sequence."""

from __future__ import annotations

from proglog_trio.errors import DataLoss
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.position import Position, Range
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.log.log import Log
from proglog_trio.log.reader import Chunk
from proglog_trio.log.sequence_gaps import Hole, HoleFinder
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


def holes_of(chunks: list[Chunk]) -> list[Hole]:
    return [hole for chunk in chunks for hole in chunk.holes]


def gaps(written: Written) -> list[Hole]:
    return [
        Hole(origin, first, following, marked=True)
        for origin, state in written.log.origins.items()
        for first, following in state.gaps
    ]


def unmarked(holes: list[Hole]) -> list[Hole]:
    return [hole for hole in holes if not hole.marked]


def test_gap_markers_are_told_with_what_a_reader_needs_to_mark_them_too() -> None:
    written = write_log()
    holes = holes_of(read_from(written.log, Position.empty()))
    assert {(hole.origin, hole.from_sequence, hole.to_sequence) for hole in holes} == {
        (hole.origin, hole.from_sequence, hole.to_sequence) for hole in gaps(written)
    }
    assert not unmarked(holes)
    headers = [frame.header for frame in written.frames.values()]
    for hole in holes:
        after = [each for each in headers if (each.origin, each.base_sequence) == (hole.origin, hole.to_sequence)]
        assert all(each.previous_header_crc == hole.next_header_crc for each in after)


def test_every_damaged_frame_is_a_hole_of_its_origin() -> None:
    for skip_missing in (True, False):
        written = write_log()
        for frame in written.frames.values():
            files = written.log.catalog.containing(frame.base_offset)
            for position in (frame.end - 1, frame.position + 7):
                content = written.disk.content(files.store)
                written.disk.flip(files.store, position, 0x08)
                holes = unmarked(holes_of(read_from(written.log, Position.empty(), skip_missing=skip_missing)))
                header = frame.header
                last = max(each.base_offset for each in written.frames.values() if each.header.origin == header.origin)
                if frame.base_offset == last and files == written.log.catalog.active.files:
                    assert holes == [], "nothing comes after it that would show it"
                else:
                    assert holes == [Hole(header.origin, header.base_sequence, header.next_sequence)]
                written.disk.put(files.store, content)


def test_lost_segment_is_told_by_the_header_of_the_next() -> None:
    written = write_log()
    files, following = written.closed[1], written.log.catalog.segments[2]
    written.disk.delete(files.store)
    written.log.catalog._loaded.clear()
    holes = unmarked(holes_of(read_from(written.log, Position.empty())))
    lost = {
        (frame.header.origin, sequence)
        for frame in written.frames.values()
        if files.base_offset <= frame.base_offset < following.base_offset
        for sequence in range(frame.header.base_sequence, frame.header.next_sequence)
    }
    told = {(hole.origin, each) for hole in holes for each in range(hole.from_sequence, hole.to_sequence)}
    assert lost <= told
    in_gaps = {(gap.origin, each) for gap in gaps(written) for each in range(gap.from_sequence, gap.to_sequence)}
    assert told <= lost | in_gaps


def test_what_lies_before_the_position_is_no_hole() -> None:
    written = write_log()
    position = written.log.position
    assert holes_of(read_from(written.log, position)) == []
    start = Position({ORIGIN: Range(0, 5)})
    finder = HoleFinder(start)
    assert finder.enter({ORIGIN: OriginState(0, 5)}) == []
    assert finder.enter({ORIGIN: OriginState(0, 8)}) == [Hole(ORIGIN, 5, 8)]
    assert finder.enter({ORIGIN: OriginState(0, 8)}) == []


def test_what_retention_removed_is_a_hole_too() -> None:
    written = write_log()
    log = written.log
    oldest = log.catalog.load(log.catalog.segments[1]).header
    log.forget_segments(1, oldest)
    holes = unmarked(holes_of(read_from(log, Position.empty())))
    removed = {origin: state.next for origin, state in oldest.origins.items() if state.next}
    assert {hole.origin: (hole.from_sequence, hole.to_sequence) for hole in holes} == {
        origin: (0, following) for origin, following in removed.items()
    }
