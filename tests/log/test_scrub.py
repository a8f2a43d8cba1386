from __future__ import annotations

import errno

import pytest
import structlog.testing

from proglog_trio.log.config import LogConfig
from proglog_trio.log.maintenance import _scrub_step
from proglog_trio.log.scrub import Scrub
from proglog_trio.log.storage.index import ENTRY_BYTES
from tests.log.driving import DIRECTORY, OpenLog, batch_of, read_all
from tests.log.simulated_disk import SimulatedDisk

CONFIG = LogConfig(DIRECTORY, segment_frames=3)


def log_of(count: int) -> tuple[SimulatedDisk, OpenLog]:
    disk = SimulatedDisk()
    opened = OpenLog.open(disk, config=CONFIG)
    for number in range(count):
        opened.append(batch_of(b"%03d" % number))
    return disk, opened


@pytest.mark.parametrize("size", [1, 200, 1 << 20])
def test_damage_is_found_once_a_pass(size: int) -> None:
    disk, opened = log_of(8)
    first, second, third = opened.log.catalog.segments
    frames = read_all(opened.log)
    disk.flip(first.store, frames[1].end - 1, 0xFF)
    disk.flip(second.store, 20, 0xFF)
    disk.flip(second.index, 70, 0xFF)
    opened.log.catalog._loaded.clear()
    scrub = Scrub(opened.log.catalog)
    found = []
    while not scrub.finished:
        found += scrub.step(size)
    assert [(files, place.expected_offset) for files, place in found] == [(first, 1), (second, 3)]
    whole = (first.store, first.index, second.store, third.store)
    assert scrub.bytes_read < sum(len(disk.content(path)) for path in whole)
    assert len(disk.open_files) == 3, "the active segment's two files and the lock"


def test_sound_log_is_read_whole_and_nothing_is_found() -> None:
    disk, opened = log_of(8)
    scrub = Scrub(opened.log.catalog)
    while not scrub.finished:
        assert scrub.step(100) == []
    segments = opened.log.catalog.segments
    headers = sum(opened.log.catalog.load(files).header_length for files in segments)
    stores = sum(len(disk.content(files.store)) for files in segments) - headers
    assert scrub.bytes_read == stores + 6 * ENTRY_BYTES, "and the indexes of those that are closed"


def test_an_index_is_looked_at_with_the_pace_of_the_rest() -> None:
    disk, opened = log_of(8)
    scrub = Scrub(opened.log.catalog)
    for number in range(3):
        before = scrub.bytes_read
        assert scrub.step(ENTRY_BYTES) == []
        assert (scrub.bytes_read - before, len(disk.open_files)) == (ENTRY_BYTES, 5), f"step {number}"
    scrub.close()
    assert len(disk.open_files) == 3


def test_pass_that_is_given_up_closes_its_file() -> None:
    disk, opened = log_of(4)
    scrub = Scrub(opened.log.catalog)
    scrub.step(1)
    scrub.close()
    assert len(disk.open_files) == 3


@pytest.mark.parametrize("after", range(6))
def test_what_cannot_be_read_keeps_nothing_else_from_being_found(after: int) -> None:
    """Neither what was found before in the same step, nor what stands in the segments behind it."""
    disk, opened = log_of(10)
    closed = opened.log.catalog.segments[:-1]
    for files in closed:
        disk.flip(files.store, len(disk.content(files.store)) - 1, 0xFF)
    opened.log.catalog._loaded.clear()
    scrub = Scrub(opened.log.catalog)
    disk.fail("open", errno.EIO, after)
    failed = ""
    while not scrub.finished:
        try:
            scrub.step(1 << 20)
        except OSError:
            failed = scrub.segment
            scrub.close()
    assert disk.faults_met == 1
    assert len(closed) == 3
    found = {str(files.store) for files in opened.log.damage.segments()}
    assert found == {str(files.store) for files in closed} - {failed}
    assert len(disk.open_files) == 3


async def test_a_pass_goes_on_behind_what_cannot_be_read() -> None:
    disk, opened = log_of(8)
    first, second, _ = opened.log.catalog.segments
    disk.flip(second.store, len(disk.content(second.store)) - 1, 0xFF)
    opened.log.catalog._loaded.clear()
    scrub = Scrub(opened.log.catalog)
    disk.fail("open", errno.EIO)
    while not scrub.finished:
        with structlog.testing.capture_logs() as logs:
            await _scrub_step(opened.log, scrub, 1)
        for line in logs:
            assert (line["event"], line["segment"]) == ("the scrub cannot read a segment", str(first.store))
    assert opened.log.damage.segments() == [second]


def test_segments_that_retention_removes_meanwhile_are_not_damaged() -> None:
    disk, opened = log_of(8)
    catalog = opened.log.catalog
    scrub = Scrub(catalog)
    assert scrub.step(1) == []
    for files in opened.log.durable.forget_segments(2, catalog.load(catalog.segments[2]).header):
        disk.delete(files.store)
        disk.delete(files.index)
    while not scrub.finished:
        assert scrub.step(100) == []


@pytest.mark.parametrize("rolls_without_room", [False, True])
def test_an_index_that_was_written_in_part_is_no_damage(rolls_without_room: bool) -> None:
    """There was room for a frame in the store file, and not for all of its entry in the index file."""
    partly = 0
    for room in range(0, 400, 3):
        disk = SimulatedDisk()
        opened = OpenLog.open(disk, config=LogConfig(DIRECTORY, segment_frames=50, index_interval_bytes=1))
        opened.append(batch_of(b"before"))
        disk.capacity = disk.used_bytes + room
        opened.log.append_soon(batch_of(b"after"), lambda _: None)
        opened.commit()
        partly += opened.log.read_only_reason is None
        if not rolls_without_room:
            disk.capacity = None
        opened.look_at_disk()
        opened.log.roll()
        opened.commit()
        disk.capacity = None
        for _ in range(10):
            opened.look_at_disk()
        opened.log.roll()
        opened.commit()
        scrub = Scrub(opened.log.catalog)
        opened.log.catalog._loaded.clear()
        while not scrub.finished:
            assert scrub.step(1 << 20) == [], room
    assert partly
