from __future__ import annotations

from attrs import evolve

from proglog_trio.log.format.envelope import EnvelopeKind
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.format.stored_frame import StoredFrame
from proglog_trio.log.repair.elements import Damaged, Kept
from proglog_trio.log.repair.survey import Survey, read_header, survey_run
from tests.log.repairing import Written, write_log


def survey(written: Written, files: SegmentFiles) -> Survey:
    found = survey_run(written.log.catalog, written.log.bounds(), files)
    assert found is not None
    return found


def damaged(found: Survey) -> list[Damaged]:
    return [element for element in found.elements if isinstance(element, Damaged)]


def frames_of(written: Written, number: int) -> list[StoredFrame]:
    segments = written.log.catalog.segments
    return [
        frame
        for frame in written.frames.values()
        if segments[number].base_offset <= frame.base_offset < segments[number + 1].base_offset
    ]


def test_sound_segment_is_kept_whole() -> None:
    written = write_log()
    for number, files in enumerate(written.closed):
        found = survey(written, files)
        assert all(isinstance(element, Kept) for element in found.elements)
        kept = [element for element in found.elements if isinstance(element, Kept) and element.header_crc]
        expected = frames_of(written, number)
        assert [element.frame.base_offset for element in kept] == [frame.base_offset for frame in expected]
        assert [element.header_crc for element in kept] == [frame.header.header_crc for frame in expected]
        assert [segment.files for segment in found.segments] == [files]
        assert found.segments[0].faults == ()


def test_active_and_unknown_segments_are_not_surveyed() -> None:
    written = write_log()
    catalog, bounds = written.log.catalog, written.log.bounds()
    assert survey_run(catalog, bounds, catalog.active.files) is None
    assert survey_run(catalog, bounds, SegmentFiles(catalog.active.files.directory, 77)) is None


def test_damaged_payload_keeps_its_envelope_and_header() -> None:
    written = write_log()
    files, victim = written.closed[1], frames_of(written, 1)[1]
    written.disk.flip(files.store, victim.end - 1, 0x01)
    (found,) = damaged(survey(written, files))
    assert found.envelope == victim.envelope
    assert found.header == victim.header
    assert (found.from_offset, found.to_offset) == (victim.base_offset, victim.next_offset)
    written.disk.flip(files.store, victim.position + 80, 0x01)
    (found,) = damaged(survey(written, files))
    assert (found.envelope, found.header) == (victim.envelope, None)
    written.disk.flip(files.store, victim.position + 20, 0x01)
    (found,) = damaged(survey(written, files))
    assert (found.envelope, found.header) == (victim.envelope, None)
    assert (found.position, found.end, found.size) == (victim.position, victim.end, victim.envelope.count)
    written.disk.delete(files.index)
    (found,) = damaged(survey(written, files))
    assert (found.envelope, found.header) == (None, None)
    assert (found.position, found.end, found.size) == (victim.position, victim.end, victim.envelope.count)


def test_index_tells_what_the_file_lacks() -> None:
    written = write_log()
    files = written.closed[0]
    sound = survey(written, files).elements
    written.disk.put(files.store, b"")
    found = survey(written, files).elements
    assert len(found) == len(sound)
    for known, element in zip(sound, found, strict=True):
        assert isinstance(known, Kept)
        assert element.envelope == known.envelope
        if known.envelope.kind is EnvelopeKind.RECORDS:
            assert isinstance(element, Damaged)
            assert (element.from_offset, element.to_offset) == (known.frame.base_offset, known.frame.next_offset)
            assert element.position == element.end
        else:
            assert element == evolve(known, is_restored=True)


def test_header_is_read_from_whichever_copy_is_there() -> None:
    written = write_log()
    files = written.closed[0]
    header = read_header(written.log.catalog, files)
    assert header is not None
    written.disk.delete(files.store)
    assert read_header(written.log.catalog, files) == header
    written.disk.flip(files.index, 70, 0x01)
    assert read_header(written.log.catalog, files) is None
    written.disk.put(files.store, written.contents[files.store])
    assert read_header(written.log.catalog, files) == header
    written.disk.delete(files.store)
    written.disk.delete(files.index)
    assert read_header(written.log.catalog, files) is None


def test_segments_without_a_header_are_surveyed_with_those_around_them() -> None:
    written = write_log()
    for files in written.closed[1:3]:
        written.disk.put(files.store, b"")
        written.disk.delete(files.index)
    for files in written.closed[:3]:
        found = survey(written, files)
        # What the first had in the end is not known either.
        assert tuple(segment.files for segment in found.segments) == written.closed[:3]
    after = written.log.catalog.load(written.log.catalog.segments[3]).header
    assert evolve(found.next_header, producers=[]) == after
    assert found.end == after.origins
    assert found.start_is_known


def test_oldest_segment_without_a_header_has_no_known_start() -> None:
    written = write_log()
    log = written.log
    log.durable.forget_segments(1, log.catalog.load(log.catalog.segments[1]).header)
    files = log.catalog.segments[0]
    written.disk.put(files.store, b"")
    written.disk.delete(files.index)
    found = survey(written, files)
    assert not found.start_is_known
    assert {origin: state.next for origin, state in found.start.items()} == {
        origin: state.low for origin, state in log.origins.items()
    }
