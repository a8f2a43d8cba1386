from __future__ import annotations

import errno
import random

import pytest

from proglog_trio.errors import SegmentError
from proglog_trio.log.config import LogConfig
from proglog_trio.log.disk import NotWritten
from proglog_trio.log.format.envelope import EnvelopeKind, Salt
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.pending_frame import PendingFrame, bare_envelope
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.format.segment_header import SegmentHeader
from proglog_trio.log.storage.index import read_entries, read_mark
from proglog_trio.log.storage.segment import (
    ActiveSegment,
    list_damaged_too,
    list_segments,
    load_segment,
    read_segment_header,
)
from tests.log.driving import DIRECTORY, OpenLog, batch_of
from tests.log.simulated_disk import Loss, PowerCut, SimulatedDisk

LOG = DIRECTORY / "log"
FILES = SegmentFiles(LOG, 5)
HEADER = SegmentHeader(bytes(8), "cluster", Salt(b"saltsalt"), 5, 0)
ORIGIN = Origin(bytes(16))


def new_disk() -> SimulatedDisk:
    disk = SimulatedDisk()
    disk.make_directory(LOG)
    return disk


def create(disk: SimulatedDisk) -> ActiveSegment:
    return ActiveSegment.create(disk, LOG, HEADER, 1)


def test_names() -> None:
    assert FILES.store.name == "00000000000000000005.store"
    assert FILES.index.name == "00000000000000000005.index"


def test_only_whole_segments_are_listed() -> None:
    disk = new_disk()
    for name in ("00000000000000000010.store", "00000000000000000002.store", "00000000000000000003.index", "x.store",
                 "00000000000000000004.new", "00000000000000000004.store.bak", "4.store"):  # fmt: skip
        disk.put(LOG / name, b"")
    assert [files.base_offset for files in list_segments(disk, LOG)] == [2, 10]


def test_a_segment_without_its_store_is_listed_once_anything_was_written_to_it() -> None:
    """The index alone is also what the making of a segment leaves that fails."""
    disk = new_disk()
    active = create(disk)
    for offset in (2, 10):
        disk.put(SegmentFiles(LOG, offset).store, b"")
    disk.delete(FILES.store)
    assert [files.base_offset for files in list_damaged_too(disk, LOG)] == [2, 10]
    disk.put(FILES.index, disk.content(FILES.index)[:70])
    assert [files.base_offset for files in list_damaged_too(disk, LOG)] == [2, 10]
    active = create(disk)
    begin = len(disk.content(FILES.index))
    active.commit([frame(5)])
    disk.delete(FILES.store)
    assert [files.base_offset for files in list_damaged_too(disk, LOG)] == [2, 5, 10]
    # A power loss may leave the mark and not the entry.
    disk.put(FILES.index, disk.content(FILES.index)[:begin])
    assert [files.base_offset for files in list_damaged_too(disk, LOG)] == [2, 5, 10]


@pytest.mark.parametrize("removal_fails", [False, True])
def test_a_log_goes_on_only_if_a_failed_making_leaves_no_index(removal_fails: bool) -> None:
    disk = new_disk()
    disk.fail("create", errno.ENOSPC, after=1)
    if removal_fails:
        # After that of the store file, and of the index under its other name: neither is there.
        disk.fail("remove", errno.EIO, after=2)
    with pytest.raises(OSError, match="No space") as caught:
        create(disk)
    assert isinstance(caught.value, NotWritten) is not removal_fails
    assert (FILES.index in disk.files()) is removal_fails


def test_new_segment_is_durable_at_once() -> None:
    disk = new_disk()
    create(disk)
    disk.restart(Loss.DROP, random.Random(0))
    assert sorted(path.name for path in disk.files()) == [FILES.index.name, FILES.store.name]
    header, data, fault = read_segment_header(disk, FILES, disk.open(FILES.store))
    assert (header, data, fault) == (HEADER, HEADER.encode(), None)


@pytest.mark.parametrize("loss", Loss)
def test_power_cut_while_a_segment_is_made_leaves_all_or_nothing(loss: Loss) -> None:
    whole = new_disk()
    create(whole)
    for cut_at in range(1, whole.operations):
        for seed in range(5 if loss is Loss.MIX else 1):
            disk = new_disk()
            disk.cut_at = disk.operations + cut_at
            with pytest.raises(PowerCut):
                create(disk)
            disk.restart(loss, random.Random(seed))
            for files in list_segments(disk, LOG):
                assert read_segment_header(disk, files, disk.open(files.store))[2] is None


@pytest.mark.parametrize("kind", ["create", "write", "sync", "rename", "sync_directory"])
@pytest.mark.parametrize("after", [0, 1])
def test_failed_making_leaves_no_file_open(kind: str, after: int) -> None:
    disk = new_disk()
    disk.fail(kind, errno.ENOSPC, after if kind != "sync_directory" else 0)
    with pytest.raises(OSError, match="No space"):
        create(disk)
    assert not disk.open_files


def frame(offset: int, size: int = 10) -> PendingFrame:
    return PendingFrame(EnvelopeKind.RECORDS, offset, ORIGIN, offset, 2, (b"x" * size, b"y"), 0)


def test_commit_is_one_write_and_one_sync() -> None:
    disk = new_disk()
    active = create(disk)
    disk.trace.clear()
    active.commit([frame(5), frame(7), bare_envelope(EnvelopeKind.CLOSED, 9)])
    # Store, its sync, then what the index notes: entries and the mark.
    assert disk.trace == ["write", "sync", "write", "write"]
    assert active.next_offset == 9
    assert active.position == len(disk.content(FILES.store))
    mark = read_mark(disk.open(FILES.index), HEADER.salt)
    assert mark is not None
    assert (mark.position, mark.next_offset) == (active.position, 9)


def test_failed_write_is_cut_off_again() -> None:
    disk = new_disk()
    active = create(disk)
    active.commit([frame(5)])
    before = disk.content(FILES.store)
    disk.fail("write", errno.ENOSPC)
    with pytest.raises(OSError, match="No space") as caught:
        active.commit([frame(7, 5_000)])
    assert disk.content(FILES.store) == before
    assert not getattr(caught.value, "__notes__", [])
    disk.fail("write", errno.ENOSPC)
    disk.fail("truncate", errno.EIO)
    with pytest.raises(OSError, match="No space") as caught:
        active.commit([frame(7, 5_000)])
    assert "could not be cut off" in caught.value.__notes__[0]


def test_failed_sync_leaves_the_file_alone() -> None:
    disk = new_disk()
    active = create(disk)
    disk.fail("sync", errno.EIO)
    disk.trace.clear()
    with pytest.raises(OSError, match="Input/output"):
        active.commit([frame(5)])
    assert disk.trace == ["write", "sync"]
    assert active.next_offset == 5


def test_index_that_cannot_be_written_stops_nothing() -> None:
    disk = new_disk()
    active = create(disk)
    disk.fail("write", errno.ENOSPC, after=1)
    active.commit([frame(5)])
    assert active.index_error is not None
    active.commit([frame(7)])
    assert active.next_offset == 9
    active.finish()
    assert not disk.open_files


def test_index_is_made_anew_from_the_store() -> None:
    disk = SimulatedDisk()
    opened = OpenLog.open(disk, config=LogConfig(DIRECTORY, index_interval_bytes=1))
    for number in range(5):
        opened.append(batch_of(b"%d" % number))
    opened.log.roll()
    opened.append_values(b"in the next segment")
    files = opened.log.catalog.segments[0]
    sound = load_segment(disk, files, disk.open(files.store), 1)
    header_bytes = disk.content(files.store)[: sound.header_length]
    entries = list(read_entries(disk.open(files.index), header_bytes, sound.header.salt))
    assert len(entries) == 5
    disk.delete(files.index)
    assert load_segment(disk, files, disk.open(files.store), 1) == sound
    disk.put(files.index, b"no index")
    assert load_segment(disk, files, disk.open(files.store), 1) == sound


def test_an_index_without_its_mark_brings_nothing_into_memory_but_records() -> None:
    """The entries of bare envelopes and of markers are not to be there: no origin has such a frame."""
    disk = SimulatedDisk()
    config = LogConfig(DIRECTORY, index_interval_bytes=1)
    for seed in range(2):
        opened = OpenLog.open(disk, seed, config=config)
        opened.append_values(b"one")
        opened.close()
    opened = OpenLog.open(disk, 2, config=config)
    opened.log.roll()
    opened.append_values(b"in the next segment")
    files = opened.log.catalog.segments[0]
    sound = load_segment(disk, files, disk.open(files.store), 1)
    disk.flip(files.index, 20, 1)
    assert load_segment(disk, files, disk.open(files.store), 1) == sound


def test_file_under_another_name_is_refused() -> None:
    disk = new_disk()
    create(disk)
    other = SegmentFiles(LOG, 6)
    disk.put(other.store, disk.content(FILES.store))
    with pytest.raises(SegmentError, match="base offset 5, the file's name 6"):
        read_segment_header(disk, other, disk.open(other.store))


def test_index_that_cannot_be_opened_is_no_reason_to_give_the_segment_up() -> None:
    """Damage in the header and a lack of file descriptors at the same time: the second passes."""
    disk = new_disk()
    create(disk)
    disk.flip(FILES.store, 20, 0xFF)
    store = disk.open(FILES.store)
    disk.fail("open", errno.EMFILE)
    with pytest.raises(OSError, match="Too many open files"):
        read_segment_header(disk, FILES, store)
    header, _, fault = read_segment_header(disk, FILES, store)
    assert header == HEADER
    assert fault is not None


def test_the_index_of_a_closed_segment_has_every_frame_after_a_power_cut() -> None:
    """Opening makes that of the newest anew, and of no other; a repair would not know what it lacks."""
    config = LogConfig(DIRECTORY, segment_frames=4)

    def write(disk: SimulatedDisk) -> None:
        opened = OpenLog.open(disk, config=config)
        for number in range(5):
            opened.append_values(b"%d" % number)

    whole = SimulatedDisk()
    write(whole)
    closed = 0
    for cut_at in range(1, whole.operations + 1):
        for seed in range(5):
            disk = SimulatedDisk(cut_at=cut_at)
            with pytest.raises(PowerCut):
                write(disk)
            disk.restart(Loss.MIX, random.Random(seed))
            opened = OpenLog.open(disk, 2, config=config)
            for files in opened.log.catalog.segments[:-1]:
                closed += 1
                store, index = disk.open(files.store), disk.open(files.index)
                header, header_bytes, _ = read_segment_header(disk, files, store)
                entries = list(read_entries(index, header_bytes, header.salt))
                assert [entry.offset for entry in entries] == [0, 1, 2, 3]
                store.close()
                index.close()
            opened.close()
    assert closed
