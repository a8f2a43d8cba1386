"""Repair of a log that is in use, on a real disk."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
import trio
import trio.testing

from proglog_trio.errors import LogClosed, LogReadOnly
from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.damage import Damage
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.format.stored_frame import StoredFrame
from proglog_trio.log.log import Log
from proglog_trio.log.opening import open_log
from proglog_trio.log.repair.missing_ranges import Missing
from proglog_trio.log.repair.run import leave_segment, repair_segment
from proglog_trio.log.scrub import Scrub
from tests.log.driving import OpenLog, batch_of, read_all, read_everything
from tests.log.simulated_disk import SimulatedDisk


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    config = LogConfig(tmp_path / "data", segment_frames=6, scrub_bytes_per_second=None, index_interval_bytes=200)
    async with open_log(config) as log:
        for number in range(20):
            await log.append(batch_of(b"%d" % number, b"twice"))
        yield log


def flip(files: SegmentFiles, frame: StoredFrame) -> None:
    """Damage a frame's payload, not byte for byte but by a new file, as a disk that replaces sectors does."""
    data = bytearray(files.store.read_bytes())
    data[frame.end - 1] ^= 0x20
    with files.store.open("r+b") as file:
        file.write(data)


def scrub(log: Log) -> None:
    log.catalog._loaded.clear()
    passing = Scrub(log.catalog)
    while not passing.finished:
        passing.step(1 << 20)


class Peer:
    """Has all that a log has."""

    def __init__(self, frames: Iterable[StoredFrame]) -> None:
        self.frames = list(frames)
        self.asked: list[Missing] = []

    async def fetch(self, missing: Missing) -> list[bytes]:
        await trio.lowlevel.checkpoint()
        self.asked.append(missing)
        return [
            frame.data
            for frame in self.frames
            if frame.header.origin == missing.origin
            and missing.from_sequence <= frame.header.base_sequence < missing.to_sequence
        ]


async def test_closed_segment(log: Log) -> None:
    frames = read_all(log)
    peer = Peer(frames)
    seen: list[Damage] = []
    log.damage.watch(seen.append)
    files = log.catalog.segments[1]
    flip(files, frames[8])
    assert read_everything(log).lost == {16, 17}
    assert [damage.files for damage in seen] == [files]
    outcome = await repair_segment(log, files, peer.fetch)
    assert outcome is not None
    assert (outcome.repaired_offsets, outcome.remaining, outcome.refused) == (2, (), ())
    (asked,) = peer.asked
    assert (asked.from_sequence, asked.to_sequence, asked.from_offset, asked.to_offset) == (16, 18, 16, 18)
    assert read_all(log) == frames
    assert (len(log.damage), log.damage.repaired) == (0, 1)


async def test_active_segment_while_records_are_appended(log: Log) -> None:
    frames = read_all(log)
    files = log.catalog.active.files
    flip(files, frames[-1])
    scrub(log)
    assert log.damage.segments() == [files]
    async with trio.open_nursery() as nursery:
        for number in range(30):
            nursery.start_soon(log.append, batch_of(b"new %d" % number))
        outcome = await repair_segment(log, files, Peer(frames).fetch)
    assert outcome is not None
    assert outcome.rewritten == (files,)
    assert [frame.data for frame in read_all(log)][: len(frames)] == [frame.data for frame in frames]
    assert len(read_all(log)) == len(frames) + 30


async def test_with_no_peer_it_stays_named(log: Log) -> None:
    frames = read_all(log)
    files = log.catalog.segments[0]
    flip(files, frames[2])
    scrub(log)
    outcome = await repair_segment(log, files, Peer([]).fetch)
    assert outcome is not None
    assert outcome.rewritten == ()
    assert read_everything(log).lost == {4, 5}
    (damage,) = log.damage.places()
    assert damage.unrepairable == "no peer that was asked has what stood there"


async def test_segment_that_is_gone_and_one_that_cannot_be_left(log: Log) -> None:
    gone = log.catalog.segments[0]
    log.durable.forget_segments(1, log.catalog.load(log.catalog.segments[1]).header)
    assert await repair_segment(log, gone, Peer([]).fetch) is None
    log.roll()
    while log.catalog.active.files.base_offset != log.next_offset:
        await trio.testing.wait_all_tasks_blocked(0.001)
    empty = log.catalog.active.files
    assert not await leave_segment(log, empty)
    assert await repair_segment(log, empty, Peer([]).fetch) is None


async def test_log_that_takes_no_more_records(log: Log) -> None:
    files = log.catalog.active.files
    log.room.failed("the disk is full", 1)
    with pytest.raises(LogReadOnly, match="the disk is full"):
        await repair_segment(log, files, Peer([]).fetch)
    with pytest.raises(LogReadOnly, match="the disk is full"):
        await leave_segment(log, files)
    log.looked_at_disk(1 << 40)
    log.room.closing = True
    with pytest.raises(LogClosed):
        await leave_segment(log, files)


def shift(log: Log, files: SegmentFiles, frame: StoredFrame, number: int) -> None:
    """Put bytes that are nothing before a frame, so that all that follows stands elsewhere; no record is lost by it."""
    data = files.store.read_bytes()
    changed = files.store.with_suffix(".changed")
    changed.write_bytes(data[: frame.position] + bytes(1 + number) + data[frame.position :])
    with log.catalog.replacing(files):
        files.index.unlink()
        changed.rename(files.store)


async def test_readers_never_take_an_index_for_another_file(log: Log) -> None:
    """Threads read from everywhere while a segment's frames move to and fro; everything can be read all the time."""
    frames = read_all(log)
    files, following = log.catalog.segments[1:3]
    here = [frame for frame in frames if files.base_offset <= frame.base_offset < following.base_offset]
    stop = threading.Event()
    reads = 0
    wrong: list[object] = []

    def read_on() -> None:
        nonlocal reads
        while not stop.is_set():
            for offset in (0, here[1].base_offset, here[-1].base_offset):
                found = read_everything(log, offset)
                wrong.extend(found.losses)
                given = [(frame.base_offset, frame.data) for frame in found.frames]
                wanted = [(frame.base_offset, frame.data) for frame in frames if frame.base_offset >= offset]
                if given != wanted:
                    wrong.append(given)
                reads += 1

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(trio.to_thread.run_sync, read_on)
        try:
            number = 0
            while number < 12 or reads < 12:
                await trio.to_thread.run_sync(shift, log, files, here[number % len(here)], number % 100)
                assert await repair_segment(log, files, Peer([]).fetch) is not None
                number += 1
        finally:
            stop.set()
    assert wrong == []
    assert read_all(log) == frames


async def test_segment_that_a_roll_under_way_has_just_begun_is_not_waited_for() -> None:
    """The file is there before the host thread hears of it; nothing else is going to follow an empty segment."""
    opened = OpenLog.open(SimulatedDisk())
    log = opened.log
    opened.append_values(b"one")
    before = log.catalog.active.files
    assert log.roll()
    (work,) = opened.work
    opened.work.clear()
    log.writer.commit([work])
    begun = log.catalog.active.files
    assert begun != before
    assert log.is_rolling
    outcomes: list[bool] = []

    async def leave() -> None:
        outcomes.append(await leave_segment(log, begun))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave)
        await trio.testing.wait_all_tasks_blocked()
        assert outcomes == []
        log.committed(1, None)
    assert outcomes == [False]
    assert await leave_segment(log, before)
