"""Logs compared with one another."""

from __future__ import annotations

import pytest
from attrs import evolve

from proglog_trio.errors import DataDirectoryError
from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.frame import Frame
from proglog_trio.log.format.gap_marker import GapMarker
from proglog_trio.log.inspect.compare import Comparison, Difference, OnlyOne, Reason
from proglog_trio.log.inspect.frame_table import FrameTable, find_frame
from tests.log.driving import DIRECTORY, NOON, ForeignLog, OpenLog, batch_of
from tests.log.simulated_disk import SimulatedDisk

CONFIG = LogConfig(DIRECTORY, segment_frames=4)


def frames_of(count: int) -> list[Frame]:
    foreign = ForeignLog.make(3)
    return [foreign.write(batch_of(b"%d" % number, b"twice"), NOON + number) for number in range(count)]


def mark(opened: OpenLog, frames: list[Frame]) -> None:
    first, last = frames[0].header, frames[-1].header
    marker = GapMarker(first.origin, first.base_sequence, last.next_sequence, last.header_crc, "nobody has it")
    opened.log.append_gap(marker, lambda _: None)


def pull(opened: OpenLog, frames: list[Frame]) -> None:
    for frame in frames:
        opened.log.append_foreign(frame, frame.encode(), lambda _: None)
    opened.commit()


def new_log(config: LogConfig = CONFIG) -> tuple[SimulatedDisk, OpenLog]:
    disk = SimulatedDisk()
    return disk, OpenLog.open(disk, 1, config=config)


def compare(first: SimulatedDisk, second: SimulatedDisk) -> tuple[Comparison, list[Difference | OnlyOne]]:
    one, other = FrameTable(DIRECTORY, first), FrameTable(DIRECTORY, second)
    one.read()
    other.read()
    comparison = Comparison(one, other)
    return comparison, list(comparison.run())


def test_logs_that_hold_the_same_in_another_order() -> None:
    one, other = frames_of(9), [ForeignLog.make(4).write(batch_of(b"x"))]
    first, opened = new_log()
    pull(opened, [*one[:5], *other, *one[5:]])
    opened.close()
    second, opened = new_log()
    pull(opened, [*other, *one])
    opened.close()
    comparison, found = compare(first, second)
    assert found == []
    assert comparison.is_equal
    assert (comparison.origins, comparison.equal_frames) == (2, 10)


def test_what_one_has_alone_and_why() -> None:
    frames = frames_of(12)
    first, opened = new_log()
    pull(opened, frames[:10])
    opened.close()
    second, opened = new_log()
    mark(opened, frames[:2])
    pull(opened, frames[2:6])
    mark(opened, frames[6:7])
    pull(opened, frames[7:])
    # Retention takes the first segment: the marker, and sequences up to 12.
    opened.log.durable.forget_segments(1, opened.log.catalog.load(opened.log.catalog.segments[1]).header)
    opened.close()
    for path in (second.files()[1], second.files()[2]):
        assert path.stem == "0" * 20
        second.delete(path)
    comparison, found = compare(first, second)
    assert comparison.is_equal
    ranges = [(each.from_sequence, each.to_sequence, each.reason) for each in found if isinstance(each, OnlyOne)]
    assert ranges == [(0, 12, Reason.REMOVED), (12, 14, Reason.GAP), (20, 24, Reason.BEHIND)]
    assert (comparison.only_first, comparison.only_second, comparison.equal_frames) == (14, 4, 3)


def test_what_is_missing_in_the_midst_is_no_equality() -> None:
    frames = frames_of(7)
    first, opened = new_log()
    pull(opened, frames)
    opened.close()
    second = first.copy()
    store = next(path for path in second.files() if path.suffix == ".store")
    place = find_frame(first, DIRECTORY, frames[2].header.origin, 4)
    assert place is not None
    assert (place.file, place.offset, place.sequence) == (store, 4, 4)
    second.flip(store, place.position + 100, 1)
    for pair in ((first, second), (second, first)):
        comparison, found = compare(*pair)
        (only,) = found
        assert isinstance(only, OnlyOne)
        assert (only.from_sequence, only.to_sequence, only.reason) == (4, 6, Reason.HOLE)
        assert not comparison.is_equal
        assert comparison.holes == 1
    assert comparison.first.damaged_places == 1


def test_first_difference_of_an_origin_has_both_places() -> None:
    frames = frames_of(8)
    first, opened = new_log()
    pull(opened, frames)
    opened.close()
    # The same origin wrote on in a copy of its directory: something that no node of ours does.
    foreign = ForeignLog.make(3)
    others = [foreign.write(batch_of(b"%d" % number, b"twice"), NOON + number) for number in range(3)]
    others += [foreign.write(batch_of(b"another", b"two"), NOON + 100 + number) for number in range(2)]
    second, opened = new_log()
    opened.append_values(b"own")
    pull(opened, others)
    opened.close()
    comparison, found = compare(first, second)
    difference = next(each for each in found if isinstance(each, Difference))
    assert difference.detail == "the frames are not the same"
    assert difference.first is not None
    assert difference.second is not None
    assert (difference.first.sequence, difference.second.sequence) == (6, 6)
    assert (difference.first.offset, difference.second.offset) == (6, 7)
    assert (comparison.different_frames, comparison.different_origins, comparison.equal_frames) == (2, 1, 3)
    assert not comparison.is_equal
    assert "at byte" in str(difference)


def test_frames_with_other_bounds_differ() -> None:
    foreign, same = ForeignLog.make(3), ForeignLog.make(3)
    first, opened = new_log()
    pull(opened, [foreign.write(batch_of(b"1", b"2", b"3")), foreign.write(batch_of(b"4"))])
    opened.close()
    second, opened = new_log()
    pull(opened, [same.write(batch_of(b"1", b"2")), same.write(batch_of(b"3", b"4"))])
    opened.close()
    comparison, (difference,) = compare(first, second)
    assert isinstance(difference, Difference)
    assert difference.detail == "the frames begin or end at different sequences"
    assert comparison.different_frames == 3


def test_another_cluster_is_refused() -> None:
    first, opened = new_log()
    opened.close()
    second, opened = new_log(evolve(CONFIG, cluster_name="another"))
    opened.close()
    with pytest.raises(DataDirectoryError, match="'proglog', /data to 'another'"):
        compare(first, second)


def test_directories_that_hold_no_log() -> None:
    disk = SimulatedDisk()
    with pytest.raises(DataDirectoryError, match="holds no log"):
        FrameTable(DIRECTORY, disk).read()
    disk.make_directory(DIRECTORY / "log")
    with pytest.raises(DataDirectoryError, match="there is no segment"):
        FrameTable(DIRECTORY, disk).read()
