"""Logs of several origins with all that may stand in one, peers that have their frames, and repair without Trio."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from attrs import Factory, define, evolve, frozen

from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.checksum import crc32c
from proglog_trio.log.format.envelope import IN_OFFSETS
from proglog_trio.log.format.gap_marker import GapMarker
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.format.segment_header import SegmentHeader
from proglog_trio.log.format.stored_frame import StoredFrame
from proglog_trio.log.log import Log
from proglog_trio.log.repair.fetched_frames import FetchedFrames
from proglog_trio.log.repair.plan import RepairOutcome, plan_repair
from proglog_trio.log.scrub import Scrub
from proglog_trio.log.storage.index import (
    SPARSE_VERSION,
    encode_preamble,
    read_header_copy,
    read_mark,
    read_sound_entries,
)
from tests.log.driving import DIRECTORY, NOON, ForeignLog, OpenLog, batch_of, read_everything
from tests.log.simulated_disk import SimulatedDisk

CONFIG = LogConfig(DIRECTORY, segment_frames=5, index_interval_bytes=250)


@define
class Peers:
    """All frames that were ever written, of which a test lets a log have some."""

    frames: dict[tuple[Origin, int], bytes] = Factory(dict)

    def take(self, data: bytes, origin: Origin, base_sequence: int) -> None:
        self.frames[origin, base_sequence] = data

    def between(self, origin: Origin, from_sequence: int, to_sequence: int) -> list[bytes]:
        return [
            data
            for (each, base), data in sorted(self.frames.items())
            if each == origin and from_sequence <= base < to_sequence
        ]

    def only(self, chosen: Callable[[int], bool]) -> Peers:
        """Return peers that have the frames whose numbers are chosen."""
        return Peers({key: data for number, (key, data) in enumerate(sorted(self.frames.items())) if chosen(number)})


@frozen
class Written:
    """A log that is open, and what is in it.

    Attributes:
        frames: by their base offset, as they were before any damage.
        contents: every file as it was.
    """

    disk: SimulatedDisk
    opened: OpenLog
    peers: Peers
    frames: dict[int, StoredFrame]
    contents: dict[Path, bytes]

    @property
    def log(self) -> Log:
        return self.opened.log

    @property
    def closed(self) -> tuple[SegmentFiles, ...]:
        return self.log.catalog.segments[:-1]


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> int:
        return self.now


Step = tuple[str, int, int]
"""What is done (own, foreign, gap, missing, roll, reopen), with which foreign log, with how many records."""

EVERYTHING: tuple[Step, ...] = (
    ("own", 0, 2),
    ("foreign", 0, 1),
    ("foreign", 1, 2),
    ("foreign", 0, 1),
    ("gap", 1, 2),
    ("foreign", 1, 1),
    ("own", 0, 1),
    ("own", 0, 3),
    ("reopen", 0, 1),
    ("foreign", 0, 2),
    ("own", 0, 1),
    ("foreign", 1, 1),
    ("own", 0, 2),
    ("gap", 0, 1),
    ("foreign", 1, 1),
    ("foreign", 0, 1),
    ("reopen", 1, 1),
    ("own", 0, 1),
    ("own", 0, 2),
    ("foreign", 0, 1),
    ("roll", 0, 0),
    ("own", 0, 1),
)


def write_log(steps: Sequence[Step] = EVERYTHING, *, in_order: bool = True) -> Written:
    """Write a log.

    Args:
        steps: what is done.
        in_order: log times increase in the order of the log; otherwise foreign frames are from long ago.
    """
    disk = SimulatedDisk()
    clock = Clock()
    opened = OpenLog.open(disk, 1, clock, CONFIG)
    peers = Peers()
    foreign = [ForeignLog.make(11), ForeignLog.make(12)]
    for number, (kind, which, count) in enumerate(steps):
        clock.now += 10
        wall = clock.now if in_order else NOON - 10_000 + number
        values = [b"%d-%d" % (number, each) + bytes(7 * (number % 3)) for each in range(max(count, 1))]
        log = opened.log
        if kind == "own":
            opened.append(batch_of(*values, producer_id=9, producer_sequence=number))
        elif kind == "missing":
            lacking = [foreign[which].write(batch_of(value), wall) for value in values]
            for frame in lacking:
                peers.take(frame.encode(), frame.header.origin, frame.header.base_sequence)
            first, last = lacking[0].header, lacking[-1].header
            log.append_gap(
                GapMarker(
                    first.origin,
                    first.base_sequence,
                    last.next_sequence,
                    last.header_crc,
                    "away",
                    in_place=True,
                    final=False,
                ),
                lambda _: None,
            )
        elif kind in ("foreign", "gap"):
            frame = foreign[which].write(batch_of(*values), wall)
            header = frame.header
            peers.take(frame.encode(), header.origin, header.base_sequence)
            if kind == "gap":
                marker = GapMarker(
                    header.origin, header.base_sequence, header.next_sequence, header.header_crc, "nobody has it"
                )
                log.append_gap(marker, lambda _: None)
            else:
                log.append_foreign(frame, frame.encode(), lambda _: None)
        elif kind == "roll":
            log.roll()
        else:
            opened.close(cleanly=bool(which))
            opened = OpenLog.open(disk, 100 + number, clock, CONFIG)
        opened.commit()
    frames = {frame.base_offset: frame for frame in read_everything(opened.log).frames}
    for stored in frames.values():
        peers.take(stored.data, stored.header.origin, stored.header.base_sequence)
    return Written(disk, opened, peers, frames, {path: disk.content(path) for path in disk.files()})


def make_index_sparse(disk: SimulatedDisk, files: SegmentFiles) -> None:
    """Write a segment's index as version 1 of its format has it, with every frame that uses offsets."""
    file = disk.open(files.index)
    header_bytes = read_header_copy(file)
    salt = SegmentHeader.decode(header_bytes).salt
    entries = list(read_sound_entries(file, header_bytes, salt))
    mark = read_mark(file, salt)
    file.close()
    assert mark is not None
    content = bytearray(encode_preamble(evolve(mark, last_noted=0), header_bytes, salt))
    content[5] = SPARSE_VERSION
    for entry in entries:
        if entry.envelope.kind in IN_OFFSETS:
            fields = struct.pack(">QQ16sQ", entry.offset, entry.position, entry.origin.data, entry.base_sequence)
            content += fields + struct.pack(">I", crc32c(fields, salt.seed))
    disk.put(files.index, bytes(content))


def scrub(log: Log) -> None:
    """Find all damage, as a scrub that begins with cold caches does."""
    log.catalog._loaded.clear()
    passing = Scrub(log.catalog)
    while not passing.finished:
        passing.step(1 << 20)


def repair(log: Log, files: SegmentFiles, peers: Peers) -> RepairOutcome:
    """Repair one segment with what peers have."""
    plan = plan_repair(log.catalog, log.bounds(), files)
    assert plan is not None
    fetched = FetchedFrames()
    for missing in plan.missing:
        assert missing.from_sequence < missing.to_sequence
        assert missing.from_offset < missing.to_offset
        fetched.add_all(peers.between(missing.origin, missing.from_sequence, missing.to_sequence))
    return plan.rebuild(fetched)


def repair_all(log: Log, peers: Peers) -> list[RepairOutcome]:
    """Repair whatever is known to be damaged."""
    return [repair(log, files, peers) for files in log.damage.segments() if files != log.catalog.active.files]


def check_served(log: Log, written: dict[int, StoredFrame], offsets: Iterable[int] | None = None) -> set[int]:
    """Check that what can be read is what was written, where it was written, and that the rest is named as lost.

    Args:
        log: to be read.
        written: what was written, by base offset.
        offsets: where frames must be readable again; None: all.

    Returns: the base offsets of the frames that could not be read.
    """
    found = read_everything(log)
    given = {frame.base_offset for frame in found.frames}
    for frame in found.frames:
        known = written.get(frame.base_offset)
        assert known is not None, f"offset {frame.base_offset} was never given out"
        assert frame.data == known.data, "what is read is not what was written"
    missing = set(written) - given
    for base in missing:
        frame = written[base]
        assert set(range(frame.base_offset, frame.next_offset)) <= found.lost, "what is missing is not named"
    wanted = set(written) if offsets is None else set(offsets)
    assert wanted <= given, f"the frames at {sorted(wanted - given)} were not repaired"
    return missing
