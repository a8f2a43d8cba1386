from __future__ import annotations

import pytest

from proglog_trio.log.config import LogConfig
from proglog_trio.log.scrub import Scrub

from .driving import DIRECTORY, OpenLog, batch_of, read_all
from .simulated_disk import SimulatedDisk

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
    assert scrub.bytes_read < sum(len(disk.content(files.store)) for files in (first, second, third))
    assert len(disk.open_files) == 3, "the active segment's two files and the lock"


def test_sound_log_is_read_whole_and_nothing_is_found() -> None:
    disk, opened = log_of(8)
    scrub = Scrub(opened.log.catalog)
    while not scrub.finished:
        assert scrub.step(100) == []
    headers = sum(len(opened.log.catalog.load(files).header_bytes) for files in opened.log.catalog.segments)
    assert (
        scrub.bytes_read == sum(len(disk.content(path)) for path in disk.files() if path.suffix == ".store") - headers
    )


def test_pass_that_is_given_up_closes_its_file() -> None:
    disk, opened = log_of(4)
    scrub = Scrub(opened.log.catalog)
    scrub.step(1)
    scrub.close()
    assert len(disk.open_files) == 3


def test_segments_that_retention_removes_meanwhile_are_not_damaged() -> None:
    disk, opened = log_of(8)
    catalog = opened.log.catalog
    scrub = Scrub(catalog)
    assert scrub.step(1) == []
    for files in opened.log.forget_segments(2, catalog.load(catalog.segments[2]).header):
        disk.delete(files.store)
        disk.delete(files.index)
    while not scrub.finished:
        assert scrub.step(100) == []
