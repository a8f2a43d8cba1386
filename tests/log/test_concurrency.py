"""Readers in threads of their own while the log grows, rolls and loses its oldest segments, on the real disk."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.lowlevel
from attrs import evolve

from proglog_trio.errors import OutOfRange
from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.position import Position
from proglog_trio.log.format.record import unpack_records
from proglog_trio.log.format.stored_frame import StoredFrame
from proglog_trio.log.log import Log
from proglog_trio.log.opening import open_log
from proglog_trio.log.reader import LogReader
from proglog_trio.log.retention_service import apply_retention
from tests.log.driving import ForeignLog, batch_of

BATCHES = 600


def config_of(tmp_path: Path) -> LogConfig:
    return LogConfig(tmp_path / "data", scrub_bytes_per_second=None, segment_frames=7, index_interval_bytes=200)


async def follow(log: Log, reader: LogReader, until: int, seed: int) -> list[StoredFrame]:
    """Read to an offset, waiting at the end of what is durable."""
    rng = random.Random(seed)
    changed = trio.Event()

    def wake() -> None:
        nonlocal changed
        changed.set()
        changed = trio.Event()

    end = log.notify_durable(wake)
    frames: list[StoredFrame] = []
    try:
        while reader.next_offset < until:
            event = changed
            if reader.next_offset >= log.next_offset:
                await event.wait()
                continue
            chunk = await trio.to_thread.run_sync(reader.read, rng.choice([1, 300, 5_000]), log.next_offset)
            assert chunk.next_offset <= log.next_offset
            frames += chunk.frames
    finally:
        end()
        reader.close()
    return frames


async def write(log: Log) -> None:
    foreign = ForeignLog.make(1)
    for number in range(BATCHES):
        if number % 3:
            log.append_soon(batch_of(b"%d" % number, b"second"), lambda _: None)
        else:
            frame = foreign.write(batch_of(b"%d" % number, b"second"))
            log.append_foreign(frame, frame.encode(), lambda _: None)
        if number % 5 == 0:
            await trio.sleep(0.001)


def check_bounds(log: Log) -> None:
    """Check what the log says of itself, as whoever is called after each change of it sees it."""
    assert log.lowest_offset <= log.next_offset
    assert all(state.low <= state.next for state in log.origins.values())
    assert Position.decode(log.position.encode()) == log.position


def check_all(frames: list[StoredFrame], first: int = 0) -> None:
    assert [frame.base_offset for frame in frames] == list(range(2 * first, 2 * BATCHES, 2))
    values = [unpack_records(frame.data[frame.header.header_length :])[0].value for frame in frames]
    assert values == [b"%d" % number for number in range(first, BATCHES)]


async def test_readers_follow_a_growing_log(tmp_path: Path) -> None:
    found: dict[int, list[StoredFrame]] = {}
    async with open_log(config_of(tmp_path)) as log:

        async def run(number: int) -> None:
            await trio.sleep(0.01 * number)
            make = partial(log.reader_at_offset, 0) if number % 2 else partial(log.reader_at_position, Position.empty())
            reader = await trio.to_thread.run_sync(make)
            found[number] = await follow(log, reader, 2 * BATCHES, number)

        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write, log)
                for number in range(6):
                    nursery.start_soon(run, number)
    assert len(found) == 6
    for frames in found.values():
        check_all(frames)


async def test_positions_are_right_while_the_log_grows(tmp_path: Path) -> None:
    """A consumer that stops and goes on by its position, over and over, misses nothing and gets nothing twice."""
    async with open_log(config_of(tmp_path)) as log:

        async def consume(seed: int) -> None:
            rng = random.Random(seed)
            reader = await trio.to_thread.run_sync(log.reader_at_offset, 0)
            position = reader.start_position
            frames: list[StoredFrame] = []
            while len(frames) < BATCHES:
                if rng.random() < 0.3:
                    reader.close()
                    reader = await trio.to_thread.run_sync(log.reader_at_position, position)
                chunk = await trio.to_thread.run_sync(reader.read, rng.choice([1, 1_000]), log.next_offset)
                for frame in chunk.frames:
                    header = frame.header
                    assert header.base_sequence == position.next_sequence(header.origin)
                    position = position.advanced(header.origin, header.base_sequence, header.next_sequence)
                frames += chunk.frames
            reader.close()
            check_all(frames)

        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write, log)
                for seed in range(4):
                    nursery.start_soon(consume, seed)


async def test_readers_whose_segments_are_removed_under_them(tmp_path: Path) -> None:
    """Each reader gets everything, or is told from where on it may go on; what it gets has no unnamed gap."""
    config = evolve(config_of(tmp_path), retention_bytes=4_000)
    async with open_log(config) as log:
        writing = trio.Event()
        log.notify_durable(partial(check_bounds, log))

        async def read(seed: int, *, skip_missing: bool) -> None:
            rng = random.Random(seed)
            reader = None
            while reader is None:
                try:
                    reader = await trio.to_thread.run_sync(
                        partial(log.reader_at_offset, log.lowest_offset, skip_missing=skip_missing)
                    )
                except OutOfRange:
                    continue  # what was the lowest offset here was removed before the thread looked
            place = reader.next_offset
            named: set[int] = set()
            while place < 2 * BATCHES:
                try:
                    chunk = await trio.to_thread.run_sync(reader.read, rng.choice([1, 2_000]), log.next_offset)
                except OutOfRange:
                    assert not skip_missing
                    reader.close()
                    reader = await trio.to_thread.run_sync(partial(log.reader_at_offset, place, skip_missing=True))
                    continue
                named |= {offset for skip in chunk.skipped for offset in range(skip.from_offset, skip.to_offset)}
                for frame in chunk.frames:
                    assert set(range(place, frame.base_offset)) <= named
                    place = frame.next_offset
                await trio.sleep(rng.choice([0, 0, 0.005]))
            reader.close()

        async def remove() -> None:
            while not writing.is_set():
                await apply_retention(log)
                await trio.sleep(0.005)

        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(remove)
                for seed in range(4):
                    nursery.start_soon(partial(read, seed, skip_missing=bool(seed % 2)))
                await write(log)
                await log.append(batch_of(b"after all of them"))
                writing.set()
        assert log.lowest_offset > 0
    async with open_log(config) as log:
        assert log.report.is_clean
        assert log.next_offset == 2 * BATCHES + 1


@pytest.mark.parametrize("offset", [0, 1])
async def test_reader_made_while_segments_are_removed(tmp_path: Path, offset: int) -> None:
    """What a reader is made from is of one moment: never a start that is gone, with nothing said."""
    config = evolve(config_of(tmp_path), retention_bytes=1)
    async with open_log(config) as log:
        log.notify_durable(partial(check_bounds, log))

        async def make_readers() -> None:
            while log.next_offset < 2 * BATCHES:
                lowest = log.lowest_offset
                try:
                    reader = await trio.to_thread.run_sync(log.reader_at_offset, lowest + offset)
                    chunk = await trio.to_thread.run_sync(reader.read, 1, log.next_offset)
                except OutOfRange:
                    continue
                reader.close()
                if chunk.frames:
                    assert chunk.frames[0].base_offset == lowest
                await trio.lowlevel.checkpoint()

        async def remove() -> None:
            while log.next_offset < 2 * BATCHES:
                await apply_retention(log)
                await trio.sleep(0.001)

        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(remove)
                nursery.start_soon(make_readers)
                nursery.start_soon(write, log)
