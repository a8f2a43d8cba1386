from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from proglog_trio.errors import SegmentError
from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.stored_frame import StoredFrame
from proglog_trio.log.repair.plan import RepairOutcome
from proglog_trio.log.storage.catalog import LOADED_SEGMENTS, SegmentCatalog
from proglog_trio.log.storage.scanner import SegmentScanner
from proglog_trio.log.storage.segment import read_segment_header
from tests.log.driving import DIRECTORY, OpenLog, batch_of, read_all
from tests.log.repairing import repair, write_log
from tests.log.simulated_disk import SimulatedDisk, SimulatedFile

CONFIG = LogConfig(DIRECTORY, segment_frames=1)


def catalog_of(count: int) -> tuple[SimulatedDisk, SegmentCatalog]:
    disk = SimulatedDisk()
    opened = OpenLog.open(disk, config=CONFIG)
    for number in range(count):
        opened.append_values(b"%d" % number, b"twice")
    return disk, opened.log.catalog


def test_segment_of_an_offset() -> None:
    _, catalog = catalog_of(4)
    assert [files.base_offset for files in catalog.segments] == [0, 2, 4, 6]
    assert [catalog.containing(offset).base_offset for offset in (0, 1, 2, 5, 6, 7, 1_000)] == [0, 0, 2, 4, 6, 6, 6]
    forgotten = catalog.forget(2)
    assert [files.base_offset for files in forgotten] == [0, 2]
    assert catalog.containing(1).base_offset == 4
    assert catalog.after(forgotten[0]) == catalog.segments[0]
    assert catalog.after(catalog.segments[-1]) is None


def test_active_segment_is_never_forgotten() -> None:
    _, catalog = catalog_of(3)
    assert len(catalog.forget(10)) == 2
    assert catalog.segments == (catalog.active.files,)
    assert catalog.forget(1) == ()


def test_active_segment_is_read_up_to_what_is_durable() -> None:
    disk, catalog = catalog_of(2)
    closed, active = catalog.segments
    assert catalog.durable_end(closed) is None
    assert catalog.durable_end(active) == catalog.active.position == len(disk.content(active.store))
    assert catalog.load(active) is catalog.active.read


def test_closed_segments_stay_loaded_up_to_a_bound() -> None:
    disk, catalog = catalog_of(LOADED_SEGMENTS + 5)
    first = catalog.load(catalog.segments[0])
    assert catalog.load(catalog.segments[0]) is first
    for files in catalog.segments:
        catalog.load(files)
    assert len(catalog._loaded) == LOADED_SEGMENTS
    assert catalog.load(catalog.segments[0]) is not first
    assert len(disk.open_files) == 3, "the active segment's two files and the lock"


def test_producer_tables_are_not_kept_with_segments() -> None:
    """They may be megabytes each, and only opening reads one."""
    disk = SimulatedDisk()
    opened = OpenLog.open(disk, config=CONFIG)
    for number in range(3):
        opened.append(batch_of(b"value", producer_id=number + 1, producer_sequence=1))
    catalog = opened.log.catalog
    store = disk.open(catalog.segments[-1].store)
    in_file, _, _ = read_segment_header(disk, catalog.segments[-1], store)
    store.close()
    assert len(in_file.producers) == 2
    assert [catalog.load(files).header.producers for files in catalog.segments] == [[], [], []]
    opened.close()
    opened = OpenLog.open(disk, config=CONFIG)
    catalog = opened.log.catalog
    assert [catalog.load(files).header.producers for files in catalog.segments] == [[], [], []]
    assert len(opened.log._queue._state.producers) == 3


def test_segment_that_cannot_be_opened() -> None:
    disk, catalog = catalog_of(3)
    gone, damaged, _ = catalog.segments
    disk.delete(gone.store)
    disk.flip(damaged.store, 20, 0xFF)
    disk.delete(damaged.index)
    with pytest.raises(FileNotFoundError):
        catalog.open(gone)
    with pytest.raises(SegmentError):
        catalog.open(damaged)
    assert len(disk.open_files) == 3


@pytest.mark.parametrize("opening", ["store", "index"])
def test_segment_that_is_repaired_while_it_is_opened(opening: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store file is of before the repair, the index of after it: the reader must get one of both."""
    written = write_log()
    disk = written.disk
    written.opened.close()
    # So close an index that it leads to the very frame.
    log = OpenLog.open(disk, 9, config=evolve(CONFIG, index_interval_bytes=1)).log
    files, following = written.closed[0], written.closed[1]
    here = [frame for frame in written.frames.values() if frame.base_offset < following.base_offset]
    # The last frame but one is gone, so that the last stands nearer to the beginning than after the repair.
    content = written.contents[files.store]
    disk.put(files.store, content[: here[-2].position] + content[here[-2].end :])
    disk.delete(files.index)
    log.catalog._loaded.clear()
    path = files.store if opening == "store" else files.index
    real_open = SimulatedDisk.open
    repaired: list[RepairOutcome] = []

    def open_and_repair(self: SimulatedDisk, opened: Path, *, writable: bool = False) -> SimulatedFile:
        if opened != path or repaired:
            return real_open(self, opened, writable=writable)
        monkeypatch.setattr(SimulatedDisk, "open", real_open)
        file = real_open(self, opened) if opening == "store" else None
        repaired.append(repair(log, files, written.peers))
        return file if file is not None else real_open(self, opened)

    monkeypatch.setattr(SimulatedDisk, "open", open_and_repair)
    store, read = log.catalog.open(files)
    place = read.index.before_offset(here[-1].base_offset)
    assert place is not None
    walk = SegmentScanner(store, read.header.salt, place.position, place.offset)
    found = walk.step()
    store.close()
    assert isinstance(found, StoredFrame)
    assert found.data == here[-1].data
    assert [outcome.rewritten for outcome in repaired] == [(files,)]
    # Nor may what was loaded for the old file be kept for the new one.
    assert [frame.data for frame in read_all(log)] == [frame.data for frame in written.frames.values()]
