from __future__ import annotations

from typing import Any

from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.log.repair.elements import Kept
from proglog_trio.log.repair.missing_ranges import Gaps, _Follower, _Mark, _mark, find_missing, wanted
from proglog_trio.log.repair.survey import Survey
from tests.log.repair.test_survey import frames_of, survey
from tests.log.repairing import Written, write_log


def missing(written: Written, files: SegmentFiles) -> tuple[Survey, Gaps]:
    found = survey(written, files)
    return found, find_missing(found)


def test_nothing_is_missing_from_sound_segments() -> None:
    written = write_log()
    for files in written.closed:
        found, gaps = missing(written, files)
        assert (gaps.stretches, wanted(found, gaps)) == ([], [])
        assert not gaps.are_markers_missing


def test_every_frame_that_is_damaged_is_missing_between_its_neighbours() -> None:
    written = write_log()
    for number, files in enumerate(written.closed):
        for frame in frames_of(written, number):
            for position in (frame.end - 1, frame.position + 70, frame.position + 3):
                written.disk.flip(files.store, position, 0x80)
                found, gaps = missing(written, files)
                (stretch,) = gaps.stretches
                header = frame.header
                assert (stretch.origin, stretch.from_sequence, stretch.to_sequence) == (
                    header.origin,
                    header.base_sequence,
                    header.next_sequence,
                )
                assert stretch.left_crc in (header.previous_header_crc, None)
                assert stretch.right_crc in (header.header_crc, None)
                assert not gaps.are_markers_missing
                (each,) = wanted(found, gaps)
                assert (each.from_offset, each.to_offset) == (frame.base_offset, frame.next_offset)
                written.disk.put(files.store, written.contents[files.store])


def test_a_gap_marker_that_is_damaged_is_told_by_the_index() -> None:
    written = write_log()
    files = written.closed[0]
    kept = [element for element in survey(written, files).elements if isinstance(element, Kept)]
    ((frame, marker),) = [(each.frame, each.gap) for each in kept if each.gap is not None]
    for position in (frame.end - 1, frame.position + 3):
        written.disk.flip(files.store, position, 0x80)
        found, gaps = missing(written, files)
        (restored,) = (each for each in found.elements if isinstance(each, Kept) and each.is_restored)
        assert (restored.frame, restored.gap) == (frame, marker)
        assert wanted(found, gaps) == []
        written.disk.put(files.store, written.contents[files.store])


def test_a_gap_marker_that_neither_file_has_is_known_to_be_missing() -> None:
    written = write_log()
    files = written.closed[0]
    kept = [element for element in survey(written, files).elements if isinstance(element, Kept)]
    (frame,) = (each.frame for each in kept if each.gap is not None)
    written.disk.delete(files.index)
    written.disk.flip(files.store, frame.position + 3, 0x80)
    found, gaps = missing(written, files)
    assert gaps.are_markers_missing
    assert wanted(found, gaps) == []


def test_a_whole_segment_is_missing_between_its_headers() -> None:
    written = write_log()
    files = written.closed[2]
    written.disk.put(files.store, b"")
    found, gaps = missing(written, files)
    told = {
        (stretch.origin, sequence)
        for stretch in gaps.stretches
        for sequence in range(stretch.from_sequence, stretch.to_sequence)
    }
    assert told == {
        (frame.header.origin, sequence)
        for frame in frames_of(written, 2)
        for sequence in range(frame.header.base_sequence, frame.header.next_sequence)
    }
    assert all(each.from_offset >= files.base_offset for each in wanted(found, gaps))


class Unsliced(list[_Mark]):
    """A chain that is not to be copied, not even in parts."""

    def __getitem__(self, index: Any) -> Any:
        assert not isinstance(index, slice)
        return super().__getitem__(index)


def test_following_a_chain_copies_none_of_it_at_each_mark() -> None:
    """It has as many marks as the index of a segment that is gone has entries."""
    written = write_log([("own", 0, 1)] * 7)
    files = written.closed[0]
    written.disk.delete(files.store)
    found = survey(written, files)
    ((origin, end),) = found.end.items()
    marks = [mark for number, element in enumerate(found.elements) for _, mark in _mark(found, number, element)]
    assert len(marks) > 2
    gaps = Gaps()
    _Follower(found, origin, gaps, 0, OriginState().last_header_crc).follow(Unsliced(marks), end)
    assert gaps.stretches == find_missing(found).stretches
