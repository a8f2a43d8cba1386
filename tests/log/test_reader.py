from __future__ import annotations

from collections.abc import Iterable

import pytest

from proglog_trio.errors import DataLoss, OffsetOutOfRange, SequenceOutOfRange
from proglog_trio.log.chunk import Chunk, Skipped
from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.frame import Frame
from proglog_trio.log.format.gap_marker import GapMarker
from proglog_trio.log.format.position import Position, Range
from proglog_trio.log.reader import LogReader
from proglog_trio.log.retention import remove_files
from tests.log.driving import DIRECTORY, ForeignLog, OpenLog, batch_of, position_after, read_all
from tests.log.simulated_disk import SimulatedDisk

CONFIG = LogConfig(DIRECTORY, segment_frames=3, index_interval_bytes=1)


def log_of(count: int, disk: SimulatedDisk | None = None) -> OpenLog:
    """A log of batches of two records: offsets 0 and 1, 2 and 3, …; six offsets a segment."""
    opened = OpenLog.open(disk or SimulatedDisk(), config=CONFIG)
    for number in range(count):
        opened.append(batch_of(b"%03d" % number, b"second"))
    return opened


def bases(chunk: Chunk) -> list[int]:
    return [frame.base_offset for frame in chunk.frames]


def remove_oldest(opened: OpenLog, count: int) -> None:
    catalog = opened.log.catalog
    remove_files(catalog, opened.log.durable.forget_segments(count, catalog.load(catalog.segments[count]).header))


def spoil(disk: SimulatedDisk, opened: OpenLog, offset: int) -> None:
    """Damage the payload of the frame that begins at an offset."""
    frame = next(frame for frame in read_all(opened.log) if frame.base_offset == offset)
    files = opened.log.catalog.containing(offset)
    disk.flip(files.store, frame.end - 1, 0xFF)


def spoil_header(disk: SimulatedDisk, opened: OpenLog, number: int) -> None:
    files = opened.log.catalog.segments[number]
    disk.flip(files.store, 20, 0xFF)
    disk.flip(files.index, 70, 0xFF)
    opened.log.catalog._loaded.clear()


def test_reading_goes_on_where_it_was() -> None:
    opened = log_of(10)
    reader = opened.log.reader_at_offset(0)
    given: list[int] = []
    while reader.next_offset < 20:
        chunk = reader.read(1, 20)
        assert len(chunk.frames) == 1, "one frame although it is larger"
        given += bases(chunk)
        assert chunk.next_offset == reader.next_offset
    assert given == list(range(0, 20, 2))
    assert reader.read(100, 20) == Chunk([], 20, [])
    opened.append_values(b"more")
    assert bases(reader.read(100, 21)) == [20]
    reader.close()
    reader.close()


def test_bytes_are_bounded() -> None:
    opened = log_of(6)
    size = len(read_all(opened.log)[0].data)
    assert bases(opened.log.reader_at_offset(0).read(3 * size, 12)) == [0, 2, 4]
    assert bases(opened.log.reader_at_offset(0).read(3 * size - 1, 12)) == [0, 2]


@pytest.mark.parametrize("offset", range(20))
def test_offset_within_a_frame(offset: int) -> None:
    opened = log_of(10)
    reader = opened.log.reader_at_offset(offset)
    assert bases(reader.read(1 << 20, 20)) == list(range(offset - offset % 2, 20, 2))
    (sequence,) = [held.next for held in reader.start_position.ranges.values()] or [0]
    assert sequence == offset - offset % 2


@pytest.mark.parametrize("until", range(21))
def test_nothing_is_read_beyond_what_is_asked_for(until: int) -> None:
    opened = log_of(10)
    reader = opened.log.reader_at_offset(0)
    assert bases(reader.read(1 << 20, until)) == list(range(0, until, 2))
    assert bases(reader.read(1 << 20, 20)) == list(range(until + until % 2, 20, 2))


def test_reader_at_the_end_waits_for_more() -> None:
    opened = log_of(2)
    for reader in (opened.log.reader_at_offset(4), opened.log.reader_at_position(opened.log.position)):
        assert reader.start_position == opened.log.position
        assert reader.read(100, 4) == Chunk([], 4, [])
    opened.append_values(b"more")
    assert bases(reader.read(100, 5)) == [4]


def test_frames_before_damage_come_first_then_the_damage() -> None:
    disk = SimulatedDisk()
    opened = log_of(9, disk)
    spoil(disk, opened, 8)
    reader = opened.log.reader_at_offset(2)
    assert bases(reader.read(1 << 20, 18)) == [2, 4, 6]
    with pytest.raises(DataLoss) as caught:
        reader.read(1 << 20, 18)
    assert (caught.value.from_offset, caught.value.to_offset) == (8, 10)
    assert "does not match its CRC" in caught.value.detail
    assert bases(reader.read(1 << 20, 18)) == [10, 12, 14, 16]
    skipping = opened.log.reader_at_offset(2, skip_missing=True).read(1 << 20, 18)
    assert bases(skipping) == [2, 4, 6]


def test_frames_before_a_segment_that_cannot_be_opened_are_not_lost_with_it() -> None:
    disk = SimulatedDisk()
    opened = log_of(9, disk)
    spoil_header(disk, opened, 1)
    reader = opened.log.reader_at_offset(2)
    assert bases(reader.read(1 << 20, 18)) == [2, 4]
    with pytest.raises(DataLoss) as caught:
        reader.read(1 << 20, 18)
    assert (caught.value.from_offset, caught.value.to_offset) == (6, 12)
    assert bases(reader.read(1 << 20, 18)) == [12, 14, 16]


def test_start_within_a_segment_that_cannot_be_opened() -> None:
    disk = SimulatedDisk()
    opened = log_of(9, disk)
    spoil_header(disk, opened, 1)
    reader = opened.log.reader_at_offset(9)
    with pytest.raises(DataLoss) as caught:
        reader.read(1 << 20, 18)
    assert (caught.value.from_offset, caught.value.to_offset) == (9, 12)
    reader = opened.log.reader_at_offset(9, skip_missing=True)
    chunk = reader.read(1 << 20, 18)
    assert bases(chunk) == [12, 14, 16]
    assert [(skip.from_offset, skip.to_offset) for skip in chunk.skipped] == [(9, 12)]
    (held,) = reader.start_position.ranges.values()
    assert held.next == 12


def test_damage_beyond_what_is_asked_for_is_named_when_it_is() -> None:
    disk = SimulatedDisk()
    opened = log_of(9, disk)
    spoil_header(disk, opened, 1)
    for skip_missing in (False, True):
        reader = opened.log.reader_at_offset(4, skip_missing=skip_missing)
        named: list[tuple[int, int]] = []
        given: list[int] = []
        for until in (7, 8, 11, 18, 18, 18):
            try:
                chunk = reader.read(1 << 20, until)
            except DataLoss as loss:
                named.append((loss.from_offset, loss.to_offset))
            else:
                given += bases(chunk)
                named += [(skip.from_offset, skip.to_offset) for skip in chunk.skipped]
        covered = sorted(offset for first, following in named for offset in range(first, following))
        assert covered == list(range(6, covered[-1] + 1))
        assert given[0] == 4
        if skip_missing:
            assert covered[-1] == 11
            assert given == [4, 12, 14, 16]


def test_segment_that_ends_early_is_named() -> None:
    """Whole frames are gone from the end of a segment: what is left is sound, so only the next segment tells."""
    disk = SimulatedDisk()
    opened = log_of(9, disk)
    frames = read_all(opened.log)
    files = opened.log.catalog.segments[0]
    disk.put(files.store, disk.content(files.store)[: frames[1].position])
    reader = opened.log.reader_at_offset(0)
    assert bases(reader.read(1 << 20, 18)) == [0]
    with pytest.raises(DataLoss) as caught:
        reader.read(1 << 20, 18)
    assert (caught.value.from_offset, caught.value.to_offset) == (2, 6)
    assert bases(reader.read(1 << 20, 18))[0] == 6


def test_active_segment_that_is_cut_while_it_is_open_is_named() -> None:
    disk = SimulatedDisk()
    opened = log_of(2, disk)
    frames = read_all(opened.log)
    files = opened.log.catalog.active.files
    disk.put(files.store, disk.content(files.store)[: frames[1].position])
    reader = opened.log.reader_at_offset(0)
    assert bases(reader.read(1 << 20, 4)) == [0]
    with pytest.raises(DataLoss) as caught:
        reader.read(1 << 20, 4)
    assert (caught.value.from_offset, caught.value.to_offset) == (2, 4)
    assert reader.read(1 << 20, 4) == Chunk([], 4, [])


def test_segment_that_somebody_removed_is_named() -> None:
    disk = SimulatedDisk()
    opened = log_of(9, disk)
    disk.delete(opened.log.catalog.segments[1].store)
    reader = opened.log.reader_at_offset(4)
    assert bases(reader.read(1 << 20, 18)) == [4]
    with pytest.raises(DataLoss) as caught:
        reader.read(1 << 20, 18)
    assert (caught.value.from_offset, caught.value.to_offset) == (6, 12)


def read_in_pieces(reader: LogReader, until: int) -> Iterable[Chunk]:
    while reader.next_offset < until:
        yield reader.read(1, until)


@pytest.mark.parametrize("skip_missing", [False, True])
def test_retention_overtakes_a_reader(skip_missing: bool) -> None:
    opened = log_of(12)
    reader = opened.log.reader_at_offset(0, skip_missing=skip_missing)
    assert bases(reader.read(1, 24)) == [0]
    remove_oldest(opened, 2)
    # The file that it has open is still read.
    assert bases(reader.read(1 << 20, 6)) == [2, 4]
    if skip_missing:
        chunks = list(read_in_pieces(reader, 24))
        assert [skip for chunk in chunks for skip in chunk.skipped] == [Skipped(6, 12, "retention removed them")]
        assert [base for chunk in chunks for base in bases(chunk)] == [12, 14, 16, 18, 20, 22]
    else:
        with pytest.raises(OffsetOutOfRange) as caught:
            reader.read(1, 24)
        assert (caught.value.offset, caught.value.lowest) == (6, 12)
        assert bases(reader.read(1, 24)) == [12]


@pytest.mark.parametrize("skip_missing", [False, True])
def test_retention_removes_segments_before_a_reader_has_opened_one(skip_missing: bool) -> None:
    opened = log_of(12)
    by_offset = opened.log.reader_at_offset(2, skip_missing=skip_missing)
    by_position = opened.log.reader_at_position(Position.empty(), skip_missing=skip_missing)
    remove_oldest(opened, 1)
    for reader, first in ((by_offset, 2), (by_position, 0)):
        if skip_missing:
            chunk = reader.read(1, 24)
            assert bases(chunk) == [6]
            assert chunk.skipped == [Skipped(first, 6, "retention removed them")]
        else:
            with pytest.raises(OffsetOutOfRange):
                reader.read(1, 24)


def test_position_reader_goes_straight_to_its_place() -> None:
    """Neither the segments before the place nor damage in them concern a reader that is beyond them."""
    disk = SimulatedDisk()
    opened = log_of(30, disk)
    frames = read_all(opened.log)
    for number in (0, 4, 5):
        spoil_header(disk, opened, number)
    for number in range(18, 30):
        reader = opened.log.reader_at_position(position_after(frames[:number]))
        assert bases(reader.read(1 << 20, 60)) == [frame.base_offset for frame in frames[number:]]


def test_damage_that_a_position_covers_is_not_named_again() -> None:
    disk = SimulatedDisk()
    opened = OpenLog.open(disk, config=LogConfig(DIRECTORY))
    for number in range(5):
        opened.append(batch_of(b"%d" % number))
    frames = read_all(opened.log)
    spoil(disk, opened, 1)
    reader = opened.log.reader_at_position(position_after(frames[:3]))
    assert bases(reader.read(1 << 20, 5)) == [3, 4]
    reader = opened.log.reader_at_position(position_after(frames[:1]))
    with pytest.raises(DataLoss):
        reader.read(1 << 20, 5)


def test_position_of_several_origins() -> None:
    opened = log_of(0)
    foreign = ForeignLog.make(3)
    for number in range(6):
        opened.append_values(b"own %d" % number)
        frame = foreign.write(batch_of(b"foreign %d" % number))
        opened.log.append_foreign(frame, frame.encode(), lambda _: None)
        opened.commit()
    frames = read_all(opened.log)
    own = [frame for frame in frames if frame.header.origin.directory_id == opened.log.directory_id]
    pulled = [frame for frame in frames if frame not in own]
    for has_own in range(7):
        for has_pulled in range(7):
            position = position_after(own[:has_own] + pulled[:has_pulled])
            reader = opened.log.reader_at_position(position)
            given = reader.read(1 << 20, 12).frames
            assert given == [frame for frame in frames if frame in own[has_own:] + pulled[has_pulled:]]


def test_a_start_lies_behind_the_gaps_that_begin_there() -> None:
    foreign = ForeignLog.make(3)
    pulled = [foreign.write(batch_of(b"foreign %d" % number)) for number in range(6)]
    opened = log_of(1)
    origin = pulled[0].header.origin

    def put(*frames: Frame) -> None:
        for frame in frames:
            opened.log.append_foreign(frame, frame.encode(), lambda _: None)

    def miss(first: int, following: int) -> None:
        crc = pulled[following - 1].header.header_crc
        opened.log.append_gap(GapMarker(origin, first, following, crc, "retention"), lambda _: None)

    miss(0, 2)
    put(pulled[2], pulled[3])
    miss(4, 5)
    put(pulled[5])
    opened.commit()
    begins = [opened.log.reader_at_offset(offset).start_position.next_sequence(origin) for offset in range(6)]
    assert begins == [2, 2, 2, 3, 5, 6]


def test_position_of_unknown_origins_and_of_the_future() -> None:
    opened = log_of(3)
    (origin,) = opened.log.origins
    beyond = Position.empty().advanced(origin, 0, 1_000).advanced(type(origin)(bytes(16)), 0, 5)
    reader = opened.log.reader_at_position(beyond)
    assert reader.read(1 << 20, 6) == Chunk([], 6, [])
    opened.append_values(b"covered by the position, wherever it has that from")
    assert bases(reader.read(1 << 20, 7)) == []


def test_a_reader_that_skips_tells_of_what_has_no_offsets_too() -> None:
    """Retention took the rest of an origin, or a gap stands at its end: no frame follows that would show it."""
    disk = SimulatedDisk()
    opened = OpenLog.open(disk, config=LogConfig(DIRECTORY, segment_frames=2))
    foreign = ForeignLog.make(3)
    frames = [foreign.write(batch_of(b"%d" % number)) for number in range(6)]
    origin = frames[0].header.origin
    log = opened.log
    for frame in frames[:4]:
        log.append_foreign(frame, frame.encode(), lambda _: None)
        opened.commit()
    last = frames[-1].header
    log.append_gap(GapMarker(origin, 4, 6, last.header_crc, "nobody has it"), lambda _: None)
    for number in range(4):
        opened.append_values(b"own %d" % number)
    log.roll()
    opened.commit()
    reader = log.reader_at_position(Position({origin: Range(0, 2)}), skip_missing=True)
    skipped = [each for _ in range(9) for each in reader.read(1, log.next_offset).skipped]
    assert [each.sequences for each in skipped] == [(origin, 4, 6)]
    count = 3
    log.durable.forget_segments(count, log.catalog.load(log.catalog.segments[count]).header)
    reader = log.reader_at_position(Position({origin: Range(0, 2)}), skip_missing=True)
    skipped = [each for _ in range(9) for each in reader.read(1, log.next_offset).skipped]
    own = log.own_origin
    assert {each.sequences for each in skipped} == {(origin, 2, 6), (own, 0, 2)}
    assert {each.reason for each in skipped} == {"retention removed them"}
    with pytest.raises(SequenceOutOfRange):
        log.reader_at_position(Position({origin: Range(0, 2)}))
