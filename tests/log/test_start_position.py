from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from attrs import define
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.position import Position
from proglog_trio.log.start_position import _Search
from proglog_trio.log.storage.scanner import SegmentScanner
from proglog_trio.rpc.server.consume_encoding import read_record
from tests.log.driving import DIRECTORY, ForeignLog, OpenLog, batch_of, read_all
from tests.log.simulated_disk import SimulatedDisk

INTERVAL = 4096


@define
class Visits:
    """How many frames were stepped over, and how many of them were only looked at by their envelopes."""

    frames: int = 0
    envelopes: int = 0


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Visits]:
    visits = Visits()
    step = SegmentScanner.step

    def counting(walk: SegmentScanner) -> object:
        visits.frames += 1
        visits.envelopes += walk.envelopes_only
        return step(walk)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentScanner, "step", counting)
        yield visits


def log_of_many(frames: int, origins: int = 0) -> OpenLog:
    """Return a log of one segment in which a few origins take turns."""
    opened = OpenLog.open(SimulatedDisk(), config=LogConfig(DIRECTORY, index_interval_bytes=INTERVAL))
    foreign = [ForeignLog.make(number) for number in range(origins)]
    for number in range(frames):
        which = number % (origins + 1)
        if which == origins:
            opened.log.append_soon(batch_of(b"%d" % number), lambda _: None)
        else:
            frame = foreign[which].write(batch_of(b"%d" % number))
            opened.log.append_foreign(frame, frame.encode(), lambda _: None)
    opened.commit()
    assert len(opened.log.catalog.segments) == 1
    return opened


@pytest.mark.parametrize("frames", [2_000, 8_000])
def test_what_reading_one_record_costs_does_not_grow_with_the_segment(
    monkeypatch: pytest.MonkeyPatch, frames: int
) -> None:
    opened = log_of_many(frames)
    log = opened.log
    between_notes = INTERVAL // 150  # a frame takes more than that
    for offset in (0, 1, frames // 2, frames - 1):
        with counted(monkeypatch) as visits:
            assert read_record(log, offset, log.lowest_offset, log.next_offset).value == b"%d" % offset
        assert visits.frames <= between_notes + 2
        assert visits.envelopes == 0


@pytest.mark.parametrize("frames", [2_000, 8_000])
def test_what_finding_a_start_costs_grows_with_the_origins_and_not_with_the_segment(
    monkeypatch: pytest.MonkeyPatch, frames: int
) -> None:
    opened = log_of_many(frames, origins=3)
    log = opened.log
    for offset in (1, frames // 2, frames - 1):
        with counted(monkeypatch) as visits:
            reader = log.reader_at_offset(offset)
            assert visits.frames == 0, "nobody has asked"
            position = reader.start_position
            assert reader.start_position is position
        assert visits.frames <= (4 + 1) * (INTERVAL // 150 + 2)
        with counted(monkeypatch) as visits:
            found = log.reader_at_position(position).read(1, log.next_offset).frames
        assert found[0].base_offset <= offset
        assert visits.frames <= 4 * (INTERVAL // 150 + 2)
    with counted(monkeypatch) as visits:
        assert log.reader_at_offset(frames).start_position == log.position
    assert visits.frames == 0


@given(
    seed=st.integers(0, 2**32 - 1),
    interval=st.sampled_from([1, 200, 600, 3_000]),
    reopened=st.booleans(),
    loses_index=st.booleans(),
)
def test_the_index_finds_what_a_walk_finds(seed: int, interval: int, reopened: bool, loses_index: bool) -> None:
    rng = random.Random(seed)
    disk = SimulatedDisk()
    config = LogConfig(DIRECTORY, index_interval_bytes=interval, segment_frames=rng.choice([5, 40]))
    opened = OpenLog.open(disk, config=config)
    foreign = [ForeignLog.make(number) for number in range(rng.randrange(4))]
    for number in range(40):
        batch = batch_of(*[b"x" * rng.choice([1, 10, 400])] * rng.choice([1, 1, 3]))
        which = rng.randrange(len(foreign) + 1)
        if which == len(foreign):
            opened.log.append_soon(batch, lambda _: None)
        else:
            frame = foreign[which].write(batch)
            opened.log.append_foreign(frame, frame.encode(), lambda _: None)
        opened.log.catalog._loaded.clear()  # so that index files are read again
        if number == 20 and loses_index:
            opened.log.catalog.active.index_error = OSError("no more is written to the index file")
        if rng.random() < 0.3:
            opened.commit()
        if number == 30 and reopened:
            opened.close()
            opened = OpenLog.open(disk, number, config=config)
    opened.commit()
    log = opened.log
    stored = read_all(log)
    given_by_index = 0
    for offset in range(log.next_offset):
        expected = Position.empty()
        for found in stored:
            if found.next_offset > offset:
                break
            header = found.header
            expected = expected.advanced(header.origin, header.base_sequence, header.next_sequence)
        assert log.reader_at_offset(offset).start_position == expected
        files = log.catalog.containing(offset)
        store, read = log.catalog.open(files)
        given_by_index += _Search(log.catalog, files, store, read, offset).by_index() is not None
        store.close()
    assert loses_index or given_by_index == log.next_offset
