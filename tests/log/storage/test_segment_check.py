from __future__ import annotations

import pytest

from proglog_trio.errors import SegmentError
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.format.stored_frame import DamagedPlace
from proglog_trio.log.storage.scanner import SegmentScanner
from proglog_trio.log.storage.segment_check import file_faults, scan, whole_segment
from tests.log.driving import OpenLog
from tests.log.repairing import Peers, Written, make_index_sparse, repair, scrub, write_log
from tests.log.simulated_disk import SimulatedDisk


def damage_of(written: Written, files: SegmentFiles) -> list[DamagedPlace]:
    """Return what a scan names in a closed segment."""
    following = written.log.catalog.after(files)
    assert following is not None
    store, read = written.log.catalog.open(files)
    walk = SegmentScanner(store, read.header.salt, read.header_length, read.header.base_offset)
    found = [item for item in scan(walk, following.base_offset) if isinstance(item, DamagedPlace)]
    store.close()
    return found


def test_sound_segments_have_nothing() -> None:
    written = write_log()
    for files in written.closed:
        assert damage_of(written, files) == []


def test_a_file_that_ends_too_early_is_named_wherever_it_ends() -> None:
    written = write_log()
    files = written.closed[0]
    following = written.closed[1].base_offset
    content = written.contents[files.store]
    _, read = written.log.catalog.open(files)
    ends = {frame.end: frame.next_offset for frame in written.frames.values() if frame.base_offset < following}
    last = files.base_offset
    for size in range(read.header_length, len(content)):
        written.disk.put(files.store, content[:size])
        last = ends.get(size, last)
        places = damage_of(written, files)
        if last == following:
            assert [place.expected_offset for place in places] in ([], [following])
            continue
        assert places[0].expected_offset == last
        assert places[-1].next_offset == following
        covered = {offset for place in places for offset in range(place.expected_offset, place.next_offset or 0)}
        assert covered == set(range(last, following))


def test_a_frame_that_is_not_there_at_all_is_named() -> None:
    written = write_log()
    files = written.closed[0]
    frames = [frame for frame in written.frames.values() if frame.base_offset < written.closed[1].base_offset]
    victim = frames[1]
    content = written.contents[files.store]
    written.disk.put(files.store, content[: victim.position] + content[victim.end :])
    (place,) = damage_of(written, files)
    assert (place.expected_offset, place.next_offset) == (victim.base_offset, victim.next_offset)
    assert (place.position, place.end, place.envelope) == (victim.position, victim.position, None)


def test_header_and_index_are_looked_at() -> None:
    written = write_log()
    disk = written.disk
    files = written.closed[0]
    store = disk.open(files.store)
    assert file_faults(disk, files, store) == []
    disk.flip(files.index, len(disk.content(files.index)) - 10, 1)
    (fault,) = file_faults(disk, files, store)
    assert "the index file: entry" in fault.detail
    disk.put(files.index, written.contents[files.index])
    disk.flip(files.store, 30, 1)
    (fault,) = file_faults(disk, files, store)
    assert "the copy in the index file is right" in fault.detail
    assert fault.expected_offset == fault.next_offset == files.base_offset
    disk.delete(files.index)
    with pytest.raises(SegmentError):
        file_faults(disk, files, store)
    disk.put(files.store, written.contents[files.store])
    (fault,) = file_faults(disk, files, store)
    assert fault.detail == "the index file is missing"


def test_a_mark_that_cannot_be_read_is_damage_of_the_index() -> None:
    written = write_log()
    files = written.closed[0]
    written.disk.flip(files.index, 20, 1)
    (fault,) = file_faults(written.disk, files, written.disk.open(files.store))
    assert fault.detail == "the index file: its durable mark cannot be read"
    scrub(written.log)
    repair(written.log, files, written.peers)
    assert written.disk.content(files.index) == written.contents[files.index]


def test_an_index_that_lacks_its_end_is_made_anew() -> None:
    """Its last writes had no room, or were not synced before a power loss: what is there is right."""
    disk = SimulatedDisk()
    opened = OpenLog.open(disk)
    opened.append_values(b"one")
    files = opened.log.catalog.active.files
    behind = disk.content(files.index)
    opened.append_values(b"two")
    opened.log.roll()
    opened.append_values(b"three")
    whole = disk.content(files.index)
    disk.put(files.index, behind)
    store = disk.open(files.store)
    (fault,) = file_faults(disk, files, store)
    assert (fault.detail, fault.is_missing_index) == ("the index file lacks its end", True)
    scrub(opened.log)
    repair(opened.log, files, Peers())
    assert disk.content(files.index) == whole
    assert file_faults(disk, files, store) == []
    assert opened.log.damage.places() == []
    # One of the old version never has all, and stays as long as it is whole.
    disk.put(files.index, behind)
    make_index_sparse(disk, files)
    assert file_faults(disk, files, store) == []


def test_a_whole_segment_names_its_offsets() -> None:
    place = whole_segment(SegmentFiles(write_log().closed[0].directory, 30), "it is gone", 40)
    assert (place.expected_offset, place.next_offset) == (30, 40)
    assert str(place) == "the whole segment: it is gone (bytes 0 to 0)"
