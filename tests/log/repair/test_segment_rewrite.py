from __future__ import annotations

import pytest
from attrs import evolve

from proglog_trio.errors import RepairError
from proglog_trio.log.format.frame import decode_frame
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.format.stored_frame import StoredFrame
from proglog_trio.log.repair.fetched_frames import FetchedFrames
from proglog_trio.log.repair.plan import plan_repair
from proglog_trio.log.state import LogState
from proglog_trio.log.storage.index import read_entries, read_mark
from proglog_trio.log.storage.scanner import SegmentScanner
from tests.log.driving import batch_of
from tests.log.repairing import Written, check_served, repair, scrub, write_log


def envelopes(written: Written, files: SegmentFiles) -> list[StoredFrame]:
    store, read = written.log.catalog.open(files)
    walk = SegmentScanner(store, read.header.salt, read.header_length, read.header.base_offset)
    found = []
    while (item := walk.step()) is not None:
        assert isinstance(item, StoredFrame)
        found.append(item)
    store.close()
    return found


def test_new_file_says_what_is_durable_in_it() -> None:
    """Nothing may say that more was durable than there is: opening would take the rest for lost."""
    written = write_log()
    files = written.closed[0]
    content = written.contents[files.store]
    first = next(iter(written.frames.values()))
    written.disk.put(files.store, content[: first.position] + bytes(500) + content[first.position :])
    written.disk.delete(files.index)
    scrub(written.log)
    repair(written.log, files, written.peers.only(lambda _: False))
    for item in envelopes(written, files):
        assert item.envelope.durable_before <= item.position
    index = written.disk.open(files.index)
    _, read = written.log.catalog.open(files)
    mark = read_mark(index, read.header.salt)
    assert mark is not None
    assert (mark.position, mark.next_offset) == (len(written.disk.content(files.store)), written.closed[1].base_offset)
    header_bytes = written.disk.content(files.store)[: read.header_length]
    assert list(read_entries(index, header_bytes, read.header.salt))
    index.close()


def test_new_header_tells_what_the_old_one_did() -> None:
    for number in range(3):
        # One origin, so that nothing but its frames can have stood there.
        written = write_log((("own", 0, 2),) * 17)
        files = written.closed[number]
        old = written.log.catalog.load(files).header
        written.disk.delete(files.store)
        written.disk.delete(files.index)
        scrub(written.log)
        repair(written.log, files, written.peers)
        new = written.log.catalog.load(files).header
        following = written.log.catalog.load(written.log.catalog.segments[number + 1]).header
        assert new.salt not in (old.salt, following.salt)
        assert new.created == following.created, "by age it goes with the next"
        assert (new.directory_id, new.cluster_name, new.base_offset) == (
            old.directory_id,
            old.cluster_name,
            old.base_offset,
        )
        assert new.origins == old.origins
        assert new.high_mark <= following.high_mark
        producers = [LogState.of_header(each).producers.encode() for each in (old, new)]
        assert [[row[0], row[2]] for row in producers[0]] == [[row[0], row[2]] for row in producers[1]]
        check_served(written.log, written.frames)


def test_new_header_behind_a_store_that_is_written_from_its_index() -> None:
    """The index alone has the bare envelopes of the segment before: there is no file to read them from."""
    own, roll = ("own", 0, 2), ("roll", 0, 0)
    written = write_log((own, ("reopen", 1, 1), own, roll, own, own, roll, own))
    before, files = written.closed
    written.disk.delete(before.store)
    written.disk.delete(files.store)
    written.disk.delete(files.index)
    scrub(written.log)
    outcome = repair(written.log, files, written.peers)
    assert not outcome.remaining
    assert written.disk.content(before.store) == written.contents[before.store]
    check_served(written.log, written.frames)


def test_file_that_changes_between_plan_and_rebuild_stays() -> None:
    written = write_log()
    files = written.closed[0]
    first, second = list(written.frames.values())[:2]
    written.disk.flip(files.store, first.end - 1, 0x01)
    plan = plan_repair(written.log.catalog, written.log.bounds(), files)
    assert plan is not None
    written.disk.flip(files.store, second.end - 1, 0x01)
    harmed = written.disk.content(files.store)
    fetched = FetchedFrames()
    fetched.add_all(written.peers.frames.values())
    with pytest.raises(RepairError, match="changed while it was repaired"):
        plan.rebuild(fetched)
    assert written.disk.content(files.store) == harmed
    assert not [path for path in written.disk.files() if path.suffix == ".new"]
    repair(written.log, files, written.peers)
    check_served(written.log, written.frames)


def test_frame_of_another_content_is_not_put_in_the_place() -> None:
    """Sound by itself, of the right origin and sequence, and not the one that was written."""
    written = write_log()
    files = written.closed[0]
    victim = next(iter(written.frames.values()))
    written.disk.flip(files.store, victim.position + 80, 0x01)
    frame = decode_frame(victim.data)
    batch = batch_of(b"a lie", b"of two records")
    header = evolve(
        frame.header, payload_length=len(batch.payload), payload_crc=batch.payload_crc, count=batch.count
    ).sealed()
    plan = plan_repair(written.log.catalog, written.log.bounds(), files)
    assert plan is not None
    fetched = FetchedFrames()
    assert fetched.add(header.encode() + batch.payload)
    outcome = plan.rebuild(fetched)
    assert (outcome.rewritten, outcome.repaired_offsets) == ((), 0)
    assert "does not follow" in outcome.refused[0]
    assert [place.expected_offset for _, place, _ in outcome.remaining] == [victim.base_offset]
