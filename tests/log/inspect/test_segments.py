"""A node may be writing to the directory: what its retention removes meanwhile is passed over."""

from __future__ import annotations

import random

import pytest

from proglog_trio.errors import DataDirectoryError
from proglog_trio.log.inspect.dump import DumpedSegment, dump_directory
from proglog_trio.log.inspect.segments import open_each, segments_of, size_of_all
from tests.log.driving import DIRECTORY, OpenLog
from tests.log.simulated_disk import SimulatedDisk


@pytest.fixture
def disk() -> SimulatedDisk:
    disk = SimulatedDisk(random.Random(1))
    opened = OpenLog.open(disk)
    for number in range(3):
        opened.append_values(b"%d" % number)
        opened.log.roll()
        opened.commit()
    opened.close()
    return disk


def test_each_is_open_while_it_is_looked_at_and_knows_where_the_next_begins(disk: SimulatedDisk) -> None:
    segments = segments_of(disk, DIRECTORY)
    seen = []
    for files, store, following in open_each(disk, segments):
        assert store.size() == disk.size_of(files.store)
        seen.append((files.base_offset, following))
    assert seen == [(0, 1), (1, 2), (2, 3), (3, None)]
    assert not disk.open_files


def test_what_retention_removed_meanwhile_is_passed_over(disk: SimulatedDisk) -> None:
    segments = segments_of(disk, DIRECTORY)
    whole = size_of_all(disk, segments)
    removed = disk.size_of(segments[0].store)
    disk.remove(segments[0].store)
    assert size_of_all(disk, segments) == whole - removed
    assert [files.base_offset for files, _, _ in open_each(disk, segments)] == [1, 2, 3]


def test_a_dump_goes_on_when_a_segment_is_removed_meanwhile(disk: SimulatedDisk) -> None:
    segments = segments_of(disk, DIRECTORY)
    dumped = dump_directory(DIRECTORY, disk=disk)
    first = next(dumped)
    assert isinstance(first, DumpedSegment)
    disk.remove(segments[1].store)
    rest = [each.files.base_offset for each in dumped if isinstance(each, DumpedSegment)]
    assert [first.files.base_offset, *rest] == [0, 2, 3]
    assert not disk.open_files


def test_no_segment_is_an_error() -> None:
    with pytest.raises(DataDirectoryError, match="holds no log"):
        segments_of(SimulatedDisk(random.Random(1)), DIRECTORY)
